#!/bin/bash
# test_bench.sh - the benchmark runs alone and over workers, and its figures hang together; what
# they are is not tested: that depends on the machine.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

check() {
  local name=$1
  shift
  run "$name" "$@"
  [ "$status" = 0 ] || fail "$name: exit status $status: $(cat "$WORK/err")"
  [ "$(grep -c -E '^(prefill|decode) ' "$WORK/out")" = 9 ] || fail "$name: $(cat "$WORK/out")"
  /usr/bin/python3 - "$WORK/b.json" <<'PY' || fail "$name: the JSON result makes no sense"
import json, math, sys
b = json.load(open(sys.argv[1]))
assert b["memory_gb_per_second"] > 0 and b["int8_gop_per_second"] > 0
assert b["float_gop_per_second"] > 0 and b["bf16_gop_per_second"] >= 0
assert b["memory"]["resident_bytes"] > b["memory"]["weight_bytes"] > 0
assert b["idle"]["first_ms"] > 0 and b["idle"]["warm_ms"] > 0 and b["idle"]["cpu_percent"] >= 0
assert ("round_trip" in b) == (b["workers"] > 0)
if b["workers"]:
    assert b["round_trip"]["transport_us"] > 0 and b["round_trip"]["share_bytes"] > 128
assert [r["rows"] for r in b["results"]] == [16, 128, 512, 1, 4, 16, 64, 1, 4]
for r in b["results"]:
    assert 0 < r["slowest"] <= r["tokens_per_second"] <= r["fastest"]
    share = 100 * r["tokens_per_second"] / r["limit"]
    assert math.isclose(r["percent_of_limit"], share, rel_tol=1e-6)
    parts = [r[p + "_percent"] for p in ("dense", "attention", "router", "dispatch", "shared",
                                         "experts", "wait", "combine", "output")]
    assert all(p >= 0 for p in parts) and math.isclose(sum(parts), 100, rel_tol=1e-6)
    assert parts[5] + parts[6] > 0
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
  check "launched" "$TROUPE" bench "${quick[@]}" -w 2
fi
expect_nothing_left "bench"
"$TROUPE" bench "${quick[@]}" >/dev/null
run "compare" "$TROUPE" bench --compare "$WORK/b.json" "$WORK/b.json"
[ "$(grep -c ' 1.00$' "$WORK/out")" = 9 ] || fail "compare: $(cat "$WORK/out" "$WORK/err")"
if command -v gnuplot >/dev/null; then
  run "plot" "$TROUPE" bench -m "$MODEL" --repeats 1 --steps 1 --idle 1 --plot "$WORK/it's.svg"
  [ "$status" = 0 ] || fail "plot: $(cat "$WORK/err")"
  grep -q '</svg>' "$WORK/it's.svg" || fail "plot: no chart"
else
  expect_error "no gnuplot" 6 'gnuplot is not installed' "$TROUPE" bench "${quick[@]}" --plot x.svg
fi
run "serve" "$TROUPE" bench --serve -m "$MODEL" -w 2 --seconds 2 --concurrent 4 --prompt 20 \
  --answer 20 --shared 50 --shared-tokens 64 --long 300 --json "$WORK/b.json"
[ "$status" = 0 ] || fail "serve: $(cat "$WORK/err")"
run "serve, open loop" "$TROUPE" bench --serve -m "$MODEL" --seconds 2 --rate 600 \
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
expect_error "unwritable" 6 'can.t be written' "$TROUPE" bench -m "$MODEL" --repeats 1 --steps 1 \
  --json "$WORK/none/b.json"
finish
