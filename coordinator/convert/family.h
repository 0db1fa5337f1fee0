/* family.h - what distinguishes the directories of one family of models from those of another.
 *
 * A family is a few tables: which keys of config.json become which keys of the GGUF file, which
 * values are the only ones that are understood, and which tensor becomes which.  They are read from
 * top to bottom; what is only a table needs no code.
 *
 * TO ADD ONE  write family_NAME.c with a `const tr_family tr_family_NAME`, list it in family.c, and
 *             teach tests/convert/to_hf.py the way back.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TR_COORDINATOR_CONVERT_FAMILY_H
#define TR_COORDINATOR_CONVERT_FAMILY_H

#include "compute/gguf_write.h"
#include "coordinator/convert/json_file.h"

/* What shapes are made of; the numbers are read from config.json. */
typedef enum {
    TR_SIZE_NONE,
    TR_SIZE_ONE,
    TR_SIZE_DIM,
    TR_SIZE_VOCAB,
    TR_SIZE_LAYERS,
    TR_SIZE_DENSE_LAYERS, /* the first ones, without experts; all where there are none */
    TR_SIZE_HEADS,
    TR_SIZE_KV_HEADS,
    TR_SIZE_HEAD,     /* values of a head */
    TR_SIZE_ROTATED,  /* of them, those that are rotated */
    TR_SIZE_Q,        /* all heads of queries */
    TR_SIZE_KV,       /* all heads of keys, or of values */
    TR_SIZE_ATTENDED, /* what all heads give */
    TR_SIZE_Q_LOW,    /* latent attention: queries in the first of two steps */
    TR_SIZE_LATENT,
    TR_SIZE_LATENT_ROTATED, /* the latent, and the key that all heads share */
    TR_SIZE_LATENT_UP,      /* what a latent becomes, of all heads */
    TR_SIZE_FFN,
    TR_SIZE_EXPERTS,
    TR_SIZE_EXPERT_FFN,
    TR_SIZE_TWO_EXPERT_FFN, /* gate and up in one */
    TR_SIZE_SHARED_FFN,
    TR_SIZE_COUNT,
} tr_size;

typedef enum { TR_KEY_COUNT, TR_KEY_REAL, TR_KEY_FLAG } tr_key_kind;

/* A key of config.json; the table ends with one without a name. */
typedef struct {
    const char *json;
    const char *gguf; /* behind "ARCH."; NULL: not written */
    tr_key_kind kind;
    tr_size size; /* a count may be a size, too */
    bool is_optional;
} tr_config_key;

/* A key that has one understood value, or one of two; all as JSON text. */
typedef struct {
    const char *json;
    const char *value, *or_value; /* or_value may be NULL */
    const char *absent;           /* what it means when it is not there */
} tr_config_demand;

/* How the rows of a tensor follow from those of the directory's. */
typedef enum {
    TR_ROWS_AS_THEY_ARE,
    /* The directory's code rotates value i of a head with value i + n/2, files of this architecture
     * value 2i with value 2i + 1: the rows of queries and keys change places within each head. */
    TR_ROWS_INTERLEAVED,
    /* Gate and up of each expert are one tensor: this one's rows are the first or the second half,
     * or every other one. */
    TR_ROWS_FIRST_HALF,
    TR_ROWS_SECOND_HALF,
    TR_ROWS_EVEN,
    TR_ROWS_ODD,
} tr_rows;

enum {
    TR_RULE_ONCE = 1,     /* of the model, not of each layer */
    TR_RULE_DENSE = 2,    /* of layers without experts only */
    TR_RULE_SPARSE = 4,   /* of layers with experts only */
    TR_RULE_OPTIONAL = 8, /* left out where the directory has none */
    TR_RULE_MXFP4 = 16,   /* two tensors, NAME_blocks and NAME_scales */
    TR_RULE_UNTIED = 32,  /* only if config.json does not say tie_word_embeddings */
    TR_RULE_Q_LOW = 64,   /* only with queries in two steps */
    TR_RULE_NO_Q_LOW = 128,
};

/* One tensor; the table ends with one without a name. */
typedef struct {
    const char *hf;   /* behind "model.layers.N."; with %e it is one tensor for each expert */
    const char *gguf; /* behind "blk.N." */
    tr_size shape[3]; /* of the directory's, the outermost first; a first ONE is left out */
    unsigned flags;
    tr_rows rows;
} tr_tensor_rule;

enum { TR_FAMILY_TABLES = 6 };

typedef struct tr_hf_model tr_hf_model;

typedef struct {
    const char *model_type; /* in config.json */
    const char *arch;       /* general.architecture */
    const tr_config_key *keys;
    const tr_config_demand *demands;
    const tr_tensor_rule *rules[TR_FAMILY_TABLES];
    bool has_layers_behind; /* layers past the last predict further tokens, and are left out */

    /* What tables can't say; runs after the keys.  Sets sizes and writes metadata. */
    tr_status (*configure)(tr_hf_model *m);
} tr_family;

/* A directory whose config.json is being read. */
struct tr_hf_model {
    const char *dir;
    const tr_family *family;
    const tr_json_file *config;
    tr_gguf_writer *w;
    uint64_t size[TR_SIZE_COUNT];
    bool is_tied;         /* the embedding is the output matrix, too */
    uint32_t f8_block[2]; /* rows and columns that share a scale; 0: no F8 */
    float rope_base;
    float *rope_factors; /* [ROTATED / 2], new, or NULL */
};

/* The family of m->config, m->family. TR_E_UNSUPPORTED names an unknown one and lists the known. */
tr_status tr_family_find(tr_hf_model *m);

/* Read the configuration: sizes, and metadata into m->w. */
tr_status tr_family_read(tr_hf_model *m);

/* The i-th, or NULL after the last. */
const tr_family *tr_family_at(size_t i);

/* ---- for families --------------------------------------------------------------------------- */

/* Tables that several have in common. */
extern const tr_tensor_rule tr_rules_model[];       /* embedding, last norm, output */
extern const tr_tensor_rule tr_rules_attention[];   /* norms, q, k, v, output */
extern const tr_tensor_rule tr_rules_interleaved[]; /* the same, for NORM rotation */
extern const tr_tensor_rule tr_rules_qkv_bias[];
extern const tr_tensor_rule tr_rules_head_norms[]; /* of queries and keys, each head */
extern const tr_tensor_rule tr_rules_dense[];      /* gate, up, down of dense layers */
extern const tr_tensor_rule tr_rules_experts[];    /* router and experts named mlp.experts.N */

/* Write ARCH.name. */
void tr_family_put_count(tr_hf_model *m, const char *name, uint64_t v);
void tr_family_put_real(tr_hf_model *m, const char *name, float v);
void tr_family_put_text(tr_hf_model *m, const char *name, const char *v);

/* Heads of queries, keys and values that are all of one size, head_dim or hidden_size / heads. */
tr_status tr_family_heads(tr_hf_model *m);

/* Base and scaling of the rotary embedding, in any place where config.json has them. */
tr_status tr_family_rope(tr_hf_model *m);

/* The object with the scaling's numbers and its kind, "default" where there is none. */
const json_t *tr_family_rope_scaling(const tr_hf_model *m, const char **kind);

#endif
