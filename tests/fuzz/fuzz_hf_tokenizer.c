/* fuzz_hf_tokenizer.c - no tokenizer.json makes the converter crash, nor the tokenizer that reads
 * what it writes.
 *
 * The input stands for tokenizer.json and for the files beside it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "coordinator/convert/vocabulary.h"
#include "coordinator/text/tokenizer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_VOCAB = 48 };

static void use(tr_gguf_writer *w)
{
    uint8_t *header = NULL;
    size_t size = 0;
    tr_gguf *g = NULL;
    tr_tokenizer *t = NULL;
    uint32_t *ids = NULL;
    size_t n;

    TR_CHECK(tr_gguf_writer_header(w, &header, &size) == TR_OK);
    if (tr_gguf_parse("fuzz", (tr_bytes){ header, size }, size, &g) == TR_OK &&
        tr_tokenizer_new(g, &t) == TR_OK) {
        TR_CHECK(tr_tokenizer_n_vocab(t) == N_VOCAB);
        if (tr_tokenizer_encode(t, tr_bytes_of("an end"), true, &ids, &n) == TR_OK)
            free(ids);
    }
    tr_tokenizer_free(&t);
    tr_gguf_close(&g);
    free(header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char reason[1024], path[] = "fuzz";
    tr_json_file f = { path, NULL };
    tr_vocabulary_files files = { .tokenizer = &f, .settings = &f, .generation = &f, .config = &f };
    tr_gguf_writer *w = NULL;

    tr_fail_capture_begin(reason, sizeof reason);
    if (tr_json_parse("fuzz", (tr_bytes){ data, size }, &f.root) == TR_OK &&
        tr_gguf_writer_new(NULL, false, &w) == TR_OK) {
        if (tr_vocabulary_put(&files, N_VOCAB, NULL, w) == TR_OK)
            use(w);
        tr_gguf_writer_abandon(&w);
    }
    tr_fail_capture_end();
    json_decref(f.root);
    return 0;
}
