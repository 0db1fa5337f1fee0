/* borrow.c - one expert after the other, each in shards of its own.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/borrow.h"

/* in names one expert. */
static tr_status apply_one(tr_apply *apply, const tr_shards *held, const tr_apply_share_in *in,
                           float *answers)
{
    tr_shards *borrowed = NULL;

    tr_status st = tr_shards_new_like(held, &borrowed);
    if (st == TR_OK)
        st = tr_shards_load(borrowed, in->layer, in->picks[0].expert);
    if (st == TR_OK) {
        tr_apply_use(apply, borrowed);
        st = tr_apply_share(apply, in, answers, NULL, NULL);
        tr_apply_use(apply, held);
    }
    tr_shards_free(&borrowed);
    return st;
}

tr_status tr_borrow_apply(tr_apply *apply, const tr_shards *held, const tr_apply_share_in *share,
                          float *answers)
{
    size_t dim = tr_shards_map(held)->dim;
    tr_status st = TR_OK;

    for (size_t i = 0, n; i < share->n_picks && st == TR_OK; i += n) {
        bool is_held = tr_shards_get(held, share->layer, share->picks[i].expert) != NULL;
        tr_apply_share_in part = *share;
        for (n = 1; i + n < share->n_picks; n++) {
            bool is_same = share->picks[i + n].expert == share->picks[i].expert;
            if (is_held ? !tr_shards_get(held, share->layer, share->picks[i + n].expert) : !is_same)
                break;
        }
        part.picks += i;
        part.n_picks = n;
        st = is_held ? tr_apply_share(apply, &part, answers + i * dim, NULL, NULL)
                     : apply_one(apply, held, &part, answers + i * dim);
    }
    return st;
}
