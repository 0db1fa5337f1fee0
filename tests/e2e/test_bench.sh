#!/bin/bash
# test_bench.sh - the benchmark runs alone and over workers, and its figures hang together; what
# they are is not tested: that depends on the machine.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

# check NAME COMMAND...: eleven lines of results, and JSON that makes sense.
check() {
  local name=$1
  shift
  run "$name" "$@"
  [ "$status" = 0 ] || fail "$name: exit status $status: $(cat "$WORK/err")"
  [ "$(grep -c -E '^(prefill|decode) ' "$WORK/out")" = 11 ] || fail "$name: $(cat "$WORK/out")"
  /usr/bin/python3 - "$WORK/b.json" <<'PY' || fail "$name: the JSON result makes no sense"
import json, math, sys
b = json.load(open(sys.argv[1]))
assert b["memory_gb_per_second"] > 0 and b["int8_gop_per_second"] > 0
assert b["float_gop_per_second"] > 0 and b["bf16_gop_per_second"] >= 0
assert b["load_seconds"] > 0 and b["read_seconds"] > 0
assert math.isclose(b["load_times_reading"], b["load_seconds"] / b["read_seconds"], rel_tol=1e-6)
assert len(b["identity"]) == 16 and b["kv"] in ("F16", "Q8_0")
assert b["memory"]["resident_bytes"] > b["memory"]["weight_bytes"] > 0
assert b["idle"]["first_ms"] > 0 and b["idle"]["warm_ms"] > 0 and b["idle"]["cpu_percent"] >= 0
assert ("round_trip" in b) == (b["workers"] > 0)
if b["workers"]:
    assert b["round_trip"]["transport_us"] > 0 and b["round_trip"]["share_bytes"] > 128
    assert b["round_trip"]["layer_us"] > 0
assert [r["rows"] for r in b["results"]] == [16, 128, 512] + 2 * [1, 4, 16, 64]
for r in b["results"]:
    assert 0 < r["slowest"] <= r["tokens_per_second"] <= r["fastest"]
    # Of two repeats the mean of their times.
    both = 2 / (1 / r["slowest"] + 1 / r["fastest"])
    assert math.isclose(r["tokens_per_second"], both, rel_tol=1e-6)
    share = 100 * r["tokens_per_second"] / r["limit"]
    assert math.isclose(r["percent_of_limit"], share, rel_tol=1e-6)
    parts = [r[p + "_percent"] for p in ("dense", "attention", "router", "dispatch", "shared",
                                         "experts", "wait", "combine", "output", "sampling",
                                         "other")]
    assert all(p >= 0 for p in parts) and math.isclose(sum(parts), 100, rel_tol=1e-6)
    assert parts[5] + parts[6] > 0 and parts[9] > 0
PY
  rm -f "$WORK/b.json"
}

quick=(-m "$MODEL" --repeats 2 --steps 2 --idle 1 --json "$WORK/b.json")
check "alone" "$TROUPE" bench "${quick[@]}"
# Sanitizers make each of these a matter of minutes; what is left runs the same code.
if [ -z "${SANITIZED:-}" ]; then
  check "plain C" "$TROUPE" bench "${quick[@]}" --isa c --threads 1
  check "two workers" mpirun --oversubscribe -n 1 "$TROUPE" bench "${quick[@]}" \
    : -n 2 "$BIN/troupe-worker"
  check "launched" "$TROUPE" bench "${quick[@]}" -w 2 --kv q8_0
  # A shared expert is computed while the workers compute.
  check "shared expert" "$TROUPE" bench "${quick[@]}" -w 2 -m "$GOLDEN_MODELS/qwen2moe.F32.gguf"
  # Workers get as many threads as this process.
  printf '#!/bin/sh\necho "$*" >>%s/threads\nexec %s/troupe-worker "$@"\n' "$WORK" "$BIN" \
    >"$WORK/worker"
  chmod +x "$WORK/worker"
  run "threads" "$TROUPE" bench -m "$MODEL" --repeats 1 --steps 1 --idle 1 -w 2 --threads 1 \
    --worker-binary "$WORK/worker"
  [ "$(sort -u "$WORK/threads")" = "--threads 1" ] || fail "threads: $(cat "$WORK/threads")"
fi
# Learned positions end: what needs more is left out, with a line, and the rest is measured.
run "few positions" "$TROUPE" bench -m "$GOLDEN_MODELS/gpt2.F32.gguf" --repeats 1 --steps 2 \
  --idle 1 --json "$WORK/few.json"
[ "$status" = 0 ] || fail "few positions: exit status $status: $(cat "$WORK/err")"
[ "$(grep -c -E 'left out: needs 2054 positions, and this model knows 512$' "$WORK/out")" = 4 ] ||
  fail "few positions: $(cat "$WORK/out")"
[ "$(grep -c '"what"' "$WORK/few.json")" = 7 ] || fail "few positions: not the other seven"
expect_nothing_left "bench"
"$TROUPE" bench "${quick[@]}" >/dev/null
run "compare" "$TROUPE" bench --compare "$WORK/b.json" "$WORK/b.json"
[ "$(grep -c ' %.* % .* 1.00$' "$WORK/out")" = 11 ] ||
  fail "compare: $(cat "$WORK/out" "$WORK/err")"
[ "$(grep -c -E '^[AB]: .*demo.gguf, kernels .* threads, 0 workers, cache F16; memory ' \
  "$WORK/out")" = 2 ] || fail "compare: no headings: $(cat "$WORK/out")"
