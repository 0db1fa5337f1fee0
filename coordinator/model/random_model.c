/* random_model.c - stream random blocks of a shape's tensors into a GGUF file.
 *
 * Weights are drawn as blocks, not as floats that are then quantised: in Q8_0 and Q4_0 the codes
 * are random bits and all blocks of a tensor share one scale, in other quantised types blocks are
 * drawn from a few hundred.  Scales are chosen so that the weights' variance is gain^2 / inputs and
 * activations stay of the order of one.  That is as fast as the disk.
 *
 * Their mean must be zero.  A mean shared by all weights of a matrix adds the same value to each
 * output; layer by layer it grows until all rows look alike and the router sends all of them to
 * the same experts.  So the most negative code, which has no positive twin, is written as zero.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/model/random_model.h"

#include "base/bytes.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/rng.h"
#include "compute/blocks.h"
#include "compute/gguf_write.h"
#include "compute/quant.h"
#include "proto/limits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 20, BATCH = 256, MAX_TENSORS = 24 * TR_MAX_LAYERS, N_BYTES = 256 };

/* What a tensor is filled with. */
typedef struct {
    tr_type type;
    uint64_t n;  /* elements */
    float sigma; /* standard deviation */
    float mean;  /* float types only */
} filling;

typedef struct {
    const tr_random_model *o;
    tr_gguf_writer *w;
    filling *tensor; /* [n_tensors] in file order */
    size_t n_tensors;
    uint8_t *chunk; /* [CHUNK] */
    tr_progress bar;
    uint64_t done;
} synth;

/* Whose layers are of their own kind: arch_gpt2.c. */
static bool is_gpt2(const tr_model_shape *m)
{
    return strcmp(m->arch, "gpt2") == 0;
}

/* ---- metadata ------------------------------------------------------------------------- */

static void put_number(synth *s, const char *name, uint32_t v)
{
    char key[128];

    snprintf(key, sizeof key, "%s.%s", s->o->shape.arch, name);
    tr_gguf_put_u32(s->w, key, v);
}

static void put_real(synth *s, const char *name, float v)
{
    char key[128];

    snprintf(key, sizeof key, "%s.%s", s->o->shape.arch, name);
    tr_gguf_put_f32(s->w, key, v);
}

/* A byte as byte-level BPE writes it: printable ones stand for themselves, the others for the
 * characters from U+0100 on, in order (Radford et al., GPT-2). */
static size_t byte_token(unsigned byte, char *out)
{
    unsigned code = byte;

    if (byte < 33 || (byte > 126 && byte < 161) || byte == 173) {
        code = 256;
        for (unsigned b = 0; b < byte; b++)
            code += b < 33 || (b > 126 && b < 161) || b == 173;
    }
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    return 2;
}

/* 256 bytes, fillers up to the size, one end token.  No merges: each byte is a token. */
static tr_status put_vocabulary(synth *s)
{
    uint32_t n = s->o->shape.n_vocab;
    enum { ROOM = 24 };
    char *text = malloc((size_t)n * ROOM);
    tr_bytes *token = calloc(n, sizeof *token);
    int32_t *kind = calloc(n, sizeof *kind);
    tr_status st = TR_OK;

    if (!text || !token || !kind)
        st = tr_fail(TR_E_MEMORY, "synth: no memory for %u tokens", n);
    for (uint32_t i = 0; i < n && st == TR_OK; i++) {
        char *at = text + (size_t)i * ROOM;
        size_t size =
            i < N_BYTES
                ? byte_token(i, at)
                : (size_t)snprintf(at, ROOM, i + 1 == n ? "<|endoftext|>" : "<|unused%u|>", i);
        token[i] = (tr_bytes){ (const uint8_t *)at, size };
        kind[i] = i < N_BYTES ? 1 : i + 1 == n ? 3 : 5; /* normal, control, unused */
    }
    if (st == TR_OK) {
        tr_gguf_put_string(s->w, "tokenizer.ggml.model", tr_bytes_of("gpt2"));
        tr_gguf_put_string(s->w, "tokenizer.ggml.pre", tr_bytes_of("gpt-2"));
        tr_gguf_put_strings(s->w, "tokenizer.ggml.tokens", token, n);
        tr_gguf_put_i32s(s->w, "tokenizer.ggml.token_type", kind, n);
        tr_gguf_put_strings(s->w, "tokenizer.ggml.merges", NULL, 0);
        tr_gguf_put_u32(s->w, "tokenizer.ggml.eos_token_id", n - 1);
        tr_gguf_put_bool(s->w, "tokenizer.ggml.add_bos_token", false);
    }
    free(kind);
    free(token);
    free(text);
    return st;
}

