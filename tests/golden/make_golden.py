#!/usr/bin/python3
"""Convert reference results to files that plain C can read.  Run by hand when they change:

  make_golden.py REFERENCE_DIR DEMO_DIR     writes vec/NAME.TYPE.{vec,ref.bin}, vec/demo.vec

A .vec line is `KEY COUNT VALUE...`; a .ref.bin holds float32 logits [positions][vocabulary] of all
prompts.
README.md says where the results come from.

SPDX-License-Identifier: Apache-2.0"""
import json
import os
import sys

import numpy as np

MODELS = ["qwen3moe.F32", "qwen3moe.F16", "qwen3moe.Q8_0", "qwen3moe-kq.F32", "qwen3moe-kq.F16",
          "qwen3moe-kq.BF16", "qwen3moe-kq.Q8_0", "qwen3moe-kq.Q4_0", "qwen3moe-kq.Q4_1",
          "qwen3moe-kq.Q5_0", "qwen3moe-kq.Q5_1", "qwen3moe-kq.Q2_K", "qwen3moe-kq.Q3_K",
          "qwen3moe-kq.Q4_K_M", "qwen3moe-kq.Q5_K", "qwen3moe-kq.IQ4_NL", "qwen3moe-kq.IQ4_XS",
          "qwen3moe-kq.MXFP4", "olmoe.F32", "olmoe.F16", "olmoe.Q8_0",
          "qwen2moe.F32", "qwen2moe.F16", "qwen2moe.Q8_0"]
MODELS += [model + "." + kind for model in ("mixtral", "llama", "llama3", "qwen3", "granitemoe",
                                            "glm4moe", "gpt-oss", "deepseek2-lite",
                                            "deepseek2-v3", "deepseek2-mla")
           for kind in ("F32", "F16", "Q8_0")] + ["gpt-oss.MXFP4"]
HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "vec")


def line(key, values, form="%s"):
    values = list(values)
    return " ".join([key, str(len(values))] + [form % v for v in values]) + "\n"


def convert(reference, name):
    with open(os.path.join(reference, "golden", name + ".json")) as f:
        golden = json.load(f)
    logits = np.load(os.path.join(reference, "golden", name + ".npz"))
    with open(os.path.join(reference, "tolerances.json")) as f:
        tolerances = json.load(f)
    kind = golden["type"]
    fast = tolerances.get(kind) or tolerances[kind + " KV f16"]
    out = [line("sha256", [golden["sha256"]]),
           line("strict", tolerances["strict"], "%.9g"), line("fast", fast, "%.9g"),
           line("prompts", [len(golden["prompts"])])]
    rows = []
    for i, prompt in enumerate(golden["prompts"]):
        key = "p%d." % i
        out += [line(key + "tokens", prompt["tokens"]),
                line(key + "argmax", prompt["ref_argmax_every_position"]),
                line(key + "greedy", prompt["ref_greedy"]),
                line(key + "margin", prompt["ref_greedy_margin"], "%.6g"),
                line(key + "gap", [99 if gap is None else gap  # no router: always clear
                                   for gap in prompt["ref_greedy_router_gap"]], "%.6g")]
        rows.append(logits["ref%d" % i].astype("<f4"))
    engines = golden.get("tokenize_engine") or {}
    ids = next(iter(engines.values()), [])
    for i, text in enumerate(ids):
        out.append(line("text%d.bytes" % i, golden["tokenize_texts"][i].encode()))
        out.append(line("text%d.ids" % i, text))
    with open(os.path.join(OUT, name + ".vec"), "w") as f:
        f.writelines(out)
    np.concatenate(rows).tofile(os.path.join(OUT, name + ".ref.bin"))


def convert_demo(demo):
    with open(os.path.join(demo, "golden.json"), encoding="utf-8") as f:
        golden = json.load(f)
    out = [line("prompts", [len(golden["prompts"])])]
    for i, p in enumerate(golden["prompts"]):
        key = "p%d." % i
        out += [line(key + "bytes", p["text"].encode()), line(key + "bos", [int(p["add_bos"])]),
                line(key + "tokens", p["ids"]), line(key + "top_id", [t[0] for t in p["top"]]),
                line(key + "top_logit", [t[1] for t in p["top"]], "%.9g"),
                line(key + "experts", [e for row in p["experts"] for e in row]),
                line(key + "weights", [w for row in p["expert_weights"] for w in row], "%.9g"),
                line(key + "greedy", p["greedy"]), line(key + "margin", p["greedy_margin"], "%.6g")]
    for domain, slice_ in golden["perplexity"].items():
        out += [line(domain + ".tokens", slice_["ids"]),
                line(domain + ".nll", [slice_["nll"]], "%.9g")]
    with open(os.path.join(OUT, "demo.vec"), "w") as f:
        f.writelines(out)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    os.makedirs(OUT, exist_ok=True)
    for model in MODELS:
        convert(sys.argv[1], model)
    convert_demo(sys.argv[2])
