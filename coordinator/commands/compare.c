/* compare.c - see compare.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/commands/compare.h"

typedef struct {
    const tr_generate_request *r;
    const tr_output *output;
    size_t n; /* that were equal */
    bool has_more;
} comparison;

static bool is_end(void *ctx, uint32_t id)
{
    const comparison *c = ctx;

    return c->r->is_end && c->r->is_end(c->r->ctx, id);
}

/* A stop string ended the output after its last token, whatever would follow. */
static bool take_token(void *ctx, const tr_generated *token)
{
    comparison *c = ctx;

    c->has_more = c->n == c->output->n;
    if (c->has_more || token->id != c->output->ids[c->n])
        return false;
    c->n++;
    return c->n < c->output->n || c->output->finish != TR_FINISH_STOP;
}

tr_status tr_compare(tr_engine *e, const tr_generate_request *r, const tr_output *output,
                     size_t *place)
{
    comparison c = { .r = r, .output = output };
    tr_generate_request again = *r;
    tr_generate_result g;

    again.wants_log_probs = false;
    again.is_end = is_end;
    again.on_token = take_token;
    again.ctx = &c;
    tr_status st = tr_generate(e, &again, &g);
    if (st == TR_OK)
        *place = c.n == output->n && !c.has_more ? TR_SAME : c.n;
    return st;
}
