#!/bin/bash
# test_quickstart.sh - the README's first command, in a fresh clone: build, and text from a
# coordinator and three workers.  A clone has what is committed, not what only lies here.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

root=$(cd "$(dirname "$0")/../.." && pwd)
git -c safe.directory="$root" clone -q "$root" "$WORK/troupe" ||
  { echo "skipped: not a git repository"; exit 77; }
cd "$WORK/troupe" || exit 1
timeout 280 scripts/quickstart.sh "Once upon a time" >"$WORK/out" 2>"$WORK/err" </dev/null
status=$?
[ "$status" = 0 ] || fail "exit status $status: $(tail -5 "$WORK/err")"
grep -q 'rows per worker: 1: [0-9]* 2: [0-9]* 3: [0-9]*' "$WORK/err" ||
  fail "no summary of three workers: $(tail -5 "$WORK/err")"
expect_nothing_left "quick start"
finish
