#!/bin/bash
# test_serving_doc.sh - every command in docs/serving.md's sh blocks works as it stands there, with
# the server of its first line.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(dirname "$BIN")
cd "$root" || exit 1
ran=0

start_server doc -w 3
while IFS= read -r line; do
  command=${line//http:\/\/localhost:8080/$url}
  command=${command//build\/release/$build}
  timeout 60 bash -c "$command" >"$WORK/out" 2>"$WORK/err" </dev/null || fail "$line: $?"
  [ -s "$WORK/out" ] || fail "$line: no output"
  grep -q '"error":' "$WORK/out" && fail "$line: $(cat "$WORK/out")"
  ran=$((ran + 1))
done < <(sed -n '/^```sh$/,/^```$/{/^```/d;/^$/d;p}' docs/serving.md)
[ "$ran" -ge 9 ] || fail "only $ran commands found"
stop_server doc
finish
