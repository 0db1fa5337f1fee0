/* test_recovery.c - memory for experts is counted once: what is loaded stays counted, what was only
 * kept free is free again.
 *
 * Method: members made by hand, whose states the test sets; their link takes every message and
 * delivers none.  Workers have room for one expert beside their own.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/tr_test.h"

#include "base/log.h"
#include "compute/gguf.h"
#include "coordinator/cluster/members_state.h"
#include "coordinator/cluster/recovery.h"

#define MODEL TR_SOURCE_DIR "/models/demo.gguf"

enum { N_WORKERS = 3 };

typedef struct {
    tr_gguf *gguf;
    tr_expert_map map;
    tr_placement placement;
    tr_member member[N_WORKERS];
    uint8_t buffer[TR_MAX_CONTROL];
    tr_link link;
    struct tr_members members;
    tr_recovery *recovery;
} cluster;

static tr_status take(tr_link *l, uint32_t peer, tr_bytes message)
{
    (void)l;
    (void)peer;
    (void)message;
    return TR_OK;
}

static const tr_link_ops ops = { .send = take };

/* Room beside what is at home, in experts of layer 0, of the coordinator and of the workers. */
static void open_cluster(cluster *c, uint64_t here, uint64_t there)
{
    tr_assignment first = { .max_rows = 4, .kernels = "c" };

    memset(c, 0, sizeof *c);
    assert_int_equal(tr_gguf_open(MODEL, &c->gguf), TR_OK);
    assert_int_equal(tr_expert_map_read(c->gguf, &c->map), TR_OK);
    assert_int_equal(tr_placement_new(c->map.n_layers, c->map.n_experts, N_WORKERS, TR_PLACE_EVEN,
                                      NULL, &c->placement),
                     TR_OK);
    uint64_t bytes = tr_expert_map_bytes(&c->map, 0);
    uint64_t most = 0;
    for (uint32_t w = 1; w <= N_WORKERS; w++) {
        uint64_t own = 0;
        for (uint32_t l = 0; l < c->map.n_layers; l++)
            for (uint32_t e = 0; e < c->map.layer[l].n_experts; e++)
                own += tr_placement_home(&c->placement, l, e) == w ? tr_expert_map_bytes(&c->map, l)
                                                                   : 0;
        most = own > most ? own : most;
        c->member[w - 1].state = TR_MEMBER_READY;
        c->member[w - 1].is_accepted = true;
    }
    c->link.ops = &ops;
    c->members = (struct tr_members){
        .link = &c->link, .n = N_WORKERS, .member = c->member, .buffer = c->buffer
    };
    tr_recovery_options o = { .members = &c->members,
                              .placement = &c->placement,
                              .map = &c->map,
                              .first = &first,
                              .n_workers = N_WORKERS,
                              .worker_memory = most + there * bytes,
                              .coordinator_memory = here * bytes + 1 };
    assert_int_equal(tr_recovery_new(&o, &c->recovery), TR_OK);
}

static void close_cluster(cluster *c)
{
    tr_recovery_free(&c->recovery);
    tr_placement_fini(&c->placement);
    tr_expert_map_fini(&c->map);
    tr_gguf_close(&c->gguf);
}

static tr_status become(cluster *c, uint32_t worker, tr_member_state state)
{
    tr_members_enter(&c->members, worker, state);
    return tr_recovery_look(c->recovery);
}

/* Experts that the coordinator could still load, of n: the rest of its room. */
static size_t room_here(cluster *c, size_t n)
{
    size_t taken = 0;

    for (uint32_t l = 0; l < c->map.n_layers && taken < n; l++)
        for (uint32_t e = 0; e < c->map.layer[l].n_experts && taken < n; e++) {
            if (!tr_recovery_take_here(c->recovery, l, e))
                return taken;
            taken++;
        }
    return taken;
}

/* What it loaded to look at a worker's numbers is no room, though it becomes the worker's
 * substitute afterwards and is never asked. */