static tr_status put_metadata(synth *s)
{
    const tr_model_shape *m = &s->o->shape;
    char name[96];

    snprintf(name, sizeof name, "random weights in the shape of %s", m->name);
    tr_gguf_put_string(s->w, "general.architecture", tr_bytes_of(m->arch));
    tr_gguf_put_string(s->w, "general.name", tr_bytes_of(name));
    put_number(s, "block_count", m->n_layers);
    put_number(s, "context_length", m->context);
    put_number(s, "embedding_length", m->dim);
    put_number(s, "feed_forward_length", m->ffn);
    put_number(s, "attention.head_count", m->n_heads);
    if (is_gpt2(m)) {
        put_real(s, "attention.layer_norm_epsilon", m->norm_eps);
        return put_vocabulary(s);
    }
    put_number(s, "attention.head_count_kv", m->n_kv_heads);
    put_number(s, "attention.key_length", m->head_dim);
    put_number(s, "attention.value_length", m->head_dim);
    put_number(s, "rope.dimension_count", m->head_dim);
    if (m->n_experts > 0) {
        put_number(s, "expert_feed_forward_length", m->ffn);
        put_number(s, "expert_count", m->n_experts);
        put_number(s, "expert_used_count", m->top_k);
    }
    if (m->shared_ffn > 0)
        put_number(s, "expert_shared_feed_forward_length", m->shared_ffn);
    put_real(s, "attention.layer_norm_rms_epsilon", m->norm_eps);
    put_real(s, "rope.freq_base", m->rope_base);
    return put_vocabulary(s);
}

/* ---- tensors -------------------------------------------------------------------------- */

static void put_tensor(synth *s, const char *name, const uint64_t *dim, uint32_t n_dims, filling f)
{
    f.n = dim[0] * dim[1] * dim[2];
    tr_gguf_put_tensor(s->w, name, f.type, dim, n_dims);
    s->tensor[s->n_tensors++] = f;
}

static void put_vector(synth *s, const char *name, uint64_t n)
{
    put_tensor(s, name, (uint64_t[]){ n, 1, 1 }, 1, (filling){ TR_TYPE_F32, 0, 0.1f, 1.0f });
}

static void put_matrix(synth *s, const char *name, tr_type type, uint64_t in, uint64_t out,
                       float gain)
{
    put_tensor(s, name, (uint64_t[]){ in, out, 1 }, 2,
               (filling){ type, 0, gain / sqrtf((float)in), 0.0f });
}

static void put_experts(synth *s, const char *name, uint64_t in, uint64_t out, float gain)
{
    put_tensor(s, name, (uint64_t[]){ in, out, s->o->shape.n_experts }, 3,
               (filling){ s->o->experts, 0, gain / sqrtf((float)in), 0.0f });
}

static const char *name_in(uint32_t layer, const char *part, char *name, size_t size)
{
    snprintf(name, size, "blk.%u.%s.weight", layer, part);
    return name;
}

/* Of mean 0, unlike the weights of a norm. */
static void put_bias(synth *s, uint32_t layer, const char *part, uint64_t n)
{
    char name[64];

    snprintf(name, sizeof name, "blk.%u.%s.bias", layer, part);
    put_tensor(s, name, (uint64_t[]){ n, 1, 1 }, 1, (filling){ TR_TYPE_F32, 0, 0.1f, 0.0f });
}

