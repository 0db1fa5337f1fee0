#!/usr/bin/python3
"""Convert reference results to files that plain C can read.  Run by hand when they change:

  make_golden.py REFERENCE_DIR DEMO_DIR MODELS_DIR [NAME.TYPE...]
        writes vec/NAME.TYPE.{vec,ref.bin}, vec/demo.vec, vec/far/, or those named

Results of models whose experts stand in groups are computed here, by the reference's own forward
pass with groups=1: its stored ones are without, as the engines of that time had it; these are
ungrouped/NAME.TYPE.  MODELS_DIR is what make_models.py wrote.

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
          "qwen3moe-kq.Q4_K", "qwen3moe-kq.Q4_K_M", "qwen3moe-kq.Q5_K", "qwen3moe-kq.Q6_K",
          "qwen3moe-kq.IQ4_NL", "qwen3moe-kq.IQ4_XS", "qwen3moe-kq.MXFP4", "mixtral.Q4_0",
          "mixtral.Q4_1", "mixtral.Q5_0", "mixtral.Q4_K", "mixtral.Q4_K_M",
          "olmoe.F32", "olmoe.F16", "olmoe.Q8_0",
          "qwen2moe.F32", "qwen2moe.F16", "qwen2moe.Q8_0"]
MODELS += [model + "." + kind for model in ("mixtral", "llama", "llama3", "qwen3", "granitemoe",
                                            "glm4moe", "gpt2", "gpt-oss", "deepseek2-lite",
                                            "deepseek2-v3", "deepseek2-mla")
           for kind in ("F32", "F16", "Q8_0")] + ["gpt-oss.MXFP4"]
GROUPED = ("deepseek2-v3", "deepseek2-mla")
UNGROUPED = "ungrouped/"
MODELS += [UNGROUPED + "deepseek2-v3." + kind for kind in ("F32", "Q8_0")]
HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "vec")


def line(key, values, form="%s"):
    values = list(values)
    return " ".join([key, str(len(values))] + [form % v for v in values]) + "\n"


def grouped(reference, path):
    """The forward pass with groups.  A step's margins are those between groups, too."""
    sys.path.insert(0, reference)
    import ref

    class Grouped(ref.Model):
        def moe(self, x, b, gate, *rest):
            out = super().moe(x, b, gate, *rest)
            logits = self.lin(x, b + "ffn_gate_inp")
            n, used = self.kv("expert_group_count"), self.kv("expert_group_used_count")
            assert gate == "sigmoid"
            score = ref.sigmoid(logits) + self.w(b + "exp_probs_b.bias")
            score = -np.sort(-np.sort(score.reshape(len(x), n, -1), -1)[..., -2:].sum(-1), -1)
            # In units of a router's logit: two sigmoids, of slope 1/4 at most.
            self.gaps.append((score[:, used - 1] - score[:, used]) * 2)
            return out

    return Grouped(path, groups=1)


def clear_prompt(model, n):
    """n tokens at each of which the model is as decided as can be found."""
    rng = np.random.default_rng([n, 99])
    model.reset()
    tokens = []
    for _ in range(n):
        candidates = rng.choice(np.arange(10, 500), 48, replace=False)
        top = np.sort(model.forward(candidates, cached=True, cands=True), -1)
        clear = np.minimum(np.min(model.gaps, 0), (top[:, -1] - top[:, -2]) / 2)
        model.commit(int(clear.argmax()))
        tokens.append(int(candidates[clear.argmax()]))
    return tokens


def compute_grouped(reference, path, golden, logits):
    """Put in place of golden's and logits' results those with groups."""
    model = grouped(reference, path)
    for i, prompt in enumerate(golden["prompts"]):
        prompt["tokens"] = clear_prompt(model, len(prompt["tokens"]))
        model.reset()
        rows = model.forward(prompt["tokens"])
        logits["ref%d" % i] = rows
        prompt["ref_argmax_every_position"] = [int(t) for t in rows.argmax(-1)]
        steps = {"ref_greedy": [], "ref_greedy_margin": [], "ref_greedy_router_gap": []}
        for _ in range(32):
            top = np.sort(rows[-1])
            steps["ref_greedy"].append(int(rows[-1].argmax()))
            steps["ref_greedy_margin"].append(top[-1] - top[-2])
            steps["ref_greedy_router_gap"].append(min(g[-1] for g in model.gaps))
            model.commit()
            rows = model.forward(steps["ref_greedy"][-1:], cached=True)
        prompt.update(steps)


def convert(reference, models, name):
    stored = os.path.join(reference, "golden", name.removeprefix(UNGROUPED))
    with open(stored + ".json") as f:
        golden = json.load(f)
    logits = dict(np.load(stored + ".npz"))
    if name.startswith(GROUPED):
        compute_grouped(reference, os.path.join(models, name + ".gguf"), golden, logits)
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


def convert_far(reference, models):
    """test_far.c: its tokens behind so many positions of zeros."""
    sys.path.insert(0, reference)
    import ref

    model = ref.Model(os.path.join(models, "gpt-oss.F32.gguf"))
    tokens = np.array([5, 17, 99, 300, 41, 8, 77, 210, 33, 400, 12, 64])
    os.makedirs(os.path.join(OUT, "far"), exist_ok=True)
    for skip in 32762, 131060:
        zeros = np.zeros((skip, model.nkv, model.hd))
        model.past = [(zeros, zeros)] * model.nl
        rows = model.forward(tokens, cached=True)
        rows.astype("<f4").tofile(os.path.join(OUT, "far", "gpt-oss.F32.%d.bin" % skip))


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
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    os.makedirs(os.path.join(OUT, UNGROUPED), exist_ok=True)
    for model in sys.argv[4:] or MODELS:
        convert(sys.argv[1], sys.argv[3], model)
    if len(sys.argv) == 4:
        convert_demo(sys.argv[2])
        convert_far(sys.argv[1], sys.argv[3])
