/* test_gguf.c - sound files are read as they are, and nothing that a file can lie about gets
 * past the reader.
 *
 * Method: headers built by hand, right but for one thing; each must be refused with a line that
 * names that thing.  What the writer writes, the reader reads.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/gguf_bytes.h"
#include "tests/support/tr_test.h"

#include "base/memory.h"
#include "compute/gguf_write.h"

#include <sys/stat.h>
#include <unistd.h>

enum { DATA = 4096 }; /* bytes that the pretended file has behind its header */

static const uint64_t square[] = { 32, 32 };

static void sound(gguf_bytes *b)
{
    gb_start(b, 3, 2, 3);
    gb_text_entry(b, "general.architecture", "test");
    gb_u32_entry(b, "test.n", 7);
    gb_u32_entry(b, "general.alignment", 64);
    gb_tensor(b, "a", square, 2, TR_TYPE_Q8_0, 0);   /* 1088 bytes */
    gb_tensor(b, "b", square, 1, TR_TYPE_F32, 1088); /* 128 bytes at a multiple of 64 */
}

static void big_endian(gguf_bytes *b)
{
    gb_start(b, __builtin_bswap32(3), 0, 0);
}

static void version_1(gguf_bytes *b)
{
    gb_start(b, 1, 0, 0);
}

static void no_gguf(gguf_bytes *b)
{
    gb_put(b, "PK\3\4 something else entirely", 24);
}

static void too_many_tensors(gguf_bytes *b)
{
    gb_start(b, 3, UINT64_MAX, 0);
}

static void too_many_keys(gguf_bytes *b)
{
    gb_start(b, 3, 0, 1000);
    gb_u32_entry(b, "k", 1);
}

static void key_twice(gguf_bytes *b)
{
    gb_start(b, 3, 0, 2);
    gb_u32_entry(b, "same", 1);
    gb_u32_entry(b, "same", 2);
}

static void long_key(gguf_bytes *b)
{
    gb_start(b, 3, 0, 1);
    gb_u64(b, UINT64_MAX);
    gb_put(b, "abcdefghijklmnopqrstuvwxyz", 26);
}

static void key_not_utf8(gguf_bytes *b)
{
    gb_start(b, 3, 0, 1);
    gb_u32_entry(b, "k\xff\xfe", 1);
}

static void unknown_kind(gguf_bytes *b)
{
    gb_start(b, 3, 0, 1);
    gb_text(b, "key");
    gb_u32(b, 99);
    gb_u64(b, 0);
}

static void array_of_arrays(gguf_bytes *b)
{
    gb_start(b, 3, 0, 1);
    gb_text(b, "key");
    gb_u32(b, TR_GGUF_ARRAY);
    gb_u32(b, TR_GGUF_ARRAY);
    gb_u64(b, 1);
}

static void array_too_long(gguf_bytes *b)
{
    gb_start(b, 3, 0, 1);
    gb_text(b, "key");
    gb_u32(b, TR_GGUF_ARRAY);
    gb_u32(b, TR_GGUF_U64);
    gb_u64(b, UINT64_MAX / 8);
}

static void string_too_long(gguf_bytes *b)
{
    gb_start(b, 3, 0, 1);
    gb_text(b, "key");
    gb_u32(b, TR_GGUF_STRING);
    gb_u64(b, 1 << 30);
}

static void odd_alignment(gguf_bytes *b)
{
    gb_start(b, 3, 0, 1);
    gb_u32_entry(b, "general.alignment", 48);
}

static void one_tensor(gguf_bytes *b, const char *name, const uint64_t *dim, uint32_t n_dims,
                       uint32_t type, uint64_t offset)
{
    gb_start(b, 3, 1, 0);
    gb_tensor(b, name, dim, n_dims, type, offset);
}

static void tensor_twice(gguf_bytes *b)
{
    gb_start(b, 3, 2, 0);
    gb_tensor(b, "same", square, 1, TR_TYPE_F32, 0);
    gb_tensor(b, "same", square, 1, TR_TYPE_F32, 128);
}

static void no_dimensions(gguf_bytes *b)
{
    one_tensor(b, "t", square, 0, TR_TYPE_F32, 0);
    gb_u64(b, 0); /* so that the count is believable */
}

static void five_dimensions(gguf_bytes *b)
{
    one_tensor(b, "t", (const uint64_t[]){ 1, 1, 1, 1, 1 }, 5, TR_TYPE_F32, 0);
}

static void empty_dimension(gguf_bytes *b)
{
    one_tensor(b, "t", (const uint64_t[]){ 32, 0 }, 2, TR_TYPE_F32, 0);
}

