#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE in the GPT-2 manner: training, encoding, decoding.

Vocabulary layout: ids 0..255 are the bytes (in GPT-2's byte-to-unicode order),
then the merges in the order they were learned, then the special tokens.

  tokenizer.py train --data DIR --vocab-size 4096 --out tokenizer.json
  tokenizer.py encode --tokenizer tokenizer.json "some text"
"""
import argparse, heapq, json, os
from collections import Counter, defaultdict

import regex

GPT2_PATTERN = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
                r"|\s+(?!\S)|\s+")
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_to_unicode():
    """GPT-2's reversible map from bytes to printable unicode characters."""
    keep = (list(range(ord("!"), ord("~") + 1)) + list(range(0xA1, 0xAD))
            + list(range(0xAE, 0x100)))
    table, extra = {b: chr(b) for b in keep}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    # dictionary order = GPT-2's id order: printable bytes first, the others after
    return table


B2U = byte_to_unicode()
U2B = {u: b for b, u in B2U.items()}


class Tokenizer:
    def __init__(self, merges, specials=SPECIALS):
        self.merges = [tuple(m) for m in merges]
        self.tokens = list(B2U.values()) + [a + b for a, b in self.merges] + list(specials)
        self.specials = list(specials)
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        assert len(self.ids) == len(self.tokens)
        self.ranks = {m: i for i, m in enumerate(self.merges)}
        self.eot = self.ids[specials[0]]
        self.pattern = regex.compile(GPT2_PATTERN)
        self.cache = {}

    # ---- files -----------------------------------------------------------
    @classmethod
    def load(cls, path):
        d = json.load(open(path, encoding="utf-8"))
        return cls([m.split(" ") for m in d["merges"]], d["specials"])

    def save(self, path):
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"type": "byte-level BPE (gpt2)", "pattern": GPT2_PATTERN,
                       "specials": self.specials, "tokens": self.tokens,
                       "merges": [a + " " + b for a, b in self.merges]},
                      f, ensure_ascii=False, indent=0)

    # ---- use -------------------------------------------------------------
    def _word(self, word):
        """BPE of one pre-token: apply the lowest-rank merge until none applies."""
        out = self.cache.get(word)
        if out is not None:
            return out
        parts = [B2U[b] for b in word.encode("utf-8")]
        while len(parts) > 1:
            rank, pair = min((self.ranks.get(p, 1 << 30), p)
                             for p in zip(parts, parts[1:]))
            if rank == 1 << 30:
                break
            merged, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
                    merged.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    merged.append(parts[i])
                    i += 1
            parts = merged
        out = self.cache[word] = [self.ids[p] for p in parts]
        return out

    def encode(self, text):
        """Plain text to ids (special tokens are not recognised in the text)."""
        return [i for w in self.pattern.findall(text) for i in self._word(w)]

    def decode_bytes(self, ids):
        out = b""
        for i in ids:
            t = self.tokens[i]
            out += t.encode() if t in self.specials else bytes(U2B[c] for c in t)
        return out

    def decode(self, ids):
        return self.decode_bytes(ids).decode("utf-8", "replace")


def train(word_counts, n_merges):
    """Learn merges from {pre-token: count}; incremental pair counts and a heap."""
    words = [[B2U[b] for b in w.encode("utf-8")] for w in word_counts]
    counts = list(word_counts.values())
    pairs, where = Counter(), defaultdict(set)
    for wi, w in enumerate(words):
        for p in zip(w, w[1:]):
            pairs[p] += counts[wi]
            where[p].add(wi)
    # ties are broken by the pair's text, so that the result is deterministic
    heap = [(-n, p) for p, n in pairs.items()]
    heapq.heapify(heap)
    merges = []
    while len(merges) < n_merges and heap:
        n, pair = heapq.heappop(heap)
        if pairs.get(pair, 0) != -n:            # stale entry
            continue
        merges.append(pair)
        new, touched = pair[0] + pair[1], set()
        for wi in where.pop(pair):
            w, c = words[wi], counts[wi]
            out, i = [], 0
            while i < len(w):
                if i + 1 < len(w) and (w[i], w[i + 1]) == pair:
                    out.append(new)
                    i += 2
                else:
                    out.append(w[i])
                    i += 1
            if len(out) == len(w):
                continue
            for p in zip(w, w[1:]):
                pairs[p] -= c
                touched.add(p)
            for p in zip(out, out[1:]):
                pairs[p] += c
                touched.add(p)
                where[p].add(wi)
            words[wi] = out
        del pairs[pair]
        touched.discard(pair)
        for p in touched:
            if pairs[p] > 0:
                heapq.heappush(heap, (-pairs[p], p))
            else:
                del pairs[p]
    return merges


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest="cmd", required=True)
    t = sub.add_parser("train")
    t.add_argument("--data", required=True, help="directory of <domain>.train.json")
    t.add_argument("--weights", default="shakespeare=20,bible=6,c=12",
                   help="integer weight of each domain's word counts")
    t.add_argument("--vocab-size", type=int, default=4096)
    t.add_argument("--out", required=True)
    e = sub.add_parser("encode")
    e.add_argument("--tokenizer", required=True)
    e.add_argument("text")
    a = ap.parse_args()
    if a.cmd == "encode":
        tk = Tokenizer.load(a.tokenizer)
        ids = tk.encode(a.text)
        print(ids, [tk.tokens[i] for i in ids])
        return
    pattern, counts = regex.compile(GPT2_PATTERN), Counter()
    for spec in a.weights.split(","):
        domain, weight = spec.split("=")
        docs = json.load(open(os.path.join(a.data, domain + ".train.json")))
        c = Counter(w for d in docs for w in pattern.findall(d))
        for w, n in c.items():
            counts[w] += n * int(weight)
    print(len(counts), "distinct pre-tokens")
    tk = Tokenizer(train(counts, a.vocab_size - 256 - len(SPECIALS)))
    assert len(tk.tokens) == a.vocab_size
    tk.save(a.out)
    for domain in (s.split("=")[0] for s in a.weights.split(",")):
        text = "".join(json.load(open(os.path.join(a.data, domain + ".held.json"))))
        ids = tk.encode(text)
        assert tk.decode(ids) == text
        print(f"{domain}: held-out {len(text)} chars -> {len(ids)} tokens "
              f"({len(text)/len(ids):.2f} chars/token)")


if __name__ == "__main__":
    main()
