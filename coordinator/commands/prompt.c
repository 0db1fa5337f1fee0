/* prompt.c - read text or ids from an option, a file or standard input; encode.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/prompt.h"

#include "base/interrupt.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All of a stream; *text gets a final zero byte that *size does not count. */
static tr_status read_all(FILE *f, const char *name, char **text, size_t *size)
{
    char *buffer = NULL;
    size_t used = 0;
    size_t capacity = 0;

    for (;;) {
        if (used + 1 >= capacity) {
            capacity = capacity ? 2 * capacity : 1 << 16;
            char *grown = realloc(buffer, capacity);
            if (!grown) {
                free(buffer);
                return tr_fail(TR_E_MEMORY, "%s: no memory for %zu bytes", name, capacity);
            }
            buffer = grown;
        }
        size_t n = fread(buffer + used, 1, capacity - used - 1, f);
        used += n;
        if (n == 0 && ferror(f) && errno == EINTR && !tr_interrupted()) {
            clearerr(f);
            continue;
        }
        if (n == 0)
            break;
        if (used > TR_PROMPT_MAX_SIZE) {
            free(buffer);
            return tr_fail(TR_E_REQUEST, "%s: more than %d bytes: give a shorter prompt", name,
                           TR_PROMPT_MAX_SIZE);
        }
    }
    if (ferror(f)) {
        free(buffer);
        if (tr_interrupted())
            return TR_E_INTERRUPTED;
        return tr_fail(TR_E_IO, "%s: read: %s", name, strerror(errno));
    }
    buffer[used] = '\0';
    *text = buffer;
    *size = used;
    return TR_OK;
}

static tr_status read_file(const char *path, char **text, size_t *size)
{
    FILE *f = fopen(path, "re");

    if (!f)
        return tr_fail(TR_E_IO, "prompt file %s: open: %s", path, strerror(errno));
    tr_status st = read_all(f, path, text, size);
    fclose(f);
    return st;
}

static tr_status ids_of_text(const char *text, const char *what, tr_prompt *out)
{
    size_t n = 0;

    tr_status st = tr_run_ids_parse(text, what, NULL, TR_RUN_MAX_TOKENS, &n);
    if (st != TR_OK)
        return st;
    uint32_t *ids = malloc((n ? n : 1) * sizeof *ids);
    if (!ids)
        return tr_fail(TR_E_MEMORY, "%s: no memory for %zu ids", what, n);
    st = tr_run_ids_parse(text, what, ids, n, &n);
    if (st != TR_OK) {
        free(ids);
        return st;
    }
    *out = (tr_prompt){ ids, n };
    return TR_OK;
}

static tr_status read_ids(const tr_run_options *o, tr_prompt *out)
{
    char *text = NULL;
    size_t size;

    if (o->ids)
        return ids_of_text(o->ids, "--ids", out);
    tr_status st = read_file(o->ids_file, &text, &size);
    if (st == TR_OK && strlen(text) != size)
        st = tr_fail(TR_E_REQUEST, "%s: byte %zu is zero: give numbers as text", o->ids_file,
                     strlen(text) + 1);
    if (st == TR_OK)
        st = ids_of_text(text, o->ids_file, out);
    free(text);
    return st;
}

/* BOS in front and EOS behind, where they belong. */
static tr_status put_ends(const tr_run_options *o, const tr_tokenizer *t, tr_prompt *p)
{
    uint32_t bos = 0, eos = 0;
    bool has_bos = tr_tokenizer_bos(t, &bos), has_eos = tr_tokenizer_eos(t, &eos);
    bool puts_bos =
        o->bos == TR_RUN_BOS_ON || (o->bos == TR_RUN_BOS_AUTO && tr_tokenizer_adds_bos(t));
    bool puts_eos = has_eos && tr_tokenizer_adds_eos(t) && !o->is_eval;

    if (puts_bos && !has_bos)
        return tr_fail(TR_E_USAGE, "--bos on: the model has no begin token: leave it out");
    uint32_t *ids = malloc((p->n + 2) * sizeof *ids);
    if (!ids)
        return tr_fail(TR_E_MEMORY, "prompt: no memory for %zu tokens", p->n + 2);
    size_t n = 0;
    if (puts_bos)
        ids[n++] = bos;
    if (p->n > 0)
        memcpy(ids + n, p->ids, p->n * sizeof *ids);
    n += p->n;
    if (puts_eos)
        ids[n++] = eos;
    free(p->ids);
    *p = (tr_prompt){ ids, n };
    return TR_OK;
}

static tr_status encode(const tr_run_options *o, const tr_tokenizer *t, tr_bytes text,
                        tr_prompt *out)
{
    tr_prompt p = { NULL, 0 };

    /* In a text to evaluate the names of special tokens are words like others. */
    tr_status st = tr_tokenizer_encode(t, text, !o->is_eval, &p.ids, &p.n);
    if (st == TR_OK)
        st = put_ends(o, t, &p);
    if (st == TR_OK && p.n == 0)
        st = tr_fail(TR_E_REQUEST, "the prompt is empty: give some text, or --bos on");
    if (st != TR_OK) {
        tr_prompt_fini(&p);
        return st;
    }
    *out = p;
    return TR_OK;
}

tr_status tr_prompt_read(const tr_run_options *o, const tr_tokenizer *t, tr_prompt *out)
{
    char *text = NULL;
    size_t size = 0;
    tr_status st = TR_OK;

    if (o->ids || o->ids_file)
        return read_ids(o, out);
    if (o->prompt)
        return encode(o, t, tr_bytes_of(o->prompt), out);
    if (o->prompt_file)
        st = read_file(o->prompt_file, &text, &size);
    else
        st = read_all(stdin, "standard input", &text, &size);
    if (st == TR_OK)
        st = encode(o, t, (tr_bytes){ (const uint8_t *)text, size }, out);
    free(text);
    return st;
}

void tr_prompt_fini(tr_prompt *p)
{
    free(p->ids);
    *p = (tr_prompt){ NULL, 0 };
}