static void put_attention(synth *s, uint32_t i)
{
    const tr_model_shape *m = &s->o->shape;
    uint64_t q = (uint64_t)m->n_heads * m->head_dim;
    uint64_t kv = (uint64_t)m->n_kv_heads * m->head_dim;
    bool is_whole = m->qk_norm == TR_QK_NORM_WHOLE;
    tr_type dense = s->o->dense;
    char name[64];

    put_vector(s, name_in(i, "attn_norm", name, sizeof name), m->dim);
    put_matrix(s, name_in(i, "attn_q", name, sizeof name), dense, m->dim, q, 1.0f);
    put_matrix(s, name_in(i, "attn_k", name, sizeof name), dense, m->dim, kv, 1.0f);
    put_matrix(s, name_in(i, "attn_v", name, sizeof name), dense, m->dim, kv, 1.0f);
    if (m->has_qkv_bias) {
        put_bias(s, i, "attn_q", q);
        put_bias(s, i, "attn_k", kv);
        put_bias(s, i, "attn_v", kv);
    }
    if (m->qk_norm != TR_QK_NORM_NONE) {
        put_vector(s, name_in(i, "attn_q_norm", name, sizeof name), is_whole ? q : m->head_dim);
        put_vector(s, name_in(i, "attn_k_norm", name, sizeof name), is_whole ? kv : m->head_dim);
    }
    put_matrix(s, name_in(i, "attn_output", name, sizeof name), dense, q, m->dim, 1.0f);
    put_vector(s, name_in(i, "ffn_norm", name, sizeof name), m->dim);
}

/* A layer norm's, of weight and bias. */
static void put_layer_norm(synth *s, uint32_t i, const char *part)
{
    char name[64];

    put_vector(s, name_in(i, part, name, sizeof name), s->o->shape.dim);
    put_bias(s, i, part, s->o->shape.dim);
}

/* A matrix and what is added to its products. */
static void put_affine(synth *s, uint32_t i, const char *part, uint64_t in, uint64_t out,
                       float gain)
{
    char name[64];

    put_matrix(s, name_in(i, part, name, sizeof name), s->o->dense, in, out, gain);
    put_bias(s, i, part, out);
}

static void put_gpt2_layer(synth *s, uint32_t i)
{
    const tr_model_shape *m = &s->o->shape;

    put_layer_norm(s, i, "attn_norm");
    put_affine(s, i, "attn_qkv", m->dim, 3 * (uint64_t)m->dim, 1.0f);
    put_affine(s, i, "attn_output", m->dim, m->dim, 1.0f);
    put_layer_norm(s, i, "ffn_norm");
    put_affine(s, i, "ffn_up", m->dim, m->ffn, 1.0f);
    put_affine(s, i, "ffn_down", m->ffn, m->dim, 1.5f);
}

static void put_shared(synth *s, uint32_t i)
{
    const tr_model_shape *m = &s->o->shape;
    uint64_t ffn = m->shared_ffn;
    tr_type dense = s->o->dense;
    char name[64];

    put_matrix(s, name_in(i, "ffn_gate_shexp", name, sizeof name), dense, m->dim, ffn, 1.0f);
    put_matrix(s, name_in(i, "ffn_up_shexp", name, sizeof name), dense, m->dim, ffn, 1.0f);
    put_matrix(s, name_in(i, "ffn_down_shexp", name, sizeof name), dense, ffn, m->dim, 1.5f);
    put_tensor(s, name_in(i, "ffn_gate_inp_shexp", name, sizeof name), (uint64_t[]){ m->dim, 1, 1 },
               1, (filling){ TR_TYPE_F32, 0, 1.0f / sqrtf((float)m->dim), 0.0f });
}

static void put_layer(synth *s, uint32_t i)
{
    const tr_model_shape *m = &s->o->shape;
    char name[64];

    if (is_gpt2(m)) {
        put_gpt2_layer(s, i);
        return;
    }
    put_attention(s, i);
    if (m->n_experts == 0) {
        put_matrix(s, name_in(i, "ffn_gate", name, sizeof name), s->o->dense, m->dim, m->ffn, 1.0f);
        put_matrix(s, name_in(i, "ffn_up", name, sizeof name), s->o->dense, m->dim, m->ffn, 1.0f);
        put_matrix(s, name_in(i, "ffn_down", name, sizeof name), s->o->dense, m->ffn, m->dim, 1.5f);
        return;
    }
    put_matrix(s, name_in(i, "ffn_gate_inp", name, sizeof name), TR_TYPE_F32, m->dim, m->n_experts,
               2.0f);
    put_experts(s, name_in(i, "ffn_gate_exps", name, sizeof name), m->dim, m->ffn, 1.0f);
    put_experts(s, name_in(i, "ffn_up_exps", name, sizeof name), m->dim, m->ffn, 1.0f);
    put_experts(s, name_in(i, "ffn_down_exps", name, sizeof name), m->ffn, m->dim, 1.5f);
    if (m->shared_ffn > 0)
        put_shared(s, i);
}

