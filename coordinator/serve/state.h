/* state.h - what the server shows of the cluster: a copy that the engine's thread renews, so that
 * others can read it while a step runs.
 *
 * USE     st = tr_serve_state_new(engine, model_name, &s);
 *         tr_serve_state_renew(s, serving);              the engine's thread, as often as it likes
 *         json = tr_serve_state_cluster(s, serving);     any thread
 *         text = tr_serve_state_metrics(s, serving);     any thread; for free()
 *         json = tr_serve_state_health(s, serving, &http);
 *         tr_serve_state_event(s, "warning", "worker 2 is lost");
 *         tr_serve_state_free(&s);
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_SERVE_STATE_H
#define TR_COORDINATOR_SERVE_STATE_H

#include "coordinator/engine/serving.h"

#include <jansson.h>

typedef struct tr_serve_state tr_serve_state;

tr_status tr_serve_state_new(tr_engine *e, const char *model_name, tr_serve_state **out);
void tr_serve_state_free(tr_serve_state **s);

void tr_serve_state_renew(tr_serve_state *s);

/* level: "info", "warning", "error".  The last hundred are kept. */
void tr_serve_state_event(tr_serve_state *s, const char *level, const char *text);

/* A new reference: {"status": "ready", "degraded" or "draining", "reason"}; *http is 200, or 503
 * while it drains.  Degraded is a server that answers all the same: a worker is lost, or suspected.
 */
json_t *tr_serve_state_health(tr_serve_state *s, tr_serving *serving, unsigned *http);

/* Members, placement, load: the page reads it. */
json_t *tr_serve_state_cluster(tr_serve_state *s, tr_serving *serving);

/* The Prometheus text format, 0.0.4. */
char *tr_serve_state_metrics(tr_serve_state *s, tr_serving *serving);

#endif
