/* fault_plan.h - what is to go wrong in a run, from a YAML file.
 *
 *     faults:
 *       - fault: kill          # what: the names of proto/fault_rule.h
 *         worker: 2            # who: a number, or all
 *         pass: 10             # when: from this pass on (0 reads the prompt) ...
 *         layer: 3             # ... at a share of this layer,
 *         after_ms: 1500       # ... so long after the worker began to load,
 *         probability: 0.01    # ... with this probability at each occasion
 *         seed: 7              # ... drawn from this seed
 *         at: share            # time, share or read; what the fault and its conditions suggest
 *         read: 12             # with at read: from this piece of weights on
 *         times: 1             # how often
 *         ms: 200              # how long
 *         message: answer      # or share: which is delayed, lost, doubled or damaged
 *
 * USE     st = tr_fault_plan_load(path, &plan);
 *         tr_fault_plan_free(&plan);
 *
 * FAILS   TR_E_IO, TR_E_MEMORY, TR_E_USAGE
 *         TR_E_CONFIG  one line: file, place, what would be right
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CLUSTER_FAULT_PLAN_H
#define TR_COORDINATOR_CLUSTER_FAULT_PLAN_H

#include "base/bytes.h"
#include "base/status.h"
#include "proto/fault_rule.h"

enum { TR_FAULT_PLAN_MAX_FILE = 1 << 18 };

typedef struct {
    uint32_t n; /* 1..TR_MAX_FAULTS */
    struct {
        uint32_t worker; /* 0: all */
        tr_fault_rule rule;
    } fault[TR_MAX_FAULTS];
} tr_fault_plan;

tr_status tr_fault_plan_load(const char *path, tr_fault_plan **out);

/* As an option asks for it: path NULL is no plan, *out is then NULL; TR_E_USAGE without workers. */
tr_status tr_fault_plan_open(const char *path, uint32_t n_workers, tr_fault_plan **out);

/* name is the file's, for errors. */
tr_status tr_fault_plan_parse(const char *name, tr_bytes text, tr_fault_plan **out);
void tr_fault_plan_free(tr_fault_plan **p);

#endif
