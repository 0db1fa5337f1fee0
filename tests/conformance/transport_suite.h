/* transport_suite.h - one suite that every transport passes.
 *
 * The coordinator's side is the test; the workers obey a tiny protocol of one-letter commands
 * (see transport_suite.c).  A transport brings its ends and says how a worker dies.
 *
 * USE     (each worker)        if (transport_suite_worker(t)) die;  close(&t);
 *         (the coordinator)    n_failed = transport_suite_traffic(&suite);
 *                              n_failed = transport_suite_losses(&suite);   the last thing
 *                              transport_suite_stop(&suite);
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_TESTS_CONFORMANCE_TRANSPORT_SUITE_H
#define TR_TESTS_CONFORMANCE_TRANSPORT_SUITE_H

#include "transport/transport.h"

typedef struct {
    tr_transport *t; /* the coordinator's end; at least 3 workers, for losses 4 */
    size_t max_size; /* of a message, at least 64 KiB */
    bool has_huge;   /* workers can send more than max_size */
    bool is_lost[8]; /* workers that a scenario has sacrificed */
} transport_suite;

/* Obey until told to stop (false) or to die (true). */
bool transport_suite_worker(tr_transport *t);

/* Everything that ends with all workers well.  Returns the number of failed scenarios. */
int transport_suite_traffic(transport_suite *s);

/* Hung, dropped, dead and lying workers.  Only worker 1 is left. */
int transport_suite_losses(transport_suite *s);

/* Tell the workers that are left to stop. */
void transport_suite_stop(transport_suite *s);

#endif
