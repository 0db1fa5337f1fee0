/* fuzz_fault_plan.c - no bytes make the reader of fault plans crash, leak or hang, and what it
 * accepts can be sent to a worker.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/fault_plan.h"

#include "base/check.h"
#include "proto/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* All of it is for one worker, which reads what was written. */
static void check_wire(const tr_fault_plan *p)
{
    static uint8_t buffer[TR_MAX_CONTROL];
    tr_control out = { .kind = TR_CONTROL_FAULTS }, in;
    size_t size;

    out.faults.n = p->n;
    for (uint32_t i = 0; i < p->n; i++)
        out.faults.rule[i] = p->fault[i].rule;
    TR_CHECK(tr_wire_pack(&out, buffer, sizeof buffer, &size) == TR_OK);
    TR_CHECK(tr_wire_unpack((tr_bytes){ buffer, size }, &in) == TR_OK);
    TR_CHECK(in.kind == TR_CONTROL_FAULTS);
    TR_CHECK(in.faults.n == p->n);
    for (uint32_t i = 0; i < p->n; i++) {
        const tr_fault_rule *a = &p->fault[i].rule;
        const tr_fault_rule *b = &in.faults.rule[i];
        TR_CHECK(a->kind == b->kind && a->moment == b->moment && a->nth == b->nth);
        TR_CHECK(a->layer == b->layer && a->times == b->times && a->ms == b->ms);
        TR_CHECK(a->per_million == b->per_million && a->seed == b->seed);
        TR_CHECK(a->after_ms == b->after_ms && a->message == b->message);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tr_fault_plan *p = NULL;
    char reason[256];

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_fault_plan_parse("fuzz.yaml", (tr_bytes){ data, size }, &p);
    tr_fail_capture_end();

    if (st != TR_OK) {
        TR_CHECK(p == NULL);
        TR_CHECK(reason[0] != '\0');
        return 0;
    }
    TR_CHECK(p->n >= 1);
    TR_CHECK(p->n <= TR_MAX_FAULTS);
    for (uint32_t i = 0; i < p->n; i++) {
        TR_CHECK(p->fault[i].worker <= TR_MAX_WORKERS);
        TR_CHECK(tr_fault_rule_is_sound(&p->fault[i].rule));
    }
    check_wire(p);
    tr_fault_plan_free(&p);
    return 0;
}
