#!/usr/bin/python3
"""Write the reference models into a directory and hold them against the golden files' SHA-256.
Those of types that need an engine's quantiser are copied from models/, the others are made.

  make_models.py DIR

SPDX-License-Identifier: Apache-2.0"""
import glob
import hashlib
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def wanted(vec):
    with open(vec) as f:
        return f.readline().split()[2]


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def main(out):
    os.makedirs(out, exist_ok=True)
    for vec in sorted(glob.glob(os.path.join(HERE, "vec", "*.*.vec"))):
        name = os.path.basename(vec)[:-len(".vec")]
        path = os.path.join(out, name + ".gguf")
        if os.path.exists(path) and digest(path) == wanted(vec):
            continue
        kept = os.path.join(HERE, "models", name + ".gguf")
        if os.path.exists(kept):
            shutil.copyfile(kept, path)
        else:
            model, kind = name.split(".")
            subprocess.run([sys.executable, os.path.join(HERE, "mkmodel.py"), model, kind, out],
                           check=True, stdout=subprocess.DEVNULL)
        if digest(path) != wanted(vec):
            sys.exit("%s: made differently here than where its golden results come from" % path)
    print("models are in", out)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
