/* borrow.h - compute a share with experts that are read for it alone.
 *
 * What the process holds is used; any other expert of the share is read, computed with and given
 * back before the next.  So it costs the memory of one expert, whatever the share, and a read of
 * each: for a share that can't be had from anybody else, not for every day.
 *
 * USE     st = tr_borrow_apply(apply, held, &share, answers);
 *
 * THREAD  That of apply.
 * FAILS   As tr_shards_load and tr_apply_share.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_BORROW_H
#define TR_COORDINATOR_CLUSTER_BORROW_H

#include "experts/apply.h"

/* apply computes with held, before and after; answers is [n_picks][dim]. */
tr_status tr_borrow_apply(tr_apply *apply, const tr_shards *held, const tr_apply_share_in *share,
                          float *answers);

#endif
