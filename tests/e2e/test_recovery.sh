#!/bin/bash
# test_recovery.sh - workers that are killed or stopped in the middle of a run cost time and nothing
# else: the text is that of a run without workers, the exit status is 0, each loss is named, and
# nothing is left behind.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

# Long enough to be struck in the middle.
n=${SANITIZED:+300}
options=(-m "$MODEL" -p "ROMEO:" -n "${n:-1600}" --ctx 4096 --ignore-eos --temp 0.8 --seed 5)
run "alone" "$TROUPE" run "${options[@]}"
[ "$status" = 0 ] || fail "alone: exit status $status: $(cat "$WORK/err")"
cp "$WORK/out" "$WORK/wanted"

workers() { # of this test, oldest first
  local pid
  for pid in $(left_behind); do
    grep -qzx '.*/troupe-worker' "/proc/$pid/cmdline" && echo "$pid"
  done | sort -n
}

# strike SIGNAL HOW_MANY [SECONDS SIGNAL]: as soon as there is text, and once more later.
strike() {
  local i struck
  for i in $(seq 1000); do
    [ -s "$WORK/out" ] && break
    sleep 0.01
  done
  struck=$(workers | tail -n "$2")
  [ -n "$struck" ] || return
  kill "-$1" $struck && echo "$struck" >"$WORK/struck"
  [ $# -gt 2 ] || return
  sleep "$3"
  kill "-$4" $struck
}

# survive NAME PATTERN STRIKE... -- COMMAND...: the same text, and a line like PATTERN.
survive() {
  local name=$1 pattern=$2 blow=()
  shift 2
  while [ "$1" != -- ]; do
    blow+=("$1")
    shift
  done
  shift
  rm -f "$WORK/struck"
  : >"$WORK/out"
  strike "${blow[@]}" &
  local striker=$!
  run "$name" "$@"
  wait $striker
  [ -s "$WORK/struck" ] || fail "$name: it ended before it was struck"
  [ "$status" = 0 ] || fail "$name: exit status $status: $(cat "$WORK/err")"
  cmp -s "$WORK/wanted" "$WORK/out" || fail "$name: another text"
  grep -a -q -E "$pattern" "$WORK/err" || fail "$name: no line '$pattern': $(cat "$WORK/err")"
  [ "$(grep -v "can't be run" "$WORK/err" | grep -a -c 'error: ')" = 0 ] ||
    fail "$name: error lines: $(cat "$WORK/err")"
  expect_nothing_left "$name"
  echo "  $name: $(grep -a -m1 -E "$pattern" "$WORK/err")"
}

launched=("$TROUPE" run -w 4 "${options[@]}")
died='warning: worker [1-4] \(pid [0-9]+ on .*\) died'
survive "one leaves" 'worker [1-4] .* asks to leave' TERM 1 -- "${launched[@]}"
grep -a -q 'again' "$WORK/err" && fail "one leaves: $(grep -a again "$WORK/err")"
survive "all leave" 'worker [1-4] .* asks to leave' TERM 4 -- "${launched[@]}" --transport zmq
back='worker [1-4] .* is back after'
survive "two stopped for a while" "$back" STOP 2 1.5 CONT -- "${launched[@]}"
survive "one stopped, later killed" "$died" STOP 1 1 KILL -- "${launched[@]}"
place='worker [1-4] .* has taken the place of'
survive "one killed and replaced" "$place" KILL 1 -- "${launched[@]}"
survive "all killed and replaced" "$place" KILL 4 -- "${launched[@]}"
survive "not replaced" "$died" KILL 1 -- "${launched[@]}" --replacement none
grep -a -q "$place" "$WORK/err" && fail "not replaced: but it was"
survive "its replacement can't be started" "can't be run" KILL 1 -- "${launched[@]}" \
  --replacement /nonexistent/worker
survive "zmq, one killed and replaced" "$place" KILL 1 -- "${launched[@]}" --transport zmq
# The port that a replacement's rows would take is taken: the job goes on without it.
/usr/bin/python3 -c '
import socket, sys, time
held = socket.socket()
held.bind(("127.0.0.1", 0))
held.listen()
print(held.getsockname()[1], flush=True)
time.sleep(120)' >"$WORK/port" &
holder=$!
while ! [ -s "$WORK/port" ]; do sleep 0.02; done
survive "a port is taken" 'is not replaced for now: .*listen' KILL 1 -- "${launched[@]}" \
  --listen "127.0.0.1:$(($(cat "$WORK/port") - 1))"
kill $holder
survive "zmq, three stopped" 'worker [1-4] .* is silent for' STOP 3 -- "${launched[@]}" \
  --transport zmq

# Nobody has memory for what is lost: the run waits, and then says how much is missing.
strike KILL 1 &
: >"$WORK/out"
expect_error "no memory left" 5 "experts of worker [12] need [0-9]+ bytes.*more memory" \
  "$TROUPE" run -w 2 "${options[@]}" --replacement none --worker-memory-mib 1 \
  --coordinator-memory-mib 1 --timeout-ms 500
wait
grep -a -q "requests wait" "$WORK/err" || fail "no memory left: nobody says that requests wait"

# mpirun must be told to survive; then it does not matter who composed its line.
line=(--enable-recovery)
case $(mpirun --version) in
*" 4."*) ;;
*) line=(--with-ft ulfm --runtime-options error-nonzero-status=0
  --prtemca prte_allowed_exit_without_sync 1) ;;
esac
survive "plain mpirun, one killed" "$died" KILL 1 -- mpirun --oversubscribe "${line[@]}" \
  -n 1 "$TROUPE" run "${options[@]}" : -n 4 "$BIN/troupe-worker"
finish
