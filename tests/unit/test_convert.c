/* test_convert.c - what is written can be gone on with as far as it is sound and no further; names
 * of ways to cut words are known where the file is read; 8-bit floats are what they should be.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/convert/output.h"
#include "coordinator/convert/pre_name.h"
#include "coordinator/convert/rows.h"
#include "coordinator/text/pretokenize.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MB = 1 << 20, TOTAL = 4 * MB + 100 };

static char path[64], part[80], sums[80];
static uint8_t *data;

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/convert-%d", (int)getpid());
    snprintf(part, sizeof part, "%s.part", path);
    snprintf(sums, sizeof sums, "%s.part.sums", path);
    data = malloc(TOTAL);
    for (size_t i = 0; data && i < TOTAL; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    return data ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    free(data);
    unlink(path);
    unlink(part);
    unlink(sums);
    return 0;
}

static tr_status open_for(uint64_t identity, bool overwrite, tr_output **o)
{
    return tr_output_open(path, &(tr_output_content){ identity, TOTAL }, overwrite, false, o);
}

/* Opens, says how much was there, and writes up to `until`. */
static uint64_t go_on(uint64_t identity, uint64_t until, bool overwrite, tr_output **o)
{
    assert_int_equal(open_for(identity, overwrite, o), TR_OK);
    uint64_t had = tr_output_size(*o);
    double *figures = tr_output_figures(*o);
    assert_true(figures[0] == (double)had && figures[1] == 3.25 * (double)had);
    for (uint64_t at = had; at < until;) { /* pieces of no particular size */
        uint64_t n = until - at < 99991 ? until - at : 99991;
        figures[0] += (double)n;
        figures[1] += 3.25 * (double)n;
        assert_int_equal(tr_output_write(*o, (tr_bytes){ data + at, (size_t)n }), TR_OK);
        at += n;
    }
    return had;
}

static uint64_t begin_until(uint64_t until)
{
    tr_output *o = NULL;
    uint64_t had = go_on(1, until, false, &o);

    tr_output_close(&o);
    return had;
}

