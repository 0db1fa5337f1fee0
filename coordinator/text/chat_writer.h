/* chat_writer.h - put a template's marks and people's words together, and never mix them up.
 *
 * The writer gathers plain text, the template's and the messages', until a mark comes; then the
 * text is encoded without special tokens and the mark's id follows.  So ids are those of the whole
 * text encoded at once, except where a message has the text of a special token.
 * Some files call a family's marks user-defined tokens, which encoding finds in any text.  Text is
 * cut inside each of those that a message has, so that it stays text.
 *
 * USE     tr_chat_marks_add(&marks, "<|im_end|>");                 if the vocabulary has it
 *         tr_chat_writer w = { .marks = &marks };
 *         tr_chat_put_own(&w, "<|im_start|>user\n");
 *         tr_chat_put_text(&w, content);
 *         st = tr_chat_writer_finish(&w, &ids, &n);                free(ids)
 * STATE   A failure sticks: what is put after it is dropped, and finish returns it.
 * MEMORY  Between the first put and finish the writer holds memory.
 * FAILS   TR_E_REQUEST, TR_E_MEMORY as tr_tokenizer_encode
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_TEXT_CHAT_WRITER_H
#define TR_COORDINATOR_TEXT_CHAT_WRITER_H

#include "base/bytes.h"
#include "base/status.h"
#include "coordinator/text/tokenizer.h"

enum { TR_CHAT_WRITER_MAX_MARKS = 24 };

typedef struct {
    tr_bytes text;
    uint32_t id;
} tr_chat_mark;

/* Begin with { .t = t } and add marks. */
typedef struct {
    const tr_tokenizer *t;
    tr_chat_mark marks[TR_CHAT_WRITER_MAX_MARKS];
    size_t n;
    tr_chat_mark guarded[TR_CHAT_WRITER_MAX_MARKS]; /* those that are found in any text */
    size_t n_guarded;
    uint32_t bos, eos; /* what TR_CHAT_BOS and TR_CHAT_EOS stand for */
    bool has_bos, has_eos;
} tr_chat_marks;

typedef struct {
    const tr_chat_marks *marks;
    uint8_t *text; /* n_text, not encoded yet */
    size_t n_text, text_capacity;
    uint32_t *ids; /* n */
    size_t n, capacity;
    tr_status st;
} tr_chat_writer;

/* Text that is no special or user-defined token of the vocabulary is not added. */
void tr_chat_marks_add(tr_chat_marks *m, const char *text);
void tr_chat_marks_set_bos(tr_chat_marks *m, uint32_t id);
void tr_chat_marks_set_eos(tr_chat_marks *m, uint32_t id);

/* What a message says. */
void tr_chat_put_text(tr_chat_writer *w, tr_bytes text);

/* The template's own text, in which marks are tokens; NULL is nothing.  A BOS right behind the BOS
 * that begins the prompt is left out, and so are tokens that the marks lack. */
void tr_chat_put_own(tr_chat_writer *w, const char *own);

/* *ids is a new array, NULL for no ids. */
tr_status tr_chat_writer_finish(tr_chat_writer *w, uint32_t **ids, size_t *n);

#endif
