/* fuzz_schedule.c - any text is a schedule, which is printed and read as the same, or one line says
 * why not.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "coordinator/chaos/schedule.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const tr_schedule *s)
{
    tr_schedule again;
    char *text = NULL;
    size_t size;

    FILE *f = open_memstream(&text, &size);
    TR_CHECK(f != NULL);
    tr_schedule_print(f, s);
    fclose(f);
    TR_CHECK(tr_schedule_parse("again", text, &again) == TR_OK);
    TR_CHECK(again.seed == s->seed && again.n_workers == s->n_workers && again.n == s->n);
    for (size_t i = 0; i < s->n; i++) {
        const tr_sim_fault *a = &s->fault[i];
        const tr_sim_fault *b = &again.fault[i];
        TR_CHECK(a->what == b->what && a->from == b->from && a->to == b->to && a->nth == b->nth);
        TR_CHECK(a->at == b->at && a->duration == b->duration && a->byte == b->byte);
    }
    tr_schedule_fini(&again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char line[256] = "";
    tr_schedule s;

    char *text = malloc(size + 1);
    TR_CHECK(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    tr_fail_capture_begin(line, sizeof line);
    tr_status st = tr_schedule_parse("fuzz", text, &s);
    tr_fail_capture_end();
    TR_CHECK(st == TR_OK || line[0] != '\0');
    if (st == TR_OK) {
        check_again(&s);
        tr_schedule_fini(&s);
    }
    free(text);
    return 0;
}