static void put_byte(const char *file, long at, char byte)
{
    FILE *f = fopen(file, "r+");

    assert_non_null(f);
    assert_int_equal(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    assert_int_equal(fputc(byte, f), (uint8_t)byte);
    assert_int_equal(fclose(f), 0);
}

static void finish_and_compare(uint64_t least, uint64_t most)
{
    tr_output *o = NULL;
    uint8_t *is = malloc(TOTAL + 1);
    uint64_t had = go_on(1, TOTAL, false, &o);

    assert_in_range(had, least, most);
    assert_int_equal(tr_output_finish(&o), TR_OK);
    int fd = open(path, O_RDONLY);
    assert_non_null(is);
    assert_int_equal(read(fd, is, TOTAL + 1), TOTAL);
    assert_memory_equal(is, data, TOTAL);
    close(fd);
    free(is);
    assert_int_equal(access(part, F_OK), -1);
    assert_int_equal(access(sums, F_OK), -1);
    unlink(path);
}

static void what_was_closed_in_order_is_all_there(void **state)
{
    (void)state;
    assert_int_equal(begin_until(3 * MB + 17), 0);
    assert_int_equal(access(path, F_OK), -1);
    finish_and_compare(3 * MB + 17, 3 * MB + 17);
    begin_until(MB + 17);
    assert_int_equal(begin_until(3 * MB + 5), MB + 17);
    finish_and_compare(3 * MB + 5, 3 * MB + 5); /* what was noted after the first return, too */
}

static void a_changed_byte_ends_what_is_sound(void **state)
{
    (void)state;
    begin_until(3 * MB + 17);
    put_byte(part, MB + MB / 2, (char)(data[MB + MB / 2] ^ 1));
    finish_and_compare(MB - 99991, MB + MB / 2);
}

static void a_cut_part_ends_what_is_sound(void **state)
{
    (void)state;
    begin_until(3 * MB + 17);
    assert_int_equal(truncate(part, 2 * MB + MB / 2), 0);
    finish_and_compare(2 * MB - 2 * 99991, 2 * MB + MB / 2);
}

static void what_stands_behind_the_last_sum_is_cut_off(void **state)
{
    (void)state;
    begin_until(MB + 17);
    FILE *f = fopen(part, "a");
    assert_non_null(f);
    fputs("more than anybody noted", f);
    fclose(f);
    finish_and_compare(MB + 17, MB + 17);
}

static void sums_that_make_no_sense_are_not_believed(void **state)
{
    struct stat s;

    (void)state;
    begin_until(3 * MB);
    put_byte(sums, -2, 'z'); /* the last digit of a figure */
    finish_and_compare(MB, 3 * MB - 1);
    begin_until(3 * MB);
    assert_int_equal(stat(sums, &s), 0);
    assert_int_equal(truncate(sums, s.st_size - 1), 0); /* a torn line */
    finish_and_compare(MB, 3 * MB - 1);
}

static long size_of(const char *file)
{
    struct stat s;

    return stat(file, &s) == 0 ? (long)s.st_size : -1;
}

/* Refused with these words in the line, and nothing is touched; with overwrite begun anew. */
static void refuse_then_overwrite(uint64_t identity, const char *words)
{
    long had = size_of(part), noted = size_of(sums);
    tr_output *o = NULL;
    char line[512] = "";

    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(open_for(identity, false, &o), TR_E_IO);
    tr_fail_capture_end();
    assert_non_null(strstr(line, words));
    assert_non_null(strstr(line, "--overwrite"));
    assert_int_equal(size_of(part), had);
    assert_int_equal(size_of(sums), noted);
    assert_int_equal(go_on(identity, MB, true, &o), 0);
    tr_output_close(&o);
    unlink(part);
    unlink(sums);
}

static void a_part_that_is_not_ours_is_replaced_only_when_told(void **state)
{
    (void)state;
    begin_until(2 * MB);
    refuse_then_overwrite(2, "is of another directory");
    begin_until(2 * MB);
    put_byte(sums, 0, 'x');
    refuse_then_overwrite(1, "is of another directory");
    begin_until(2 * MB);
    put_byte(sums, 12, '1');
    refuse_then_overwrite(1, "another version");
    begin_until(2 * MB);
    unlink(sums);
    refuse_then_overwrite(1, "no checksums");
    begin_until(2 * MB);
    unlink(part);
    put_byte(sums, 0, 'x');
    refuse_then_overwrite(1, ".sums: is another file");
}

/* An empty part holds nothing, nor do sums without their part. */
static void nothing_is_gone_on_with(void **state)
{
    (void)state;
    begin_until(2 * MB);
    unlink(part);
    finish_and_compare(0, 0);
    fclose(fopen(part, "w"));
    finish_and_compare(0, 0);
}

static void what_is_complete_is_replaced_only_when_told(void **state)
{
    tr_output *o = NULL;
    char line[512] = "";

    (void)state;
    go_on(1, TOTAL, false, &o);
    assert_int_equal(tr_output_finish(&o), TR_OK);
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(open_for(1, false, &o), TR_E_IO);
    tr_fail_capture_end();
    assert_non_null(strstr(line, "--overwrite"));
    assert_int_equal(access(part, F_OK), -1);
    assert_int_equal(go_on(1, TOTAL, true, &o), 0);
    assert_int_equal(tr_output_finish(&o), TR_OK);
    unlink(path);
}

static void two_at_once_are_one_too_many(void **state)
{
    tr_output *o = NULL, *other = NULL;
    char reason[256];

    (void)state;
    go_on(1, MB, false, &o);
    tr_fail_capture_begin(reason, sizeof reason);
    assert_int_equal(open_for(1, true, &other), TR_E_IO);
    tr_fail_capture_end();
    assert_non_null(strstr(reason, "another process"));
    tr_output_close(&o);
    finish_and_compare(MB, MB);
}

static void every_name_that_is_found_is_known(void **state)
{
    size_t n = 0;

    (void)state;
    for (; tr_pre_name_at(n); n++) {
        tr_pretokenizer *p = NULL;
        assert_int_equal(tr_pretokenizer_new(tr_bytes_of(tr_pre_name_at(n)), &p), TR_OK);
        tr_pretokenizer_free(&p);
    }
    assert_true(n >= 10);
}

static void eight_bits_make_these_floats(void **state)
{
    static const struct {
        uint8_t code;
        float value;
    } known[] = {
        { 0x00, 0.0f },   { 0x01, 0x1p-9f }, { 0x07, 0x1.cp-7f }, { 0x08, 0x1p-6f },
        { 0x38, 1.0f },   { 0x3c, 1.5f },    { 0xb8, -1.0f },     { 0x40, 2.0f },
        { 0x7e, 448.0f }, { 0xfe, -448.0f }, { 0x78, 256.0f },
    };

    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        assert_true(tr_f8_e4m3(known[i].code) == known[i].value);
    assert_true(isnan(tr_f8_e4m3(0x7f)));
    assert_true(isnan(tr_f8_e4m3(0xff)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_closed_in_order_is_all_there),
        cmocka_unit_test(a_changed_byte_ends_what_is_sound),
        cmocka_unit_test(a_cut_part_ends_what_is_sound),
        cmocka_unit_test(what_stands_behind_the_last_sum_is_cut_off),
        cmocka_unit_test(sums_that_make_no_sense_are_not_believed),
        cmocka_unit_test(a_part_that_is_not_ours_is_replaced_only_when_told),
        cmocka_unit_test(nothing_is_gone_on_with),
        cmocka_unit_test(what_is_complete_is_replaced_only_when_told),
        cmocka_unit_test(two_at_once_are_one_too_many),
        cmocka_unit_test(every_name_that_is_found_is_known),
        cmocka_unit_test(eight_bits_make_these_floats),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
