/* test_need.c - the memory that is predicted is what the shape of a model says: latents once,
 * windows that don't grow; and what does not fit is refused with the numbers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "coordinator/engine/need.h"

static tr_gguf *gguf;
static tr_expert_map map;

static int open_model(void **state)
{
    (void)state;
    return tr_gguf_open(TR_SOURCE_DIR "/models/demo.gguf", &gguf) == TR_OK &&
                   tr_expert_map_read(gguf, &map) == TR_OK
               ? 0
               : -1;
}

static int close_model(void **state)
{
    (void)state;
    tr_expert_map_fini(&map);
    tr_gguf_close(&gguf);
    return 0;
}

static tr_need need_of(const tr_model_config *c, size_t context, tr_type type)
{
    tr_engine_options o = tr_engine_defaults();

    o.gguf = gguf;
    o.threads = 2;
    o.context = context;
    o.kv_type = type;
    return tr_need_of(&o, c, &map);
}

/* DeepSeek-V3: 61 layers, 512 latent values and 64 rotated ones: 70272 bytes a position in half
 * precision. */
static void a_latent_is_counted_once(void **state)
{
    tr_model_config c = {
        .n_layers = 61, .n_heads = 128, .cache_heads = 1, .cache_dim = 576, .latent = 512
    };

    (void)state;
    assert_int_equal(need_of(&c, 131072, TR_TYPE_F16).cache, 131072ull * 61 * 576 * 2);
    assert_int_equal(need_of(&c, 131072, TR_TYPE_Q8_0).cache, 131072ull * 61 * 576 / 32 * 34);
}

/* gpt-oss-120b: every second of 36 layers sees 128 positions; 8 heads of 64. */
static void windows_do_not_grow(void **state)
{
    tr_model_config c = {
        .n_layers = 36, .n_heads = 64, .cache_heads = 8, .cache_dim = 64, .window = 128
    };
    uint64_t layer = 2 * 8 * 64 * 2; /* bytes a position */

    (void)state;
    for (size_t context = 8192; context <= 131072; context *= 4) {
        tr_need n = need_of(&c, context, TR_TYPE_F16);
        uint64_t all = context * 18 * layer;
        assert_true(n.cache >= all);
        assert_true(n.cache - all <= all / 8 + (128 + 256 + 64) * 18 * layer);
        assert_int_equal(n.pages, context / TR_KV_PAGE);
    }
    tr_need few = need_of(&c, 64, TR_TYPE_F16);
    assert_int_equal(few.window_pages, few.pages);
}

static void what_does_not_fit_is_refused_with_the_numbers(void **state)
{
    tr_engine_options o = tr_engine_defaults();
    tr_model_config c;
    char line[512] = "", number[32];

    (void)state;
    o.gguf = gguf;
    o.threads = 2;
    assert_int_equal(tr_model_config_read(gguf, &c), TR_OK);
    tr_need n = tr_need_of(&o, &c, &map);
    uint64_t sum = n.dense + n.experts + n.cache + n.buffers;
    assert_true(n.experts == tr_need_experts(&map) && n.experts > n.dense && n.dense > 0);
    o.memory = sum;
    assert_int_equal(tr_need_check(&n, &o), TR_OK);
    assert_true(tr_need_fits(&n, &o));
    o.memory = sum - 1;
    assert_false(tr_need_fits(&n, &o));
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_need_check(&n, &o), TR_E_MEMORY);
    tr_fail_capture_end();
    snprintf(number, sizeof number, "%llu bytes", (unsigned long long)sum);
    assert_non_null(strstr(line, number));
    snprintf(number, sizeof number, "%llu are available", (unsigned long long)(sum - 1));
    assert_non_null(strstr(line, number));
    assert_non_null(strstr(line, "lower --ctx"));
    o.memory = n.dense;
    tr_fail_capture_begin(line, sizeof line);
    assert_int_equal(tr_need_check(&n, &o), TR_E_MEMORY);
    tr_fail_capture_end();
    assert_non_null(strstr(line, "give experts to workers"));
    o.n_workers = 2;
    assert_int_equal(tr_need_of(&o, &c, &map).experts, 0);
}

static uint64_t experts_of(const tr_placement *p, uint32_t first, uint32_t last)
{
    uint64_t sum = 0;

    for (uint32_t l = 0; l < map.n_layers; l++)
        for (uint32_t x = 0; x < map.layer[l].n_experts; x++)
            if (tr_placement_home(p, l, x) >= first && tr_placement_home(p, l, x) <= last)
                sum += tr_expert_map_bytes(&map, l);
    return sum;
}

/* Three workers, of which the first and the third share the coordinator's host and the third comes
 * from outside. */
static void workers_on_this_host_are_counted(void **state)
{
    const char *const worker[4] = { NULL, "here", "there", "here" };
    const char *const far[4] = { NULL, "there", "there", "elsewhere" };
    tr_engine_options o = tr_engine_defaults();
    tr_need n = { .cache = 1000, .buffers = 100, .dense = 10 };
    tr_placement p = { 0 };
    char line[512] = "";

    (void)state;
    o.n_workers = 3;
    o.n_outside = 1;
    assert_int_equal(tr_placement_new(map.n_layers, map.n_experts, 3, TR_PLACE_EVEN, NULL, &p),
                     TR_OK);
    uint64_t ours = experts_of(&p, 1, 1), here = ours + experts_of(&p, 3, 3);
    assert_int_equal(experts_of(&p, 1, 3), tr_need_experts(&map));
    const struct {
        const char *const *worker;
        uint64_t machine, groups; /* what is to be had */
        uint64_t memory;          /* what was said to be */
        tr_status want;
        const char *words;
    } rows[] = {
        { worker, 1110 + here, 1110 + ours, 0, TR_OK,
          "" }, /* its own group is the third's affair */
        { worker, 1109 + here, 1109 + here, 0, TR_E_MEMORY, "lower --ctx" },
        { worker, 1110 + here, 1109 + ours, 0, TR_E_MEMORY, "lower --ctx" },
        { worker, here, ours, 0, TR_E_MEMORY, "the coordinator 1110, experts of workers here" },
        { worker, here - 1, here - 1, 0, TR_E_MEMORY, "other machines" },
        { worker, 0, 0, 0, TR_OK, "" },
        { worker, 1, 1, 1, TR_OK, "" },
        { far, 1, 1, 0, TR_OK, "" }, /* checked before they came */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tr_need_host h = { "here", rows[i].worker, rows[i].machine, rows[i].groups };
        o.memory = rows[i].memory;
        line[0] = '\0';
        tr_fail_capture_begin(line, sizeof line);
        tr_status st = tr_need_check_host(&n, &o, &map, &p, &h);
        tr_fail_capture_end();
        if (st != rows[i].want || !strstr(line, rows[i].words))
            fail_msg("row %zu: %d: %s", i, (int)st, line);
    }
    tr_placement_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_latent_is_counted_once),
        cmocka_unit_test(windows_do_not_grow),
        cmocka_unit_test(what_does_not_fit_is_refused_with_the_numbers),
        cmocka_unit_test(workers_on_this_host_are_counted),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