[ -s "$WORK/err" ] && fail "compare: $(cat "$WORK/err")"
run "compare two models" "$TROUPE" bench --compare "$WORK/b.json" "$WORK/few.json"
grep -q 'warning: .*different models' "$WORK/err" || fail "two models: $(cat "$WORK/err")"
[ "$(grep -c -E '^(prefill|decode) ' "$WORK/out")" = 7 ] || fail "two models: $(cat "$WORK/out")"
if command -v gnuplot >/dev/null; then
  run "plot" "$TROUPE" bench -m "$MODEL" --repeats 1 --steps 1 --idle 1 --plot "$WORK/it's.svg"
  [ "$status" = 0 ] || fail "plot: $(cat "$WORK/err")"
  grep -q '</svg>' "$WORK/it's.svg" || fail "plot: no chart"
  expect_error "unwritable chart" 6 "none/x.svg: can.t be written" "$TROUPE" bench -m "$MODEL" \
    --plot "$WORK/none/x.svg"
  expect_error "full disk" 6 '/dev/full: can.t be written' "$TROUPE" bench -m "$MODEL" \
    --repeats 1 --steps 1 --idle 1 --plot /dev/full
  mkdir "$WORK/bin"
  printf '#!/bin/sh\n[ "$1" = --version ] || { echo "a line of its own" >&2; exit 1; }\n' \
    >"$WORK/bin/gnuplot"
  chmod +x "$WORK/bin/gnuplot"
  PATH=$WORK/bin:$PATH run "failing gnuplot" "$TROUPE" bench -m "$MODEL" --repeats 1 --steps 1 \
    --idle 1 --plot "$WORK/y.svg"
  [ "$status" = 6 ] || fail "failing gnuplot: exit status $status"
  [ "$(cat "$WORK/err")" = "troupe: error: $WORK/y.svg: gnuplot could not draw it" ] ||
    fail "failing gnuplot: $(cat "$WORK/err")"
else
  expect_error "no gnuplot" 6 'gnuplot is not installed' "$TROUPE" bench "${quick[@]}" --plot x.svg
fi
run "serve" "$TROUPE" bench --serve -m "$MODEL" -w 2 --seconds 2 --concurrent 4 --prompt 20 \
  --answer 20 --shared 50 --shared-tokens 64 --long 300 --json "$WORK/b.json"
[ "$status" = 0 ] || fail "serve: $(cat "$WORK/err")"
run "serve, open loop" "$TROUPE" bench --serve -m "$MODEL" --seconds 2 --rate 600 --kv q8_0 \
  --json "$WORK/c.json"
[ "$status" = 0 ] || fail "serve, open loop: $(cat "$WORK/err")"
/usr/bin/python3 - "$WORK/b.json" "$WORK/c.json" <<'PY' || fail "serve: JSON without sense"
import json, sys
for path in sys.argv[1:]:
    b = json.load(open(path))
    assert b["sent"] == b["finished"] > 4 and b["refused"] == b["failed"] == 0
    assert b["written_per_second"] > 0 and b["read_per_second"] > 0
    for t in b["first_token_seconds"], b["between_tokens_seconds"]:
        assert 0 < t["p50"] <= t["p95"] <= t["p99"] and t["n"] > 0
    assert abs(b["model_percent"] + b["drawing_percent"] + b["scheduling_percent"] - 100) < 1e-6
PY
# A signal ends it, whoever still waits for an answer.
timeout --preserve-status -k 20 -s INT 3 "$TROUPE" bench --serve -m "$MODEL" --seconds 100 \
  --concurrent 4 --ctx 4096 --answer 5000 >"$WORK/interrupted" 2>&1
status=$?
[ "$status" = 130 ] || fail "bench --serve, interrupted: $status: $(cat "$WORK/interrupted")"
grep -q "requests:" "$WORK/interrupted" && fail "bench --serve, interrupted: shows results"
expect_error "serve without a model" 2 'no model' "$TROUPE" bench --serve
expect_error "compare nothing" 6 'none.json' "$TROUPE" bench --compare "$WORK/none.json" x
expect_error "no model" 2 'no model' "$TROUPE" bench
expect_error "repeats" 2 'repeats' "$TROUPE" bench "${quick[@]}" --repeats 0
expect_error "cache of Q4_0" 2 'kv q4_0: must be' "$TROUPE" bench "${quick[@]}" --kv q4_0
# Said before anything is measured; what was there stays until there is something new.
expect_error "unwritable" 6 'can.t be written' "$TROUPE" bench -m "$MODEL" --repeats 1 --steps 1 \
  --json "$WORK/none/b.json"
[ -s "$WORK/out" ] && fail "unwritable: measured before: $(cat "$WORK/out")"
echo old >"$WORK/old.json"
expect_error "no such model" 6 'none.gguf' "$TROUPE" bench -m "$WORK/none.gguf" \
  --json "$WORK/old.json" --plot "$WORK/new.svg"
[ "$(cat "$WORK/old.json")" = old ] || fail "no such model: the old result is gone"
[ -e "$WORK/new.svg" ] && fail "no such model: an empty chart is left"
expect_error "serve, unwritable" 6 'can.t be written' "$TROUPE" bench --serve -m "$MODEL" \
  --json "$WORK/none/b.json"
finish
