#!/bin/bash
# test_memory.sh - no process holds more than its part of a model of more than 1 GB: a worker its
# experts and 64 MiB, the coordinator the dense tensors, the cache and 64 MiB.
#
# Method: a random model, three workers; while text comes, the highest resident set of each
# process from /proc.  The cache of these few tokens is far below the allowance.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

model=$WORK/big.gguf
"$TROUPE" synth --like small-1g --type q8_0 -o "$model" || fail "synth"
facts=$("$TROUPE" inspect --json "$model")
number() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" <<<"$facts" | head -1; }
dense=$(number dense_bytes)
experts=$(number expert_bytes)
[ "$(number file_bytes)" -gt 1000000000 ] || fail "the model is smaller than 1 GB"
allowance=$((64 * 1024 * 1024))

timeout 100 "$TROUPE" run -m "$model" -w 3 -p "hello" -n 1000 --temp 0 --ignore-eos -q \
  >"$WORK/out" 2>"$WORK/err" &
for i in $(seq 300); do
  [ -s "$WORK/out" ] && break
  sleep 0.1
done
[ -s "$WORK/out" ] || fail "no text: $(cat "$WORK/err")"
sleep 0.5

seen=0
for pid in $(left_behind); do
  program=$(basename "$(tr '\0' '\n' <"/proc/$pid/cmdline" | head -1)")
  peak=$(($(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status") * 1024))
  case $program in
  troupe-worker) limit=$((experts / 3 + allowance)) ;;
  troupe) limit=$((dense + allowance)) ;;
  *) continue ;;
  esac
  seen=$((seen + 1))
  echo "  $program $pid: peak $((peak / 1048576)) MiB, limit $((limit / 1048576)) MiB"
  [ "$peak" -le "$limit" ] || fail "$program holds $peak bytes, more than $limit"
done
# The launcher, the coordinator, three workers.
[ "$seen" = 5 ] || fail "$seen processes seen, not 5: $(cat "$WORK/err")"
kill "$!" 2>/dev/null
wait
expect_nothing_left "memory"
finish
