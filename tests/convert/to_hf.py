#!/usr/bin/python3
"""Write a GGUF model as a Hugging Face directory: the way back from `troupe convert`, written from
the models' published code and not from ours.

  to_hf.py MODEL.gguf DIR [TYPE] [SHARDS]     TYPE: F32, F16, BF16 or F8 (which is lossy)

SPDX-License-Identifier: Apache-2.0"""
import json
import os
import struct
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import ggufio  # noqa: E402

F8_BLOCK = 128


# ---- safetensors ------------------------------------------------------------------------------

def bf16(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def f8_values():
    """The value of each F8_E4M3 code."""
    out = np.zeros(256)
    for code in range(256):
        e, m = code >> 3 & 15, code & 7
        v = (1 + m / 8) * 2.0**(e - 7) if e else m / 8 * 2.0**-6
        out[code] = np.nan if code & 127 == 127 else -v if code & 128 else v
    return out


def f8_encode(x):
    """Codes and a scale for each block of 128 x 128."""
    values = f8_values()
    order = np.argsort(values[:127])
    rows, cols = x.shape
    codes = np.zeros(x.shape, np.uint8)
    scale = np.zeros((-(-rows // F8_BLOCK), -(-cols // F8_BLOCK)), np.float32)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            at = (slice(i * F8_BLOCK, (i + 1) * F8_BLOCK), slice(j * F8_BLOCK, (j + 1) * F8_BLOCK))
            b = x[at]
            fit = np.float32(np.abs(b).max() / 448 or 1)
            scale[i, j] = (bf16(fit).astype(np.uint32) << 16).view(np.float32)
            near = np.abs(np.abs(b)[..., None] / scale[i, j] - values[order]).argmin(-1)
            codes[at] = order[near] | (b < 0) * np.uint8(128)
    return codes, scale


def f8_decode(codes, scale):
    s = np.repeat(np.repeat(scale, F8_BLOCK, 0), F8_BLOCK, 1)[:codes.shape[0], :codes.shape[1]]
    return (f8_values().astype(np.float32)[codes] * s).astype(np.float32)


class Raw:
    """Bytes that are stored as they are."""

    def __init__(self, x, dtype):
        self.x, self.dtype = x, dtype


def encoded(name, x, kind):
    """name, type, shape, bytes of one tensor, or of an F8 matrix and its scales."""
    if isinstance(x, Raw):
        return [(name, x.dtype, x.x.shape, x.x.tobytes())]
    if kind == "F8" and name.endswith(("down_proj.weight", "kv_b_proj.weight")):
        codes, scale = f8_encode(x)
        if "kv_b" in name:  # some directories have scales in BF16
            kept = ("BF16", scale.shape, bf16(scale).tobytes())
        else:
            kept = ("F32", scale.shape, scale.tobytes())
        return [(name, "F8_E4M3", codes.shape, codes.tobytes()), (name + "_scale_inv", *kept)]
    if kind == "F16":
        return [(name, "F16", x.shape, np.ascontiguousarray(x, np.float16).tobytes())]
    if kind in ("BF16", "F8"):
        return [(name, "BF16", x.shape, bf16(x).tobytes())]
    return [(name, "F32", x.shape, np.ascontiguousarray(x, np.float32).tobytes())]


def write_safetensors(path, tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, raw in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors:
            f.write(t[3])


def write_tensors(out, tensors, kind, shards):
    all_of_them = [e for name, x in tensors.items() for e in encoded(name, x, kind)]
    if shards == 1:
        return write_safetensors(os.path.join(out, "model.safetensors"), all_of_them)
    weight_map = {}
    for i in range(shards):
        name = "model-%05d-of-%05d.safetensors" % (i + 1, shards)
        part = all_of_them[i::shards]
        write_safetensors(os.path.join(out, name), part)
        weight_map.update({t[0]: name for t in part})
    with open(os.path.join(out, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": weight_map}, f)


# ---- the tokenizer ----------------------------------------------------------------------------

GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
V3 = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
      "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")


def split(expression):
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated",
            "invert": False}


def byte_level(use_regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
            "use_regex": use_regex}


DIGITS = {"type": "Digits", "individual_digits": True}
STEPS = {
    "qwen2": [split(GPT4 % r"\p{N}"), byte_level(False)],
    "llama-bpe": [split(GPT4 % r"\p{N}{1,3}"), byte_level(False)],
    "glm4": [split(GPT4 % r"\p{N}{1,3}"), byte_level(False)],
    "gpt-4o": [split(O200K), byte_level(False)],
    "gpt-2": [byte_level(True)],
    "refact": [DIGITS, byte_level(True)],
    "deepseek-v3": [split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(V3),
                    byte_level(False)],
    "deepseek-llm": [split("[\r\n]"), split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿ]+"),
                     split("\\s?[!-/:-~！-／：-～]+"), split(r"\s+$"), split("[一-龥ࠀ-一가-\ud7ff]+"),
                     DIGITS, byte_level(False)],
}


def spm_merges(tokens, types, scores):
    """All pairs of pieces that make a piece, by its score."""
    normal = {t: s for t, k, s in zip(tokens, types, scores) if k == 1}
    pairs = [(-s, t[:i], t[i:]) for t, s in normal.items() for i in range(1, len(t))
             if t[:i] in normal and t[i:] in normal]
    return [[a, b] for _, a, b in sorted(pairs, key=lambda p: p[0])]


def tokenizer(kv):
    """tokenizer.json and tokenizer_config.json"""
    tokens, types = kv["tokenizer.ggml.tokens"], kv["tokenizer.ggml.token_type"]
    spm = kv["tokenizer.ggml.model"] == "llama"
    pre = {"olmo": "gpt-2"}.get(kv["tokenizer.ggml.pre"], kv["tokenizer.ggml.pre"])
    special = (2, 3)
    added = [{"id": i, "content": t, "special": k in special, "normalized": False}
             for i, (t, k) in enumerate(zip(tokens, types)) if k in special + (4,)]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "byte_fallback": spm,
             "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "ignore_merges": pre == "llama-bpe",
             "vocab": {t: i for i, t in enumerate(tokens) if spm or types[i] == 1}}
    out = {"version": "1.0", "added_tokens": added, "normalizer": None, "model": model}
    if spm:
        model["merges"] = spm_merges(tokens, types, kv["tokenizer.ggml.scores"])
        model["unk_token"] = tokens[types.index(2)]
        out["normalizer"] = {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
        out["pre_tokenizer"] = None
    else:
        model["merges"] = kv["tokenizer.ggml.merges"]
        steps = STEPS[pre]
        out["pre_tokenizer"] = steps[0] if len(steps) == 1 else {"type": "Sequence",
                                                                 "pretokenizers": steps}
    settings = {key: tokens[kv["tokenizer.ggml.%s_id" % name]] for key, name in
                (("bos_token", "bos_token"), ("eos_token", "eos_token"),
                 ("pad_token", "padding_token"), ("unk_token", "unknown_token"))
                if "tokenizer.ggml.%s_id" % name in kv}
    if pre == "llama-bpe":  # as Llama 3: nothing but the template says so
        bos = settings["bos_token"]
        out["post_processor"] = {"type": "Sequence", "processors": [
            byte_level(True), {"type": "TemplateProcessing", "single": [
                {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A"}}]}]}
    else:
        settings["add_bos_token"] = kv["tokenizer.ggml.add_bos_token"]
    if "tokenizer.chat_template" in kv:
        settings["chat_template"] = kv["tokenizer.chat_template"]
    return out, settings


# ---- models -----------------------------------------------------------------------------------

class Model:
    """A GGUF file, and the directory's tensors and configuration as they are found."""

    def __init__(self, path):
        self.g = ggufio.GGUF(path)
        self.kv = self.g.kv
        self.arch = self.kv["general.architecture"]
        self.hf, self.config = {}, {}

    def key(self, name, absent=None):
        return self.kv.get(self.arch + "." + name, absent)

    def take(self, name):
        return self.g.tensor(name, np.float32).reshape(self.g.t[name][0])

    def move(self, hf, gguf):
        self.hf[hf + ".weight"] = self.take(gguf + ".weight")

    def layers(self):
        return range(self.key("block_count") - self.key("nextn_predict_layers", 0))


def deinterleave(w, heads):
    """Rows 2i and 2i + 1 of a head become rows i and i + n/2."""
    n = w.shape[0] // heads
    return w.reshape(heads, n // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def common(m):
    heads = m.key("attention.head_count")
    m.config.update({
        "num_hidden_layers": len(m.layers()), "hidden_size": m.key("embedding_length"),
        "vocab_size": len(m.kv["tokenizer.ggml.tokens"]),
        "max_position_embeddings": m.key("context_length"),
        "intermediate_size": m.key("feed_forward_length"), "num_attention_heads": heads,
        "num_key_value_heads": m.key("attention.head_count_kv"),
        "rms_norm_eps": float("%.6g" % m.key("attention.layer_norm_rms_epsilon")),
        "rope_theta": m.key("rope.freq_base"), "hidden_act": "silu",
        "tie_word_embeddings": not m.g.has("output.weight")})
    m.move("model.embed_tokens", "token_embd")
    m.move("model.norm", "output_norm")
    if m.g.has("output.weight"):
        m.move("lm_head", "output")


def attention(m, i, interleaved=False, norm="ffn_norm"):
    hf, gg = "model.layers.%d." % i, "blk.%d." % i
    m.move(hf + "input_layernorm", gg + "attn_norm")
    m.move(hf + "post_attention_layernorm", gg + norm)
    for x, heads in (("q", m.key("attention.head_count")), ("k", m.key("attention.head_count_kv")),
                     ("v", 0)):
        w = m.take(gg + "attn_%s.weight" % x)
        m.hf[hf + "self_attn.%s_proj.weight" % x] = (
            deinterleave(w, heads) if interleaved and heads else w)
        if m.g.has(gg + "attn_%s.bias" % x):
            m.hf[hf + "self_attn.%s_proj.bias" % x] = m.take(gg + "attn_%s.bias" % x)
        if m.g.has(gg + "attn_%s_norm.weight" % x):
            m.move(hf + "self_attn.%s_norm" % x, gg + "attn_%s_norm" % x)
    m.move(hf + "self_attn.o_proj", gg + "attn_output")


def swiglu(m, hf, gg, behind=""):
    for x in ("gate", "up", "down"):
        m.move(hf + "%s_proj" % x, gg + "ffn_%s%s" % (x, behind))


def experts(m, i, names=("gate_proj", "up_proj", "down_proj"), folder="mlp."):
    hf, gg = "model.layers.%d.%s" % (i, folder), "blk.%d." % i
    m.move(hf + "gate", gg + "ffn_gate_inp")
    for x, name in zip(("gate", "up", "down"), names):
        for e, w in enumerate(m.take(gg + "ffn_%s_exps.weight" % x)):
            m.hf[hf + "experts.%d.%s.weight" % (e, name)] = w


def dense_or_experts(m, i):
    if i < m.key("leading_dense_block_count", 0):
        return swiglu(m, "model.layers.%d.mlp." % i, "blk.%d." % i)
    experts(m, i)
    if m.g.has("blk.%d.exp_probs_b.bias" % i):
        m.hf["model.layers.%d.mlp.gate.e_score_correction_bias" % i] = m.take(
            "blk.%d.exp_probs_b.bias" % i)
    swiglu(m, "model.layers.%d.mlp.shared_experts." % i, "blk.%d." % i, "_shexp")


def count(m, name="num_experts"):
    m.config.update({name: m.key("expert_count"),
                     "num_experts_per_tok": m.key("expert_used_count")})


def llama(m):
    mixtral = m.key("expert_count") is not None
    m.config["model_type"] = "mixtral" if mixtral else "llama"
    if mixtral:
        count(m, "num_local_experts")
    if m.g.has("rope_freqs.weight"):
        m.config["rope_scaling"] = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                    "high_freq_factor": 4.0,
                                    "original_max_position_embeddings": 128}
        m.hf["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    for i in m.layers():
        attention(m, i, interleaved=True)
        if mixtral:
            experts(m, i, ("w1", "w3", "w2"), "block_sparse_moe.")
        else:
            swiglu(m, "model.layers.%d.mlp." % i, "blk.%d." % i)


def qwen3(m):
    m.config.update({"model_type": "qwen3", "head_dim": m.key("attention.key_length")})
    for i in m.layers():
        attention(m, i)
        swiglu(m, "model.layers.%d.mlp." % i, "blk.%d." % i)


def qwen3moe(m):
    count(m)
    m.config.update({"model_type": "qwen3_moe", "head_dim": m.key("attention.key_length"),
                     "moe_intermediate_size": m.key("expert_feed_forward_length"),
                     "norm_topk_prob": True, "mlp_only_layers": [], "decoder_sparse_step": 1})
    for i in m.layers():
        attention(m, i)
        experts(m, i)


def olmoe(m):
    count(m)
    m.config.update({"model_type": "olmoe", "norm_topk_prob": False, "clip_qkv": None})
    for i in m.layers():
        attention(m, i)
        experts(m, i)


def qwen2moe(m):
    count(m)
    m.config.update({"model_type": "qwen2_moe", "norm_topk_prob": False,
                     "moe_intermediate_size": m.key("expert_feed_forward_length"),
                     "shared_expert_intermediate_size": m.key("expert_shared_feed_forward_length")})
    for i in m.layers():
        attention(m, i)
        experts(m, i)
        hf, gg = "model.layers.%d.mlp.shared_expert" % i, "blk.%d." % i
        swiglu(m, hf + ".", gg, "_shexp")
        m.hf[hf + "_gate.weight"] = m.take(gg + "ffn_gate_inp_shexp.weight")[None]


def granitemoe(m):
    count(m, "num_local_experts")
    m.config.update({"model_type": "granitemoe", "embedding_multiplier": m.key("embedding_scale"),
                     "residual_multiplier": m.key("residual_scale"),
                     "attention_multiplier": m.key("attention.scale"),
                     "logits_scaling": m.key("logit_scale")})
    for i in m.layers():
        attention(m, i, interleaved=True)
        hf, gg = "model.layers.%d.block_sparse_moe." % i, "blk.%d." % i
        m.move(hf + "router.layer", gg + "ffn_gate_inp")
        m.hf[hf + "input_linear.weight"] = np.concatenate(
            [m.take(gg + "ffn_%s_exps.weight" % x) for x in ("gate", "up")], 1)
        m.move(hf + "output_linear", gg + "ffn_down_exps")


def of_deepseek_kind(m):
    count(m, "n_routed_experts")
    m.config.update({"moe_intermediate_size": m.key("expert_feed_forward_length"),
                     "n_shared_experts": m.key("expert_shared_count"),
                     "first_k_dense_replace": m.key("leading_dense_block_count"),
                     "routed_scaling_factor": m.key("expert_weights_scale"),
                     "norm_topk_prob": m.key("expert_weights_norm", False)})


def glm4moe(m):
    of_deepseek_kind(m)
    m.config.update({"model_type": "glm4_moe", "head_dim": m.key("attention.key_length"),
                     "partial_rotary_factor": m.key("rope.dimension_count") /
                     m.key("attention.key_length"),
                     "attention_bias": True, "n_group": 1, "topk_group": 1})
    for i in m.layers():
        attention(m, i, norm="post_attention_norm")
        dense_or_experts(m, i)
    behind = "model.layers.%d." % len(m.layers())
    m.hf[behind + "eh_proj.weight"] = np.ones((4, 8), np.float32)
    m.hf[behind + "mlp.gate.weight"] = np.ones((4, 8), np.float32)


def yarn(m):
    scale = {"type": "yarn", "factor": m.key("rope.scaling.factor"), "beta_fast": 32,
             "beta_slow": 1, "original_max_position_embeddings":
             m.key("rope.scaling.original_context_length")}
    if m.key("rope.scaling.yarn_log_multiplier"):
        all_dim = float("%.5g" % (10 * m.key("rope.scaling.yarn_log_multiplier")))
        scale.update({"mscale": all_dim, "mscale_all_dim": all_dim})
    m.config["rope_scaling"] = scale


def kv_b(m, gg):
    """Newer files have its two parts apart, that of keys transposed."""
    if m.g.has(gg + "attn_kv_b.weight"):
        return m.take(gg + "attn_kv_b.weight")
    w = np.concatenate([m.take(gg + "attn_k_b.weight").transpose(0, 2, 1),
                        m.take(gg + "attn_v_b.weight")], 1)
    return w.reshape(-1, w.shape[-1])


def deepseek2(m):
    of_deepseek_kind(m)
    yarn(m)
    is_v3 = m.key("expert_gating_func") == 2
    rope = m.key("rope.dimension_count")
    m.config.update({
        "model_type": "deepseek_v3" if is_v3 else "deepseek_v2",
        "scoring_func": "sigmoid" if is_v3 else "softmax",
        "topk_method": "noaux_tc" if is_v3 else "greedy",
        "q_lora_rank": m.key("attention.q_lora_rank"),
        "kv_lora_rank": m.key("attention.kv_lora_rank"), "qk_rope_head_dim": rope,
        "qk_nope_head_dim": m.key("attention.key_length_mla", m.key("attention.key_length")) - rope,
        "v_head_dim": m.key("attention.value_length_mla", m.key("attention.value_length"))})
    if is_v3:
        m.config.update({"n_group": m.key("expert_group_count"),
                         "topk_group": m.key("expert_group_used_count")})
    for i in m.layers():
        hf, gg = "model.layers.%d." % i, "blk.%d." % i
        m.move(hf + "input_layernorm", gg + "attn_norm")
        m.move(hf + "post_attention_layernorm", gg + "ffn_norm")
        for x, y in (("q_proj", "q"), ("q_a_proj", "q_a"), ("q_a_layernorm", "q_a_norm"),
                     ("q_b_proj", "q_b"), ("kv_a_proj_with_mqa", "kv_a_mqa"),
                     ("kv_a_layernorm", "kv_a_norm"), ("o_proj", "output")):
            if m.g.has(gg + "attn_%s.weight" % y):
                m.move(hf + "self_attn." + x, gg + "attn_" + y)
        m.hf[hf + "self_attn.kv_b_proj.weight"] = kv_b(m, gg)
        dense_or_experts(m, i)


def mxfp4(m, name):
    """Blocks and scales; pairs of neighbours share a byte."""
    shape = m.g.t[name][0]
    raw = np.frombuffer(m.g.raw(name), np.uint8).reshape(-1, 17)
    q = np.concatenate([raw[:, 1:] & 15, raw[:, 1:] >> 4], 1)
    blocks = (q[:, 0::2] | q[:, 1::2] << 4).reshape(shape[:-1] + (shape[-1] // 32, 16))
    return blocks, raw[:, 0].reshape(blocks.shape[:-1])


def every_other(a, b):
    return np.stack([a, b], 2).reshape((a.shape[0], 2 * a.shape[1]) + a.shape[2:])


def gpt_oss(m):
    count(m, "num_local_experts")
    yarn(m)
    m.config.update({"model_type": "gpt_oss", "head_dim": m.key("attention.key_length"),
                     "intermediate_size": m.key("expert_feed_forward_length"),
                     "sliding_window": m.key("attention.sliding_window"), "attention_bias": True,
                     "swiglu_limit": 7.0, "quantization_config": {"quant_method": "mxfp4"},
                     "layer_types": [("sliding", "full")[i % 2] + "_attention"
                                     for i in m.layers()]})
    for i in m.layers():
        attention(m, i, norm="post_attention_norm")
        hf, gg = "model.layers.%d." % i, "blk.%d." % i
        m.hf[hf + "self_attn.o_proj.bias"] = m.take(gg + "attn_output.bias")
        m.hf[hf + "self_attn.sinks"] = m.take(gg + "attn_sinks.weight")
        m.move(hf + "mlp.router", gg + "ffn_gate_inp")
        m.hf[hf + "mlp.router.bias"] = m.take(gg + "ffn_gate_inp.bias")
        gate, up, down = [mxfp4(m, gg + "ffn_%s_exps.weight" % x) for x in ("gate", "up", "down")]
        hf += "mlp.experts."
        for k, behind in enumerate(("_blocks", "_scales")):
            m.hf[hf + "gate_up_proj" + behind] = Raw(every_other(gate[k], up[k]), "U8")
            m.hf[hf + "down_proj" + behind] = Raw(down[k], "U8")
        m.hf[hf + "gate_up_proj_bias"] = every_other(
            m.take(gg + "ffn_gate_exps.bias"), m.take(gg + "ffn_up_exps.bias"))
        m.hf[hf + "down_proj_bias"] = m.take(gg + "ffn_down_exps.bias")


ARCHITECTURES = {"llama": llama, "qwen3": qwen3, "qwen3moe": qwen3moe, "olmoe": olmoe,
                 "qwen2moe": qwen2moe, "granitemoe": granitemoe, "glm4moe": glm4moe,
                 "deepseek2": deepseek2, "gpt-oss": gpt_oss}


def to_hf(path, out, kind="F32", shards=1):
    """Returns the directory's tensors and configuration, too."""
    m = Model(path)
    common(m)
    ARCHITECTURES[m.arch](m)
    if kind == "F8":
        m.config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3",
                                           "weight_block_size": [F8_BLOCK, F8_BLOCK]}
    os.makedirs(out, exist_ok=True)
    write_tensors(out, m.hf, kind, shards)
    files = dict(zip(("tokenizer.json", "tokenizer_config.json"), tokenizer(m.kv)))
    files["config.json"] = m.config
    for name, content in files.items():
        with open(os.path.join(out, name), "w") as f:
            json.dump(content, f)
    return m


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    to_hf(sys.argv[1], sys.argv[2], *sys.argv[3:4], *map(int, sys.argv[4:5]))