static void what_is_loaded_is_not_given_back(void **state)
{
    cluster *c = malloc(sizeof *c);

    (void)state;
    assert_non_null(c);
    open_cluster(c, 2, 0);
    assert_true(tr_recovery_take_here(c->recovery, 0, 0));
    assert_int_equal(tr_placement_home(&c->placement, 0, 0), 1);
    for (int i = 0; i < 3; i++) {
        become(c, 1, TR_MEMBER_SUSPECT);
        assert_int_equal(tr_placement_holder(&c->placement, 0, 0), 0);
        assert_int_equal(become(c, 1, TR_MEMBER_READY), TR_OK);
        assert_int_equal(tr_placement_holder(&c->placement, 0, 0), 1);
    }
    assert_int_equal(room_here(c, 10), 2); /* that one, and one more */
    close_cluster(c);
    free(c);
}

/* A substitute that was asked has the expert, whoever was the substitute in between. */
static void who_was_asked_keeps_the_room_through_another_s_turn(void **state)
{
    cluster *c = malloc(sizeof *c);

    (void)state;
    assert_non_null(c);
    open_cluster(c, 1000, 1000);
    become(c, 1, TR_MEMBER_SUSPECT);
    uint32_t first = tr_placement_holder(&c->placement, 0, 0);
    assert_in_range(first, 2, 3);
    tr_recovery_asked(c->recovery, 0, 0);
    uint64_t left = tr_recovery_room(c->recovery, first);
    for (int i = 0; i < 3; i++) {
        become(c, first, TR_MEMBER_SUSPECT);
        assert_true(tr_placement_holder(&c->placement, 0, 0) != first);
        become(c, first, TR_MEMBER_READY);
        become(c, 1, TR_MEMBER_READY);
        become(c, 1, TR_MEMBER_SUSPECT);
    }
    become(c, 1, TR_MEMBER_READY);
    /* All but the one that it was asked for is free again. */
    uint64_t all = tr_recovery_room(c->recovery, first == 2 ? 3 : 2);
    assert_int_equal(tr_recovery_room(c->recovery, first), all - tr_expert_map_bytes(&c->map, 0));
    assert_true(left < all);
    close_cluster(c);
    free(c);
}

/* Three workers on a host with room for 3 units each, and a limit of 4. */
static void a_limit_is_of_one_worker_or_of_all_that_a_launcher_started(void **state)
{
    cluster *c = malloc(sizeof *c);

    (void)state;
    assert_non_null(c);
    for (uint32_t n_outside = 0; n_outside <= N_WORKERS; n_outside++) {
        open_cluster(c, 1, 0);
        uint64_t at_home[N_WORKERS + 1], unit = 10ull << 40;
        tr_recovery_options o = { .members = &c->members,
                                  .placement = &c->placement,
                                  .map = &c->map,
                                  .first = &(tr_assignment){ .max_rows = 4, .kernels = "c" },
                                  .n_workers = N_WORKERS,
                                  .worker_memory = unit,
                                  .coordinator_memory = 1 };
        tr_recovery_free(&c->recovery);
        assert_int_equal(tr_recovery_new(&o, &c->recovery), TR_OK);
        for (uint32_t w = 1; w <= N_WORKERS; w++)
            at_home[w] = unit - tr_recovery_room(c->recovery, w);
        tr_recovery_free(&c->recovery);
        o.worker_memory = 0;
        c->members.o.n_outside = n_outside;
        for (uint32_t w = 1; w <= N_WORKERS; w++) {
            tr_hello *h = &c->member[w - 1].hello;
            snprintf(h->host, sizeof h->host, "a-host-of-theirs");
            h->memory = 9 * unit;
            h->memory_limit = 4 * unit;
        }
        assert_int_equal(tr_recovery_new(&o, &c->recovery), TR_OK);
        for (uint32_t w = 1; w <= N_WORKERS; w++) {
            uint64_t n = w > N_WORKERS - n_outside ? 1 : N_WORKERS - n_outside;
            uint64_t part = n == 1 ? 3 * unit : 4 * unit / n;
            assert_int_equal(tr_recovery_room(c->recovery, w), part / 10 * 9 - at_home[w]);
        }
        close_cluster(c);
    }
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_loaded_is_not_given_back),
        cmocka_unit_test(who_was_asked_keeps_the_room_through_another_s_turn),
        cmocka_unit_test(a_limit_is_of_one_worker_or_of_all_that_a_launcher_started),
    };
    tr_log_set_level(TR_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
