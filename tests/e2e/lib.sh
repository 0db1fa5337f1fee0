# lib.sh - what end-to-end tests share: run the real programs, look at what is left behind.
#
# A test sources this file, calls `expect ...`, and ends with `finish`.  BIN and MODEL come from
# ctest (see CMakeLists.txt).  Every process of a test carries TROUPE_TEST_MARK in its environment,
# so that "nothing is left behind" can be checked without touching others.
#
# SPDX-License-Identifier: Apache-2.0
set -u
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export TROUPE_TEST_MARK="$$.$RANDOM$RANDOM"
: "${BIN:?the directory with troupe and troupe-worker}" "${MODEL:?the shipped model}"
TROUPE=$BIN/troupe
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
failures=0

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# Processes of this test that are alive (zombies have no environment).
left_behind() {
  local pid words
  for pid in /proc/[0-9]*; do
    pid=${pid#/proc/}
    [ "$pid" = "$$" ] && continue
    words=() # read without a process of its own: this runs after every command
    mapfile -d '' -t words 2>/dev/null <"/proc/$pid/cmdline" || continue
    case "${words[*]}" in
    *troupe* | *mpirun* | *orted*)
      if grep -qz "^TROUPE_TEST_MARK=$TROUPE_TEST_MARK$" "/proc/$pid/environ" 2>/dev/null; then
        echo "$pid"
      fi
      ;;
    esac
  done
}

# Some moments for the system to clear processes away, then none may be left.
expect_nothing_left() {
  local i
  for i in 1 2 3 4 5 6 7 8 9 10; do
    [ -z "$(left_behind)" ] && return
    sleep 0.3
  done
  for i in $(left_behind); do
    fail "$1: left behind: $(tr '\0' ' ' <"/proc/$i/cmdline")"
    kill -9 "$i"
  done
}

# run NAME COMMAND...: stdout to $WORK/out, stderr to $WORK/err, status in $status.
run() {
  local name=$1
  shift
  timeout 60 "$@" >"$WORK/out" 2>"$WORK/err" </dev/null
  status=$?
  [ "$status" = 124 ] && fail "$name: still running after 60 s"
}

# The lines in which our programs say that something is wrong.
error_lines() {
  grep -a -c -E '^(troupe|troupe-worker|worker [0-9]+): error: ' "$WORK/err"
}

# expect_error NAME STATUS WORD COMMAND...: that status, one line with WORD, nothing left.
expect_error() {
  local name=$1 wanted=$2 word=$3
  shift 3
  run "$name" "$@"
  [ "$status" = "$wanted" ] || fail "$name: exit status $status, not $wanted"
  [ "$(error_lines)" = 1 ] || fail "$name: $(error_lines) error lines: $(cat "$WORK/err")"
  grep -a -q -E "error: .*$word" "$WORK/err" || fail "$name: no '$word' in: $(cat "$WORK/err")"
  expect_nothing_left "$name"
  echo "  $name: $(grep -a -m1 'error: ' "$WORK/err")"
}

# start_server NAME OPTIONS...: a server on a free port; $url once it serves, $server its process.
start_server() {
  local name=$1 i
  shift
  "$TROUPE" serve -m "$MODEL" --port 0 "$@" >"$WORK/$name.out" 2>"$WORK/$name.err" </dev/null &
  server=$!
  for ((i = 0; i < 300; i++)); do
    url=$(sed -n 's/^troupe: serving .* on \(http[^ ]*\): .*/\1/p' "$WORK/$name.err" 2>/dev/null)
    [ -n "$url" ] && return
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  fail "$name: does not start: $(cat "$WORK/$name.err")"
}

# stop_server NAME: SIGTERM, and it ends well.
stop_server() {
  kill -TERM "$server"
  wait "$server"
  [ $? = 0 ] || fail "$1: ends with $?: $(cat "$WORK/$1.err")"
  expect_nothing_left "$1"
}

finish() {
  [ "$failures" = 0 ] || { echo "$failures failures"; exit 1; }
  echo "all good"
}
