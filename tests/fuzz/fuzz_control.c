/* fuzz_control.c - no bytes make the reader of control messages crash, and what it accepts can be
 * said again: packed and read, it is the same.
 *
 * The first byte chooses: even a control message, odd an invite.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "proto/wire.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t first[2 * TR_MAX_CONTROL], second[2 * TR_MAX_CONTROL];

static void control(tr_bytes bytes)
{
    tr_control m;
    tr_control again;
    size_t n;
    size_t n_again;

    if (tr_wire_unpack(bytes, &m) != TR_OK)
        return;
    TR_CHECK(tr_wire_pack(&m, first, sizeof first, &n) == TR_OK);
    TR_CHECK(tr_wire_unpack((tr_bytes){ first, n }, &again) == TR_OK);
    TR_CHECK(again.kind == m.kind);
    TR_CHECK(tr_wire_pack(&again, second, sizeof second, &n_again) == TR_OK);
    TR_CHECK(n == n_again);
    TR_CHECK(memcmp(first, second, n) == 0);
    tr_control_fini(&again);
    tr_control_fini(&m);
}

static void invite(tr_bytes bytes)
{
    tr_invite i;
    tr_invite again;
    size_t n;
    size_t n_again;

    if (tr_wire_unpack_invite(bytes, &i) != TR_OK)
        return;
    TR_CHECK(i.worker >= 1);
    TR_CHECK(i.heartbeat_ms <= i.silence_ms);
    TR_CHECK(memchr(i.data.endpoint, '\0', sizeof i.data.endpoint) != NULL);
    TR_CHECK(tr_wire_pack_invite(&i, first, sizeof first, &n) == TR_OK);
    TR_CHECK(tr_wire_unpack_invite((tr_bytes){ first, n }, &again) == TR_OK);
    TR_CHECK(tr_wire_pack_invite(&again, second, sizeof second, &n_again) == TR_OK);
    TR_CHECK(n == n_again);
    TR_CHECK(memcmp(first, second, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char reason[512];

    if (size == 0)
        return 0;
    tr_bytes bytes = { data + 1, size - 1 };
    tr_fail_capture_begin(reason, sizeof reason);
    if (data[0] % 2)
        invite(bytes);
    else
        control(bytes);
    tr_fail_capture_end();
    return 0;
}
