/* faults.h - do wrong what a fault plan says.
 *
 * USE     tr_faults_init(&f, rules, n, worker, tell, ctx);     n 0: nothing ever happens
 *         tr_faults_at_time(&f);                               between messages
 *         fate = tr_faults_at_share(&f, pass, layer);          when a share has come
 *         tr_faults_await_link(&f);                            before anything is sent or taken
 *         if (tr_faults_are_muted(&f)) ...                     nothing on the control plane now
 *         tr_faults_fini(&f);
 *
 * Reads of weights meet their faults by themselves (base/fault.h): those of this thread, from init
 * to fini.
 *
 * tell is called ahead of each fault that happens, so that a report can say so; what ends or stops
 * the process waits a moment, so that the message gets away.
 *
 * THREAD  The worker's one thread.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_WORKER_FAULTS_H
#define TR_WORKER_FAULTS_H

#include "base/clock.h"
#include "base/fault.h"
#include "proto/fault_rule.h"

typedef struct {
    uint32_t n;
    tr_fault_rule rule[TR_MAX_FAULTS]; /* times counts down */
    uint64_t n_moments[TR_MAX_FAULTS]; /* at which its conditions held */
    uint32_t worker;
    uint32_t n_reads;
    tr_time begun, muted_until, cut_until;
    void (*tell)(void *ctx, uint32_t number, uint32_t nth);
    void *ctx;
    tr_fault_source source;
} tr_faults;

/* What becomes of a message. */
typedef struct {
    bool is_dropped, is_sent_twice, is_corrupted;
    bool is_not_a_number; /* of answers only */
    tr_time delay;
} tr_message_fate;

typedef struct {
    tr_message_fate share, answer;
} tr_share_fate;

void tr_faults_init(tr_faults *f, const tr_fault_rule *rules, uint32_t n, uint32_t worker,
                    void (*tell)(void *ctx, uint32_t number, uint32_t nth), void *ctx);
void tr_faults_fini(tr_faults *f);

void tr_faults_at_time(tr_faults *f);
tr_share_fate tr_faults_at_share(tr_faults *f, uint32_t pass, uint32_t layer);
bool tr_faults_are_muted(const tr_faults *f);

/* While the link is cut nothing gets through on either plane: sleep as long. */
void tr_faults_await_link(const tr_faults *f);

#endif
