/* test_kv_window.c - layers with a window hold no more than it needs, whatever the length; what a
 * sequence can see is what it put there or what others with the same beginning did; and a beginning
 * whose pages are gone is not offered.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/rng.h"
#include "compute/cpu.h"
#include "coordinator/model/kv.h"

#include <stdlib.h>

enum { MAX_LENGTH = 640, N_TABLES = 5, STEP = 40, N_FAMILIES = 3 };

/* Layers 0 and 2 have the window. */
static tr_kv *new_cache(size_t window, size_t n_pages, size_t n_window_pages)
{
    tr_kv_shape shape = { .kernels = tr_kernels_select(tr_cpu_features(), NULL),
                          .n_layers = 3,
                          .n_heads = 1,
                          .head_dim = 2,
                          .type = TR_TYPE_F32,
                          .window = window };
    tr_kv *kv = NULL;

    assert_int_equal(tr_kv_new(&shape, n_pages, n_window_pages, &kv), TR_OK);
    return kv;
}

typedef struct {
    tr_kv_table table;
    uint32_t tokens[MAX_LENGTH];
    size_t length, most;
} sequence;

/* What a position holds is a function of all tokens up to it, as keys and values are. */
static float content(const sequence *s, size_t layer, size_t position)
{
    uint64_t h = layer;

    for (size_t i = 0; i <= position; i++)
        h = tr_rng_mix(h ^ s->tokens[i]);
    return (float)(h % (1 << 24));
}

static float kept_at(const tr_kv *kv, const sequence *s, size_t layer, size_t position)
{
    const float *keys = tr_kv_get(kv, &s->table, layer, 0, position / TR_KV_PAGE).keys;

    return keys[position % TR_KV_PAGE * 2];
}

static void check_seen(const tr_kv *kv, const sequence *s)
{
    size_t window = tr_kv_window(tr_kv_get_shape(kv), 0);

    for (size_t layer = 0; layer < 3; layer++) {
        bool is_windowed = tr_kv_window(tr_kv_get_shape(kv), layer) > 0;
        size_t first = is_windowed && s->length + 1 > window ? s->length + 1 - window : 0;
        for (size_t p = first; p < s->length; p += 1 + p % 7)
            assert_true(kept_at(kv, s, layer, p) == content(s, layer, p));
    }
}

/* A step of n positions, as the engine has it. */
static bool grow(tr_kv *kv, sequence *s, size_t n)
{
    tr_kv_pass(kv, &s->table, s->length);
    if (tr_kv_reserve(kv, &s->table, s->length + n) != TR_OK)
        return false;
    for (size_t p = s->length; p < s->length + n; p++) {
        for (size_t layer = 0; layer < 3; layer++) {
            float k[2] = { content(s, layer, p), 0 };
            tr_kv_put(kv, &s->table, layer, p, k, k);
        }
    }
    s->length += n;
    tr_kv_name(kv, &s->table, s->tokens, s->length);
    return true;
}

/* Begins like others of its family, up to a length of its own. */
static void begin(tr_kv *kv, sequence *s, uint64_t draw)
{
    size_t family = draw % N_FAMILIES;
    size_t common = draw / 8 % MAX_LENGTH;

    s->most = 1 + draw / 8192 % (MAX_LENGTH - 1);
    for (size_t i = 0; i < MAX_LENGTH; i++)
        s->tokens[i] = (uint32_t)(i < common ? family * 1000 + i : draw % 100003 + i);
    assert_int_equal(tr_kv_table_reserve(&s->table, MAX_LENGTH), TR_OK);
    s->length = tr_kv_find(kv, &s->table, s->tokens, s->most);
    assert_true(s->length < s->most);
}

static void end(tr_kv *kv, sequence *s)
{
    tr_kv_release(kv, &s->table);
    *s = (sequence){ 0 };
}

/* Sequences come, find, grow, wait for room, and go, in an order drawn from the seed. */
static size_t run_random(size_t window, size_t extra, uint64_t seed)
{
    static sequence list[N_TABLES];
    size_t n_pages = 50, found = 0;
    tr_kv_shape shape = { .window = window };
    size_t each = tr_kv_window_pages(&shape, STEP);
    tr_kv *kv = new_cache(window, n_pages, N_TABLES * each + extra);

    for (uint64_t i = 0; i < 800; i++) {
        sequence *s = &list[tr_rng_u64(seed, i, 0) % N_TABLES];
        uint64_t draw = tr_rng_u64(seed, i, 1);
        if (s->most == 0) {
            begin(kv, s, draw);
            found += s->length;
        } else if (s->length == s->most || draw % 16 == 0) {
            end(kv, s);
            continue;
        } else {
            size_t n = 1 + draw / 16 % STEP;
            size_t used = s->most - s->length;
            if (!grow(kv, s, n < used ? n : used)) {
                assert_true(tr_kv_available(kv) < 3); /* the windows' pool is never what is short */
                end(kv, s);
                continue;
            }
        }
        assert_true(s->table.n - s->table.window_begin <= each);
        check_seen(kv, s);
    }
    for (size_t i = 0; i < N_TABLES; i++)
        end(kv, &list[i]);
    assert_int_equal(tr_kv_count(kv).used, 0);
    assert_int_equal(tr_kv_count_windows(kv).used, 0);
    tr_kv_free(&kv);
    return found;
}

