/* fuzz_schema.c - any bytes as a JSON schema, and then as a text that it should or should not take.
 *
 * The first byte is how many of the rest are the schema.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/serve/schema.h"

#include "base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An answer never comes to where nothing can follow, unless it is whole. */
static void check_goes_on(tr_walk *w, int32_t at)
{
    bool goes_on = tr_walk_is_end(w, at);

    for (unsigned b = 0; b < 256 && !goes_on; b++)
        goes_on = tr_walk_next(w, at, (uint8_t)b) != TR_WALK_DEAD;
    TR_CHECK(goes_on);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[256];
    tr_grammar *g = NULL;
    tr_walk *w = NULL;

    if (size < 2)
        return 0;
    size_t n = (size_t)data[0] * 4 < size - 1 ? (size_t)data[0] * 4 : size - 1;
    json_t *s = json_loadb((const char *)data + 1, n, JSON_DECODE_ANY, NULL);
    if (!s)
        return 0;
    tr_fail_capture_begin(why, sizeof why);
    if (tr_schema_compile(s, &g) == TR_OK && tr_walk_new(g, &w) == TR_OK) {
        int32_t at = tr_walk_start(w);
        check_goes_on(w, at);
        for (size_t i = 1 + n; i < size && at != TR_WALK_DEAD; i++) {
            at = tr_walk_trim(w, tr_walk_next(w, at, data[i]));
            if (at != TR_WALK_DEAD)
                check_goes_on(w, at);
        }
        tr_walk_free(&w);
    }
    tr_fail_capture_end();
    tr_grammar_free(&g);
    json_decref(s);
    return 0;
}
