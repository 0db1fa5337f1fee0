/* fuzz_config.c - no bytes make the reader of cluster files crash, leak or hang, and what it
 * accepts keeps the promises of config.h.
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cluster/config.h"

#include "base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tr_cluster_config *c = NULL;
    char reason[256];

    tr_fail_capture_begin(reason, sizeof reason);
    tr_status st = tr_cluster_config_parse("fuzz.yaml", (tr_bytes){ data, size }, &c);
    tr_fail_capture_end();

    if (st != TR_OK) {
        TR_CHECK(c == NULL);
        TR_CHECK(reason[0] != '\0');
        return 0;
    }
    TR_CHECK(c->n_hosts > 0);
    TR_CHECK(c->coordinator < c->n_hosts);
    TR_CHECK(c->n_workers > 0);
    TR_CHECK(c->n_workers <= TR_MAX_WORKERS);
    for (size_t i = 0; i < c->n_hosts; i++)
        TR_CHECK(c->host[i].name[0] != '-');
    for (size_t i = 0; c->experts && i < c->n_workers; i++)
        TR_CHECK(c->experts[i] > 0);
    tr_cluster_config_free(&c);
    return 0;
}
