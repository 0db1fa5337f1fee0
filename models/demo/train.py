#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train the small Qwen3-MoE model on CPU.

  train.py --data data --tokenizer tokenizer.json --out run [--steps N]

Writes to OUT: ckpt.pt (model + optimizer + RNG, atomically replaced every few minutes;
training resumes from it; SIGTERM writes one and ends), log.jsonl (the loss curve), and at every checkpoint
model.npz + config.json (weights under Hugging Face names).
"""
import argparse, json, math, os, signal, time

import numpy as np
import torch
import torch.nn.functional as F

from model import Config, Model
from tokenizer import Tokenizer

MIX = {"shakespeare": 0.25, "bible": 0.40, "c": 0.35}   # share of training sequences


def load_tokens(data, tok, split):
    """Each document is preceded by <|endoftext|>; documents are concatenated."""
    out = {}
    for d in MIX:
        docs = json.load(open(os.path.join(data, f"{d}.{split}.json"), encoding="utf-8"))
        ids = [i for doc in docs for i in [tok.eot] + tok.encode(doc)]
        out[d] = torch.tensor(ids, dtype=torch.long)
    return out


def batch(tokens, n, T, gen):
    """n random windows, the domain of each drawn from MIX."""
    names = list(tokens)
    which = torch.multinomial(torch.tensor([MIX[d] for d in names]), n, True, generator=gen)
    rows = []
    for w in which.tolist():
        t = tokens[names[w]]
        s = torch.randint(len(t) - T, (1,), generator=gen).item()
        rows.append(t[s:s + T + 1])
    rows = torch.stack(rows)
    return rows[:, :-1], rows[:, 1:]


@torch.no_grad()
def held_out_loss(model, tokens, T, windows, compute):
    """Mean loss over `windows` consecutive windows from the start of each domain."""
    out = {}
    for d, t in tokens.items():
        n = min(windows, (len(t) - 1) // T)
        x, y = t[:n * T].view(n, T), t[1:n * T + 1].view(n, T)
        tot = 0.0
        for i in range(0, n, 4):
            lg = model(x[i:i + 4], compute)[0].float()
            tot += F.cross_entropy(lg.view(-1, lg.shape[-1]), y[i:i + 4].reshape(-1),
                                   reduction="sum").item()
        out[d] = tot / (n * T)
    return out


def save(path, obj):
    torch.save(obj, path + ".tmp")
    os.replace(path + ".tmp", path)


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", required=True)
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--steps", type=int, default=2400, help="length of the cosine schedule")
    ap.add_argument("--tokens", type=int, default=4096, help="tokens per step")
    ap.add_argument("--long-from", type=float, default=0.7,
                    help="fraction of the steps after which windows are 512, not 256, long")
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--min-lr", type=float, default=0.05, help="final lr as a share of --lr")
    ap.add_argument("--warmup", type=int, default=100)
    ap.add_argument("--weight-decay", type=float, default=0.1)
    ap.add_argument("--balance", type=float, default=0.01)
    ap.add_argument("--z-loss", type=float, default=1e-3)
    ap.add_argument("--seed", type=int, default=1234)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--f32", action="store_true", help="no bfloat16 (CPUs without AVX512-BF16)")
    ap.add_argument("--ckpt-minutes", type=float, default=3)
    ap.add_argument("--eval-every", type=int, default=200)
    ap.add_argument("--stop-at", type=int, default=0, help="stop at this step (0: the last)")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    gen = torch.Generator().manual_seed(a.seed)
    compute = torch.float32 if a.f32 else torch.bfloat16
    os.makedirs(a.out, exist_ok=True)

    tok = Tokenizer.load(a.tokenizer)
    train, held = load_tokens(a.data, tok, "train"), load_tokens(a.data, tok, "held")
    print({d: (len(train[d]), len(held[d])) for d in MIX}, "tokens (train, held)", flush=True)

    cfg = Config(vocab_size=len(tok.tokens))
    model = Model(cfg)
    print("parameters (total, active):", model.param_counts(), flush=True)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    opt = torch.optim.AdamW([dict(params=matrices, weight_decay=a.weight_decay),
                             dict(params=vectors, weight_decay=0.0)],
                            lr=a.lr, betas=(0.9, 0.95), eps=1e-8)
    step, ckpt = 0, os.path.join(a.out, "ckpt.pt")
    if os.path.exists(ckpt):
        s = torch.load(ckpt)
        model.load_state_dict(s["model"])
        opt.load_state_dict(s["opt"])
        gen.set_state(s["gen"])
        step = s["step"]
        print("resumed at step", step, flush=True)

    log = open(os.path.join(a.out, "log.jsonl"), "a")

    def checkpoint():
        save(ckpt, dict(model=model.state_dict(), opt=opt.state_dict(),
                        gen=gen.get_state(), step=step))
        np.savez(os.path.join(a.out, "model.tmp.npz"), **model.hf_state())
        os.replace(os.path.join(a.out, "model.tmp.npz"), os.path.join(a.out, "model.npz"))
        with open(os.path.join(a.out, "config.json"), "w") as f:
            json.dump(cfg.hf(), f, indent=1)

    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    last_ckpt = t_log = time.time()
    acc, n_acc = np.zeros(3), 0
    end = a.stop_at or a.steps
    while step < end and not stop:
        if step < a.warmup:
            lr = a.lr * (step + 1) / a.warmup
        else:
            f = (step - a.warmup) / max(1, a.steps - a.warmup)
            lr = a.lr * (a.min_lr + (1 - a.min_lr) * 0.5 * (1 + math.cos(math.pi * f)))
        for g in opt.param_groups:
            g["lr"] = lr
        T = 512 if step >= a.long_from * a.steps else 256
        x, y = batch(train, a.tokens // T, T, gen)
        logits, balance, z, _ = model(x, compute)
        ce = F.cross_entropy(logits.float().view(-1, cfg.vocab_size), y.reshape(-1))
        loss = ce + a.balance * balance + a.z_loss * z
        opt.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not torch.isfinite(norm):
            print("step", step, "skipped: gradient norm", norm.item(), flush=True)
        else:
            opt.step()
        step += 1
        acc += (ce.item(), balance.item(), norm.item())
        n_acc += 1
        if step % 20 == 0 or step == end:
            now = time.time()
            rec = dict(step=step, loss=round(acc[0] / n_acc, 4),
                       balance=round(acc[1] / n_acc, 4), gnorm=round(acc[2] / n_acc, 3),
                       lr=round(lr, 6), tok_s=round(n_acc * a.tokens / (now - t_log)),
                       time=round(now))
            if step % a.eval_every == 0 or step == end:
                rec["held"] = {d: round(v, 4) for d, v in
                               held_out_loss(model, held, 512, 8, compute).items()}
            log.write(json.dumps(rec) + "\n")
            log.flush()
            print(rec, flush=True)
            acc[:], n_acc, t_log = 0, 0, time.time()
        if time.time() - last_ckpt > a.ckpt_minutes * 60 or step == end or stop:
            checkpoint()
            last_ckpt = time.time()


if __name__ == "__main__":
    main()