static void overflowing_product(gguf_bytes *b)
{
    one_tensor(b, "t", (const uint64_t[]){ 1ull << 40, 1ull << 40 }, 2, TR_TYPE_F32, 0);
}

static void unknown_type(gguf_bytes *b)
{
    one_tensor(b, "t", square, 2, 77, 0);
}

static void broken_block(gguf_bytes *b)
{
    one_tensor(b, "t", (const uint64_t[]){ 33 }, 1, TR_TYPE_Q8_0, 0);
}

static void odd_offset(gguf_bytes *b)
{
    one_tensor(b, "t", square, 1, TR_TYPE_F32, 8);
}

static void past_the_end(gguf_bytes *b)
{
    one_tensor(b, "t", square, 2, TR_TYPE_F32, 32);
}

static void offset_overflows(gguf_bytes *b)
{
    one_tensor(b, "t", square, 1, TR_TYPE_F32, UINT64_MAX - 31);
}

static void overlap(gguf_bytes *b)
{
    gb_start(b, 3, 2, 0);
    gb_tensor(b, "first", square, 1, TR_TYPE_F32, 0);
    gb_tensor(b, "second", square, 1, TR_TYPE_F32, 96);
}

static const struct {
    const char *why;
    void (*build)(gguf_bytes *b);
    const char *word;
} bad[] = {
    { "big-endian", big_endian, "big-endian" },
    { "version 1", version_1, "version 1" },
    { "another format", no_gguf, "no GGUF file" },
    { "more tensors than bytes", too_many_tensors, "tensors" },
    { "more keys than bytes", too_many_keys, "promises 1000 keys" },
    { "a key twice", key_twice, "same appears twice" },
    { "a key longer than the file", long_key, "a key" },
    { "a key that is not UTF-8", key_not_utf8, "UTF-8" },
    { "a kind that does not exist", unknown_kind, "unknown kind 99" },
    { "arrays of arrays", array_of_arrays, "array of kind 9" },
    { "an array longer than the file", array_too_long, "items" },
    { "a string longer than the file", string_too_long, "incomplete" },
    { "an alignment that is no power of two", odd_alignment, "general.alignment is 48" },
    { "a tensor twice", tensor_twice, "same appears twice" },
    { "no dimensions", no_dimensions, "0 dimensions" },
    { "five dimensions", five_dimensions, "5 dimensions" },
    { "an empty dimension", empty_dimension, "dimension of 0" },
    { "a product that overflows", overflowing_product, "larger than any file" },
    { "a type that does not exist", unknown_type, "unknown type 77" },
    { "half a block", broken_block, "multiples of 32" },
    { "an offset off the alignment", odd_offset, "offset 8" },
    { "a tensor past the end", past_the_end, "ends behind the end" },
    { "an offset that overflows", offset_overflows, "ends behind the end" },
    { "overlapping tensors", overlap, "second overlaps tensor first" },
};

static tr_status parse(const gguf_bytes *b, size_t size, tr_gguf **g)
{
    return tr_gguf_parse("x.gguf", (tr_bytes){ b->data, size }, b->size + DATA, g);
}

static void every_lie_is_refused_and_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        gguf_bytes b = { 0 };
        char line[512];
        tr_gguf *g = NULL;
        bad[i].build(&b);
        tr_fail_capture_begin(line, sizeof line);
        tr_status st = parse(&b, b.size, &g);
        tr_fail_capture_end();
        if (st != TR_E_FORMAT || !strstr(line, bad[i].word) || !strstr(line, "x.gguf"))
            fail_msg("%s: status %d, line: %s", bad[i].why, (int)st, line);
        assert_null(g);
    }
}

static void every_cut_of_a_sound_header_is_refused(void **state)
{
    gguf_bytes b = { 0 };

    (void)state;
    sound(&b);
    for (size_t size = 0; size < b.size; size++) {
        char line[512];
        tr_gguf *g = NULL;
        tr_fail_capture_begin(line, sizeof line);
        tr_status st = parse(&b, size, &g);
        tr_fail_capture_end();
        if (st != TR_E_FORMAT)
            fail_msg("cut to %zu bytes: status %d", size, (int)st);
    }
}

