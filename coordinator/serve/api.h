/* api.h - what a client asks for, read from the JSON of the OpenAI interface and checked.
 *
 * USE     tr_api_request r;
 *         st = tr_api_parse(&model, TR_API_CHAT, body, &r);
 *         tr_api_fini(&r);
 *
 * Unknown members are passed over, as clients of that interface expect; members that are known and
 * would change the answer, but are not served here (tools, suffix, best_of), are refused.
 *
 * FAILS   TR_E_REQUEST      one line that names the member, what it is, and what it may be
 *         TR_E_UNSUPPORTED  another model than the one that is served
 *         TR_E_MEMORY
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_SERVE_API_H
#define TR_COORDINATOR_SERVE_API_H

#include "coordinator/text/chat.h"
#include "coordinator/text/logit_edit.h"
#include "coordinator/text/sampler.h"
#include "coordinator/text/stop.h"

#include <jansson.h>

enum {
    TR_API_MAX_CHOICES = 16,     /* n */
    TR_API_MAX_MESSAGES = 4096,  /* of a conversation */
    TR_API_MAX_BIAS = 1024,      /* entries of logit_bias */
    TR_API_MAX_TOP_LOGPROBS = 20 /* as in the interface */
};

typedef enum { TR_API_COMPLETION, TR_API_CHAT } tr_api_kind;

/* What requests are about. */
typedef struct {
    const char *name; /* as clients know it */
    const tr_tokenizer *tokenizer;
    const tr_chat *chat;
    size_t context;        /* positions of one sequence */
    size_t default_tokens; /* max_tokens of completions that do not say */
    size_t max_text;       /* bytes: a longer text has more tokens than context in any case */
} tr_api_model;

typedef struct {
    tr_api_kind kind;
    json_t *root; /* owns the strings below */
    uint32_t *prompt;
    size_t n_prompt;
    size_t max_tokens, n;
    tr_sampling sampling;
    bool has_seed;
    tr_logit_edit edit;
    tr_bytes stop[TR_STOP_MAX_STRINGS];
    size_t n_stop;
    bool stream, include_usage, echo;
    bool wants_json; /* the answer is JSON that satisfies schema */
    json_t *schema;  /* of root; NULL: any object */
    bool wants_log_probs;
    size_t n_alternatives;
    int32_t priority;
} tr_api_request;

tr_status tr_api_parse(const tr_api_model *m, tr_api_kind kind, tr_bytes body, tr_api_request *out);
void tr_api_fini(tr_api_request *r);

/* A body that is one JSON object; *out is a new reference. */
tr_status tr_api_object(tr_bytes body, json_t **out);

/* Refuses what need not be tokenised, since it can't fit.  name: of the member. */
tr_status tr_api_check_text(const tr_api_model *m, const char *name, size_t size);

/* A new string: bytes that are no UTF-8 come out as U+FFFD. */
json_t *tr_api_text(tr_bytes bytes);

#endif
