#!/usr/bin/python3
"""An independent forward pass in float64 for architectures that make_golden.py's reference lacks,
and the golden files that it judges them by.  Run by hand when one is added:

  reference.py MODELS_DIR NAME...     writes vec/NAME.TYPE.{vec,ref.bin} for F32, F16 and Q8_0

mkmodel.py makes the models.  What is here is written from the models' papers and their own code, in
whole matrices, and shares nothing with the program: no cache pages, no kernels, no 8-bit rows.

SPDX-License-Identifier: Apache-2.0"""
import hashlib
import os
import sys

import numpy as np

import ggufio
import mkmodel

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "vec")
KINDS = ("F32", "F16", "Q8_0")
LENGTHS = (1, 7, 40)  # of the prompts
N_GREEDY = 32
N_CANDIDATES = 24
# Of all logits the largest difference, the positions' median of theirs, KL: README.md says why.
STRICT = (1e-4, 5e-5, 1e-9)
FAST = {"F32": (0.1, 0.02, 1e-4), "F16": (0.1, 0.03, 1e-4), "Q8_0": (2, 1, 0.1)}
# A vocabulary of the same merges, and a pre-tokenizer that other engines find to cut alike.
SAME_TEXTS = {"bailingmoe2": "qwen2moe.F32.vec"}


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps) * weight


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rotate_halves(x, position, base, n_rot):
    """Of x [rows][heads][size], pair i is value i and value i + n_rot/2."""
    half = n_rot // 2
    angle = position[:, None, None] * base ** (-2.0 * np.arange(half) / n_rot)
    a, b, rest = x[..., :half], x[..., half:n_rot], x[..., n_rot:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle),
                           a * np.sin(angle) + b * np.cos(angle), rest], -1)


