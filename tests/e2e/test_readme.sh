#!/bin/bash
# test_readme.sh - every command that the README shows in an sh block works as it stands there.
#
# build/release in the commands is the build that is tested.  scripts/test.sh is what runs this
# test, so it is only looked at; building by hand is how this build came to be; the quick start has
# a test of its own (test_quickstart.sh).
#
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(dirname "$BIN")
cd "$root" || exit 1
ran=0

one() {
  local shown=$1 command
  case $shown in
  scripts/test.sh | scripts/quickstart.sh | 'cmake --preset'* | 'cmake --build'*)
    [ "${shown%% *}" = cmake ] || [ -x "$shown" ] || fail "$shown can't be run"
    return
    ;;
  esac
  command=${shown//build\/release/$build}
  command=${command//build\/installed/$WORK/installed}
  timeout 120 bash -c "$command" >"$WORK/out" 2>"$WORK/err" </dev/null
  status=$?
  [ "$status" = 0 ] || fail "$shown: exit status $status: $(tail -3 "$WORK/err")"
  [ -s "$WORK/out" ] || fail "$shown: no output"
  ran=$((ran + 1))
  echo "  $shown"
}

# The lines of all sh blocks.
while IFS= read -r line; do
  one "$line"
done < <(sed -n '/^```sh$/,/^```$/{/^```/d;/^$/d;p}' README.md)
[ "$ran" -ge 9 ] || fail "only $ran commands found"

# The forms of the JSON result that the README promises.
"$TROUPE" run -m "$MODEL" -p "ROMEO:" -n 3 --temp 0 --json --logprobs 2 2>/dev/null >"$WORK/out"
/usr/bin/python3 - "$WORK/out" <<'PY' || fail "the JSON result is not what it should be"
import json, math, sys
r = json.load(open(sys.argv[1]))
assert len(r["tokens"]) == 3 and r["n_generated"] == 3 and r["finish"] == "length"
for t in r["tokens"]:
    assert t["logprob"] <= 0 and len(t["top"]) == 2
    assert t["top"][0]["id"] == t["id"] and math.isclose(t["top"][0]["logprob"], t["logprob"])
assert r["text"] == "".join(t["text"] for t in r["tokens"])
PY
expect_nothing_left "readme"
finish
