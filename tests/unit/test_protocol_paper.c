/* test_protocol_paper.c - the frame that proto/PROTOCOL.md shows byte by byte is one that we read.
 *
 * Method: the bytes are taken from the document itself.  A dump's line is an offset, bytes, and
 * after two spaces what they mean; "00 ... (40 bytes)" stands for so many zeros.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "proto/frame.h"

#include <ctype.h>

enum { SIZE = 256 };

/* The bytes of one line behind those that are there; other lines have none. */
static void take_line(const char *line, uint8_t *to, size_t *used)
{
    char *at;
    unsigned long offset = strtoul(line, &at, 16);
    unsigned n_zeros;

    if (at != line + 3 || strncmp(at, "  ", 2) != 0)
        return;
    assert_int_equal(offset, *used);
    if (sscanf(at, " 00 ... (%u bytes)", &n_zeros) == 1) {
        assert_true(*used + n_zeros <= SIZE);
        *used += n_zeros;
        return;
    }
    for (at += 2; isxdigit((unsigned char)at[0]) && isxdigit((unsigned char)at[1]); at += 3) {
        assert_true(*used < SIZE);
        to[(*used)++] = (uint8_t)strtoul((char[]){ at[0], at[1], '\0' }, NULL, 16);
        if (at[2] != ' ')
            break;
    }
}

static void the_frame_of_the_paper_opens(void **state)
{
    static _Alignas(TR_FRAME_ALIGN) uint8_t bytes[SIZE];
    const tr_frame_limits limits = { .job = 0x1122334455667788,
                                     .n_layers = 4,
                                     .n_experts = 16,
                                     .max_rows = 1,
                                     .max_picks = 2,
                                     .dim = 4 };
    FILE *paper = fopen(TR_SOURCE_DIR "/proto/PROTOCOL.md", "re");
    char line[256];
    size_t used = 0;
    tr_frame_view v;

    (void)state;
    assert_non_null(paper);
    while (fgets(line, sizeof line, paper))
        take_line(line, bytes, &used);
    fclose(paper);
    assert_int_equal(used, SIZE);
    assert_int_equal(tr_frame_open((tr_bytes){ bytes, used }, &limits, &v), TR_OK);
    assert_int_equal(v.header.kind, TR_FRAME_SHARE);
    assert_int_equal(v.header.step, 9);
    assert_int_equal(v.header.share, 41);
    assert_int_equal(v.header.layer, 3);
    assert_int_equal(v.picks[0].expert, 5);
    assert_int_equal(v.picks[1].expert, 12);
    assert_memory_equal(v.rows, ((const float[]){ 1, -1, 0.5f, 2 }), 4 * sizeof(float));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(the_frame_of_the_paper_opens) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