/* ---- data ----------------------------------------------------------------------------- */

/* Uniform between -1 and 1, from 32 random bits. */
static float symmetric(uint32_t bits)
{
    return (float)bits * 0x1p-31f - 1.0f;
}

static void fill_floats(const filling *f, uint64_t key, uint64_t first, size_t n, uint8_t *out,
                        size_t size)
{
    const float width = f->sigma * 1.7320508f; /* a uniform distribution of that deviation */
    float v[BATCH];

    for (size_t at = 0; at < n; at += BATCH) {
        size_t m = n - at < BATCH ? n - at : BATCH;
        for (size_t i = 0; i < m; i++)
            v[i] = f->mean + width * symmetric((uint32_t)tr_rng_mix(key ^ (first + at + i)));
        tr_quantise_row(f->type, v, m, out + at * size);
    }
}

/* Eight codes of -127..127; a byte of 0x80 becomes 0. */
static uint64_t codes_q8_0(uint64_t bits)
{
    const uint64_t low = 0x7f7f7f7f7f7f7f7full;
    uint64_t is_low = (bits & low) + low; /* high bit: some of the low seven are set */

    return bits & ~(~is_low & ~low);
}

/* Sixteen codes of 1..15, which stand for -7..7; 0 becomes 8. */
static uint64_t codes_q4_0(uint64_t bits)
{
    uint64_t any = bits | bits >> 1 | bits >> 2 | bits >> 3;

    return bits | (~any & 0x1111111111111111ull) << 3;
}

static void fill_q8_0(const filling *f, uint64_t key, uint64_t first, size_t n, tr_block_q8_0 *b)
{
    uint16_t d = tr_f32_to_f16(f->sigma / 73.47f); /* the deviation of those codes */

    for (size_t i = 0; i < n; i++) {
        b[i].d = d;
        for (size_t j = 0; j < 4; j++) {
            uint64_t bits = codes_q8_0(tr_rng_mix(key ^ ((first + i) * 4 + j)));
            memcpy(b[i].q + 8 * j, &bits, 8);
        }
    }
}

static void fill_q4_0(const filling *f, uint64_t key, uint64_t first, size_t n, tr_block_q4_0 *b)
{
    uint16_t d = tr_f32_to_f16(f->sigma / 4.18f); /* the deviation of those codes */

    for (size_t i = 0; i < n; i++) {
        b[i].d = d;
        for (size_t j = 0; j < 2; j++) {
            uint64_t bits = codes_q4_0(tr_rng_mix(key ^ ((first + i) * 2 + j)));
            memcpy(b[i].q + 8 * j, &bits, 8);
        }
    }
}

enum { DRAWN = 512, MAX_BLOCK = 256, MAX_BLOCK_SIZE = 210 };

/* A few hundred blocks, quantised from the numbers that fill_floats draws: the search for scales is
 * too slow for each block of a tensor. */
static void blocks_draw(const filling *f, size_t block, size_t size, uint8_t *drawn)
{
    float v[MAX_BLOCK];

    for (size_t i = 0; i < DRAWN; i++) {
        for (size_t j = 0; j < block; j++) /* each with its negative: the mean is zero */
            v[j] = (i % 2 ? -f->sigma : f->sigma) * 1.7320508f *
                   symmetric((uint32_t)tr_rng_mix(i / 2 * block + j));
        tr_quantise_row(f->type, v, block, drawn + i * size);
    }
}

