/* kv_pages.h - who uses which page of a cache, and which pages are worth keeping.
 *
 * A page holds the keys and values of TR_KV_PAGE tokens.  They are a function of those tokens and
 * of all before them, to the bit, so a page that is full can be named by its tokens and the page
 * before it, and serve every sequence that begins the same way.  A named page that nobody uses is
 * kept until its room is needed, the one that was used longest ago first.
 *
 * USE     tr_kv_pages *p;
 *         st = tr_kv_pages_new(n, &p);
 *         if (tr_kv_pages_take(p, &page)) ...               an empty page, one reference
 *         first = tr_kv_pages_name(p, page, before, tokens);
 *         if (tr_kv_pages_find(p, before, tokens, &page)) ...  one reference more
 *         tr_kv_pages_drop(p, page);
 *         tr_kv_pages_free(&p);
 *
 * Names are compared whole, so that no hash decides what a sequence reads.
 *
 * THREAD  One thread.
 * MEMORY  All at new: 160 bytes a page.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_MODEL_KV_PAGES_H
#define TR_COORDINATOR_MODEL_KV_PAGES_H

#include "base/bytes.h"
#include "base/status.h"

enum { TR_KV_PAGE = 32 }; /* positions */

#define TR_KV_NO_PAGE UINT32_MAX /* before the first page of a sequence */

typedef struct tr_kv_pages tr_kv_pages;

tr_status tr_kv_pages_new(size_t n, tr_kv_pages **out);
void tr_kv_pages_free(tr_kv_pages **p);

/* A page with one reference, whose content is to be written; false if all are in use. */
bool tr_kv_pages_take(tr_kv_pages *p, uint32_t *page);

/* One reference less. */
void tr_kv_pages_drop(tr_kv_pages *p, uint32_t page);

/* The page that holds tokens [TR_KV_PAGE] after the named page `before`; takes a reference. */
bool tr_kv_pages_find(tr_kv_pages *p, uint32_t before, const uint32_t *tokens, uint32_t *page);

/* From now on `page`, which is in use, can be found; before is the named page before it, also in
 * use.  Returns the page that has this name.  If an equal one was named earlier it is that one, and
 * the caller's reference has moved there: what the two hold is the same. */
uint32_t tr_kv_pages_name(tr_kv_pages *p, uint32_t page, uint32_t before, const uint32_t *tokens);

/* What stands for a named page where pages of another pool are named after it: other contents that
 * the same page has had or will have stand for something else. */
void tr_kv_pages_mark(const tr_kv_pages *p, uint32_t page, uint32_t mark[TR_KV_PAGE]);

typedef struct {
    size_t n, used, kept; /* all, referenced, named and not referenced */
} tr_kv_pages_counts;

tr_kv_pages_counts tr_kv_pages_count(const tr_kv_pages *p);

/* Pages that take can give. */
size_t tr_kv_pages_available(const tr_kv_pages *p);

#endif
