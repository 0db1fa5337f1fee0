/* fuzz_gguf.c - no header makes the reader crash, and what it accepts lies inside the file.
 *
 * The architecture reader and the map of experts run on what was accepted: they believe the
 * same bytes one layer up.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "compute/gguf.h"
#include "coordinator/model/arch.h"
#include "experts/expert_map.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DATA = 1 << 20 }; /* bytes that the pretended file has behind its header */

static void check_entries(const tr_gguf *g, tr_bytes header)
{
    for (size_t i = 0; i < tr_gguf_n_entries(g); i++) {
        const tr_gguf_entry *e = tr_gguf_entry_at(g, i);
        tr_bytes *list;
        size_t n;
        char key[256];
        TR_CHECK(e->raw.size == 0 || e->raw.data >= header.data);
        TR_CHECK(e->raw.size == 0 || e->raw.data + e->raw.size <= header.data + header.size);
        if (e->key.size >= sizeof key)
            continue;
        memcpy(key, e->key.data, e->key.size);
        key[e->key.size] = '\0';
        TR_CHECK(tr_gguf_entry_find(g, key) == e);
        if (e->kind == TR_GGUF_ARRAY && e->item == TR_GGUF_STRING) {
            TR_CHECK(tr_gguf_get_strings(g, key, &list, &n) == TR_OK);
            for (size_t k = 0; k < n; k++)
                TR_CHECK(list[k].size == 0 ||
                         list[k].data + list[k].size <= header.data + header.size);
            free(list);
        }
    }
}

static void check_tensors(const tr_gguf *g)
{
    for (size_t i = 0; i < tr_gguf_n_tensors(g); i++) {
        const tr_gguf_tensor *t = tr_gguf_tensor_at(g, i);
        TR_CHECK(tr_gguf_find(g, t->name) == t);
        TR_CHECK(t->offset <= tr_gguf_file_size(g));
        TR_CHECK(t->size <= tr_gguf_file_size(g) - t->offset);
        TR_CHECK(t->dim[0] > 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char reason[1024];
    tr_bytes header = { data, size };
    tr_gguf *g = NULL;
    tr_model_config config;
    tr_expert_map map;

    tr_fail_capture_begin(reason, sizeof reason);
    if (tr_gguf_parse("fuzz", header, size + DATA, &g) == TR_OK) {
        check_entries(g, header);
        check_tensors(g);
        if (tr_model_config_read(g, &config) == TR_OK)
            TR_CHECK(config.n_heads % config.n_kv_heads == 0);
        if (tr_expert_map_read(g, &map) == TR_OK)
            tr_expert_map_fini(&map);
    }
    tr_fail_capture_end();
    tr_gguf_close(&g);
    return 0;
}