class Model:
    """past holds keys and values of each layer; rows of one call follow it, or, as alternatives,
    are each the next."""

    def __init__(self, path):
        self.file = ggufio.GGUF(path)
        self.arch = self.file.kv["general.architecture"]
        self.weights = {}
        self.past = None

    def key(self, name, *default):
        return self.file.kv.get(self.arch + "." + name, *default)

    def w(self, name):
        if name not in self.weights:
            self.weights[name] = self.file.tensor(name)
        return self.weights[name]

    def linear(self, x, name):
        return x @ self.w(name + ".weight").T

    def swiglu(self, x, block, suffix):
        gate = self.linear(x, block + "ffn_gate" + suffix)
        up = self.linear(x, block + "ffn_up" + suffix)
        return self.linear(gate * sigmoid(gate) * up, block + "ffn_down" + suffix)

    def attend(self, layer, q, k, v, alternatives):
        """Causal, grouped; q [rows][heads][size], k and v [rows][kv heads][size]."""
        n, n_heads, size = q.shape
        n_past = 0
        self.fresh.append((k, v))
        if self.past:
            n_past = len(self.past[layer][0])
            k, v = (np.concatenate(pair) for pair in zip(self.past[layer], (k, v)))
        k, v = (np.repeat(x, n_heads // k.shape[1], 1) for x in (k, v))
        scores = np.einsum("rhd,phd->hrp", q, k) / np.sqrt(size)
        own = n_past + np.arange(n)
        seen = np.arange(n_past + n)
        if alternatives:
            mask = (seen[None] < n_past) | (seen[None] == own[:, None])
        else:
            mask = seen[None] <= own[:, None]
        share = softmax(np.where(mask, scores, -np.inf))
        return np.einsum("hrp,phd->rhd", share, v).reshape(n, -1)

    def choose(self, gate, block):
        """Experts of each row, by what the gate gives plus the bias, of the best groups only; and
        in units of the router's logit, how clear the choice was (slope of a sigmoid: 1/4)."""
        k = self.key("expert_used_count")
        n_groups, n_open = self.key("expert_group_count"), self.key("expert_group_used_count")
        by = gate + self.w(block + "exp_probs_b.bias")
        best_two = np.sort(by.reshape(len(by), n_groups, -1), -1)[..., -2:].sum(-1)
        order = np.argsort(-best_two, -1, kind="stable")
        score = np.take_along_axis(best_two, order, -1)
        self.gaps.append((score[:, n_open - 1] - score[:, n_open]) * 2)
        closed = np.ones(best_two.shape, bool)
        np.put_along_axis(closed, order[:, :n_open], False, -1)
        by = np.where(np.repeat(closed, by.shape[1] // n_groups, -1), -np.inf, by)
        order = np.argsort(-by, -1, kind="stable")
        score = np.take_along_axis(by, order[:, :k + 1], -1)
        self.gaps.append((score[:, k - 1] - score[:, k]) * 4)
        return order[:, :k]

    def mixture(self, x, block):
        gate = sigmoid(self.linear(x, block + "ffn_gate_inp"))
        chosen = self.choose(gate, block)
        weight = np.take_along_axis(gate, chosen, -1)
        if self.key("expert_weights_norm", False):
            weight = weight / weight.sum(-1, keepdims=True)
        weight = weight * self.key("expert_weights_scale", 1.0)
        g, u, d = (self.w(block + "ffn_%s_exps.weight" % part) for part in ("gate", "up", "down"))
        out = np.zeros_like(x)
        for row in range(len(x)):
            for e, by in zip(chosen[row], weight[row]):
                a = g[e] @ x[row]
                out[row] += by * (d[e] @ (a * sigmoid(a) * (u[e] @ x[row])))
        return out

    def bailingmoe2(self, x, position, alternatives):
        """Ling 2.0: queries, keys and values in one matrix; each head of queries and keys normed,
        half of it rotated; first layers dense; sigmoid, bias, groups; a shared expert."""
        n_heads, n_kv = self.key("attention.head_count"), self.key("attention.head_count_kv")
        size, eps = self.key("attention.key_length"), self.key("attention.layer_norm_rms_epsilon")
        rotation = (position, self.key("rope.freq_base"), self.key("rope.dimension_count"))
        for layer in range(self.key("block_count") - self.key("nextn_predict_layers", 0)):
            block = "blk.%d." % layer
            h = rms_norm(x, self.w(block + "attn_norm.weight"), eps)
            qkv = self.linear(h, block + "attn_qkv").reshape(len(x), -1, size)
            q, k, v = np.split(qkv, [n_heads, n_heads + n_kv], 1)
            q = rotate_halves(rms_norm(q, self.w(block + "attn_q_norm.weight"), eps), *rotation)
            k = rotate_halves(rms_norm(k, self.w(block + "attn_k_norm.weight"), eps), *rotation)
            x = x + self.linear(self.attend(layer, q, k, v, alternatives), block + "attn_output")
            h = rms_norm(x, self.w(block + "ffn_norm.weight"), eps)
            if layer < self.key("leading_dense_block_count"):
                x = x + self.swiglu(h, block, "")
            else:
                x = x + self.mixture(h, block) + self.swiglu(h, block, "_shexp")
        return self.linear(rms_norm(x, self.w("output_norm.weight"), eps), "output")

    def forward(self, tokens, alternatives=False):
        """Logits [rows][vocabulary]; gaps, one array a choice, for how clear experts were."""
        n_past = len(self.past[0][0]) if self.past else 0
        n = len(tokens)
        position = np.full(n, n_past) if alternatives else n_past + np.arange(n)
        self.fresh, self.gaps = [], []
        x = self.w("token_embd.weight")[tokens]
        return getattr(self, self.arch)(x, position.astype(float), alternatives)

    def keep(self, row=None):
        """Add what the last call computed to the past, of alternatives only one row."""
        rows = slice(None) if row is None else slice(row, row + 1)
        fresh = [(k[rows], v[rows]) for k, v in self.fresh]
        self.past = fresh if not self.past else [
            tuple(np.concatenate(pair) for pair in zip(*both)) for both in zip(self.past, fresh)]


def margin(logits):
    best = np.sort(logits, -1)
    return best[..., -1] - best[..., -2]


def clear_prompt(model, n):
    """n tokens at each of which the model is as decided as can be found: rounding then flips
    neither an expert nor the best token."""
    rng = np.random.default_rng([n, 17])
    model.past = None
    tokens = []
    for _ in range(n):
        candidates = rng.choice(np.arange(10, 500), N_CANDIDATES, replace=False)
        logits = model.forward(candidates, alternatives=True)
        best = int(np.minimum(np.min(model.gaps, 0), margin(logits) / 2).argmax())
        model.keep(best)
        tokens.append(int(candidates[best]))
    return tokens


def line(key, values, form="%s"):
    values = list(values)
    return " ".join([key, str(len(values))] + [form % v for v in values]) + "\n"


def run_prompt(model, key, tokens):
    """Lines of the .vec file, and logits of every position."""
    model.past = None
    logits = model.forward(tokens)
    greedy, margins, gaps = [], [], []
    row = logits
    for _ in range(N_GREEDY):
        greedy.append(int(row[-1].argmax()))
        margins.append(margin(row[-1]))
        gaps.append(min(g[-1] for g in model.gaps))
        model.keep()
        row = model.forward(greedy[-1:])
    return [line(key + "tokens", tokens), line(key + "argmax", logits.argmax(-1)),
            line(key + "greedy", greedy), line(key + "margin", margins, "%.6g"),
            line(key + "gap", gaps, "%.6g")], logits


def texts(name):
    with open(os.path.join(OUT, SAME_TEXTS[name]), encoding="utf-8") as f:
        return [text for text in f if text.startswith("text")]


def write(models, name, kind, prompts):
    path = os.path.join(models, "%s.%s.gguf" % (name, kind))
    with open(path, "rb") as f:
        out = [line("sha256", [hashlib.sha256(f.read()).hexdigest()])]
    out += [line("strict", STRICT, "%.9g"), line("fast", FAST[kind], "%.9g"),
            line("prompts", [len(prompts)])]
    model = Model(path)
    rows = []
    for i, tokens in enumerate(prompts):
        lines, logits = run_prompt(model, "p%d." % i, tokens)
        out += lines
        rows.append(logits.astype("<f4"))
    with open(os.path.join(OUT, "%s.%s.vec" % (name, kind)), "w", encoding="utf-8") as f:
        f.writelines(out + texts(name))
    np.concatenate(rows).tofile(os.path.join(OUT, "%s.%s.ref.bin" % (name, kind)))


def main(models, names):
    for name in names:
        for kind in KINDS:
            mkmodel.MODELS[name]().save(os.path.join(models, "%s.%s.gguf" % (name, kind)), kind)
        model = Model(os.path.join(models, name + ".F32.gguf"))
        prompts = [clear_prompt(model, n) for n in LENGTHS]
        for kind in KINDS:
            write(models, name, kind, prompts)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
