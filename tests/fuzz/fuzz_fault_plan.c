/* fuzz_fault_plan.c - no bytes make the reader of fault plans crash, leak or hang, and what it
 * accepts can be sent to a worker.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/fault_plan.h"

#include "base/check.h"
#include "proto/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
    tr_fault_plan_free(&p);
    return 0;
}
