/* group.h - cut a share's picks into groups: the rows of one expert, one kernel call.
 *
 * Picks come sorted by (expert, row), so a group is a run.  Pure.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_EXPERTS_GROUP_H
#define TR_EXPERTS_GROUP_H

#include <stddef.h>
#include <stdint.h>

/* One decision of the router as a holder sees it. */
typedef struct {
    uint32_t row;    /* of the share */
    uint32_t expert; /* of the layer */
} tr_share_pick;

typedef struct {
    uint32_t expert;
    uint32_t first; /* pick */
    uint32_t n;     /* picks */
} tr_group;

/* Groups of picks[first..], each of one expert, together at most max_picks picks (at least 1) and
 * max_groups groups; a run that does not fit is continued by the next call.
 * Returns the number of groups; *next is the first pick that is in none of them. */
size_t tr_group_picks(const tr_share_pick *picks, size_t n_picks, size_t first, size_t max_picks,
                      tr_group *groups, size_t max_groups, size_t *next);

#endif