static void fill_drawn(const uint8_t *drawn, uint64_t key, uint64_t first, size_t n, uint8_t *out,
                       size_t size)
{
    for (size_t i = 0; i < n; i++)
        memcpy(out + i * size, drawn + tr_rng_mix(key ^ (first + i)) % DRAWN * size, size);
}

/* Types that are neither floats nor filled with random codes. */
static bool is_drawn(tr_type type)
{
    return tr_block_has(type) && type != TR_TYPE_Q8_0 && type != TR_TYPE_Q4_0;
}

static tr_status write_tensor(synth *s, size_t t)
{
    const filling *f = &s->tensor[t];
    const tr_type_info *info = tr_type_get(f->type);
    uint64_t key = tr_rng_u64(s->o->seed, 1, t);
    uint64_t n_blocks = f->n / info->block;
    size_t per_chunk = CHUNK / info->size;
    uint8_t drawn[DRAWN * MAX_BLOCK_SIZE];

    if (is_drawn(f->type))
        blocks_draw(f, info->block, info->size, drawn);
    for (uint64_t at = 0; at < n_blocks; at += per_chunk) {
        size_t n = n_blocks - at < per_chunk ? (size_t)(n_blocks - at) : per_chunk;
        if (f->type == TR_TYPE_Q8_0)
            fill_q8_0(f, key, at, n, (tr_block_q8_0 *)(void *)s->chunk);
        else if (f->type == TR_TYPE_Q4_0)
            fill_q4_0(f, key, at, n, (tr_block_q4_0 *)(void *)s->chunk);
        else if (is_drawn(f->type))
            fill_drawn(drawn, key, at, n, s->chunk, info->size);
        else
            fill_floats(f, key, at, n, s->chunk, info->size);
        if (tr_interrupted())
            return TR_E_INTERRUPTED;
        tr_status st = tr_gguf_writer_data(s->w, (tr_bytes){ s->chunk, n * info->size });
        if (st != TR_OK)
            return st;
        s->done += n * info->size;
        tr_progress_show(&s->bar, s->done);
    }
    return TR_OK;
}

static tr_status write_model(synth *s)
{
    const tr_model_shape *m = &s->o->shape;

    tr_status st = put_metadata(s);
    if (st != TR_OK)
        return st;
    put_tensor(s, "token_embd.weight", (uint64_t[]){ m->dim, m->n_vocab, 1 }, 2,
               (filling){ s->o->dense, 0, 1.0f, 0.0f });
    put_vector(s, "output_norm.weight", m->dim);
    if (is_gpt2(m)) {
        put_tensor(s, "output_norm.bias", (uint64_t[]){ m->dim, 1, 1 }, 1,
                   (filling){ TR_TYPE_F32, 0, 0.1f, 0.0f });
        put_tensor(s, "position_embd.weight", (uint64_t[]){ m->dim, m->context, 1 }, 2,
                   (filling){ TR_TYPE_F32, 0, 0.5f, 0.0f });
    }
    put_matrix(s, "output.weight", s->o->dense, m->dim, m->n_vocab, 4.0f);
    for (uint32_t i = 0; i < m->n_layers; i++)
        put_layer(s, i);
    st = tr_gguf_writer_begin_data(s->w);
    tr_progress_begin(&s->bar, "writing", tr_gguf_writer_data_size(s->w), s->o->progress);
    for (size_t t = 0; t < s->n_tensors && st == TR_OK; t++)
        st = write_tensor(s, t);
    tr_progress_end(&s->bar);
    return st;
}

tr_status tr_random_model_write(const tr_random_model *o)
{
    synth s = { .o = o };

    tr_status st = tr_gguf_writer_new(o->path, o->overwrite, &s.w);
    if (st != TR_OK)
        return st;
    s.tensor = calloc(MAX_TENSORS, sizeof *s.tensor);
    s.chunk = malloc(CHUNK);
    st = s.tensor && s.chunk ? write_model(&s) : tr_fail(TR_E_MEMORY, "synth: no memory");
    if (st == TR_OK)
        st = tr_gguf_writer_finish(&s.w);
    tr_gguf_writer_abandon(&s.w);
    free(s.chunk);
    free(s.tensor);
    return st;
}
