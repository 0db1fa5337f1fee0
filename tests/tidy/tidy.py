#!/usr/bin/python3
"""The rules of the code, as a test.

  tidy.py ROOT         checks every tracked source file; prints `file:line: what: what to do`
  tidy.py --self-test  checks that bad snippets are found

Layers and confined headers are those of docs/architecture.md.  Needs Python's standard library.

SPDX-License-Identifier: Apache-2.0"""
import os
import re
import subprocess
import sys

MAX_LINES = 70     # of a function
MAX_COLUMNS = 100
SPDX = "SPDX-License-Identifier: Apache-2.0"

# folder -> folders of ours that it may include (base is always allowed, and itself)
LAYERS = {
    "common/base": [],
    "common/compute": [],
    "common/transport": [],
    "proto": [],
    "common/experts": ["common/compute"],
    "worker": ["common/compute", "common/transport", "common/experts", "proto"],
    "coordinator": ["common/compute", "common/transport", "common/experts", "proto"],
}

# files beside them that may include more: the program links both halves, chaos runs them together
EXCEPTIONS = {"coordinator/main.c": ["worker"]}

# foreign header -> the only files (prefixes) that may include it
CONFINED = {
    "mpi.h": ["common/transport/mpi.c"],
    "zmq.h": ["common/transport/curve.c", "common/transport/link.c", "common/transport/zmq.c"],
    "control.pb-c.h": ["proto/wire.c"],
    "protobuf-c/protobuf-c.h": ["proto/wire.c"],
    "yaml.h": ["coordinator/cluster/config.c"],
    "cmocka.h": ["tests/"],
    "immintrin.h": ["common/compute/kernels_"],
    "arm_neon.h": ["common/compute/kernels_"],
    "cyaml/cyaml.h": ["coordinator/cluster/config.c", "coordinator/cluster/fault_plan.c",
                      "coordinator/cluster/yaml.c", "coordinator/cluster/yaml.h"],
    "jansson.h": ["coordinator/commands/", "coordinator/convert/", "coordinator/serve/"],
    "microhttpd.h": ["coordinator/serve/"],
    "editline/readline.h": ["coordinator/commands/lines.c"],
    "gnutls/crypto.h": ["coordinator/serve/keys.c"],
    "gnutls/gnutls.h": ["coordinator/serve/keys.c"],
    "pcre2.h": ["coordinator/text/"],
    "xxhash.h": ["proto/frame.c", "common/compute/gguf.c", "common/compute/gguf_parts.c",
                 "coordinator/convert/"],
}

# kept as they were when they produced what is shipped
WIDE = ["tests/golden/mkmodel.py", "tests/golden/ggufio.py",
        "models/demo/golden.py", "models/demo/report.py", "models/demo/train.py"]

BANNED = {
    r"\b(strcpy|strcat|sprintf|vsprintf|gets|strtok)\s*\(": "unsafe call: use the bounded one",
    r"\b(atoi|atol|atof)\s*\(": "no error check: use strtol and look at the end",
    r"\b(rand|srand|random)\s*\(": "hidden state: use base/rng.h",
    r"\b(system|popen)\s*\(": "a shell: use fork and exec",
    r"\balloca\s*\(": "unbounded stack: use the heap or an arena",
}
OPEN_END = re.compile(r"\b(TO" r"DO|FIX" r"ME)\b")
PRINTS = re.compile(r"\b(printf|puts|putchar)\s*\(")
EXITS = re.compile(r"\b(exit|_exit|abort)\s*\(")


def folder_of(path):
    for folder in LAYERS:
        if path.startswith(folder + "/"):
            return folder
    return None


def blank(text):
    """Comments and strings become spaces, line breaks stay."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def check_text(path, lines, found):
    for i, line in enumerate(lines, 1):
        if len(line) > MAX_COLUMNS and not path.endswith(".md") and path not in WIDE:
            found(i, "%d columns" % len(line), "at most %d" % MAX_COLUMNS)
        if "\t" in line and not path.endswith(("Makefile", ".md")):
            found(i, "a tab", "use spaces")
        if line != line.rstrip():
            found(i, "blanks at the end", "remove them")
        if OPEN_END.search(line) and not re.search(r"#\d+", line):
            found(i, "an open end", "do it, or name its issue as #N")


def check_includes(path, lines, found):
    own = folder_of(path)
    allowed = LAYERS.get(own, []) + EXCEPTIONS.get(path, [])
    for i, line in enumerate(lines, 1):
        m = re.match(r'\s*#\s*include\s+["<]([^">]+)[">]', line)
        if not m:
            continue
        header = m.group(1)
        if own and ".." in header.split("/"):
            found(i, "a path with ..", "from the project's root, or from common/")
        places = CONFINED.get(header)
        if places and own and not any(path.startswith(p) for p in places):
            found(i, "<%s> here" % header, "only in " + ", ".join(places))
        target = folder_of(header) or folder_of("common/" + header)
        if own and target and target not in [own, "common/base"] + allowed:
            found(i, "%s includes %s" % (own, target), "layers go one way: docs/architecture.md")
        if own and header.startswith("tests/"):
            found(i, "product code includes tests", "turn it around")


def check_own_header_first(path, lines, found):
    own = path[:-2] + ".h"
    if not path.endswith(".c") or not os.path.exists(own):
        return
    wanted = own[len("common/"):] if own.startswith("common/") else own
    includes = [(i, l) for i, l in enumerate(lines, 1) if l.startswith("#include")]
    if includes and wanted not in includes[0][1]:
        found(includes[0][0], "the first include is not " + wanted, "own header first")


def check_guard(path, lines, found):
    short = path[len("common/"):] if path.startswith("common/") else path
    guard = "TR_" + re.sub(r"[^A-Z0-9]", "_", short.upper())
    text = "\n".join(lines)
    if "#ifndef %s\n#define %s" % (guard, guard) not in text:
        found(1, "no include guard " + guard, "name it after the path")


def check_functions(path, lines, found):
    """A test's table of cases may be long: it is data."""
    if path.startswith("tests/"):
        return
    start = None
    for i, line in enumerate(lines, 1):
        if line == "{":
            start = i
        elif line == "}" and start is not None:
            if i - start - 1 > MAX_LINES:
                found(start, "a function of %d lines" % (i - start - 1), "at most %d" % MAX_LINES)
            start = None


