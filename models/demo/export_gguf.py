#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the trained model as GGUF (architecture "qwen3moe"), or read a GGUF back.

  export_gguf.py --model model.npz --config config.json --tokenizer tokenizer.json \
                 --type f16|q8_0|f32 --out demo.gguf

Matrices (embedding, attention, experts) get the chosen type; norms and the router stay
F32.  The output matrix is tied to the embedding, so there is no output.weight.
`read()` is the inverse, used to compute the golden values from the file itself.
"""
import argparse, json, struct

import numpy as np

from tokenizer import Tokenizer

MAGIC, VERSION, ALIGN = 0x46554747, 3, 32
U32, I32, F32, BOOL, STR, ARR, U64 = 4, 5, 6, 7, 8, 9, 10        # metadata value types
PACK = {0: "<B", 1: "<b", 2: "<H", 3: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?",
        U64: "<Q", 11: "<q", 12: "<d"}
TYPES = {"f32": 0, "f16": 1, "q8_0": 8}                          # ggml tensor types
FILE_TYPE = {"f32": 0, "f16": 1, "q8_0": 7}                      # general.file_type


# ---- tensor data -----------------------------------------------------------
def quantize_q8_0(x):
    """Bit for bit ggml's quantize_row_q8_0_ref: blocks of 32, f16 scale, int8."""
    b = np.ascontiguousarray(x, np.float32).reshape(-1, 32)
    d = (np.abs(b).max(1) / np.float32(127)).astype(np.float32)
    with np.errstate(divide="ignore"):
        inv = np.where(d > 0, np.float32(1) / d, np.float32(0)).astype(np.float32)
    v = (b * inv[:, None]).astype(np.float64)
    q = np.copysign(np.floor(np.abs(v) + 0.5), v).astype(np.int8)    # roundf
    out = np.empty(len(b), dtype=[("d", "<f2"), ("q", "i1", 32)])
    out["d"], out["q"] = d.astype(np.float16), q
    return out.tobytes()


def encode(x, kind):
    if kind == "q8_0":
        return quantize_q8_0(x)
    return np.ascontiguousarray(x, {"f32": "<f4", "f16": "<f2"}[kind]).tobytes()


