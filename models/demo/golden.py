#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reference values for a runtime, computed by the PyTorch model in float32 on the
dequantised weights of a GGUF file.

  golden.py --gguf demo-q8_0.gguf --tokenizer tokenizer.json --data data --out golden.json

Contents of golden.json
  prompts[]     ids           token ids fed to the model (the BOS, if any, is included)
                text, add_bos encode(text), preceded by BOS if add_bos, gives exactly ids
                top           [[token id, logit], ...] the 20 largest logits, last position
                experts       [layer][k] experts chosen for the last token, largest first
                expert_weights  the renormalised router weights of the same
                greedy        the 48 tokens of the greedy continuation (EOS not obeyed)
                greedy_margin for each of them, best minus second-best logit: where it is
                              tiny, another summation order may legitimately differ
                greedy_text
  perplexity    per domain: ids of a fixed held-out slice (4096 tokens), cut in windows of
                512 that each start from an empty cache; mean negative log-likelihood of
                positions 1..511 of every window, and exp() of it
  tokenizer_tests  [text, ids] pairs (no BOS)
"""
import argparse, json, os

import torch
import torch.nn.functional as F

import export_gguf
from model import Config, Model
from tokenizer import Tokenizer

# (domain, text or None, tokens taken from held-out document n)
PROMPTS = [
    ("shakespeare", "", 0, 0), ("shakespeare", "ROMEO:\nWhat light", 0, 0),
    ("shakespeare", None, 1, 40), ("shakespeare", None, 4, 150),
    ("bible", "Genesis 1\n\n1 In the beginning", 0, 0), ("bible", "And", 0, 0),
    ("bible", None, 3, 90), ("bible", None, 9, 200),
    ("c", "static int sqlite3", 0, 0), ("c", "/*\n** Return", 0, 0),
    ("c", None, 1, 64), ("c", None, 3, 180),
]
TOKENIZER_TESTS = [
    "", " ", "  ", "\n", "\n\n", "\t\tx", "a", " a", "  a", "Hello world", "Hello  world ",
    "I'll say he's, they've, WE'RE don't 'tis", "x=1;y+=23; /* c */\n    if( a->b==0 ){\n",
    "KING RICHARD III:\nNow is the winter", "1 In the beginning God created",
    "caf\u00e9 na\u00efve \u2014 \u201cquoted\u201d", "\u65e5\u672c\u8a9e \u0442\u0435\u0441\u0442 \U0001f600!",
    "trailing spaces   \n\n\n   leading", "tab\tand\r\nCRLF", "100000 3.14159 0xDEADBEEF",
    "sqlite3_value_text16le(pVal);\n\n\n\n/*\n** Foo\n*/\n", "a\u00a0b\u3000c", "!!!???...---",
]


def load(gguf):
    meta, t = export_gguf.read(gguf)
    k = lambda s: meta["qwen3moe." + s]
    cfg = Config(vocab_size=len(meta["tokenizer.ggml.tokens"]),
                 hidden_size=k("embedding_length"), num_hidden_layers=k("block_count"),
                 num_attention_heads=k("attention.head_count"),
                 num_key_value_heads=k("attention.head_count_kv"),
                 head_dim=k("attention.key_length"), num_experts=k("expert_count"),
                 num_experts_per_tok=k("expert_used_count"),
                 moe_intermediate_size=k("expert_feed_forward_length"),
                 max_position_embeddings=k("context_length"),
                 rope_theta=k("rope.freq_base"),
                 rms_norm_eps=k("attention.layer_norm_rms_epsilon"))
    model = Model(cfg)
    model.load_hf_state(export_gguf.to_hf(meta, t))
    return model.eval()


def router_weights(model, ids):
    """Last-position logits, and per layer the experts and router weights of that token."""
    out = []
    for layer in model.layers:
        moe = layer.moe
        def wrapped(x, dt, layer=layer, moe=moe):
            c = layer.c
            h = x[:, -1] * torch.rsqrt(x[:, -1].pow(2).mean(-1, keepdim=True)
                                       + c.rms_norm_eps) * layer.ffn_norm
            w, i = torch.softmax(h @ layer.router.t(), -1).topk(c.num_experts_per_tok, -1)
            out.append((i[0].tolist(), (w / w.sum(-1, keepdim=True))[0].tolist()))
            return moe(x, dt)
        layer.moe = wrapped
    logits, _, _, chosen = model(torch.tensor([ids]))
    logits = logits[0, -1]
    assert [e for e, _ in out] == chosen[:, 0, -1].tolist()
    for layer in model.layers:
        del layer.moe
    return logits, out


def held_ids(data, tok, domain):
    docs = json.load(open(os.path.join(data, domain + ".held.json"), encoding="utf-8"))
    return [[tok.eot] + tok.encode(d) for d in docs]


def build_prompts(tok, data):
    out = []
    for domain, text, doc, n in PROMPTS:
        if text is None:
            d = held_ids(data, tok, domain)[doc]
            while tok.encode(tok.decode(d[1:n])) != d[1:n]:   # a cut that re-encodes alike
                n -= 1
            text = tok.decode(d[1:n])
        # one prompt deliberately goes without BOS
        bos = text != "And"
        out.append((domain, text, bos, [tok.eot] * bos + tok.encode(text)))
    return out


@torch.no_grad()
def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--gguf", required=True)
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--data", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--slice", type=int, default=4096)
    ap.add_argument("--window", type=int, default=512)
    ap.add_argument("--greedy", type=int, default=48)
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    tok, model = Tokenizer.load(a.tokenizer), load(a.gguf)

    prompts = []
    for domain, text, bos, ids in build_prompts(tok, a.data):
        logits, experts = router_weights(model, ids)
        top = logits.topk(20)
        seq, margin = list(ids), []
        for _ in range(a.greedy):
            v, i = model(torch.tensor([seq]))[0][0, -1].topk(2)
            seq.append(i[0].item())
            margin.append(round((v[0] - v[1]).item(), 6))
        cont = seq[len(ids):]
        prompts.append(dict(domain=domain, text=text, add_bos=bos, ids=ids,
                            top=[[i, v] for i, v in zip(top.indices.tolist(),
                                                        top.values.tolist())],
                            experts=[e for e, _ in experts],
                            expert_weights=[w for _, w in experts],
                            greedy=cont, greedy_margin=margin,
                            greedy_text=tok.decode(cont)))
        print(f"{domain} {len(ids)} tokens, smallest margin {min(margin):.4f}: "
              f"{prompts[-1]['greedy_text'][:60]!r}", flush=True)

    ppl = {}
    for domain in ("shakespeare", "bible", "c"):
        ids = [i for d in held_ids(a.data, tok, domain) for i in d][:a.slice]
        x = torch.tensor(ids).view(-1, a.window)
        nll = []
        for row in x:
            lp = F.log_softmax(model(row[None])[0][0].double(), -1)
            nll.append(-lp[:-1].gather(1, row[1:, None]).mean().item())
        mean = sum(nll) / len(nll)
        nbytes = sum(len(tok.decode_bytes(r[1:])) for r in x.tolist())
        ppl[domain] = dict(ids=ids, window=a.window, predicted=len(x) * (a.window - 1),
                           nll=mean, ppl=float(torch.tensor(mean).exp()),
                           window_nll=nll,
                           bits_per_byte=mean * len(x) * (a.window - 1) / nbytes / 0.6931471806)
        print(domain, "nll", mean, "ppl", ppl[domain]["ppl"], flush=True)
    with open(a.out, "w") as f:
        json.dump(dict(model=os.path.basename(a.gguf), compute="float32",
                       weights="dequantised from the GGUF file", bos=tok.eot, eos=tok.eot,
                       prompts=prompts, perplexity=ppl,
                       tokenizer_tests=[[t, tok.encode(t)] for t in TOKENIZER_TESTS]), f)


if __name__ == "__main__":
    main()
