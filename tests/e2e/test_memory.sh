#!/bin/bash
# test_memory.sh - no process holds more than its part of a model of more than 1 GB: a worker its
# experts and 64 MiB, the coordinator the dense tensors, the cache and 64 MiB.
#
# And it is what `troupe inspect` foretells, within 5 % and 8 MiB: what libraries take differs.
#
# Method: a random model, three workers, a prompt that makes the largest step and a context that
# is filled; the highest resident set of each process from /proc, until they are gone.
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

# Peaks of all processes of this test, as lines "program pid bytes"; a peak only grows.
look() {
  local pid program peak
  for pid in $(left_behind); do
    program=$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | head -1)
    program=${program##*/}
    peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status" 2>/dev/null)
    [ -n "$peak" ] && echo "$program $pid $((peak * 1024))" >>"$WORK/seen"
  done
}

# near WHO PEAK FORETOLD
near() {
  local slack=$(($3 / 20 + 8 * 1024 * 1024))
  echo "    inspect says $(($3 / 1048576)) MiB"
  [ "$2" -le $(($3 + slack)) ] && [ "$2" -ge $(($3 - slack)) ] ||
    fail "$1: $2 bytes, inspect foretells $3"
}

prompt=$(printf 'word %.0s' $(seq 100)) # 500 tokens: two steps, one of them full
"$TROUPE" inspect --json "$model" -w 3 --ctx 900 >"$WORK/foretold"
total() {
  sed -n "/\"$1\": [[{]/,/total/s/.*\"total\": \([0-9]*\).*/\1/p" "$WORK/foretold" | head -1
}
timeout 100 "$TROUPE" run -m "$model" -w 3 -p "$prompt" -n 400 --temp 0 --ignore-eos -q \
  >"$WORK/out" 2>"$WORK/err" &
launcher=$!
while kill -0 $launcher 2>/dev/null; do
  look
  sleep 0.1
done
wait $launcher || fail "run: $(cat "$WORK/err")"

seen=0
while read -r program pid peak; do
  case $program in
  troupe-worker) limit=$((experts / 3 + allowance)) && foretold=$(total worker) ;;
  troupe) limit=$((dense + allowance)) && foretold=$(total coordinator) ;;
  *) continue ;;
  esac
  seen=$((seen + 1))
  echo "  $program $pid: peak $((peak / 1048576)) MiB, limit $((limit / 1048576)) MiB"
  [ "$peak" -le "$limit" ] || fail "$program holds $peak bytes, more than $limit"
  [ "$pid" = $launcher ] || [ "$peak" -lt 20000000 ] || near "$program" "$peak" "$foretold"
done < <(sort -k2,2n -k3,3nr "$WORK/seen" | sort -u -k2,2n)
# The launcher, the coordinator, three workers.
[ "$seen" = 5 ] || fail "$seen processes seen, not 5: $(cat "$WORK/err")"
expect_nothing_left "memory"
finish
