/* eval_base.h - a run of `troupe eval` in a file, for others to be held against it.
 *
 * A text file of JSON values, one a line: a header that says of which text and vocabulary it is,
 * then for each position the token that follows, its ln p, and the most probable tokens with
 * theirs; at the end how many positions there were.  docs/eval.md describes it in full.
 *
 * USE     tr_eval_writer *w;
 *         st = tr_eval_writer_new(path, overwrite, &header, &w);   base/new_file.h
 *         st = tr_eval_writer_add(w, &position);           header.n_positions times
 *         st = tr_eval_writer_finish(&w);                  only now the file is there
 *         tr_eval_writer_abandon(&w);                      nothing stays behind; after finish:
 * nothing
 *
 *         tr_eval_reader *r;
 *         st = tr_eval_reader_open(path, &r);
 *         st = tr_eval_reader_check(r, &my_header);
 *         st = tr_eval_reader_next(r, token, &known, &log_prob);   header.n_positions times
 *         st = tr_eval_reader_end(r);
 *         tr_eval_reader_close(&r);
 *
 * MEMORY  One line at a time, whatever the size of the file.  What next gives is borrowed until the
 *         next call.
 * FAILS   TR_E_IO       can't be read or written
 *         TR_E_REQUEST  no such file as a writer makes: the file, the line, what is wrong
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_EVAL_BASE_H
#define TR_COORDINATOR_COMMANDS_EVAL_BASE_H

#include "base/status.h"
#include "coordinator/engine/evaluate.h"
#include "coordinator/text/divergence.h"

#include <stdio.h>

enum { TR_EVAL_MAX_VOCAB = 1 << 22, TR_EVAL_NAME = 256 };

/* Equal in two runs that can be compared, but for the names and top. */
typedef struct {
    char model[TR_EVAL_NAME]; /* the file's name; for people */
    char kernels[16];         /* likewise */
    size_t n_vocab;
    uint64_t vocabulary; /* a hash of all tokens' bytes */
    size_t window, skip;
    uint64_t text; /* a hash of all windows' tokens */
    size_t n_positions;
    size_t top; /* tokens kept of each position: 1..n_vocab */
} tr_eval_header;

/* A hash of bytes (FNV-1a of 64 bits), begun with 0 and continued with the last result. */
uint64_t tr_eval_hash(uint64_t so_far, const void *data, size_t size);

typedef struct tr_eval_writer tr_eval_writer;

tr_status tr_eval_writer_new(const char *path, bool overwrite, const tr_eval_header *h,
                             tr_eval_writer **out);
tr_status tr_eval_writer_add(tr_eval_writer *w, const tr_eval_position *p);
tr_status tr_eval_writer_finish(tr_eval_writer **w);
void tr_eval_writer_abandon(tr_eval_writer **w);

typedef struct tr_eval_reader tr_eval_reader;

tr_status tr_eval_reader_open(const char *path, tr_eval_reader **out);

/* The same from an open stream, which the reader closes, also when it fails; name stands for it in
 * error lines and is borrowed. */
tr_status tr_eval_reader_from(FILE *file, const char *name, tr_eval_reader **out);

const tr_eval_header *tr_eval_reader_header(const tr_eval_reader *r);

/* Whether r's run is one of the same text, windows and vocabulary, else TR_E_REQUEST; once, before
 * next. */
tr_status tr_eval_reader_check(tr_eval_reader *r, const tr_eval_header *mine);

/* The next position; token is the one that must follow there. */
tr_status tr_eval_reader_next(tr_eval_reader *r, uint32_t token, tr_known *known, double *log_prob);

/* After the last position: the file ends as it should. */
tr_status tr_eval_reader_end(tr_eval_reader *r);

void tr_eval_reader_close(tr_eval_reader **r);

#endif
