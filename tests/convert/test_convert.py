#!/usr/bin/python3
"""`troupe convert` of directories that were made from known models gives these
models back: the same metadata, the same bytes of every tensor, the same text. What is damaged is
refused in one line that names it, and an interrupted conversion goes on to the same bytes.

  test_convert.py TROUPE MODELS [DEMO]   MODELS: the folder of the reference models

SPDX-License-Identifier: Apache-2.0"""
import json
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from to_hf import f8_decode, f8_encode, ggufio, to_hf  # noqa: E402

if len(sys.argv) not in (3, 4):
    sys.exit(__doc__)
TROUPE, MODELS = (os.path.abspath(p) for p in sys.argv[1:3])
DEMO = os.path.abspath(sys.argv[3]) if len(sys.argv) == 4 else None
WORK = tempfile.mkdtemp()
failures = []

FAMILIES = ["qwen3moe.F32", "olmoe.F32", "mixtral.F32", "llama.F32", "llama3.F32", "qwen2moe.F32",
            "qwen3.F32", "granitemoe.F32", "glm4moe.F32", "deepseek2-lite.F32", "deepseek2-v3.F32",
            "deepseek2-mla.F32", "gpt-oss.MXFP4"]
# Written otherwise, and checked by what comes out.
OTHER_KEYS = {"general.name", "general.file_type", "general.license", "general.alignment",
              "tokenizer.ggml.scores"}
OTHER_FORM = {"mixtral.F32", "llama.F32", "deepseek2-mla.F32", "gpt-oss.MXFP4"}
OTHER_VALUES = {"glm4moe": {"glm4moe.block_count": 3, "glm4moe.nextn_predict_layers": None},
                "olmoe": {"tokenizer.ggml.pre": "gpt-2"},
                "gpt-oss": {"gpt-oss.feed_forward_length": 32}}


def check(ok, what):
    if not ok:
        failures.append(what)
        print("FAILED:", what)


def place(name):
    return os.path.join(WORK, name)


