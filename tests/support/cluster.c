/* cluster.c - start and join worker threads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/cluster.h"

#include "tests/support/tr_test.h"

#include "base/version.h"

enum { MAX_MESSAGE = 64 << 20 };

static void *worker_thread(void *ctx)
{
    struct test_worker *w = ctx;
    tr_transport *t = NULL;

    w->st = tr_inproc_open(w->net, w->self, &t);
    if (w->st == TR_OK)
        w->st = tr_worker_run(t, &w->options, &w->had_losses);
    tr_transport_close(&t);
    return NULL;
}

tr_engine_options test_cluster_engine(void)
{
    tr_engine_options o = tr_engine_defaults();

    o.suspect_timeout = 9 * TR_SECOND;
    return o;
}

void test_cluster_start(test_cluster *c, uint32_t n_workers, size_t threads)
{
    *c = (test_cluster){ .n_workers = n_workers };
    if (n_workers == 0)
        return;
    assert_in_range(n_workers, 1, TEST_MAX_WORKERS);
    assert_int_equal(tr_inproc_new(n_workers, MAX_MESSAGE, &c->net), TR_OK);
    assert_int_equal(tr_inproc_open(c->net, 0, &c->transport), TR_OK);
    for (uint32_t i = 0; i < n_workers; i++) {
        struct test_worker *w = &c->worker[i];
        w->net = c->net;
        w->self = i + 1;
        w->options = (tr_worker_options){ .version = TR_VERSION, .threads = threads };
        assert_int_equal(pthread_create(&w->thread, NULL, worker_thread, w), 0);
    }
}

void test_cluster_stop(test_cluster *c)
{
    if (c->n_workers == 0)
        return;
    for (uint32_t i = 0; i < c->n_workers; i++) {
        pthread_join(c->worker[i].thread, NULL);
        assert_int_equal(c->worker[i].st, TR_OK);
    }
    tr_transport_close(&c->transport);
    tr_inproc_free(&c->net);
}