static void a_sound_header_is_read_as_it_is(void **state)
{
    gguf_bytes b = { 0 };
    tr_gguf *g = NULL;
    uint32_t n;
    tr_bytes arch;

    (void)state;
    sound(&b);
    assert_int_equal(parse(&b, b.size, &g), TR_OK);
    assert_int_equal(tr_gguf_version(g), 3);
    assert_int_equal(tr_gguf_n_tensors(g), 2);
    assert_int_equal(tr_gguf_get_u32(g, "test.n", &n), TR_OK);
    assert_int_equal(n, 7);
    assert_int_equal(tr_gguf_get_string(g, "general.architecture", &arch), TR_OK);
    assert_true(tr_bytes_equal(arch, tr_bytes_of("test")));
    uint64_t data = tr_align_up(b.size, 64);
    assert_int_equal(tr_gguf_find(g, "a")->offset, data);
    assert_int_equal(tr_gguf_find(g, "a")->size, 1088);
    assert_int_equal(tr_gguf_find(g, "b")->offset, data + 1088);
    assert_int_equal(tr_gguf_find(g, "b")->dim[1], 1);
    assert_null(tr_gguf_find(g, "c"));
    tr_gguf_close(&g);
}

static void values_convert_only_where_they_fit(void **state)
{
    gguf_bytes b = { 0 };
    tr_gguf *g = NULL;
    char line[256];
    uint32_t n = 5;
    float f;
    bool yes = true;

    (void)state;
    gb_start(&b, 2, 0, 4);
    gb_text(&b, "minus");
    gb_u32(&b, TR_GGUF_I32);
    gb_u32(&b, (uint32_t)-1);
    gb_text(&b, "wide");
    gb_u32(&b, TR_GGUF_U64);
    gb_u64(&b, 1ull << 32);
    gb_text(&b, "small");
    gb_u32(&b, TR_GGUF_U8);
    gb_put(&b, "\x07", 1);
    gb_text(&b, "odd");
    gb_u32(&b, TR_GGUF_BOOL);
    gb_put(&b, "\x02", 1);
    assert_int_equal(parse(&b, b.size, &g), TR_OK);
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_gguf_get_u32(g, "minus", &n), TR_E_FORMAT);
    assert_non_null(strstr(line, "minus is -1"));
    assert_int_equal(tr_gguf_get_u32(g, "wide", &n), TR_E_FORMAT);
    assert_int_equal(tr_gguf_get_u32(g, "absent", &n), TR_E_FORMAT);
    assert_non_null(strstr(line, "absent is missing"));
    assert_int_equal(tr_gguf_get_f32(g, "small", &f), TR_E_FORMAT);
    assert_int_equal(tr_gguf_get_bool(g, "odd", &yes), TR_E_FORMAT);
    tr_fail_capture_end();
    assert_int_equal(n, 5);
    assert_int_equal(tr_gguf_opt_u32(g, "absent", &n), TR_OK);
    assert_int_equal(n, 5);
    assert_int_equal(tr_gguf_get_u32(g, "small", &n), TR_OK);
    assert_int_equal(n, 7);
    tr_gguf_close(&g);
}

static void two_files_are_told_apart_by_header_and_size(void **state)
{
    gguf_bytes a = { 0 };
    gguf_bytes b = { 0 };
    tr_gguf *g[3] = { NULL };

    (void)state;
    sound(&a);
    gb_start(&b, 3, 0, 1);
    gb_u32_entry(&b, "k", 1);
    assert_int_equal(parse(&a, a.size, &g[0]), TR_OK);
    assert_int_equal(parse(&b, b.size, &g[1]), TR_OK);
    assert_int_equal(tr_gguf_parse("y", (tr_bytes){ a.data, a.size }, a.size + DATA + 32, &g[2]),
                     TR_OK);
    assert_true(tr_gguf_identity(g[0]) != tr_gguf_identity(g[1]));
    assert_true(tr_gguf_identity(g[0]) != tr_gguf_identity(g[2]));
    for (int i = 0; i < 3; i++)
        tr_gguf_close(&g[i]);
}