def decode(raw, kind, shape):
    n = int(np.prod(shape))
    if kind == TYPES["q8_0"]:
        b = np.frombuffer(raw, [("d", "<f2"), ("q", "i1", 32)], n // 32)
        x = b["d"].astype(np.float32)[:, None] * b["q"].astype(np.float32)
    else:
        x = np.frombuffer(raw, {0: "<f4", 1: "<f2"}[kind], n).astype(np.float32)
    return x.reshape(shape)


# ---- file ------------------------------------------------------------------
def pack_str(s):
    b = s.encode("utf-8")
    return struct.pack("<Q", len(b)) + b


def pack_value(t, v):
    if t == STR:
        return pack_str(v)
    if t == ARR:                                   # v = (element type, list)
        et, items = v
        return struct.pack("<IQ", et, len(items)) + b"".join(pack_value(et, i) for i in items)
    return struct.pack(PACK[t], v)


def write(path, meta, tensors):
    """meta: [(key, type, value)]; tensors: [(name, array, kind)], row-major arrays."""
    head = struct.pack("<IIQQ", MAGIC, VERSION, len(tensors), len(meta))
    for key, t, v in meta:
        head += pack_str(key) + struct.pack("<I", t) + pack_value(t, v)
    blobs, offset = [], 0
    for name, x, kind in tensors:
        raw = encode(x, kind)
        dims = x.shape[::-1]                       # ggml order: fastest dimension first
        head += (pack_str(name) + struct.pack("<I", len(dims))
                 + struct.pack(f"<{len(dims)}Q", *dims)
                 + struct.pack("<IQ", TYPES[kind], offset))
        raw += b"\0" * (-len(raw) % ALIGN)
        blobs.append(raw)
        offset += len(raw)
    with open(path, "wb") as f:
        f.write(head + b"\0" * (-len(head) % ALIGN))
        for raw in blobs:
            f.write(raw)


def read(path):
    """-> (metadata dict, {name: float32 array}); F32, F16 and Q8_0 tensors only."""
    buf = open(path, "rb").read()
    pos = 0

    def take(fmt):
        nonlocal pos
        v = struct.unpack_from(fmt, buf, pos)
        pos += struct.calcsize(fmt)
        return v[0] if len(v) == 1 else v

    def take_str():
        nonlocal pos
        n = take("<Q")
        pos += n
        return buf[pos - n:pos].decode("utf-8")

    def take_value(t):
        if t == STR:
            return take_str()
        if t == ARR:
            et, n = take("<IQ")
            return [take_value(et) for _ in range(n)]
        return take(PACK[t])

    magic, version, n_tensors, n_meta = take("<IIQQ")
    assert magic == MAGIC and version == VERSION
    meta = {}
    for _ in range(n_meta):
        key = take_str()
        meta[key] = take_value(take("<I"))
    info = []
    for _ in range(n_tensors):
        name, nd = take_str(), take("<I")
        dims = [take("<Q") for _ in range(nd)]
        info.append((name, dims[::-1], *take("<IQ")))
    align = meta.get("general.alignment", 32)
    base = -(-pos // align) * align
    return meta, {name: decode(memoryview(buf)[base + off:], kind, shape)
                  for name, shape, kind, off in info}


# ---- the model -------------------------------------------------------------
ATTN = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
        "mlp.gate": "ffn_gate_inp"}


def metadata(cfg, tok, kind, name):
    a = "qwen3moe."
    n_sp = len(tok.specials)
    return [
        ("general.architecture", STR, "qwen3moe"),
        ("general.name", STR, name),
        ("general.license", STR, "public domain data; see REPORT.md"),
        ("general.alignment", U32, ALIGN),
        ("general.file_type", U32, FILE_TYPE[kind]),
        ("general.quantization_version", U32, 2),
        (a + "block_count", U32, cfg["num_hidden_layers"]),
        (a + "context_length", U32, cfg["max_position_embeddings"]),
        (a + "embedding_length", U32, cfg["hidden_size"]),
        (a + "feed_forward_length", U32, cfg["intermediate_size"]),
        (a + "expert_feed_forward_length", U32, cfg["moe_intermediate_size"]),
        (a + "expert_count", U32, cfg["num_experts"]),
        (a + "expert_used_count", U32, cfg["num_experts_per_tok"]),
        (a + "attention.head_count", U32, cfg["num_attention_heads"]),
        (a + "attention.head_count_kv", U32, cfg["num_key_value_heads"]),
        (a + "attention.key_length", U32, cfg["head_dim"]),
        (a + "attention.value_length", U32, cfg["head_dim"]),
        (a + "attention.layer_norm_rms_epsilon", F32, cfg["rms_norm_eps"]),
        (a + "rope.freq_base", F32, cfg["rope_theta"]),
        (a + "rope.dimension_count", U32, cfg["head_dim"]),
        (a + "vocab_size", U32, cfg["vocab_size"]),
        ("tokenizer.ggml.model", STR, "gpt2"),
        ("tokenizer.ggml.pre", STR, "gpt-2"),
        ("tokenizer.ggml.tokens", ARR, (STR, tok.tokens)),
        # 1 = normal, 3 = control
        ("tokenizer.ggml.token_type", ARR,
         (I32, [1] * (len(tok.tokens) - n_sp) + [3] * n_sp)),
        ("tokenizer.ggml.merges", ARR, (STR, [x + " " + y for x, y in tok.merges])),
        ("tokenizer.ggml.bos_token_id", U32, tok.eot),
        ("tokenizer.ggml.eos_token_id", U32, tok.eot),
        ("tokenizer.ggml.padding_token_id", U32, tok.eot),
        ("tokenizer.ggml.add_bos_token", BOOL, True),
        ("tokenizer.ggml.add_eos_token", BOOL, False),
    ]


def tensors(cfg, state, kind):
    out = [("token_embd.weight", state["model.embed_tokens.weight"], kind),
           ("output_norm.weight", state["model.norm.weight"], "f32")]
    for i in range(cfg["num_hidden_layers"]):
        hf, gg = f"model.layers.{i}.", f"blk.{i}."
        for h, g in ATTN.items():
            x = state[hf + h + ".weight"]
            small = x.ndim == 1 or h == "mlp.gate"
            out.append((gg + g + ".weight", x, "f32" if small else kind))
        for n in ("gate", "up", "down"):           # experts stacked: [expert, out, in]
            x = np.stack([state[hf + f"mlp.experts.{e}.{n}_proj.weight"]
                          for e in range(cfg["num_experts"])])
            out.append((gg + f"ffn_{n}_exps.weight", x, kind))
    return out


def to_hf(meta, t):
    """GGUF tensors back to Hugging Face names (inverse of tensors())."""
    out = {"model.embed_tokens.weight": t["token_embd.weight"],
           "model.norm.weight": t["output_norm.weight"]}
    for i in range(meta["qwen3moe.block_count"]):
        hf, gg = f"model.layers.{i}.", f"blk.{i}."
        for h, g in ATTN.items():
            out[hf + h + ".weight"] = t[gg + g + ".weight"]
        for n in ("gate", "up", "down"):
            for e, x in enumerate(t[gg + f"ffn_{n}_exps.weight"]):
                out[hf + f"mlp.experts.{e}.{n}_proj.weight"] = x
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True)
    ap.add_argument("--config", required=True)
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--type", choices=list(TYPES), default="q8_0")
    ap.add_argument("--round", choices=list(TYPES), help="first round the matrices to this "
                    "type: `--type f32 --round q8_0` writes the Q8_0 values as F32, which "
                    "separates a runtime's arithmetic from its activation quantisation")
    ap.add_argument("--name", default="demo-moe 21M (Shakespeare, KJV, SQLite)")
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    cfg = json.load(open(a.config))
    tok = Tokenizer.load(a.tokenizer)
    state = dict(np.load(a.model))
    assert len(tok.tokens) == cfg["vocab_size"]
    ts = tensors(cfg, state, a.type)
    if a.round:
        ts = [(n, x if x.ndim == 1 or "gate_inp" in n
               else decode(encode(x, a.round), TYPES[a.round], x.shape), kind)
              for n, x, kind in ts]
    write(a.out, metadata(cfg, tok, a.type, a.name), ts)
    _, back = read(a.out)                          # self-check
    assert set(back) == {n for n, _, _ in ts}
    err = max(float(np.abs(back[n] - x).max()) for n, x, _ in ts)
    print(f"{a.out}: {len(ts)} tensors, largest rounding error {err:.3g}")


if __name__ == "__main__":
    main()
