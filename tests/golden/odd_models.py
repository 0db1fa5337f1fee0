#!/usr/bin/python3
"""Models that are sound as files but odd: `troupe run` ends well or with one line, `troupe inspect`
says the same of each, and neither crashes.

  odd_models.py BIN MODEL...   MODEL: a small model of F32 weights; the first a qwen3moe one, which
                               meets everything, the others what their architecture has of its own

SPDX-License-Identifier: Apache-2.0"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

import ggufio

ARCH = "qwen3moe."
SIZES = {
    "context_length": [0, 1, 2**31], "block_count": [0, 1, 3, 2**31],
    "embedding_length": [0, 1, 32, 2**31], "attention.head_count": [0, 1, 3, 64, 2**31],
    "attention.head_count_kv": [0, 1, 3, 2**31], "expert_count": [0, 1, 3, 2**31],
    "expert_used_count": [0, 1, 100, 2**31], "attention.key_length": [0, 1, 33, 2**31],
    "attention.value_length": [0, 16], "expert_feed_forward_length": [7], "vocab_size": [0, 7],
    "expert_gating_func": [2], "expert_shared_count": [1], "attention.sliding_window": [64],
    "leading_dense_block_count": [1], "expert_group_count": [4],
}
REALS = {"attention.layer_norm_rms_epsilon": ["nan", 0.0, -1.0, "inf"],
         "rope.freq_base": ["nan", 0.0, -1.0, "inf"], "expert_weights_scale": [2.5],
         "logit_scale": [2.0], "attention.scale": [0.5], "rope.scaling.factor": [4.0]}
# Of single architectures: what may be any of these, and what must be refused.
OWN = {
    "glm4moe": ({"leading_dense_block_count": [],
                 "rope.dimension_count": [2, 32], "expert_gating_func": [0, 1, 2],
                 "expert_weights_scale": [0.5]},
                {"leading_dense_block_count": [0, 2, 3, 100],
                 "nextn_predict_layers": [0, 3, 4, 100],
                 "rope.dimension_count": [0, 7, 64, 2**31], "expert_gating_func": [3],
                 "expert_shared_count": [0, 2, 2**31], "expert_weights_scale": ["nan", 0.0, "inf"],
                 "rope.scaling.factor": [2.0], "attention.sliding_window": [8],
                 "feed_forward_length": [7]}),
    "granitemoe": ({"embedding_scale": [1.0], "residual_scale": [1.0], "attention.scale": [1.0]},
                   {name: ["nan", 0.0, -1.0, "inf"] for name in
                    ("embedding_scale", "residual_scale", "attention.scale", "logit_scale")}),
    "llama": ({"expert_count": [0]},
              {"expert_count": [1, 8], "rope.scaling.factor": [2.0], "feed_forward_length": [7],
               "rope.dimension_count": [16], "attention.sliding_window": [8],
               "expert_shared_count": [1], "logit_scale": [2.0], "embedding_scale": [2.0],
               "nextn_predict_layers": [1]}),
    "gpt-oss": ({"attention.sliding_window": [0, 1, 1000], "rope.scaling.factor": [1.0],
                 "rope.scaling.type": ["none"], "rope.scaling.yarn_beta_fast": [16.0]},
                {"attention.sliding_window": [2**31], "rope.scaling.factor": ["nan", 0.0, 0.5],
                 "rope.scaling.type": ["linear"], "rope.scaling.original_context_length": [0],
                 "rope.scaling.yarn_beta_fast": [0.5], "rope.dimension_count": [16]}),
    "deepseek2": ({"leading_dense_block_count": [], "expert_group_count": [1],
                   "expert_group_used_count": [4], "expert_gating_func": [0],
                   "expert_weights_norm": [], "rope.scaling.yarn_log_multiplier": [0.5]},
                  {"attention.kv_lora_rank": [0, 32, 2**31],
                   "attention.q_lora_rank": [0, 32, 2**31],
                   "attention.value_length": [0, 32, 2**31], "attention.key_length": [16, 64],
                   "attention.key_length_mla": [33, 2**31], "rope.dimension_count": [0, 8, 7, 48],
                   "leading_dense_block_count": [0, 2], "expert_gating_func": [1, 3],
                   "expert_group_count": [3], "expert_group_used_count": [0],
                   "nextn_predict_layers": [1],
                   "rope.scaling.yarn_log_multiplier": ["nan"], "attention.scale": [0.5]}),
    "bailingmoe2": ({"expert_group_count": [1], "expert_group_used_count": [4],
                     "expert_gating_func": [0], "rope.dimension_count": [64],
                     "expert_weights_scale": [0.5]},
                    {"attention.head_count": [8], "attention.head_count_kv": [1, 4],
                     "leading_dense_block_count": [0, 2], "nextn_predict_layers": [0, 2, 4],
                     "rope.dimension_count": [0, 7, 66], "expert_gating_func": [1, 3],
                     "expert_group_count": [3], "expert_group_used_count": [0, 5],
                     "expert_shared_count": [2, 2**31],
                     "expert_shared_feed_forward_length": [32, 2**31],
                     "expert_weights_scale": ["nan", 0.0], "rope.scaling.factor": [2.0],
                     "attention.sliding_window": [8]}),
    "gpt2": ({"feed_forward_length": [0], "attention.head_count": [2]},
             {"context_length": [1, 511, 2**31], "attention.head_count": [3],
              "attention.head_count_kv": [2], "attention.layer_norm_epsilon": ["nan", 0.0, -1.0],
              "feed_forward_length": [7], "expert_count": [8], "rope.scaling.factor": [2.0],
              "attention.key_length": [32]}),
    "qwen2moe": ({}, {"expert_shared_feed_forward_length": [0, 7, 2**31], "expert_count": [0, 7]}),
}
HALVED = ("exp_probs_b", "rope_freqs", "_shexp", "ffn_down.", "sinks", ".bias", "attn_qkv",
          "position_embd")
GLOBAL = ("position_embd", "output_norm")
# Of newer ones: layers that say all, since others have the same tensors.
ALIKE = {"gpt2": ("blk.0.",), "bailingmoe2": ("blk.0.", "blk.1.")}
# refused, whatever else: these would be other models
MUST_FAIL = ["expert_gating_func", "expert_shared_count", "sliding_window", "leading_dense",
             "extra", "expert_group", "weights_scale", "logit_scale", "attention.scale",
             "scaling.factor", "vocab_size=", "expert_feed_forward_length=7", "block_count=1 ",
             "missing", "nan", "inf "]


def tensors(g):
    return [[name, shape, kind, g.raw(name)] for name, (shape, kind, _) in g.t.items()]


def retyped(g, part, kind):
    out = tensors(g)
    for t in out:
        if part in t[0]:
            t[3] = ggufio.quantize(g.tensor(t[0], np.float32).reshape(t[1]), kind)
            t[2] = kind
    return out


def filled(g, part, value):
    out = tensors(g)
    for t in out:
        if part in t[0]:
            t[3] = np.full(t[1], value, np.float32).tobytes()
    return out


def cases(g):
    """name, metadata, tensors"""
    for kind in ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        for part in ("ffn_gate_inp", "attn_norm", "attn_q_norm", "attn_k.", "token_embd",
                     "ffn_down_exps", "ffn_gate_exps"):
            yield "%s in %s" % (part, kind), dict(g.kv), retyped(g, part, kind)
    for key, values in list(SIZES.items()) + list(REALS.items()):
        for v in values:
            kv = dict(g.kv)
            kv[ARCH + key] = np.float32(v) if key in REALS else v
            yield "%s=%s " % (key, v), kv, tensors(g)
    for key in g.kv:
        kv = dict(g.kv)
        del kv[key]
        yield "without " + key, kv, tensors(g)
        kv = dict(g.kv)
        kv[key] = 5 if isinstance(g.kv[key], str) else "text"
        yield "another kind of " + key, kv, tensors(g)
    for name in [n for n in g.t if n != "output.weight"][:14] + ["output_norm.weight"]:
        yield "missing " + name, dict(g.kv), [t for t in tensors(g) if t[0] != name]
    for name in ("blk.0.attn_q.bias", "blk.0.ffn_up_shexp.weight", "rope_freqs.weight"):
        more = [name, (32,), "F32", np.zeros(32, np.float32).tobytes()]
        yield "extra " + name, dict(g.kv), tensors(g) + [more]
    for part in ("ffn_gate_inp", "token_embd", "attn_q.", "ffn_norm"):
        yield "%s all nan" % part, dict(g.kv), filled(g, part, np.nan)
    yield "output all inf ", dict(g.kv), filled(g, "output.weight", np.inf)


def own_cases(g):
    """name, metadata, tensors"""
    arch = g.kv["general.architecture"]
    first = ALIKE.get(arch, ("blk.0.", "blk.1."))
    for may, values in zip(("may run", "must fail"), OWN[arch]):
        for key in values:
            for v in values[key]:
                kv = dict(g.kv)
                word = isinstance(v, str) and key.endswith(".type")
                kv[arch + "." + key] = v if word or isinstance(v, int) else np.float32(v)
                yield "%s %s %s=%s " % (arch, may, key, v), kv, tensors(g)
    for name in g.t:
        if "nextn" not in name and name.startswith(first + GLOBAL):
            yield "%s must fail: missing %s" % (arch, name), dict(g.kv), [
                t for t in tensors(g) if t[0] != name]
    if "blk.2.exp_probs_b.bias" in g.t:
        yield "%s must fail: choice bias nan" % arch, dict(g.kv), filled(g, "blk.2.exp_probs_b",
                                                                         np.nan)
    if arch == "deepseek2":
        n = g.kv["deepseek2.block_count"]
        kv = {**g.kv, "deepseek2.block_count": n + 1, "deepseek2.nextn_predict_layers": 1}
        yield "deepseek2 must run: a block behind", kv, tensors(g) + [
            ["blk.%d.nextn.enorm.weight" % n, (32,), "F32", np.zeros(32, np.float32).tobytes()]]
    if arch == "gpt2":
        gate = ["blk.1.ffn_gate.weight"] + tensors(g)[list(g.t).index("blk.1.ffn_up.weight")][1:]
        yield "gpt2 must fail: a gate", dict(g.kv), tensors(g) + [gate]
    if "blk.1.ffn_gate.weight" in g.t:
        n = g.kv[arch + ".feed_forward_length"]
        bias = ["blk.1.ffn_up.bias", (n,), "F32", np.zeros(n, np.float32).tobytes()]
        down = ["blk.1.ffn_down.bias", (256,), "F32", np.zeros(256, np.float32).tobytes()]
        yield "%s must fail: no gate but biases" % arch, dict(g.kv), [
            t for t in tensors(g) if t[0] != "blk.1.ffn_gate.weight"] + [bias, down]
    short = tensors(g)
    for t in short:
        if arch in ALIKE and not t[0].startswith(first + GLOBAL):
            continue
        if not t[0].startswith("blk.3.") and any(part in t[0] for part in HALVED):
            whole, t[1] = t[1], t[1][:-1] + (t[1][-1] // 2,)
            t[3] = t[3][:len(t[3]) // 2]
            yield "%s must fail: half of %s" % (arch, t[0]), dict(g.kv), [tuple(x) for x in short]
            t[1], t[3] = whole, g.raw(t[0])


def run(*words):
    try:
        p = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        return p.returncode, p.stdout, p.stderr
    except subprocess.TimeoutExpired:
        return "no end", b"", b""


def check(troupe, name, path):
    """What is wrong, or None."""
    status, _, said = run(troupe, "run", "-m", path, "-p", "hi there", "-n", "3", "--threads", "2",
                          "--ctx", "32")
    lines = said.count(b"error:")
    if status not in (0, 3, 4) or lines != (status != 0) or b"anitizer" in said:
        return "run: status %s: %s" % (status, said[-400:].decode(errors="replace"))
    if status == 0 and ("must fail" in name or any(word in name for word in MUST_FAIL)
                        and "may run" not in name):
        return "run: computed as if nothing were odd"
    if status != 0 and "must run" in name:
        return "run: refused: %s" % said[-400:].decode(errors="replace")
    code, out, errors = run(troupe, "inspect", "--json", path)
    if code not in (0, 3) or b"anitizer" in errors:
        return "inspect: status %s: %s" % (code, errors[-400:].decode(errors="replace"))
    runs = code == 0 and json.loads(out)["supported"]
    numbers = b"is no number" in said  # seen only when it is computed
    if runs != (status == 0 or numbers) and status != 4:
        return "inspect says %s, run ends with %s: %s" % (runs, status, said.decode().strip())
    return None


def check_counts(troupe, path, g):
    """What is wrong with what inspect says of a model with a block that is not run, or None."""
    _, out, _ = run(troupe, "inspect", "--json", path)
    facts = json.loads(out)
    behind = sum(len(g.raw(name)) for name in g.t if name.startswith("blk.3."))
    experts = sum(len(g.raw(name)) for name in g.t
                  if "_exps" in name and not name.startswith("blk.3."))
    want = {"layers": 3, "unused_bytes": behind,
            "bytes_per_expert": experts // (2 * g.kv["glm4moe.expert_count"])}
    whole = sum(facts[key] for key in ("dense_bytes", "expert_bytes", "unused_bytes"))
    if whole != sum(len(g.raw(name)) for name in g.t):
        return "the parts are %d bytes" % whole
    wrong = [key for key in want if facts[key] != want[key]]
    return "%s is %s, not %s" % (wrong[0], facts[wrong[0]], want[wrong[0]]) if wrong else None


def check_missing(troupe, path, g):
    """What is wrong with what inspect says of a model that lacks several things, or None."""
    ggufio.TYPES.setdefault("IQ2_XXS", (16, 256, 66))
    kv = {**g.kv, "general.architecture": "newest", "tokenizer.ggml.model": "newer"}
    more = [["blk.%d.new.weight" % i, (2, 256), "IQ2_XXS", bytes(132)] for i in range(3)]
    ggufio.write_gguf(path, kv, [tuple(t) for t in tensors(g) + more])
    code, out, _ = run(troupe, "inspect", "--json", path)
    facts = json.loads(out)
    missing = facts.get("missing", [])
    words = (("newest",), ("newer",), ("3 tensors", "IQ2_XXS", "blk.0.new.weight"))
    if code != 0 or facts["supported"] or "memory" in facts or len(missing) != 3:
        return "missing are %s" % missing
    for line, want in zip(missing, words):
        if not all(word in line for word in want):
            return "'%s' does not say %s" % (line, want)
    code, out, _ = run(troupe, "inspect", path)
    if not all(line.encode() in out for line in missing):
        return "the table leaves some out: %s" % out.decode()
    return None


def check_sound(troupe, path):
    """What is wrong with what inspect says of the memory that a sound model needs, or None."""
    for workers in ("0", "2"):
        code, out, errors = run(troupe, "inspect", "--json", "-w", workers, path)
        if code != 0:
            return "-w %s: status %s: %s" % (workers, code, errors[-400:].decode(errors="replace"))
        facts = json.loads(out)
        if not facts["supported"] or "memory" not in facts:
            return "-w %s: %s" % (workers, facts.get("missing", "no memory is told"))
    return None


def main(troupe, models):
    n = bad = 0
    folder = os.path.dirname(models[0])
    for name in sorted(name for name in os.listdir(folder) if name.endswith(".gguf")):
        wrong = check_sound(troupe, os.path.join(folder, name))
        n += 1
        if wrong:
            bad += 1
            print("inspect %s: %s" % (name, wrong))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "odd.gguf")
        for i, model in enumerate(models):
            g = ggufio.GGUF(model)
            if g.kv["general.architecture"] == "glm4moe":
                wrong = check_counts(troupe, model, g)
                n += 1
                bad += wrong is not None
                print("inspect:", wrong or "counts what is run")
            if i == 0:
                wrong = check_missing(troupe, path, g)
                n += 1
                bad += wrong is not None
                print("inspect:", wrong or "says all that is missing")
            for name, kv, parts in cases(g) if i == 0 else own_cases(g):
                ggufio.write_gguf(path, kv, [tuple(t) for t in parts])
                wrong = check(troupe, name, path)
                n += 1
                if wrong:
                    bad += 1
                    print("%s: %s" % (name, wrong))
    print("%d odd models, %d dealt with wrongly" % (n, bad))
    return n < 200 or bad > 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
