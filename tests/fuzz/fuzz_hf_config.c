/* fuzz_hf_config.c - no config.json makes the families' readers crash.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "coordinator/convert/family.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_model(const tr_hf_model *m)
{
    TR_CHECK(m->size[TR_SIZE_LAYERS] > 0);
    TR_CHECK(m->size[TR_SIZE_DIM] > 0);
    TR_CHECK(m->size[TR_SIZE_HEAD] > 0);
    for (size_t i = 0; m->rope_factors && i < m->size[TR_SIZE_ROTATED] / 2; i++)
        TR_CHECK(isfinite(m->rope_factors[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char reason[1024], path[] = "fuzz";
    tr_json_file f = { path, NULL };
    tr_hf_model m = { .dir = "fuzz", .config = &f };

    tr_fail_capture_begin(reason, sizeof reason);
    if (tr_json_parse("fuzz", (tr_bytes){ data, size }, &f.root) == TR_OK &&
        tr_family_find(&m) == TR_OK && tr_gguf_writer_new(NULL, false, &m.w) == TR_OK) {
        if (tr_family_read(&m) == TR_OK)
            check_model(&m);
        tr_gguf_writer_abandon(&m.w);
    }
    tr_fail_capture_end();
    free(m.rope_factors);
    json_decref(f.root);
    return 0;
}
