/* cluster.h - a whole cluster in one process: workers in threads over the inproc transport.
 *
 * USE     test_cluster c;
 *         test_cluster_start(&c, 3, threads_per_worker);
 *         options.transport = c.transport; options.n_workers = 3;
 *         ... open and close an engine ...
 *         test_cluster_stop(&c);        asserts that every worker ended well
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TESTS_SUPPORT_CLUSTER_H
#define TR_TESTS_SUPPORT_CLUSTER_H

#include "coordinator/engine/engine.h"
#include "transport/inproc.h"
#include "worker/worker.h"

#include <pthread.h>

enum { TEST_MAX_WORKERS = 16 };

typedef struct {
    tr_inproc *net;
    tr_transport *transport; /* the coordinator's end; NULL with no workers */
    uint32_t n_workers;
    struct test_worker {
        tr_inproc *net;
        tr_peer self;
        tr_worker_options options;
        tr_status st;
        bool had_losses;
        pthread_t thread;
    } worker[TEST_MAX_WORKERS];
} test_cluster;

/* The defaults, but patient: on a machine that stands still for a while nobody is suspected, and
 * who is suspected at the end would be given up. */
tr_engine_options test_cluster_engine(void);

void test_cluster_start(test_cluster *c, uint32_t n_workers, size_t threads);
void test_cluster_stop(test_cluster *c);

#endif
