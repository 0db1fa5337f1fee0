/* fuzz_safetensors.c - no header makes the reader crash, and what it accepts tiles the data.
 *
 * The last two bytes of the input are the number of bytes that the pretended file has behind the
 * others.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "coordinator/convert/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_tensors(const tr_safetensors *s, uint64_t file_size)
{
    uint64_t total = 0;

    for (size_t i = 0; i < tr_safetensors_n(s); i++) {
        const tr_st_tensor *t = tr_safetensors_at(s, i);
        TR_CHECK(strlen(t->name) > 0);
        TR_CHECK(t->n_dims <= TR_ST_MAX_DIMS);
        TR_CHECK(t->offset <= file_size);
        TR_CHECK(t->size <= file_size - t->offset);
        total += t->size;
    }
    TR_CHECK(total <= file_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char reason[1024];
    uint16_t behind;
    tr_safetensors *s = NULL;

    if (size < sizeof behind)
        return 0;
    size -= sizeof behind;
    memcpy(&behind, data + size, sizeof behind);
    tr_fail_capture_begin(reason, sizeof reason);
    if (tr_safetensors_parse("fuzz", (tr_bytes){ data, size }, size + behind, &s) == TR_OK)
        check_tensors(s, size + behind);
    tr_fail_capture_end();
    tr_safetensors_close(&s);
    return 0;
}
