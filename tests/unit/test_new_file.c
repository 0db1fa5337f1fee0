/* test_new_file.c - what exists is replaced only when told, whatever it is; two don't write one
 * file; a part that is not placed is gone.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/new_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/new-file-XXXXXX";
static char path[64], part[64];

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/out", folder);
    snprintf(part, sizeof part, "%s/out.part", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    unlink(part);
    return rmdir(folder);
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void expect_open(int fd, const char *text)
{
    char is[64] = "";

    assert_true(fd >= 0);
    assert_true(read(fd, is, sizeof is - 1) >= 0);
    close(fd);
    assert_string_equal(is, text);
}

static void expect(const char *name, const char *text)
{
    expect_open(open(name, O_RDONLY), text);
}

static void write_new(bool overwrite)
{
    tr_new_file f;
    FILE *stream;

    assert_int_equal(tr_new_file_open(path, overwrite, &f), TR_OK);
    assert_int_equal(tr_new_file_stream(&f, &stream), TR_OK);
    fputs("new", stream);
    assert_int_equal(fclose(stream), 0);
    assert_int_equal(tr_new_file_place(&f), TR_OK);
    tr_new_file_close(&f, TR_NEW_FILE_REMOVE);
    expect(path, "new");
    assert_int_equal(access(part, F_OK), -1);
}

static void refuse(bool overwrite, const char *words)
{
    tr_new_file f;
    char line[256] = "";

    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_new_file_open(path, overwrite, &f), TR_E_IO);
    tr_fail_capture_end();
    assert_non_null(strstr(line, words));
}

static void a_file_is_replaced_only_when_told(void **state)
{
    (void)state;
    put(path, "old");
    refuse(false, "--overwrite");
    expect(path, "old");
    assert_int_equal(access(part, F_OK), -1);
    write_new(true);
    unlink(path);
    write_new(false);
    put(path, ""); /* as mktemp makes it */
    write_new(false);
    unlink(path);
}

static void a_part_is_replaced_only_when_told(void **state)
{
    (void)state;
    put(part, "hours of work");
    refuse(false, "out.part: was left");
    expect(part, "hours of work");
    int reads = open(part, O_RDONLY);
    write_new(true);
    unlink(path);
    expect_open(reads, "hours of work"); /* such as who makes the new file of it */
}

/* It is refused at the end at the latest, and what was written is kept. */
static void a_file_that_comes_meanwhile_stays(void **state)
{
    tr_new_file f;
    char line[256] = "";

    (void)state;
    assert_int_equal(tr_new_file_open(path, false, &f), TR_OK);
    assert_int_equal(write(f.fd, "new", 3), 3);
    put(path, "old");
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_new_file_place(&f), TR_E_IO);
    tr_fail_capture_end();
    tr_new_file_close(&f, TR_NEW_FILE_REMOVE);
    assert_non_null(strstr(line, "out.part"));
    expect(path, "old");
    expect(part, "new");
    unlink(part);
    assert_int_equal(tr_new_file_open(path, true, &f), TR_OK);
    unlink(path);
    put(path, "newer");
    assert_int_equal(tr_new_file_place(&f), TR_OK);
    tr_new_file_close(&f, TR_NEW_FILE_REMOVE);
    expect(path, "");
    unlink(path);
}

static void what_is_no_file_is_never_replaced(void **state)
{
    tr_new_file f;
    char line[256] = "";

    (void)state;
    assert_int_equal(mkdir(path, 0700), 0);
    refuse(true, "no regular file");
    rmdir(path);
    assert_int_equal(mkfifo(part, 0600), 0);
    refuse(true, "no regular file");
    unlink(part);
    assert_int_equal(symlink("/etc/hostname", part), 0);
    refuse(true, "no regular file");
    unlink(part);
    assert_int_equal(symlink("/nonexistent/out", path), 0);
    refuse(true, "no regular file");
    unlink(path);
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_new_file_open("/dev/null", true, &f), TR_E_IO);
    assert_int_equal(tr_new_file_open("/nonexistent/out", true, &f), TR_E_IO);
    assert_int_equal(tr_new_file_open("", true, &f), TR_E_USAGE);
    tr_fail_capture_end();
}

static void two_at_once_are_one_too_many(void **state)
{
    tr_new_file f;
    FILE *stream;

    (void)state;
    assert_int_equal(tr_new_file_open(path, false, &f), TR_OK);
    refuse(true, "another process");
    assert_int_equal(tr_new_file_stream(&f, &stream), TR_OK);
    fclose(stream);
    refuse(true, "another process"); /* until it is placed or gone */
    tr_new_file_close(&f, TR_NEW_FILE_REMOVE);
    tr_new_file_close(&f, TR_NEW_FILE_REMOVE);
    assert_int_equal(access(part, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_replaced_only_when_told),
        cmocka_unit_test(a_file_that_comes_meanwhile_stays),
        cmocka_unit_test(a_part_is_replaced_only_when_told),
        cmocka_unit_test(what_is_no_file_is_never_replaced),
        cmocka_unit_test(two_at_once_are_one_too_many),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
