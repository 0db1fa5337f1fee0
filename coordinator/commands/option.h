/* option.h - read the value of an option, or say what it may be.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_COMMANDS_OPTION_H
#define TR_COORDINATOR_COMMANDS_OPTION_H

#include "base/status.h"
#include "coordinator/model/type_rules.h"

#include <stdbool.h>
#include <stdint.h>

/* Digits alone, within low..high; TR_E_USAGE names the option (without its dashes), the text and
 * the range. */
tr_status tr_option_number(const char *name, const char *text, uint64_t low, uint64_t high,
                           uint64_t *out);

/* The name of a computable type; what is the option with its dashes, or the argument. */
tr_status tr_option_type(const char *what, const char *text, tr_type *out);

/* A type that the cache of keys and values can have. */
tr_status tr_option_kv(const char *text, tr_type *out);

/* GLOB=TYPE as one more of at most max rules; text is cut at its last '=', and the rule keeps it.
 */
tr_status tr_option_type_rule(char *text, tr_type_rule *rules, size_t max, size_t *n_rules);

/* How workers get their rows: auto and mpi, or zmq. */
tr_status tr_option_transport(const char *text, bool *by_zmq);

#endif
