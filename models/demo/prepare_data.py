#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Assemble the three public-domain corpora into train / held-out documents.

  shakespeare : tinyshakespeare input.txt; the last 2 % is held out
  bible       : King James Bible as printed by `bible -l100000 gen1:1-rev22:21`
                (Debian packages bible-kjv, bible-kjv-text); every 50th chapter
                is held out
  c           : core files of the SQLite library (public domain); one whole file
                (delete.c, about 2 %) is held out

A document is a short run of text cut at a natural boundary (speeches, one
chapter, whole functions).  Output: OUT/<domain>.<train|held>.json, each a JSON
list of strings.
"""
import argparse, json, os, re

C_TRAIN = ("btree select where expr build insert wherecode func update util "
           "printf hash callback trigger attach").split()
C_HELD = ["delete"]


def group(pieces, sep, size):
    """Join consecutive pieces until a document has at least `size` characters."""
    docs, cur, n = [], [], 0
    for p in pieces:
        cur.append(p)
        n += len(p) + len(sep)
        if n >= size:
            docs.append(sep.join(cur))
            cur, n = [], 0
    if cur:
        docs.append(sep.join(cur))
    return docs


def shakespeare(path):
    text = open(path, encoding="utf-8").read()
    cut = text.index("\n\n", int(len(text) * 0.98)) + 2
    split = lambda t: [d + "\n" for d in group(t.strip().split("\n\n"), "\n\n", 3000)]
    return split(text[:cut]), split(text[cut:])


def bible(path):
    chapters, cur = [], None
    for line in open(path, encoding="latin-1"):
        line = line.strip()
        if re.fullmatch(r"(\d )?[A-Z][A-Za-z ]+ \d+", line):   # "Genesis 1"
            cur = [line, ""]
            chapters.append(cur)
        elif line and cur is not None:                          # "1 In the ..."
            cur.append(line)
    docs = ["\n".join(c) + "\n" for c in chapters]
    held = [d for i, d in enumerate(docs) if i % 50 == 25]
    train = [d for i, d in enumerate(docs) if i % 50 != 25]
    return train, held


def c_source(src):
    # (the few files that end in #endif get a stray closing brace; kept as trained)
    def load(names):
        docs = []
        for n in names:
            text = open(os.path.join(src, n + ".c"), encoding="utf-8").read()
            docs += [d + "\n}\n" for d in group(text.rstrip().removesuffix("}").rstrip()
                                               .split("\n}\n"), "\n}\n", 3000)]
        return docs
    return load(C_TRAIN), load(C_HELD)


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--shakespeare", required=True, help="tinyshakespeare input.txt")
    ap.add_argument("--bible", required=True, help="output of the `bible` program")
    ap.add_argument("--sqlite-src", required=True, help="src/ directory of SQLite")
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    for name, (train, held) in dict(shakespeare=shakespeare(a.shakespeare),
                                    bible=bible(a.bible),
                                    c=c_source(a.sqlite_src)).items():
        for split, docs in (("train", train), ("held", held)):
            with open(os.path.join(a.out, f"{name}.{split}.json"), "w") as f:
                json.dump(docs, f, ensure_ascii=False)
        nt, nh = sum(map(len, train)), sum(map(len, held))
        print(f"{name}: {len(train)} train docs {nt} chars, "
              f"{len(held)} held docs {nh} chars ({100*nh/(nt+nh):.2f} %)")


if __name__ == "__main__":
    main()
