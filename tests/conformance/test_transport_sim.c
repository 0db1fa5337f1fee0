/* test_transport_sim.c - the suite inside a simulated world without faults, with and without news
 * of a peer's end. SPDX-License-Identifier: Apache-2.0 */
#include "tests/conformance/transport_suite.h"
#include "tests/support/tr_test.h"
#include "transport/sim.h"

enum { N_WORKERS = 4, MAX_SIZE = 1 << 20 };

static tr_status run_worker(tr_transport *t, void *ctx)
{
    (void)ctx;
    transport_suite_worker(t); /* death and stop are the same here: the process ends */
    return TR_OK;
}

static int run_suite(int (*run)(transport_suite *s), bool tells_losses)
{
    tr_sim_options o = { .seed = tr_test_seed(),
                         .n_workers = N_WORKERS,
                         .max_size = MAX_SIZE,
                         .rules = tr_sim_calm(),
                         .time_limit = 600 * TR_SECOND };
    tr_sim *sim = NULL;
    int n_failed = 0;

    o.rules.tells_losses = tells_losses;
    if (tr_sim_new(&o, &sim) != TR_OK)
        return 1;
    for (tr_peer p = 1; p <= N_WORKERS; p++)
        n_failed += tr_sim_start(sim, p, run_worker, NULL) != TR_OK;
    transport_suite s = { .t = tr_sim_enter(sim), .max_size = MAX_SIZE };
    n_failed += run(&s);
    transport_suite_stop(&s);
    tr_transport_close(&s.t);
    n_failed += tr_sim_leave(sim) != TR_OK;
    tr_sim_free(&sim);
    return n_failed;
}

int main(void)
{
    int n_failed = run_suite(transport_suite_traffic, false);

    n_failed += run_suite(transport_suite_losses, false);
    n_failed += run_suite(transport_suite_losses, true);
    return n_failed != 0;
}