def run(*words, **more):
    p = subprocess.run([TROUPE, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
                       **more)
    return p.returncode, p.stdout, p.stderr.decode(errors="replace")


def convert(folder, out, *words):
    status, _, said = run("convert", folder, out, "--threads", "2", "--overwrite", *words)
    check(status == 0, "convert %s %s: %s" % (folder, " ".join(words), said))
    return status == 0


def same_text(a, b):
    out = [run("run", "-m", m, "-p", "The router is a matrix, 12345 of them: don't",
               "-n", "6", "--temp", "0", "--json", "--logprobs", "3", "--threads", "2",
               "--activations", "f32")[1] for m in (a, b)]
    x, y = [json.loads(o) for o in out]
    # The same sums in another order where a file holds a product's matrices in another form.
    near = [abs(p["logprob"] - q["logprob"]) < 1e-4 for p, q in zip(x["tokens"], y["tokens"])]
    same = [[[t["id"] for t in o["tokens"]], o["text"], o["n_prompt"]] for o in (x, y)]
    return same[0] == same[1] and len(near) == 6 and all(near)


# ---- whole models -----------------------------------------------------------------------------

def compare_metadata(name, a, b):
    arch = a.kv["general.architecture"]
    other = OTHER_VALUES.get(arch, {})
    if name.startswith("deepseek2-mla"):  # whose heads are written as attention sees them
        k = arch + ".attention."
        other = {k + "head_count_kv": 4, k + "key_length": 192, k + "value_length": 128,
                 k + "key_length_mla": None, k + "value_length_mla": None}
    for key, value in a.kv.items():
        want = other.get(key, value)
        if key not in OTHER_KEYS:
            check(b.kv.get(key) == want, "%s: %s is %s, not %s" % (
                name, key, str(b.kv.get(key))[:60], str(want)[:60]))


def llama3_factors(m):
    """As the published code computes them."""
    n = m.kv["llama.rope.dimension_count"]
    out = []
    for i in range(0, n, 2):
        inverse = m.kv["llama.rope.freq_base"]**(-i / n)
        length = 2 * np.pi / inverse
        smooth = (128 / length - 1) / (4 - 1)
        slowed = (1 - smooth) * inverse / 8 + smooth * inverse
        new = inverse if length < 128 / 4 else inverse / 8 if length > 128 else slowed
        out.append(inverse / new)
    return np.array(out)


def compare_tensors(name, a, b):
    layers = a.kv.get(a.kv["general.architecture"] + ".nextn_predict_layers", 0)
    last = a.kv[a.kv["general.architecture"] + ".block_count"] - layers
    names = {t for t in a.t if not t.startswith("blk.%d." % last)}
    if name.startswith("deepseek2-mla"):
        names = {t for t in names if "_k_b." not in t and "_v_b." not in t}
        check(set(b.t) - names == {"blk.0.attn_kv_b.weight", "blk.1.attn_kv_b.weight"}, name)
    else:
        check(set(b.t) == names, "%s: other tensors: %s" % (name, set(b.t) ^ names))
    for t in names & set(b.t):
        if t == "rope_freqs.weight":
            check(np.allclose(b.tensor(t), llama3_factors(b), rtol=1e-6), name + ": " + t)
        else:
            shape = a.t[t][0]
            same = b.raw(t) == a.raw(t) if a.t[t][1] in ("F32", "MXFP4") else np.array_equal(
                a.tensor(t, np.float32), b.tensor(t, np.float32))
            check(same and b.t[t][0] == shape, "%s: %s differs" % (name, t))


def families():
    for i, name in enumerate(FAMILIES):
        model, out = os.path.join(MODELS, name + ".gguf"), place(name + ".gguf")
        to_hf(model, place(name), shards=1 + i % 3)
        if not convert(place(name), out):
            continue
        a, b = ggufio.GGUF(model), ggufio.GGUF(out)
        compare_metadata(name, a, b)
        compare_tensors(name, a, b)
        if name in OTHER_FORM:
            check(same_text(model, out), name + ": other text")
        print("  %s: %d tensors, as they were" % (name, len(b.t)))


def linear_scaling():
    folder, out = place("linear"), place("linear.gguf")
    to_hf(os.path.join(MODELS, "llama.F32.gguf"), folder)
    edit_json(os.path.join(folder, "config.json"), lambda o: o.update(
        rope_scaling={"rope_type": "linear", "factor": 4.0}))
    if convert(folder, out):
        kv = ggufio.GGUF(out).kv
        check((kv.get("llama.rope.scaling.type"), kv.get("llama.rope.scaling.factor")) ==
              ("linear", 4.0), "linear scaling: %s" % kv.get("llama.rope.scaling.type"))


def types():
    model = os.path.join(MODELS, "qwen3moe.F32.gguf")
    a = ggufio.GGUF(model)
    for kind in ("F16", "BF16"):
        to_hf(model, place(kind), kind)
        convert(place(kind), place("kept.gguf"))
        b = ggufio.GGUF(place("kept.gguf"))
        t = "blk.1.ffn_up_exps.weight"
        check(b.t[t][1] == kind and b.raw(t) == ggufio.quantize(a.tensor(t, np.float32), kind),
              kind + " is not kept")
        check(b.t["blk.1.ffn_gate_inp.weight"][1] == "F32", kind + ": the router is no F32")
    convert(place("F16"), place("few.gguf"), "--type", "Q4_K", "--dense", "Q8_0", "--tensor",
            "output.weight=F16")
    b = ggufio.GGUF(place("few.gguf"))
    got = {t: b.t[t + ".weight"][1] for t in ("blk.0.attn_q", "output", "blk.0.ffn_up_exps",
                                              "blk.0.ffn_down_exps", "blk.0.attn_norm")}
    check(list(got.values()) == ["Q8_0", "F16", "Q4_K", "Q4_1", "F32"], "types: %s" % got)
    status, _, said = run("convert", place("F16"), place("few.gguf"), "--overwrite", "--tensor",
                          "output.weight=F16", "--tensor", "model.layers.*=Q8_0")
    warned = [line for line in said.split("\n") if "warning:" in line]
    check(status == 0 and len(warned) == 1 and "'model.layers.*=Q8_0': no tensor" in warned[0],
          "a rule that fits no tensor: %s" % said)
    print("  F16, BF16, rules: as they should be")


def float8():
    m = to_hf(os.path.join(MODELS, "deepseek2-v3.F32.gguf"), place("f8"), "F8", 2)
    convert(place("f8"), place("f8.gguf"), "--type", "F32")
    b = ggufio.GGUF(place("f8.gguf"))
    for hf, gguf in (("mlp.down_proj", "ffn_down"), ("self_attn.kv_b_proj", "attn_kv_b")):
        want = f8_decode(*f8_encode(m.hf["model.layers.0.%s.weight" % hf]))
        check(np.array_equal(b.tensor("blk.0.%s.weight" % gguf, np.float32).reshape(want.shape),
                             want), "F8: " + gguf)
    want = f8_decode(*f8_encode(m.hf["model.layers.2.mlp.experts.15.down_proj.weight"]))
    got = b.tensor("blk.2.ffn_down_exps.weight", np.float32).reshape((16,) + want.shape)[15]
    check(np.array_equal(got, want), "F8: experts")
    convert(place("f8"), place("f8.gguf"))
    check(ggufio.GGUF(place("f8.gguf")).t["blk.0.ffn_down.weight"][1] == "BF16", "F8: no BF16")
    print("  F8 with scales: every bit")


# ---- interruptions ----------------------------------------------------------------------------

def limited(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def interrupted():
    """Killed by the system at two places, damaged, and gone on with."""
    folder, whole, out = place("mixtral.F32"), place("mixtral.F32.gguf"), place("again.gguf")
    words = ("convert", folder, out, "--threads", "2")
    said = [run(*words, preexec_fn=limited(n << 20))[2] for n in (4, 10)]
    check(not os.path.exists(out), "half a model under its final name")
    with open(out + ".part", "r+b") as f:  # where it was sound
        f.seek(7 << 20)
        f.write(b"damage")
    status, _, last = run(*words)
    check(status == 0 and "going on" in said[1] and "going on" in last,
          "going on: %s" % (said + [last]))
    kept = int(last.split(".part: ")[1].split()[0]) if ".part: " in last else 0
    check(5 << 20 <= kept <= 7 << 20, "%d bytes were taken over, 6 to 7 MB are sound" % kept)
    check(not os.path.exists(out + ".part") and not os.path.exists(out + ".part.sums"),
          "something is left behind")
    with open(whole, "rb") as f, open(out, "rb") as g:
        check(f.read() == g.read(), "other bytes after interruptions")
    os.rename(out, whole)
    said = [run(*words, "--type", "Q8_0", **more)[2] for more in (
        {"preexec_fn": limited(2 << 20)}, {})]
    os.remove(out)
    said.append(run(*words, "--type", "Q8_0")[2])
    os.remove(out)
    errors = [re.findall("errs by (0.[0-9]*)", s) for s in said]
    check("going on" in said[1] and errors[1] == errors[2] and len(errors[1]) == 1 and
          errors[1] > ["0.1"], "what changed errs by, going on and at once: %s" % said)
    run(*words, preexec_fn=limited(4 << 20))
    other = run(*words, "--type", "F16")
    check(other[0] == 6 and "--overwrite" in other[2] and os.path.getsize(out + ".part") > 1 << 20,
          "what was begun for another type: " + other[2])
    other = run(*words, "--type", "F16", "--overwrite")
    check(other[0] == 0 and "going on" not in other[2], "what was begun for another type is used")
    other = run(*words)
    check(other[0] == 6 and "--overwrite" in other[2], "what is complete: " + other[2])
    print("  killed twice, damaged, and the same bytes; %d bytes were kept" % kept)


def demo():
    """The shipped model, which is Q8_0: the same once its weights were floats."""
    out = place("demo.gguf")
    to_hf(DEMO, place("demo"))
    convert(place("demo"), out, "--type", "Q8_0")
    a, b = ggufio.GGUF(DEMO), ggufio.GGUF(out)
    compare_metadata("demo", a, b)
    check(all(b.raw(t) == a.raw(t) and b.t[t][:2] == a.t[t][:2] for t in a.t) and len(a.t) ==
          len(b.t), "demo: other tensors")
    check(same_text(DEMO, out), "demo: other text")
    print("  demo: the same bytes")


# ---- what is wrong ----------------------------------------------------------------------------

def edit_json(path, change):
    with open(path) as f:
        o = json.load(f)
    change(o)
    with open(path, "w") as f:
        json.dump(o, f)


def edit_header(path, change):
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    o = json.loads(data[8:8 + n])
    change(o)
    text = json.dumps(o).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data[8 + n:])


def pipe(path):
    os.remove(path)
    os.mkfifo(path)


def cut(path, size):
    with open(path, "r+b") as f:
        f.truncate(size if size >= 0 else os.path.getsize(path) + size)


def text(path, content):
    with open(path, "w") as f:
        f.write(content)


def swap_shape(o):
    o["model.layers.0.self_attn.k_proj.weight"]["shape"].reverse()


Q = "model.layers.1.self_attn.q_proj.weight"
WRONG = [  # name, file, what is done to it, exit status, words of the line
    ("cut shard", "model-00002-of-00002.safetensors", lambda p: cut(p, -100), 3, "is incomplete"),
    ("cut header", "model-00001-of-00002.safetensors", lambda p: cut(p, 100), 3, "is incomplete"),
    ("empty shard", "model-00001-of-00002.safetensors", lambda p: cut(p, 0), 3, "is incomplete"),
    ("longer shard", "model-00001-of-00002.safetensors", lambda p: open(p, "ab").write(b"x"), 3,
     "behind its last tensor"),
    ("no shard", "model-00002-of-00002.safetensors", os.remove, 6, "No such file"),
    ("index", "model.safetensors.index.json",
     lambda p: edit_json(p, lambda o: o["weight_map"].update({Q: "../x.safetensors"})), 3, Q),
    ("index lies", "model.safetensors.index.json",
     lambda p: edit_json(p, lambda o: o["weight_map"].update(
         {"more": "model-00001-of-00002.safetensors"})), 3, "promises tensor more"),
    ("no index", "model.safetensors.index.json", os.remove, 0, ""),
    ("renamed", "model-0000%d-of-00002.safetensors", lambda p: edit_header(
        p, lambda o: o.update({"x": o.pop(Q)}) if Q in o else None), 3, Q),
    ("shape", "model-0000%d-of-00002.safetensors", lambda p: edit_header(
        p, lambda o: swap_shape(o) if "model.layers.0.self_attn.k_proj.weight" in o else None), 3,
     r"k_proj.weight has shape \[256 x 64\], but config.json promises \[64 x 256\]"),
    ("type", "model-0000%d-of-00002.safetensors", lambda p: edit_header(
        p, lambda o: o[Q].update({"dtype": "I32"}) if Q in o else None), 3, "type I32"),
    ("unknown type", "model-0000%d-of-00002.safetensors", lambda p: edit_header(
        p, lambda o: o[Q].update({"dtype": "F4"}) if Q in o else None), 3, "type F4"),
    ("overlap", "model-0000%d-of-00002.safetensors", lambda p: edit_header(
        p, lambda o: o[Q].update({"data_offsets": [0, 131072]}) if Q in o else None), 3,
     "overlaps|leaves a gap"),
    ("bad JSON", "config.json", lambda p: text(p, '{"model_type": '), 3, "no valid JSON"),
    ("no object", "config.json", lambda p: text(p, "[1]"), 3, "no object"),
    ("a pipe", "config.json", pipe, 6, "config.json: is no regular file"),
    ("a pipe of tensors", "model-00001-of-00002.safetensors", pipe, 6, "is no regular file"),
    ("no configuration", "config.json", os.remove, 6, "config.json: No such file"),
    ("family", "config.json", lambda p: edit_json(p, lambda o: o.update(model_type="bert")), 3,
     'model_type "bert"'),
    ("setting", "config.json", lambda p: edit_json(p, lambda o: o.update(norm_topk_prob=False)), 3,
     '"norm_topk_prob" is false'),
    ("layers", "config.json", lambda p: edit_json(p, lambda o: o.update(num_hidden_layers=2)), 3,
     "tensor model.layers.2.* is none"),
    ("more layers", "config.json", lambda p: edit_json(p, lambda o: o.update(num_hidden_layers=4)),
     3, "model.layers.3.input_layernorm.weight is missing"),
    ("no width", "config.json", lambda p: edit_json(p, lambda o: o.update(hidden_size=None)), 3,
     '"hidden_size" is missing'),
    ("nothing", "config.json", lambda p: edit_json(p, lambda o: o.update(num_attention_heads=0)), 3,
     '"num_attention_heads" is 0'),
    ("scaling", "config.json", lambda p: edit_json(p, lambda o: o.update(
        rope_scaling={"type": "dynamic", "factor": 2.0})), 3, 'scaling "dynamic"'),
    ("yarn", "config.json", lambda p: edit_json(p, lambda o: o.update(
        rope_scaling={"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64})), 3,
     "yarn.* is not supported"),
    ("quantised", "config.json", lambda p: edit_json(p, lambda o: o.update(
        quantization_config={"quant_method": "gptq"})), 3, 'quantised as "gptq"'),
    ("no tokenizer", "tokenizer.json", os.remove, 6, "tokenizer.json: No such file"),
    ("words", "tokenizer.json", lambda p: edit_json(p, lambda o: o["pre_tokenizer"][
        "pretokenizers"][0]["pattern"].update(Regex="a+")), 3, r"--pre NAME"),
    ("normalizer", "tokenizer.json",
     lambda p: edit_json(p, lambda o: o.update(normalizer={"type": "Lowercase"})), 3, "Lowercase"),
    ("composed", "tokenizer.json",
     lambda p: edit_json(p, lambda o: o.update(normalizer={"type": "NFC"})), 0, "NFC.*tokens"),
    ("spaces beside", "tokenizer.json",
     lambda p: edit_json(p, lambda o: o["added_tokens"][1].update(lstrip=True)), 0,
     "1 added tokens, .* lstrip"),
    ("kind", "tokenizer.json", lambda p: edit_json(p, lambda o: o["model"].update(type="Unigram")),
     3, "Unigram"),
    ("an id twice", "tokenizer.json",
     lambda p: edit_json(p, lambda o: o["model"]["vocab"].update({"!": 5})), 3, "the same id 5"),
    ("an id too high", "tokenizer.json",
     lambda p: edit_json(p, lambda o: o["model"]["vocab"].update({"!": 512})), 3, "512 tokens"),
    ("merge", "tokenizer.json",
     lambda p: edit_json(p, lambda o: o["model"]["merges"].append("xx yy")), 3, "merges"),
]


def wrong():
    good = place("good")
    to_hf(os.path.join(MODELS, "qwen3moe.F32.gguf"), good, shards=2)
    out = place("bad.gguf")
    for name, file, change, wanted, words in WRONG:
        bad = place("bad")
        shutil.copytree(good, bad)
        for i in (1, 2) if "%d" in file else (0,):
            change(os.path.join(bad, file % i if "%d" in file else file))
        status, _, said = run("convert", bad, out, "--threads", "2")
        lines = [line for line in said.split("\n") if "error:" in line]
        found = re.search(words, said) is not None
        check(status == wanted and len(lines) == (wanted != 0) and found and "anitizer" not in said,
              "%s: status %s, not %s: %s" % (name, status, wanted, said))
        check(wanted == 0 or not os.path.exists(out), name + ": a file is there")
        shutil.rmtree(bad)
        if os.path.exists(out):
            os.remove(out)
        print("  %s: %s" % (name, lines[0] if lines else "taken"))


def main():
    try:
        parts = (families, linear_scaling, types, float8, interrupted, wrong)
        for part in parts + ((demo,) if DEMO else ()):
            begin = time.time()
            part()
            print("%s: %.1f s" % (part.__name__, time.time() - begin))
    finally:
        shutil.rmtree(WORK)
    if failures:
        sys.exit("%d failures" % len(failures))
    print("all good")


if __name__ == "__main__":
    main()