def check_calls(path, lines, found):
    tests = path.startswith("tests/")
    program = path.endswith("main.c") or "/commands/" in path or tests
    leaves = path.endswith(("main.c", "supervise.c", "check.c", "cluster/job.c", "worker/faults.c",
                            "transport/start_watch.c"))
    prints = program or path.endswith("cluster/launch.c")  # --dry-run
    for i, line in enumerate(lines, 1):
        for pattern, why in BANNED.items():
            if re.search(pattern, line) and not (tests and "popen" in pattern):
                found(i, line.strip()[:40], why)
        if PRINTS.search(line) and not prints and "fprintf" not in line:
            found(i, "prints to standard output", "that is the programs' business")
        if EXITS.search(line) and not leaves and not tests:
            found(i, "ends the process", "return a tr_status")


def check_c(path, text, found):
    lines = text.split("\n")
    code = blank(text).split("\n")
    if not text.startswith("/*"):
        found(1, "no comment on top", "say what the file does")
    check_includes(path, lines, found)
    check_own_header_first(path, lines, found)
    check_functions(path, code, found)
    check_calls(path, code, found)
    if path.endswith(".h"):
        check_guard(path, lines, found)
    for i, line in enumerate(code, 1):
        if not line.isascii():
            found(i, "a character that is not ASCII", "write it as an escape")


def check_links(path, lines, found):
    for i, line in enumerate(lines, 1):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", line):
            if "://" in target or target.startswith("mailto:"):
                continue
            if not os.path.exists(os.path.join(os.path.dirname(path), target)):
                found(i, "a link to %s, which does not exist" % target, "correct it")


def check_file(path, text):
    out = []

    def found(line, what, todo):
        out.append("%s:%d: %s: %s" % (path, line, what, todo))

    source = path.endswith((".c", ".h", ".py", ".sh", ".cmake", ".proto")) or \
        os.path.basename(path) == "CMakeLists.txt"
    if source or path.endswith((".md", ".yaml", ".yml")):
        check_text(path, text.split("\n"), found)
    if path.endswith((".c", ".h", ".py", ".sh", ".proto")) and SPDX not in text:
        found(1, "no licence line", SPDX)
    if path.endswith((".c", ".h")):
        check_c(path, text, found)
    if path.endswith(".md"):
        check_links(path, text.split("\n"), found)
    return out


def tracked(root):
    """What git tracks or would; without git every file outside of build folders."""
    try:
        out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, check=True,
                             capture_output=True, text=True).stdout.split("\n")
        return [p for p in out if p and os.path.exists(os.path.join(root, p))]
    except (OSError, subprocess.CalledProcessError):
        names = []
        for folder, folders, files in os.walk(root):
            folders[:] = [f for f in folders if not f.startswith((".", "build"))]
            names += [os.path.relpath(os.path.join(folder, f), root) for f in files]
        return names


TOP = "/* x.c - x.\n * %s */\n" % SPDX
SELF_TEST = [
    ("common/base/x.c", "int a;\n", "no licence line"),
    ("common/base/x.c", TOP + '#include "compute/gguf.h"\n', "layers go one way"),
    ("worker/x.c", TOP + '#include "coordinator/engine/engine.h"\n', "layers"),
    ("worker/x.c", TOP + "#include <mpi.h>\n", "only in common/transport/mpi.c"),
    ("worker/x.c", TOP + "int f(void)\n{\n%s}\n" % ("    g();\n" * 71), "71 lines"),
    ("common/base/x.c", TOP + "int a = %s1;\n" % (" " * 100), "columns"),
    ("common/base/x.c", TOP + "int a; // TO" + "DO later\n", "an open end"),
    ("common/base/x.c", TOP + "int a = f(strcpy (b, c));\n", "unsafe call"),
    ("common/base/x.c", TOP + 'void f(void) { printf("x"); }\n', "standard output"),
    ("common/base/x.c", TOP + "void f(void) { exit(1); }\n", "tr_status"),
    ("common/base/x.h", TOP + "#ifndef X\n#define X\n#endif\n", "TR_BASE_X_H"),
    ("docs/x.md", "see [y](no/such/file.md)\n", "does not exist"),
]


def self_test():
    for path, text, wanted in SELF_TEST:
        if not any(wanted in line for line in check_file(path, text)):
            sys.exit("tidy does not find '%s' in:\n%s" % (wanted, text))
    good = TOP + '#include "base/log.h"\n\nint tr_x = 1; /* strcpy( */\n'
    if check_file("common/compute/x.c", good):
        sys.exit("tidy finds fault with a good file")
    print("%d bad snippets found, a good one left alone" % len(SELF_TEST))


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.chdir(sys.argv[1])
    out = []
    n = 0
    for path in sorted(tracked(".")):
        if not path.endswith((".c", ".h", ".py", ".sh", ".md", ".cmake", ".proto", ".yaml", ".yml",
                              "CMakeLists.txt")):
            continue
        with open(path, encoding="utf-8") as f:
            out += check_file(path, f.read())
        n += 1
    print("\n".join(out) if out else "%d files are tidy" % n)
    return 1 if out else 0


if __name__ == "__main__":
    sys.exit(main())