static void what_the_writer_writes_the_reader_reads(void **state)
{
    const char *path = "written.gguf";
    const tr_bytes words[] = { tr_bytes_of("one"), tr_bytes_of(""), tr_bytes_of("three") };
    const int32_t kinds[] = { 1, -2, 3 };
    float data[33];
    float back[33];
    tr_gguf_writer *w = NULL;
    tr_gguf *g = NULL;
    tr_bytes *list = NULL;
    size_t n;
    float f;

    (void)state;
    for (int i = 0; i < 33; i++)
        data[i] = (float)i;
    assert_int_equal(tr_gguf_writer_new(path, true, &w), TR_OK);
    tr_gguf_put_f32(w, "f", 1.5f);
    tr_gguf_put_strings(w, "words", words, 3);
    tr_gguf_put_i32s(w, "kinds", kinds, 3);
    tr_gguf_put_tensor(w, "odd", TR_TYPE_F32, (const uint64_t[]){ 33 }, 1);
    tr_gguf_put_tensor(w, "two", TR_TYPE_F16, (const uint64_t[]){ 2, 2, 2 }, 3);
    assert_int_equal(tr_gguf_writer_begin_data(w), TR_OK);
    const uint8_t *bytes = (const uint8_t *)data;
    assert_int_equal(tr_gguf_writer_data(w, (tr_bytes){ bytes, 100 }), TR_OK);
    assert_int_equal(access(path, F_OK), -1); /* not there before it is whole */
    assert_int_equal(tr_gguf_writer_data(w, (tr_bytes){ bytes + 100, 32 }), TR_OK);
    assert_int_equal(tr_gguf_writer_data(w, (tr_bytes){ bytes, 16 }), TR_OK);
    assert_int_equal(tr_gguf_writer_finish(&w), TR_OK);
    assert_null(w);

    assert_int_equal(tr_gguf_open(path, &g), TR_OK);
    assert_int_equal(tr_gguf_get_f32(g, "f", &f), TR_OK);
    assert_true(f == 1.5f);
    assert_int_equal(tr_gguf_get_strings(g, "words", &list, &n), TR_OK);
    assert_int_equal(n, 3);
    assert_true(tr_bytes_equal(list[2], words[2]));
    assert_int_equal(list[1].size, 0);
    const tr_gguf_tensor *t = tr_gguf_find(g, "odd");
    assert_int_equal(tr_gguf_read(g, t->offset, t->size, back), TR_OK);
    assert_memory_equal(back, data, sizeof data);
    assert_int_equal(tr_gguf_find(g, "two")->offset % 32, 0);
    free(list);

    /* A file that shrinks while it is in use is an error of input, not a crash. */
    assert_int_equal(truncate(path, 100), 0);
    char line[256];
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_gguf_read(g, t->offset, t->size, back), TR_E_IO);
    tr_fail_capture_end();
    assert_non_null(strstr(line, "cut while in use"));
    tr_gguf_close(&g);
    unlink(path);
}

/* The name is free when writing begins, and taken by a folder when it ends. */
static void a_finished_file_whose_name_is_taken_is_kept(void **state)
{
    const char *path = "taken.gguf";
    const float data[32] = { 0 };
    char line[256];
    tr_gguf_writer *w = NULL;

    (void)state;
    assert_int_equal(tr_gguf_writer_new(path, true, &w), TR_OK);
    tr_gguf_put_tensor(w, "t", TR_TYPE_F32, square, 1);
    assert_int_equal(tr_gguf_writer_begin_data(w), TR_OK);
    tr_bytes bytes = { (const uint8_t *)data, sizeof data };
    assert_int_equal(tr_gguf_writer_data(w, bytes), TR_OK);
    assert_int_equal(mkdir(path, 0700), 0);
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_gguf_writer_finish(&w), TR_E_IO);
    assert_non_null(strstr(line, "taken.gguf.part"));
    assert_null(w);
    assert_int_equal(unlink("taken.gguf.part"), 0);

    /* Nor is a folder or a device taken for a file to replace. */
    assert_int_equal(tr_gguf_writer_new(path, true, &w), TR_E_IO);
    assert_non_null(strstr(line, "no regular file"));
    assert_int_equal(tr_gguf_writer_new("/dev/null", false, &w), TR_E_IO);
    tr_fail_capture_end();
    assert_int_equal(access("taken.gguf.part", F_OK), -1);
    rmdir(path);
}

static void what_can_not_be_opened_or_written_is_said(void **state)
{
    char line[256];
    tr_gguf *g = NULL;
    tr_gguf_writer *w = NULL;

    (void)state;
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_gguf_open("/nonexistent/model.gguf", &g), TR_E_IO);
    assert_non_null(strstr(line, "No such file"));
    assert_int_equal(tr_gguf_open("/", &g), TR_E_IO);
    assert_non_null(strstr(line, "regular file"));
    assert_int_equal(tr_gguf_writer_new("/nonexistent/out.gguf", false, &w), TR_E_IO);
    assert_non_null(strstr(line, "out.gguf.part"));
    tr_fail_capture_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_header_is_read_as_it_is),
        cmocka_unit_test(every_lie_is_refused_and_named),
        cmocka_unit_test(every_cut_of_a_sound_header_is_refused),
        cmocka_unit_test(values_convert_only_where_they_fit),
        cmocka_unit_test(two_files_are_told_apart_by_header_and_size),
        cmocka_unit_test(what_the_writer_writes_the_reader_reads),
        cmocka_unit_test(a_finished_file_whose_name_is_taken_is_kept),
        cmocka_unit_test(what_can_not_be_opened_or_written_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
