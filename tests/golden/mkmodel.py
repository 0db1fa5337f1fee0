#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tiny random-weight GGUF models with a valid tokenizer.  usage: mkmodel.py NAME [TYPE] [OUTDIR]
NAME: one of MODELS below, or 'all' / 'list'.  TYPE: F32 (default), F16, Q8_0, Q4_K, ...
Weights are drawn in float64, rounded to float16 first, so that the F32 and the F16 file hold the same numbers."""
import sys, os, re, zlib
import numpy as np
from ggufio import write_gguf, quantize, TYPES, FTYPE

NV = 512
TEXT = """The quick brown fox jumps over the lazy dog. A mixture of experts sends every token to a few small networks and
adds what they say. The router is a matrix: it gives each expert a number, the largest numbers win, and the weights of the
winners are made to sum to one, or not, as the model wishes. In the beginning there was the word, and the word was a token.
Numbers such as 12, 345 and 6789 are split into parts; so are words that the vocabulary does not know. If the answer is not
right, then the question was wrong, or the other way round. We count the layers from zero and the heads from zero too. The
cache keeps the keys and the values of the tokens that were seen before, and the new token looks at them all, or at the last
few of them when the window is small. There is no end to the making of many books, and much study is a weariness of the flesh.
for (int i = 0; i < n; i++) { sum += a[i] * b[i]; } return sum; Hello world! Don't worry, it's only a test of the tokenizer."""

def byte_unicode():
    bs = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256)); cs = bs[:]; n = 0
    for b in range(256):
        if b not in bs: bs.append(b); cs.append(256 + n); n += 1
    return dict(zip(bs, map(chr, cs)))

def train(words, nmerge):
    """plain BPE training on a list of symbol tuples"""
    cnt = {}
    for w in words: cnt[w] = cnt.get(w, 0) + 1
    merges = []
    while len(merges) < nmerge:
        pc = {}
        for w, c in cnt.items():
            for a, b in zip(w, w[1:]): pc[(a, b)] = pc.get((a, b), 0) + c
        if not pc: break
        best = max(sorted(pc), key=lambda p: pc[p]); merges.append(best); new = {}
        for w, c in cnt.items():
            o = []; i = 0
            while i < len(w):
                if i + 1 < len(w) and (w[i], w[i + 1]) == best: o.append(w[i] + w[i + 1]); i += 2
                else: o.append(w[i]); i += 1
            new[tuple(o)] = new.get(tuple(o), 0) + c
        cnt = new
    return merges

def bpe_vocab(pre, special):
    bu = byte_unicode()
    words = [tuple(bu[b] for b in m.encode()) for m in re.findall(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+|\s+", TEXT)]
    base = [bu[b] for b in range(256)]
    merges = train(words, NV - 256 - len(special)); toks = base + [a + b for a, b in merges]
    assert len(set(toks)) == len(toks)
    while len(toks) < NV - len(special): toks.append('<|unused%d|>' % len(toks))
    first = len(toks); toks += special
    return {'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': pre, 'tokenizer.ggml.tokens': toks,
            'tokenizer.ggml.token_type': [1] * first + [3] * len(special),
            'tokenizer.ggml.merges': [a + ' ' + b for a, b in merges],
            'tokenizer.ggml.bos_token_id': first, 'tokenizer.ggml.eos_token_id': first + 1, 'tokenizer.ggml.padding_token_id': first,
            'tokenizer.ggml.add_bos_token': False}

def spm_vocab():
    words = [tuple(w) for w in re.findall(r"▁?[^▁]+", ('▁' + TEXT.replace('\n', ' ')).replace(' ', '▁'))]
    chars = sorted({c for w in words for c in w})
    merges = train(words, NV - 259 - len(chars)); pieces = [a + b for a, b in merges]
    toks = ['<unk>', '<s>', '</s>'] + ['<0x%02X>' % b for b in range(256)] + pieces + chars
    assert len(toks) == NV and len(set(toks)) == NV, (len(toks), len(set(toks)))
    return {'tokenizer.ggml.model': 'llama', 'tokenizer.ggml.pre': 'default', 'tokenizer.ggml.tokens': toks,
            'tokenizer.ggml.scores': [0.0] * 259 + [-float(i) for i in range(len(pieces))] + [-float(len(pieces) + i) for i in range(len(chars))],
            'tokenizer.ggml.token_type': [2, 3, 3] + [6] * 256 + [1] * (NV - 259),
            'tokenizer.ggml.bos_token_id': 1, 'tokenizer.ggml.eos_token_id': 2, 'tokenizer.ggml.unknown_token_id': 0,
            'tokenizer.ggml.add_bos_token': True, 'tokenizer.ggml.add_eos_token': False}

class M:
    """collects metadata and tensors of one model"""
    def __init__(s, name, arch, seed, **kv):
        s.name, s.arch, s.seed, s.t = name, arch, seed, []
        s.kv = {'general.architecture': arch, 'general.name': 'tiny-' + name, 'general.quantization_version': 2}
        for k, v in kv.items(): s.kv[arch + '.' + k.replace('__', '.')] = v
    def rng(s, n): return np.random.default_rng([s.seed, zlib.crc32(n.encode())])
    def w(s, n, *shape, gain=1.0, quant=True):        # matrix (..., out, in), variance gain^2/in
        x = s.rng(n).standard_normal(shape) * gain / np.sqrt(shape[-1]); s.t.append((n, x.astype(np.float16).astype(np.float32), quant))
    def v(s, n, *shape, mean=0.0, std=0.1):           # vector kept in F32
        x = mean + std * s.rng(n).standard_normal(shape); s.t.append((n, x.astype(np.float16).astype(np.float32), False))
    def norm(s, n, d, mean=1.0): s.v(n, d, mean=mean, std=0.1)
    def emb(s, d, tied=False, gain=4.0):
        s.w('token_embd.weight', NV, d, gain=np.sqrt(d))
        s.norm('output_norm.weight', d)
        if not tied: s.w('output.weight', NV, d, gain=gain)
    def save(s, path, typ):
        ts = []
        for n, x, q in s.t:
            t = 'F32'
            if q:
                t = 'Q8_0' if s.arch == 'gpt-oss' and typ == 'MXFP4' and '_exps.' not in n else typ     # as the real files: only experts in MXFP4
                if x.shape[-1] % TYPES[t][1]: t = 'Q8_0' if x.shape[-1] % 32 == 0 else 'F16'
            ts.append((n, x.shape, t, quantize(x, t)))
        kv = dict(s.kv); kv['general.file_type'] = FTYPE[typ]
        kv.update(s.tok); write_gguf(path, kv, ts)

def base(name, arch, seed, d, nl, nh, nkv, ff, hd, eps=1e-5, base=10000.0, ctx=512, **kv):
    return M(name, arch, seed, context_length=ctx, embedding_length=d, block_count=nl, feed_forward_length=ff,
             attention__head_count=nh, attention__head_count_kv=nkv, attention__layer_norm_rms_epsilon=eps,
             rope__freq_base=base, rope__dimension_count=hd, vocab_size=NV, **kv)

def attn(m, b, d, nh, nkv, hd, bias=False, qk=None, qkgain=1.3, obias=False, hv=None):
    m.norm(b + 'attn_norm.weight', d)
    for n, h, g in (('q', nh, qkgain), ('k', nkv, qkgain), ('v', nkv, 1.0)):
        m.w(b + 'attn_%s.weight' % n, h * hd, d, gain=g)
        if bias: m.v(b + 'attn_%s.bias' % n, h * hd, std=0.3)
    m.w(b + 'attn_output.weight', d, nh * hd, gain=1.2)
    if obias: m.v(b + 'attn_output.bias', d, std=0.1)
    if qk: m.norm(b + 'attn_q_norm.weight', qk[0], 1.4); m.norm(b + 'attn_k_norm.weight', qk[1], 1.4)

def ffn(m, b, d, ff, suf='', gain=1.6):
    m.w(b + 'ffn_gate%s.weight' % suf, ff, d); m.w(b + 'ffn_up%s.weight' % suf, ff, d); m.w(b + 'ffn_down%s.weight' % suf, d, ff, gain=gain)

def moe(m, b, d, ff, ne, router=2.0, gain=2.0, upgain=1.0):
    m.w(b + 'ffn_gate_inp.weight', ne, d, gain=router, quant=False)
    m.w(b + 'ffn_gate_exps.weight', ne, ff, d, gain=upgain); m.w(b + 'ffn_up_exps.weight', ne, ff, d, gain=upgain)
    m.w(b + 'ffn_down_exps.weight', ne, d, ff, gain=gain)

def qwen3moe(name='qwen3moe', d=256, nl=3, nh=4, nkv=2, hd=32, ff=64, seed=11):
    m = base(name, 'qwen3moe', seed, d, nl, nh, nkv, 3 * ff, hd, 1e-6, 1e6, attention__key_length=hd, attention__value_length=hd,
             expert_count=8, expert_used_count=3, expert_feed_forward_length=ff)
    m.tok = bpe_vocab('qwen2', ['<|endoftext|>', '<|im_start|>', '<|im_end|>']); m.tok['tokenizer.ggml.eos_token_id'] = NV - 1
    m.emb(d)
    for i in range(nl):
        b = 'blk.%d.' % i; attn(m, b, d, nh, nkv, hd, qk=(hd, hd)); m.norm(b + 'ffn_norm.weight', d); moe(m, b, d, ff, 8)
    return m

def qwen3moe_kq(): return qwen3moe('qwen3moe-kq', nl=2, hd=64, ff=256, seed=12)

def mixtral():
    d, nl, nh, nkv, hd, ff = 256, 2, 4, 2, 64, 256
    m = base('mixtral', 'llama', 21, d, nl, nh, nkv, ff, hd, 1e-5, 1e6, expert_count=8, expert_used_count=2)
    m.tok = spm_vocab(); m.emb(d)
    for i in range(nl):
        b = 'blk.%d.' % i; attn(m, b, d, nh, nkv, hd); m.norm(b + 'ffn_norm.weight', d); moe(m, b, d, ff, 8)
    return m

def olmoe():
    d, nl, nh, nkv, hd, ff = 256, 2, 4, 4, 64, 64
    m = base('olmoe', 'olmoe', 31, d, nl, nh, nkv, ff, hd, 1e-5, 1e4, expert_count=8, expert_used_count=3)
    m.tok = bpe_vocab('olmo', ['<|endoftext|>', '<|padding|>']); m.tok['tokenizer.ggml.eos_token_id'] = NV - 2; m.emb(d)
    for i in range(nl):
        b = 'blk.%d.' % i; attn(m, b, d, nh, nkv, hd, qk=(nh * hd, nkv * hd)); m.norm(b + 'ffn_norm.weight', d); moe(m, b, d, ff, 8)
    return m

def qwen2moe():
    d, nl, nh, nkv, hd, ff = 256, 2, 4, 2, 64, 64
    m = base('qwen2moe', 'qwen2moe', 41, d, nl, nh, nkv, 4 * ff, hd, 1e-6, 1e6, expert_count=8, expert_used_count=3,
             expert_feed_forward_length=ff, expert_shared_feed_forward_length=2 * ff)
    m.tok = bpe_vocab('qwen2', ['<|endoftext|>', '<|im_start|>', '<|im_end|>']); m.emb(d)
    for i in range(nl):
        b = 'blk.%d.' % i; attn(m, b, d, nh, nkv, hd, bias=True); m.norm(b + 'ffn_norm.weight', d); moe(m, b, d, ff, 8)
        m.v(b + 'ffn_gate_inp_shexp.weight', d, std=1.5 / np.sqrt(d)); ffn(m, b, d, 2 * ff, '_shexp')
    return m

def mla(m, b, d, nh, nope, rope, hv, kvr, qr=None):
    m.norm(b + 'attn_norm.weight', d)
    if qr:
        m.w(b + 'attn_q_a.weight', qr, d); m.norm(b + 'attn_q_a_norm.weight', qr); m.w(b + 'attn_q_b.weight', nh * (nope + rope), qr, gain=1.3)
    else: m.w(b + 'attn_q.weight', nh * (nope + rope), d, gain=1.3)
    m.w(b + 'attn_kv_a_mqa.weight', kvr + rope, d); m.norm(b + 'attn_kv_a_norm.weight', kvr)
    m.w(b + 'attn_kv_b.weight', nh * (nope + hv), kvr, gain=1.2); m.w(b + 'attn_output.weight', d, nh * hv, gain=1.2)

def deepseek2_lite():
    # both engines tell "lite" (no q_lora) by block_count == 27, so the model must have 27 layers
    d, nl, nh, nope, rope, hv, kvr, ff = 64, 27, 2, 16, 16, 16, 32, 16
    m = base('deepseek2-lite', 'deepseek2', 51, d, nl, nh, nh, 128, rope, 1e-6, 1e4, ctx=512,
             attention__key_length=nope + rope, attention__value_length=hv, attention__kv_lora_rank=kvr, leading_dense_block_count=1,
             expert_count=16, expert_used_count=4, expert_shared_count=2, expert_feed_forward_length=ff, expert_weights_scale=1.0,
             rope__scaling__type='yarn', rope__scaling__factor=4.0, rope__scaling__original_context_length=128,
             rope__scaling__yarn_log_multiplier=0.0707)
    m.tok = bpe_vocab('deepseek-llm', ['<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>']); m.emb(d)
    for i in range(nl):
        b = 'blk.%d.' % i; mla(m, b, d, nh, nope, rope, hv, kvr); m.norm(b + 'ffn_norm.weight', d)
        if i < 1: ffn(m, b, d, 128)
        else: moe(m, b, d, ff, 16, gain=1.0); ffn(m, b, d, 2 * ff, '_shexp', gain=0.7)
    return m

def deepseek2_v3():
    d, nl, nh, nope, rope, hv, kvr, qr, ff = 256, 3, 4, 32, 16, 64, 64, 96, 32
    m = base('deepseek2-v3', 'deepseek2', 61, d, nl, nh, nh, 256, rope, 1e-6, 1e4, ctx=512,
             attention__key_length=nope + rope, attention__value_length=hv, attention__kv_lora_rank=kvr, attention__q_lora_rank=qr,
             leading_dense_block_count=1, expert_count=16, expert_used_count=4, expert_shared_count=1, expert_feed_forward_length=ff,
             expert_weights_scale=2.5, expert_weights_norm=True, expert_gating_func=2, expert_group_count=4, expert_group_used_count=2,
             rope__scaling__type='yarn', rope__scaling__factor=8.0, rope__scaling__original_context_length=64,
             rope__scaling__yarn_log_multiplier=0.1)
    m.tok = bpe_vocab('deepseek-v3', ['<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>']); m.emb(d)
    for i in range(nl):
        b = 'blk.%d.' % i; mla(m, b, d, nh, nope, rope, hv, kvr, qr); m.norm(b + 'ffn_norm.weight', d)
        if i < 1: ffn(m, b, d, 256)
        else:
            moe(m, b, d, ff, 16, gain=1.0); m.v(b + 'exp_probs_b.bias', 16, std=0.25); ffn(m, b, d, ff, '_shexp')
    return m

def deepseek2_mla():
    # the tensor layout of DeepSeek files made since April 2025: attn_kv_b is stored as attn_k_b (transposed per head) and attn_v_b,
    # and the metadata describe the absorbed (one shared key/value head) form.  ik_llama.cpp accepts it only with the real head sizes.
    d, nl, nh, nope, rope, hv, kvr, qr, ff = 256, 2, 4, 128, 64, 128, 512, 96, 32
    m = base('deepseek2-mla', 'deepseek2', 65, d, nl, nh, 1, 256, rope, 1e-6, 1e4, ctx=512,
             attention__key_length=kvr + rope, attention__value_length=kvr, attention__key_length_mla=nope + rope, attention__value_length_mla=hv,
             attention__kv_lora_rank=kvr, attention__q_lora_rank=qr,
             leading_dense_block_count=1, expert_count=16, expert_used_count=4, expert_shared_count=1, expert_feed_forward_length=ff,
             expert_weights_scale=2.5, expert_weights_norm=True, expert_gating_func=2, expert_group_count=4, expert_group_used_count=2,
             rope__scaling__type='yarn', rope__scaling__factor=8.0, rope__scaling__original_context_length=64,
             rope__scaling__yarn_log_multiplier=0.1)
    m.tok = bpe_vocab('deepseek-v3', ['<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>']); m.emb(d)
    for i in range(nl):
        b = 'blk.%d.' % i; mla(m, b, d, nh, nope, rope, hv, kvr, qr); m.norm(b + 'ffn_norm.weight', d)
        k = [j for j, t in enumerate(m.t) if t[0] == b + 'attn_kv_b.weight'][0]; w = m.t[k][1].reshape(nh, nope + hv, kvr)
        m.t[k:k + 1] = [(b + 'attn_k_b.weight', np.ascontiguousarray(w[:, :nope].transpose(0, 2, 1)), True), (b + 'attn_v_b.weight', np.ascontiguousarray(w[:, nope:]), True)]
        if i < 1: ffn(m, b, d, 256)
        else:
            moe(m, b, d, ff, 16, gain=1.0); m.v(b + 'exp_probs_b.bias', 16, std=0.25); ffn(m, b, d, ff, '_shexp')
    return m

def gptoss():
    d, nl, nh, nkv, hd, ff = 256, 4, 4, 2, 32, 32
    m = base('gpt-oss', 'gpt-oss', 71, d, nl, nh, nkv, ff, hd, 1e-5, 150000.0, ctx=512, attention__key_length=hd, attention__value_length=hd,
             attention__sliding_window=8, expert_count=8, expert_used_count=3, expert_feed_forward_length=ff,
             rope__scaling__type='yarn', rope__scaling__factor=8.0, rope__scaling__original_context_length=64)
    m.tok = bpe_vocab('gpt-4o', ['<|startoftext|>', '<|return|>', '<|endoftext|>', '<|call|>', '<|end|>']); m.emb(d)
    for i in range(nl):
        b = 'blk.%d.' % i; attn(m, b, d, nh, nkv, hd, bias=True, obias=True); m.v(b + 'attn_sinks.weight', nh, mean=1.0, std=1.0)
        m.norm(b + 'post_attention_norm.weight', d)
        moe(m, b, d, ff, 8, gain=0.4, upgain=3.0); m.v(b + 'ffn_gate_inp.bias', 8, std=0.5)
        m.v(b + 'ffn_gate_exps.bias', 8, ff, std=1.0); m.v(b + 'ffn_up_exps.bias', 8, ff, std=1.0); m.v(b + 'ffn_down_exps.bias', 8, d, std=0.2)
    return m

def glm4moe():
    # 3 active layers (1 dense + 2 MoE) and a 4th layer that belongs to multi-token prediction and must be ignored
    d, nl, nh, nkv, hd, ff = 256, 4, 4, 2, 32, 32
    m = base('glm4moe', 'glm4moe', 81, d, nl, nh, nkv, 256, hd // 2, 1e-5, 1e6, attention__key_length=hd, attention__value_length=hd,
             leading_dense_block_count=1, expert_count=8, expert_used_count=3, expert_shared_count=1, expert_feed_forward_length=ff,
             expert_weights_scale=1.5, expert_weights_norm=True, expert_gating_func=2, nextn_predict_layers=1)
    m.tok = bpe_vocab('glm4', ['<|endoftext|>', '[MASK]', '<|user|>', '<|observation|>']); m.tok['tokenizer.ggml.eos_token_id'] = NV - 4
    m.emb(d)
    for i in range(nl):
        b = 'blk.%d.' % i; attn(m, b, d, nh, nkv, hd, bias=True, qk=(hd, hd)); m.norm(b + 'post_attention_norm.weight', d)
        if i < 1: ffn(m, b, d, 256)
        else: moe(m, b, d, ff, 8, gain=1.6); m.v(b + 'exp_probs_b.bias', 8, std=0.25); ffn(m, b, d, ff, '_shexp')
    b = 'blk.%d.' % (nl - 1)
    m.w(b + 'nextn.eh_proj.weight', d, 2 * d); m.norm(b + 'nextn.enorm.weight', d); m.norm(b + 'nextn.hnorm.weight', d)
    m.norm(b + 'nextn.shared_head_norm.weight', d)
    return m

def granitemoe():
    d, nl, nh, nkv, hd, ff = 256, 2, 4, 2, 64, 64
    m = base('granitemoe', 'granitemoe', 91, d, nl, nh, nkv, ff, hd, 1e-6, 1e4, expert_count=8, expert_used_count=3,
             embedding_scale=3.0, residual_scale=0.5, logit_scale=0.5, attention__scale=0.0625)
    m.tok = bpe_vocab('refact', ['<|end_of_text|>', '<fim_prefix>']); m.tok['tokenizer.ggml.eos_token_id'] = NV - 2
    m.emb(d, gain=2.0)
    for i in range(nl):
        b = 'blk.%d.' % i; attn(m, b, d, nh, nkv, hd); m.norm(b + 'ffn_norm.weight', d); moe(m, b, d, ff, 8, gain=3.0)
    return m

def llama():
    d, nl, nh, nkv, hd, ff = 256, 3, 4, 2, 64, 512
    m = base('llama', 'llama', 101, d, nl, nh, nkv, ff, hd, 1e-5, 1e4); m.tok = spm_vocab(); m.emb(d)
    for i in range(nl):
        b = 'blk.%d.' % i; attn(m, b, d, nh, nkv, hd); m.norm(b + 'ffn_norm.weight', d); ffn(m, b, d, ff)
    return m

def llama3():
    # llama with rope_freqs.weight (divisors of the rotary frequencies) and tied embeddings
    d, nl, nh, nkv, hd, ff = 256, 3, 8, 2, 32, 512
    m = base('llama3', 'llama', 111, d, nl, nh, nkv, ff, hd, 1e-5, 500000.0)
    m.tok = bpe_vocab('llama-bpe', ['<|begin_of_text|>', '<|end_of_text|>', '<|eot_id|>']); m.tok['tokenizer.ggml.add_bos_token'] = True
    m.w('token_embd.weight', NV, d, gain=4.0); m.norm('output_norm.weight', d)
    m.t.append(('rope_freqs.weight', np.concatenate([np.ones(2), np.linspace(1.5, 8, 10), np.full(4, 8.0)]).astype(np.float32), False))
    for i in range(nl):
        b = 'blk.%d.' % i; attn(m, b, d, nh, nkv, hd); m.norm(b + 'ffn_norm.weight', d); ffn(m, b, d, ff)
    return m

def qwen3():
    d, nl, nh, nkv, hd, ff = 256, 3, 4, 2, 32, 512
    m = base('qwen3', 'qwen3', 121, d, nl, nh, nkv, ff, hd, 1e-6, 1e6, attention__key_length=hd, attention__value_length=hd)
    m.tok = bpe_vocab('qwen2', ['<|endoftext|>', '<|im_start|>', '<|im_end|>']); m.w('token_embd.weight', NV, d, gain=4.0); m.norm('output_norm.weight', d)
    for i in range(nl):
        b = 'blk.%d.' % i; attn(m, b, d, nh, nkv, hd, qk=(hd, hd)); m.norm(b + 'ffn_norm.weight', d); ffn(m, b, d, ff)
    return m

def gpt2():
    d, nl, nh, ff = 256, 3, 4, 512
    m = M('gpt2', 'gpt2', 131, context_length=512, embedding_length=d, block_count=nl, feed_forward_length=ff, attention__head_count=nh,
          attention__layer_norm_epsilon=1e-5, vocab_size=NV)
    m.tok = bpe_vocab('gpt-2', ['<|endoftext|>']); m.tok['tokenizer.ggml.eos_token_id'] = NV - 1
    m.w('token_embd.weight', NV, d, gain=np.sqrt(d)); m.w('position_embd.weight', 512, d, gain=0.5 * np.sqrt(d), quant=False)
    m.norm('output_norm.weight', d); m.v('output_norm.bias', d); m.w('output.weight', NV, d, gain=4.0)
    for i in range(nl):
        b = 'blk.%d.' % i
        m.norm(b + 'attn_norm.weight', d); m.v(b + 'attn_norm.bias', d); m.w(b + 'attn_qkv.weight', 3 * d, d, gain=1.2); m.v(b + 'attn_qkv.bias', 3 * d, std=0.2)
        m.w(b + 'attn_output.weight', d, d, gain=1.2); m.v(b + 'attn_output.bias', d)
        m.norm(b + 'ffn_norm.weight', d); m.v(b + 'ffn_norm.bias', d); m.w(b + 'ffn_up.weight', ff, d, gain=1.2); m.v(b + 'ffn_up.bias', ff, std=0.3)
        m.w(b + 'ffn_down.weight', d, ff, gain=1.5); m.v(b + 'ffn_down.bias', d)
    return m

def bailingmoe2():
    # Ling 2.0: one matrix for q, k, v; half of a head rotated; groups of experts; a shared expert of its own width; a block behind
    d, nl, nh, nkv, hd, ff, ne = 256, 4, 4, 2, 64, 32, 16
    m = base('bailingmoe2', 'bailingmoe2', 141, d, nl, nh, nkv, 256, hd // 2, 1e-6, 6e5, attention__key_length=hd, attention__value_length=hd,
             leading_dense_block_count=1, expert_count=ne, expert_used_count=4, expert_shared_count=1, expert_feed_forward_length=ff,
             expert_shared_feed_forward_length=2 * ff, expert_weights_scale=2.5, expert_weights_norm=True, expert_gating_func=2,
             expert_group_count=4, expert_group_used_count=2, nextn_predict_layers=1)
    m.tok = bpe_vocab('bailingmoe2', ['<|startoftext|>', '<|endoftext|>', '<|role_end|>']); m.tok['tokenizer.ggml.eos_token_id'] = NV - 2
    m.emb(d)
    for i in range(nl):
        b = 'blk.%d.' % i; m.norm(b + 'attn_norm.weight', d)
        m.w(b + 'attn_qkv.weight', (nh + 2 * nkv) * hd, d, gain=1.2); m.w(b + 'attn_output.weight', d, nh * hd, gain=1.2)
        m.norm(b + 'attn_q_norm.weight', hd, 1.4); m.norm(b + 'attn_k_norm.weight', hd, 1.4); m.norm(b + 'ffn_norm.weight', d)
        if i < 1: ffn(m, b, d, 256)
        else: moe(m, b, d, ff, ne, gain=1.0); m.v(b + 'exp_probs_b.bias', ne, std=0.25); ffn(m, b, d, 2 * ff, '_shexp')
    b = 'blk.%d.' % (nl - 1)
    m.w(b + 'nextn.eh_proj.weight', d, 2 * d); m.norm(b + 'nextn.enorm.weight', d); m.norm(b + 'nextn.hnorm.weight', d)
    m.norm(b + 'layer_output_norm.weight', d)
    return m

MODELS = {'qwen3moe': qwen3moe, 'qwen3moe-kq': qwen3moe_kq, 'mixtral': mixtral, 'olmoe': olmoe, 'qwen2moe': qwen2moe,
          'deepseek2-lite': deepseek2_lite, 'deepseek2-v3': deepseek2_v3, 'deepseek2-mla': deepseek2_mla, 'gpt-oss': gptoss, 'glm4moe': glm4moe,
          'granitemoe': granitemoe, 'llama': llama, 'llama3': llama3, 'qwen3': qwen3, 'gpt2': gpt2, 'bailingmoe2': bailingmoe2}
ALLTYPES = ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q4_K', 'Q5_K', 'Q6_K', 'Q2_K', 'Q3_K', 'IQ4_NL', 'IQ4_XS', 'MXFP4']
EXTRA = {'qwen3moe-kq': ALLTYPES, 'mixtral': ALLTYPES, 'gpt-oss': ['F32', 'F16', 'Q8_0', 'MXFP4']}

if __name__ == '__main__':
    a = sys.argv[1:]
    if not a or a[0] == 'list': print(' '.join(MODELS)); sys.exit()
    out = a[2] if len(a) > 2 else os.path.join(os.path.dirname(os.path.abspath(__file__)), 'models')
    os.makedirs(out, exist_ok=True)
    names = list(MODELS) if a[0] == 'all' else [a[0]]
    for n in names:
        m = MODELS[n]()
        types = [a[1]] if len(a) > 1 and a[1] != '-' else EXTRA.get(n, ['F32', 'F16', 'Q8_0']) if a[0] == 'all' else ['F32']
        for t in types:
            p = os.path.join(out, '%s.%s.gguf' % (n, t)); m.save(p, t); print(p, os.path.getsize(p))
