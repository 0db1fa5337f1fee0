/* fault_rule.c - names and what goes together.
 * SPDX-License-Identifier: Apache-2.0 */
#include "proto/fault_rule.h"

#include "proto/limits.h"

enum { TIME = 1 << TR_FAULT_AT_TIME, SHARE = 1 << TR_FAULT_AT_SHARE, READ = 1 << TR_FAULT_AT_READ };

static const struct {
    const char *name;
    unsigned moments;
} kinds[TR_FAULT_N_KINDS] = {
    [TR_FAULT_KILL] = { "kill", TIME | SHARE | READ },
    [TR_FAULT_STOP] = { "stop", TIME | SHARE | READ },
    [TR_FAULT_EXIT] = { "exit", TIME | SHARE | READ },
    [TR_FAULT_MUTE] = { "mute", TIME | SHARE },
    [TR_FAULT_DELAY] = { "delay", SHARE },
    [TR_FAULT_DROP] = { "drop", SHARE },
    [TR_FAULT_DUPLICATE] = { "duplicate", SHARE },
    [TR_FAULT_CORRUPT] = { "corrupt", SHARE },
    [TR_FAULT_NAN] = { "not-a-number", SHARE },
    [TR_FAULT_SLOW_DISK] = { "slow-disk", READ },
    [TR_FAULT_READ_ERROR] = { "read-error", READ },
    [TR_FAULT_NO_MEMORY] = { "no-memory", READ },
    [TR_FAULT_CUT] = { "cut", TIME | SHARE | READ },
};

const char *tr_fault_kind_name(tr_fault_kind kind)
{
    return kinds[kind].name;
}

const char *tr_fault_moment_name(tr_fault_moment moment)
{
    static const char *const name[TR_FAULT_N_MOMENTS] = { "time", "share", "read" };

    return name[moment];
}

const char *tr_fault_message_name(tr_fault_message message)
{
    return message == TR_FAULT_OF_SHARE ? "share" : "answer";
}

bool tr_fault_is_of_messages(tr_fault_kind kind)
{
    return kind >= TR_FAULT_DELAY && kind <= TR_FAULT_CORRUPT;
}

bool tr_fault_fits(tr_fault_kind kind, tr_fault_moment moment)
{
    return (kinds[kind].moments & (1u << moment)) != 0;
}

bool tr_fault_rule_is_sound(const tr_fault_rule *r)
{
    return r->kind < TR_FAULT_N_KINDS && r->moment < TR_FAULT_N_MOMENTS &&
           tr_fault_fits(r->kind, r->moment) && r->after_ms <= TR_FAULT_MAX_MS &&
           r->ms <= TR_FAULT_MAX_MS && r->per_million >= 1 && r->per_million <= TR_FAULT_ALWAYS &&
           r->times >= 1 && r->message < TR_FAULT_N_MESSAGES &&
           (r->message == TR_FAULT_OF_ANSWER || tr_fault_is_of_messages(r->kind)) &&
           (r->layer < TR_MAX_LAYERS || r->layer == TR_FAULT_ANY_LAYER);
}
