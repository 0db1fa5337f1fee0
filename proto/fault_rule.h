/* fault_rule.h - what a process is to do wrong, and when: a line of a fault plan.
 *
 * A rule is of one moment: time (whatever the worker does), share (one has come; the answer is due)
 * or read (of a piece of an expert's weights).  At each such moment at which its conditions hold
 * it happens with its probability, until it has happened `times` times.  docs/reliability.md shows
 * plans.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_PROTO_FAULT_RULE_H
#define TR_PROTO_FAULT_RULE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    TR_FAULT_KILL,      /* SIGKILL for itself */
    TR_FAULT_STOP,      /* it hangs for ms; 0: SIGSTOP, for ever */
    TR_FAULT_EXIT,      /* it ends with status 1 */
    TR_FAULT_MUTE,      /* it says nothing on the control plane for ms */
    TR_FAULT_DELAY,     /* the message arrives ms later */
    TR_FAULT_DROP,      /* it does not arrive */
    TR_FAULT_DUPLICATE, /* it arrives twice */
    TR_FAULT_CORRUPT,   /* with a flipped bit */
    TR_FAULT_NAN,       /* with a number that is none, under a right checksum */
    TR_FAULT_SLOW_DISK, /* the read takes ms longer */
    TR_FAULT_READ_ERROR,
    TR_FAULT_NO_MEMORY, /* there is no memory for it */
    TR_FAULT_CUT,       /* the link to it is cut for ms: what is sent arrives after that */
    TR_FAULT_N_KINDS
} tr_fault_kind;

typedef enum {
    TR_FAULT_AT_TIME,
    TR_FAULT_AT_SHARE,
    TR_FAULT_AT_READ,
    TR_FAULT_N_MOMENTS
} tr_fault_moment;

/* Which message is lost, late, doubled or damaged. */
typedef enum {
    TR_FAULT_OF_ANSWER,
    TR_FAULT_OF_SHARE,
    TR_FAULT_N_MESSAGES,
} tr_fault_message;

enum {
    TR_MAX_FAULTS = 64,        /* of one worker */
    TR_FAULT_MAX_MS = 3600000, /* of after_ms and ms */
    TR_FAULT_ALWAYS = 1000000, /* per_million */
    TR_FAULT_ANY_LAYER = UINT16_MAX,
};

typedef struct {
    tr_fault_kind kind;
    tr_fault_moment moment;
    uint32_t after_ms; /* since the worker began to load */
    uint32_t nth;      /* from this pass on (0 reads the prompt), or this read (0 is the first) */
    uint32_t layer;    /* of the share; or TR_FAULT_ANY_LAYER */
    uint32_t per_million;
    uint64_t seed;  /* of the probability */
    uint32_t times; /* at least 1 */
    uint32_t ms;
    tr_fault_message message;
} tr_fault_rule;

/* "kill", "read-error". */
const char *tr_fault_kind_name(tr_fault_kind kind);

/* "time", "share", "read". */
const char *tr_fault_moment_name(tr_fault_moment moment);

/* "answer", "share". */
const char *tr_fault_message_name(tr_fault_message message);

/* Kinds that a share on its way can suffer as well as an answer. */
bool tr_fault_is_of_messages(tr_fault_kind kind);

/* Kinds that can happen at a moment: a read can't be corrupted, say. */
bool tr_fault_fits(tr_fault_kind kind, tr_fault_moment moment);

/* Every number in its range, and the kind fits the moment and the message. */
bool tr_fault_rule_is_sound(const tr_fault_rule *r);

#endif
