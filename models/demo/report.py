#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the measured part of REPORT.md: loss curve, held-out loss, expert usage, samples.

  report.py --gguf demo-q8_0.gguf --tokenizer tokenizer.json --golden golden.json \
            --log run/log.jsonl --out REPORT.md [--append notes.md]
"""
import argparse, json
from collections import Counter

import numpy as np
import torch

from golden import load
from tokenizer import Tokenizer

SAMPLES = [("shakespeare", "ROMEO:\n"), ("shakespeare", "KING RICHARD III:\nNow"),
           ("bible", "Genesis 51\n\n1 And it came to pass"),
           ("bible", "1 The LORD said unto Moses,"),
           ("c", "static int sqlite3Btree"), ("c", "/*\n** Return the number of")]


@torch.no_grad()
def sample(model, tok, prompt, n, seed, temperature=0.8, top_k=40):
    gen = torch.Generator().manual_seed(seed)
    ids = [tok.eot] + tok.encode(prompt)
    for _ in range(n):
        v, i = model(torch.tensor([ids[-512:]]))[0][0, -1].topk(top_k)
        t = i[torch.multinomial(torch.softmax(v / temperature, -1), 1, generator=gen)].item()
        if t == tok.eot:
            break
        ids.append(t)
    return tok.decode(ids[1:])


@torch.no_grad()
def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    for n in ("gguf", "tokenizer", "golden", "log", "out"):
        ap.add_argument("--" + n, required=True)
    ap.add_argument("--append", help="text to put before the measurements")
    ap.add_argument("--sample-tokens", type=int, default=160)
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    tok, model = Tokenizer.load(a.tokenizer), load(a.gguf)
    golden = json.load(open(a.golden))
    c = model.c
    w = []
    if a.append:
        w.append(open(a.append).read().rstrip() + "\n")
    total, active = model.param_counts()
    expert = 3 * c.hidden_size * c.moe_intermediate_size
    w.append("## Parameters\n")
    w.append(f"| part | count |\n|---|---|\n"
             f"| embedding = output matrix (tied) | {model.embed.numel():,} |\n"
             f"| attention, all layers | {sum(l.qkv.numel() + l.o.numel() for l in model.layers):,} |\n"
             f"| routers | {sum(l.router.numel() for l in model.layers):,} |\n"
             f"| norms | {sum(p.numel() for p in model.parameters() if p.ndim == 1):,} |\n"
             f"| one expert | {expert:,} |\n"
             f"| all {c.num_hidden_layers * c.num_experts} experts | {c.num_hidden_layers * c.num_experts * expert:,} |\n"
             f"| **total** | **{total:,}** |\n| **active per token** | **{active:,}** |\n"
             f"| active, without the embedding | {active - model.embed.numel():,} |\n")

    rec = {}
    for line in open(a.log):
        r = json.loads(line)
        rec[r["step"]] = r
    w.append("## Loss curve\n\nTraining cross-entropy (nats per token, mean of the 20 steps "
             "before) and held-out cross-entropy (first 8 windows of 512 per domain, bfloat16).\n")
    w.append("| step | train | balance | lr | held shakespeare | held bible | held c |\n"
             "|---|---|---|---|---|---|---|")
    last = max(rec)
    for s in sorted(rec):
        if s % 100 == 0 or s == last or s in (20, 60):
            r, h = rec[s], rec[s].get("held", {})
            w.append(f"| {s} | {r['loss']:.3f} | {r['balance']:.3f} | {r['lr']:.2e} | "
                     + " | ".join(f"{h[d]:.3f}" if d in h else "" for d in
                                  ("shakespeare", "bible", "c")) + " |")
    w.append("\n## Held-out loss of the Q8_0 file\n\nfloat32, the slices of golden.json "
             "(4096 tokens, windows of 512).\n")
    w.append("| domain | nats/token | perplexity | bits/byte |\n|---|---|---|---|")
    for d, v in golden["perplexity"].items():
        w.append(f"| {d} | {v['nll']:.4f} | {v['ppl']:.2f} | {v['bits_per_byte']:.3f} |")

    w.append("\n## Expert usage per domain\n\nShare (%) of the held-out slice's expert "
             f"assignments (top-{c.num_experts_per_tok}; even would be "
             f"{100 / c.num_experts:.2f}). \"info\" is the mutual information between domain "
             "and chosen expert, in bits: 0 = experts ignore the domain, "
             f"{np.log2(3):.2f} = the domain follows from the expert.\n")
    use, first_tok = {}, {}
    for d, v in golden["perplexity"].items():
        x = torch.tensor(v["ids"]).view(-1, v["window"])
        chosen = torch.cat([model(r[None])[3] for r in x], 1)         # [L, B, T, k]
        use[d] = np.stack([np.bincount(l.reshape(-1).numpy(), minlength=c.num_experts)
                           for l in chosen]).astype(float)
        use[d] /= use[d].sum(1, keepdims=True)
        for l in range(c.num_hidden_layers):
            for e, t in zip(chosen[l, :, :, 0].reshape(-1).tolist(), x.reshape(-1).tolist()):
                first_tok.setdefault((l, e), Counter())[tok.decode([t])] += 1
    w.append("| layer | domain | " + " | ".join(f"e{e}" for e in range(c.num_experts))
             + " | info |\n|" + "---|" * (c.num_experts + 3))
    infos = []
    for l in range(c.num_hidden_layers):
        P = np.stack([use[d][l] for d in use]) / 3
        info = float(np.sum(P * np.log2(np.maximum(P, 1e-12)
                                        / np.maximum(P.sum(0) / 3, 1e-12))))
        infos.append(info)
        for d in use:
            w.append(f"| {l} | {d} | " + " | ".join(f"{100 * s:.0f}" for s in use[d][l])
                     + (f" | {info:.2f} |" if d == "c" else " | |"))
    w.append(f"\nMean mutual information: {np.mean(infos):.2f} bits.  For each domain, the "
             "share of assignments that goes to experts which this domain uses at least "
             "twice as much as the average of the two others:\n")
    for d in use:
        s = []
        for l in range(c.num_hidden_layers):
            other = sum(use[o][l] for o in use if o != d) / 2
            s.append(use[d][l][use[d][l] >= 2 * other].sum())
        w.append(f"- {d}: " + ", ".join(f"layer {l} {100 * x:.0f} %" for l, x in enumerate(s)))
    mid = c.num_hidden_layers // 2
    w.append(f"\nMost frequent tokens whose first choice is the expert, layer {mid} "
             "(all three slices together):\n")
    for e in range(c.num_experts):
        t = first_tok.get((mid, e), Counter()).most_common(12)
        w.append(f"- e{e}: " + " ".join("`" + json.dumps(s)[1:-1].replace("`", "'") + "`"
                                        for s, _ in t))
    w.append(f"\n## Samples\n\nQ8_0 weights in PyTorch, temperature 0.8, top-k 40, "
             f"{a.sample_tokens} tokens at most, seed 1, not selected.\n")
    for d, p in SAMPLES:
        w.append(f"{d}, prompt {p!r}:\n\n```\n"
                 + sample(model, tok, p, a.sample_tokens, 1) + "\n```\n")
    w.append("Greedy continuations (golden.json):\n")
    for p in golden["prompts"]:
        w.append(f"- {p['domain']}, after {json.dumps(p['text'][-40:])}: "
                 f"{json.dumps(p['greedy_text'])}")
    with open(a.out, "w") as f:
        f.write("\n".join(w) + "\n")
    print("mutual information per layer:", [round(i, 3) for i in infos])


if __name__ == "__main__":
    main()
