#!/usr/bin/python3
"""split_model.py - cut a GGUF file into parts, as tools that share large models do.

  split_model.py IN.gguf OUT-PREFIX PARTS     writes OUT-PREFIX-00001-of-0000N.gguf and so on

The first part has all metadata and no tensor if there are more than two parts, as some writers do.

Needs Python's standard library.
SPDX-License-Identifier: Apache-2.0"""
import struct
import sys

ALIGN = 32
FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, form):
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def text(self):
        n = self.number("Q")
        self.at += n
        return self.data[self.at - n:self.at]

    def skip_value(self, kind):
        if kind == 8:
            self.text()
        elif kind == 9:
            item, n = self.number("I"), self.number("Q")
            for _ in range(n):
                self.skip_value(item)
        else:
            self.at += FIXED[kind]


def text(value):
    return struct.pack("<Q", len(value)) + value


def pad(data):
    return data + b"\0" * (-len(data) % ALIGN)


def read(path):
    """Metadata as bytes, its number of keys, and tensors (name, shape and type as bytes, data)."""
    r = Reader(open(path, "rb").read())
    r.at = 8
    n_tensors, n_keys = r.number("Q"), r.number("Q")
    begin = r.at
    for _ in range(n_keys):
        r.text()
        r.skip_value(r.number("I"))
    keys = r.data[begin:r.at]
    found = []
    for _ in range(n_tensors):
        name = r.text()
        begin = r.at
        n_dims = r.number("I")
        r.at += 8 * n_dims + 4
        found.append((name, r.data[begin:r.at], r.number("Q")))
    base = r.at + -r.at % ALIGN
    ends = sorted(offset for _, _, offset in found) + [len(r.data) - base]
    tensors = []
    for name, form, offset in found:
        end = min(e for e in ends if e > offset)
        tensors.append((name, form, r.data[base + offset:base + end]))
    return keys, n_keys, tensors


def write(path, keys, n_keys, tensors):
    lines, data = b"", b""
    for name, form, content in tensors:
        lines += text(name) + form + struct.pack("<Q", len(data))
        data += pad(content)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), n_keys) + keys + lines
    with open(path, "wb") as f:
        f.write(pad(head) + data)


def main():
    source, prefix, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
    keys, n_keys, tensors = read(source)
    holders = n - 1 if n > 2 else n
    size = (len(tensors) + holders - 1) // holders
    cuts = [tensors[i * size:(i + 1) * size] for i in range(holders)]
    if n > 2:
        cuts.insert(0, [])
    for i, cut in enumerate(cuts):
        split = (text(b"split.no") + struct.pack("<IH", 2, i) +
                 text(b"split.count") + struct.pack("<IH", 2, n) +
                 text(b"split.tensors.count") + struct.pack("<Ii", 5, len(tensors)))
        path = "%s-%05d-of-%05d.gguf" % (prefix, i + 1, n)
        if i == 0:
            write(path, keys + split, n_keys + 3, cut)
        else:
            write(path, split, 3, cut)


if __name__ == "__main__":
    main()
