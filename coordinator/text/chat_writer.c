/* chat_writer.c - text in runs between marks.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/text/chat_writer.h"
#include "coordinator/text/chat_family.h"
#include "coordinator/text/utf8.h"
#include "base/check.h"

#include <stdlib.h>

static void add(tr_chat_marks *m, uint32_t id)
{
    tr_bytes text = tr_tokenizer_piece(m->t, id);

    for (size_t i = 0; i < m->n; i++)
        if (m->marks[i].id == id)
            return;
    if (text.size == 0)
        return;
    TR_CHECK(m->n < TR_CHAT_WRITER_MAX_MARKS);
    m->marks[m->n++] = (tr_chat_mark){ text, id };
    if (!tr_tokenizer_is_special(m->t, id))
        m->guarded[m->n_guarded++] = (tr_chat_mark){ text, id };
}

void tr_chat_marks_add(tr_chat_marks *m, const char *text)
{
    uint32_t id;

    if (tr_tokenizer_special(m->t, tr_bytes_of(text), &id))
        add(m, id);
}

void tr_chat_marks_set_bos(tr_chat_marks *m, uint32_t id)
{
    m->bos = id;
    m->has_bos = true;
    add(m, id);
}

void tr_chat_marks_set_eos(tr_chat_marks *m, uint32_t id)
{
    m->eos = id;
    m->has_eos = true;
    add(m, id);
}

/* The longest mark that text begins with, or NULL. */
static const tr_chat_mark *mark_at(const tr_chat_mark *marks, size_t n, tr_bytes text)
{
    const tr_chat_mark *longest = NULL;

    for (size_t i = 0; i < n; i++)
        if (marks[i].text.size <= text.size &&
            memcmp(marks[i].text.data, text.data, marks[i].text.size) == 0 &&
            (!longest || marks[i].text.size > longest->text.size))
            longest = &marks[i];
    return longest;
}

/* Room for more items behind n; false and a failure if there is none. */
static bool reserve(tr_chat_writer *w, void **items, size_t item, size_t n, size_t more,
                    size_t *capacity)
{
    size_t need, size;

    if (w->st != TR_OK)
        return false;
    if (!tr_add_size(n, more, &need) || !tr_mul_size(need, 2 * item, &size)) {
        w->st = tr_fail(TR_E_MEMORY, "chat: no memory for %zu items more", more);
        return false;
    }
    if (need <= *capacity)
        return true;
    void *grown = realloc(*items, size);
    if (!grown) {
        w->st = tr_fail(TR_E_MEMORY, "chat: no memory for %zu bytes", size);
        return false;
    }
    *items = grown;
    *capacity = 2 * need;
    return true;
}

void tr_chat_put_text(tr_chat_writer *w, tr_bytes text)
{
    void *items = w->text;

    if (text.size == 0 || !reserve(w, &items, 1, w->n_text, text.size, &w->text_capacity))
        return;
    w->text = items;
    memcpy(w->text + w->n_text, text.data, text.size);
    w->n_text += text.size;
}

static void put_ids(tr_chat_writer *w, const uint32_t *ids, size_t n)
{
    void *items = w->ids;

    if (n == 0 || !reserve(w, &items, sizeof *ids, w->n, n, &w->capacity))
        return;
    w->ids = items;
    memcpy(w->ids + w->n, ids, n * sizeof *ids);
    w->n += n;
}

static void encode(tr_chat_writer *w, size_t from, size_t to)
{
    tr_bytes text = { w->text + from, to - from };
    uint32_t *ids;
    size_t n;

    if (w->st != TR_OK || from == to)
        return;
    w->st = from == 0 ? tr_tokenizer_encode(w->marks->t, text, false, &ids, &n)
                      : tr_tokenizer_encode_rest(w->marks->t, text, false, &ids, &n);
    if (w->st != TR_OK)
        return;
    put_ids(w, ids, n);
    free(ids);
}

/* Encode the text so far.  The cut behind a guarded mark's first character leaves no mark whole,
 * and what follows is searched again. */
static void flush(tr_chat_writer *w)
{
    const tr_chat_marks *m = w->marks;
    size_t from = 0, i = 0, size;

    while (m->n_guarded > 0 && i < w->n_text) {
        tr_bytes rest = { w->text + i, w->n_text - i };
        tr_utf8_first(rest, &size);
        i += size;
        if (!mark_at(m->guarded, m->n_guarded, rest))
            continue;
        encode(w, from, i);
        from = i;
    }
    if (w->n_text > 0)
        encode(w, from, w->n_text);
    w->n_text = 0;
}

static void put_token(tr_chat_writer *w, uint32_t id)
{
    const tr_chat_marks *m = w->marks;

    flush(w);
    if (w->n == 1 && m->has_bos && id == m->bos && w->ids[0] == id)
        return;
    put_ids(w, &id, 1);
}

void tr_chat_put_own(tr_chat_writer *w, const char *own)
{
    const tr_chat_marks *m = w->marks;
    tr_bytes rest = tr_bytes_of(own ? own : "");

    while (rest.size > 0) {
        const tr_chat_mark *mark = mark_at(m->marks, m->n, rest);
        size_t size = mark ? mark->text.size : 1;
        bool is_bos = !mark && rest.data[0] == TR_CHAT_BOS[0];
        bool is_eos = !mark && rest.data[0] == TR_CHAT_EOS[0];
        if (mark)
            put_token(w, mark->id);
        else if (!is_bos && !is_eos)
            tr_chat_put_text(w, (tr_bytes){ rest.data, 1 });
        else if (is_bos && m->has_bos)
            put_token(w, m->bos);
        else if (is_eos && m->has_eos)
            put_token(w, m->eos);
        rest = (tr_bytes){ rest.data + size, rest.size - size };
    }
}

tr_status tr_chat_writer_finish(tr_chat_writer *w, uint32_t **ids, size_t *n)
{
    flush(w);
    free(w->text);
    w->text = NULL;
    if (w->st != TR_OK) {
        free(w->ids);
        w->ids = NULL;
        return w->st;
    }
    *ids = w->ids;
    *n = w->n;
    return TR_OK;
}
