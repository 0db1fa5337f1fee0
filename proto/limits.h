/* limits.h - a bound on everything that crosses a process boundary.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_PROTO_LIMITS_H
#define TR_PROTO_LIMITS_H

#include <assert.h>
#include <stdint.h>

enum {
    TR_MAX_WORKERS = 4096,
    TR_MAX_LAYERS = 1024,
    TR_MAX_EXPERTS = 4096, /* of one layer */
    TR_MAX_TOP_K = 64,     /* picks of one row */
    TR_MAX_ROWS = 4096,    /* of one step */
    TR_MAX_DIM = 65536,    /* of one row */
    TR_MAX_PICKS = TR_MAX_ROWS * TR_MAX_TOP_K,
    TR_MAX_MESSAGE = 1 << 30, /* bytes of one frame between processes */
    TR_MAX_CONTROL = 1 << 20, /* bytes of one control message */
    TR_MAX_TEXT = 1024,       /* bytes of a name, path or reason in a control message */
};

static_assert((uint64_t)TR_MAX_PICKS <= UINT32_MAX, "picks are counted in 32 bits");

#endif
