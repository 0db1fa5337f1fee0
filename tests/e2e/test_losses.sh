#!/bin/bash
# test_losses.sh - a signal, the loss of the coordinator, or of a rank under an mpirun that was not
# told to go on, ends the run soon and leaves nothing behind.
#
# The promise is 5 seconds on a machine that has time for it: on one where a short run takes several
# times as long as it should, the limit grows in proportion.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

begin=$(date +%s%N)
run "a short run" "$TROUPE" run -w 3 -m "$MODEL" -p hello -n 1
short=$((($(date +%s%N) - begin) / 1000000))
limit=$((short > 1000 ? 5 * short : 5000))
echo "  a short run: $short ms, so the limit is $limit ms"

# A run that would go on for minutes.
endless=(-m "$MODEL" -p "ROMEO:" -n 1000000 --ctx 1000000 --ignore-eos --temp 0.8 --seed 1)

pids_of() { # of the processes of this test that run the program $1
  local pid
  for pid in $(left_behind); do
    [ "$(basename "$(tr '\0' '\n' <"/proc/$pid/cmdline" | head -1)")" = "$1" ] && echo "$pid"
  done
}

# strike SIGNAL PROGRAM WHICH: once text comes, send the signal to a process; note the time.
strike() {
  local i pid
  for i in $(seq 100); do
    [ -s "$WORK/out" ] && break
    sleep 0.1
  done
  sleep 0.3
  pid=$(pids_of "$2" | "$3" -n 1)
  date +%s%N >"$WORK/struck"
  [ -n "$pid" ] && kill "-$1" "$pid"
}

# lose NAME SIGNAL PROGRAM WHICH COMMAND...: run, strike, and measure what is left of the run.
lose() {
  local name=$1 signal=$2 program=$3 which=$4
  shift 4
  : >"$WORK/out"
  rm -f "$WORK/struck"
  strike "$signal" "$program" "$which" &
  run "$name" "$@"
  if ! [ -s "$WORK/struck" ] || ! [ -s "$WORK/out" ]; then
    fail "$name: it ended before it was struck: $(cat "$WORK/err")"
    wait
    return
  fi
  took=$((($(date +%s%N) - $(cat "$WORK/struck")) / 1000000))
  wait
  echo "  $name: status $status after $took ms: $(grep -a -m1 'error: ' "$WORK/err")"
  [ "$took" -lt "$limit" ] || fail "$name: took $took ms, limit $limit"
  expect_nothing_left "$name"
}

# Plain mpirun, which was not told to survive a dead rank, ends the job.
command=(mpirun --oversubscribe -n 1 "$TROUPE" run "${endless[@]}" : -n 3 "$BIN/troupe-worker")
lose "plain, worker killed" KILL troupe-worker tail "${command[@]}"
[ "$status" != 0 ] || fail "plain, killed: exit status 0"

command=("$TROUPE" run -w 3 "${endless[@]}")
lose "launched, interrupted" INT troupe head "${command[@]}"
[ "$status" = 130 ] || fail "interrupted: exit status $status, not 130"
lose "launched, coordinator killed" KILL troupe tail "${command[@]}"
[ "$status" != 0 ] || fail "coordinator killed: exit status 0"
finish
