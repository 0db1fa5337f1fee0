#!/usr/bin/python3
"""infinite_model.py - a model whose experts answer numbers that are not finite, by themselves.

  infinite_model.py IN.gguf OUT.gguf     the second layer's down projections get infinite scales

Needs Python's standard library.
SPDX-License-Identifier: Apache-2.0"""
import struct
import sys

from split_model import read, write

BLOCK = {0: 4, 1: 2, 8: 34, 2: 18, 12: 144, 14: 210}  # bytes, by type
INFINITE = {0: struct.pack("<f", float("inf"))}       # else a half, first in its block


def spoil(name, form, content):
    if not (name.startswith(b"blk.1.") and b"ffn_down_exps" in name):
        return content
    (kind,) = struct.unpack("<I", form[-4:])
    out = bytearray(content)
    value = INFINITE.get(kind, struct.pack("<H", 0x7c00))
    step = BLOCK[kind] * 64
    for at in range(0, len(out), step):
        out[at:at + len(value)] = value
    return bytes(out)


def main():
    keys, n_keys, tensors = read(sys.argv[1])
    write(sys.argv[2], keys, n_keys, [(n, f, spoil(n, f, c)) for n, f, c in tensors])


main()
