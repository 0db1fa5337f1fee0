/* group.c - runs of equal experts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "experts/group.h"

size_t tr_group_picks(const tr_share_pick *picks, size_t n_picks, size_t first, size_t max_picks,
                      tr_group *groups, size_t max_groups, size_t *next)
{
    size_t n_groups = 0;
    size_t end = n_picks - first > max_picks ? first + max_picks : n_picks;
    size_t i = first;

    while (i < end && n_groups < max_groups) {
        tr_group g = { picks[i].expert, (uint32_t)i, 0 };
        while (i < end && picks[i].expert == g.expert) {
            i++;
            g.n++;
        }
        groups[n_groups++] = g;
    }
    *next = i;
    return n_groups;
}
