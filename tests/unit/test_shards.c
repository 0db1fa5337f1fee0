/* test_shards.c - experts come in slabs, of which only what experts fill and a little more is
 * taken from the system.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/memory.h"
#include "compute/cpu.h"
#include "coordinator/model/random_model.h"
#include "experts/shards.h"

#include <unistd.h>

enum {
    THREADS = 31, /* each of which would take a page of its own */
    PAGES = 24,   /* 8 ahead, the rest for what reading needs, and sanitizers */
};

static tr_compute compute;
static tr_gguf *gguf;
static tr_expert_map map;

static int open_model(void **state)
{
    const char *path = "shards.gguf";
    tr_random_model m = { .shape = *tr_model_shape_find("tiny"),
                          .path = path,
                          .experts = TR_TYPE_Q8_0,
                          .dense = TR_TYPE_Q8_0,
                          .seed = 1,
                          .overwrite = true };

    (void)state;
    compute.kernels = tr_kernels_select(tr_cpu_features(), NULL);
    assert_int_equal(tr_random_model_write(&m), TR_OK);
    assert_int_equal(tr_pool_new(THREADS, &compute.pool), TR_OK);
    assert_int_equal(tr_gguf_open(path, &gguf), TR_OK);
    assert_int_equal(tr_expert_map_read(gguf, &map), TR_OK);
    unlink(path);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    tr_expert_map_fini(&map);
    tr_gguf_close(&gguf);
    tr_pool_free(&compute.pool);
    return 0;
}

/* Bytes that became resident, beyond those of the experts. */
static uint64_t load_a_layer(void)
{
    tr_shards *s = NULL;
    uint64_t before = tr_memory_resident();

    assert_int_equal(tr_shards_new(&compute, gguf, &map, &s), TR_OK);
    for (uint32_t e = 0; e < map.n_experts; e++)
        assert_int_equal(tr_shards_load(s, 0, e), TR_OK);
    uint64_t more = tr_memory_resident() - before;
    uint64_t loaded = tr_shards_bytes(s);
    tr_shards_free(&s);
    return more > loaded ? more - loaded : 0;
}

static void many_threads_take_little_more_than_the_experts(void **state)
{
    (void)state;
    load_a_layer(); /* threads that never ran take memory of their own */
    uint64_t unused = load_a_layer();
    print_message("  %llu bytes without an expert\n", (unsigned long long)unused);
    assert_true(unused < PAGES * (uint64_t)TR_HUGE_PAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_threads_take_little_more_than_the_experts),
    };

    return cmocka_run_group_tests(tests, open_model, close_model);
}
