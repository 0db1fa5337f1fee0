/* wire.h - control messages as plain structs, to and from bytes.
 *
 * USE     tr_control m = { .kind = TR_CONTROL_HELLO, .hello = { ... } };
 *         st = tr_wire_pack(&m, buffer, sizeof buffer, &size);
 *
 *         tr_control m;
 *         st = tr_wire_unpack(bytes, &m);         everything checked against limits.h
 *         switch (m.kind) ...
 *         tr_control_fini(&m);
 *
 * This is the only code that knows the generated protobuf functions.
 *
 * MEMORY  Texts are kept in the struct; an assignment owns its layers until it is taken over or
 *         tr_control_fini.
 * FAILS   TR_E_PROTOCOL  malformed, or a value out of its limits, with one line
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_PROTO_WIRE_H
#define TR_PROTO_WIRE_H

#include "base/bytes.h"
#include "base/status.h"
#include "proto/fault_rule.h"
#include "proto/limits.h"

enum {
    TR_PROTOCOL = 2, /* version of the conversation; see PROTOCOL.md */
    TR_KEY_SIZE = 32,
    TR_MAX_NAME = 64, /* bytes of a version, host or kernel name, final zero included */
    TR_MAX_KERNEL_TABLES = 16,
};

typedef struct {
    uint32_t protocol;
    char program[TR_MAX_NAME];
    uint64_t job;
    uint32_t worker;
    char endpoint[TR_MAX_TEXT];
    uint8_t server_public[TR_KEY_SIZE], worker_public[TR_KEY_SIZE], worker_secret[TR_KEY_SIZE];
    char model[TR_MAX_TEXT];
    uint32_t heartbeat_ms, silence_ms;
    struct {
        char endpoint[TR_MAX_TEXT]; /* "": shares come the way that the invite came */
        uint8_t server_public[TR_KEY_SIZE], worker_public[TR_KEY_SIZE], worker_secret[TR_KEY_SIZE];
    } data;
} tr_invite;

typedef struct {
    uint32_t protocol;
    char program[TR_MAX_NAME];
    uint32_t worker, pid;
    char host[TR_MAX_NAME];
    uint64_t model;
    uint64_t memory, memory_limit; /* of the host, and what the worker's groups may have of it */
    uint32_t cores, threads;
    uint32_t n_kernels;
    char kernels[TR_MAX_KERNEL_TABLES][TR_MAX_NAME];
} tr_hello;

/* The experts that a worker is to hold. */
typedef struct {
    uint32_t n;
    uint32_t *expert; /* [n], ascending */
} tr_layer_experts;

typedef struct {
    uint64_t job; /* not on the wire: from the invite */
    uint32_t epoch;
    char kernels[TR_MAX_NAME];
    bool exact;
    bool lazy; /* load an expert when a share asks for it */
    uint32_t max_rows;
    uint32_t n_layers;
    tr_layer_experts *layer; /* [n_layers] */
} tr_assignment;

typedef struct {
    uint64_t shares, rows, picks, busy_ns, frames_dropped, bytes_in, bytes_out, resident;
} tr_worker_stats;

typedef enum {
    TR_CONTROL_NONE,
    TR_CONTROL_HELLO,
    TR_CONTROL_REFUSE,
    TR_CONTROL_ASSIGN,
    TR_CONTROL_PROGRESS,
    TR_CONTROL_READY,
    TR_CONTROL_HEARTBEAT,
    TR_CONTROL_ALIVE,
    TR_CONTROL_FAILURE,
    TR_CONTROL_SHUTDOWN,
    TR_CONTROL_BYE,
    TR_CONTROL_LEAVE,
    TR_CONTROL_FAULTS,
    TR_CONTROL_INJECTED,
} tr_control_kind;

typedef struct {
    tr_control_kind kind;
    union {
        tr_hello hello;
        char reason[TR_MAX_TEXT]; /* REFUSE, FAILURE */
        tr_assignment assign;
        struct {
            uint64_t done, total;
        } progress;
        struct {
            uint32_t experts;
            uint64_t bytes;
        } ready;
        tr_worker_stats heartbeat;
        struct {
            bool failed, had_losses;
        } shutdown;
        struct {
            uint32_t n;
            tr_fault_rule rule[TR_MAX_FAULTS];
        } faults;
        struct {
            uint32_t number, nth;
        } injected;
    };
} tr_control;

/* *size is set to the bytes written; TR_E_PROTOCOL if size is too small or a value too large. */
tr_status tr_wire_pack(const tr_control *m, uint8_t *buffer, size_t size, size_t *used);
tr_status tr_wire_unpack(tr_bytes bytes, tr_control *out);
void tr_control_fini(tr_control *m);

tr_status tr_wire_pack_invite(const tr_invite *i, uint8_t *buffer, size_t size, size_t *used);
tr_status tr_wire_unpack_invite(tr_bytes bytes, tr_invite *out);

/* Room for experts lists: n_layers empty ones. */
tr_status tr_assignment_init(tr_assignment *a, uint32_t n_layers);
void tr_assignment_fini(tr_assignment *a);

#endif