static void what_is_seen_is_always_right(void **state)
{
    static const size_t windows[] = { 1, 8, 32, 33, 70, 128 };
    uint64_t seed = tr_test_seed();

    (void)state;
    for (size_t w = 0; w < sizeof windows / sizeof windows[0]; w++) {
        size_t scarce = run_random(windows[w], 0, seed + w);
        size_t ample = run_random(windows[w], 50, seed + w);
        print_message("  window %zu: %zu, %zu positions found\n", windows[w], scarce, ample);
        assert_true(ample > 0);
    }
}

static void a_long_sequence_holds_no_more_than_its_window(void **state)
{
    enum { WINDOW = 70 };
    static sequence s;
    tr_kv *kv = new_cache(WINDOW, MAX_LENGTH / TR_KV_PAGE,
                          tr_kv_window_pages(&(tr_kv_shape){ .window = WINDOW }, STEP));
    size_t most = 0;

    (void)state;
    assert_true(tr_kv_page_size(tr_kv_get_shape(kv)) * 2 ==
                tr_kv_window_page_size(tr_kv_get_shape(kv)));
    for (size_t i = 0; i < MAX_LENGTH; i++)
        s.tokens[i] = (uint32_t)i;
    while (s.length + STEP <= MAX_LENGTH) {
        assert_true(grow(kv, &s, STEP));
        check_seen(kv, &s);
        size_t used = tr_kv_count_windows(kv).used;
        most = used > most ? used : most;
    }
    assert_int_equal(tr_kv_count(kv).used, MAX_LENGTH / TR_KV_PAGE);
    assert_true(most <= (WINDOW + STEP) / TR_KV_PAGE + 2);
    end(kv, &s);
    tr_kv_free(&kv);
}

/* Of a beginning of 10 pages those that a window of two pages needs at its end are known; then,
 * once others have taken their room, nothing is offered, though the other layers' pages are there.
 */
static void a_beginning_without_its_window_is_not_offered(void **state)
{
    enum { WINDOW = 64, N = 10 * TR_KV_PAGE };
    static sequence a, b, other;
    tr_kv *kv = new_cache(WINDOW, 40, 8);

    (void)state;
    for (size_t i = 0; i < MAX_LENGTH; i++) {
        a.tokens[i] = b.tokens[i] = (uint32_t)i;
        other.tokens[i] = (uint32_t)(1000 + i);
    }
    while (a.length < N)
        assert_true(grow(kv, &a, TR_KV_PAGE));
    end(kv, &a);
    assert_int_equal(tr_kv_table_reserve(&b.table, MAX_LENGTH), TR_OK);
    b.length = tr_kv_find(kv, &b.table, b.tokens, N + 1);
    assert_int_equal(b.length, N);
    check_seen(kv, &b);
    tr_kv_empty(kv, &b.table);
    b.length = tr_kv_find(kv, &b.table, b.tokens, N - TR_KV_PAGE); /* a page earlier than kept */
    assert_int_equal(b.length, N - 2 * TR_KV_PAGE);
    check_seen(kv, &b);
    tr_kv_empty(kv, &b.table);
    while (other.length < 12 * TR_KV_PAGE)
        assert_true(grow(kv, &other, 2 * TR_KV_PAGE));
    b.length = tr_kv_find(kv, &b.table, b.tokens, N + 1);
    assert_int_equal(b.length, 0);
    assert_int_equal(tr_kv_count(kv).kept, 10);
    while (b.length < N) /* computed again, it is known again */
        assert_true(grow(kv, &b, TR_KV_PAGE));
    assert_int_equal(tr_kv_count(kv).used, 22);
    end(kv, &b);
    assert_int_equal(tr_kv_find(kv, &a.table, b.tokens, 0), 0);
    end(kv, &other);
    tr_kv_release(kv, &a.table);
    tr_kv_free(&kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_seen_is_always_right),
        cmocka_unit_test(a_long_sequence_holds_no_more_than_its_window),
        cmocka_unit_test(a_beginning_without_its_window_is_not_offered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
