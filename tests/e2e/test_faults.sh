#!/bin/bash
# test_faults.sh - each shipped fault plan, carried out by real processes: the text is that of a run
# without workers, the report names every fault and by what it was noticed, nothing is left behind.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

plans=$(cd "$(dirname "$0")/../../cluster-configs/faults" && pwd)
options=(-m "$MODEL" -p "ROMEO:" -n 200 --ignore-eos --temp 0.8 --seed 5)
run "alone" "$TROUPE" run "${options[@]}"
[ "$status" = 0 ] || fail "alone: exit status $status: $(cat "$WORK/err")"
cp "$WORK/out" "$WORK/wanted"

# carry_out PLAN TRANSPORT PATTERN...: the same text, and a line of the report for each pattern.
carry_out() {
  local name="$1 over $2" plan=$plans/$1.yaml transport=$2 pattern
  shift 2
  run "$name" "$TROUPE" run -w 4 --faults "$plan" --transport "$transport" "${options[@]}"
  [ "$status" = 0 ] || fail "$name: exit status $status: $(cat "$WORK/err")"
  cmp -s "$WORK/wanted" "$WORK/out" || fail "$name: another text"
  for pattern in "$@"; do
    grep -a -q -E "^troupe: fault: [0-9.]+ s: $pattern" "$WORK/err" ||
      fail "$name: no line '$pattern': $(cat "$WORK/err")"
  done
  grep -a -q 'faults: the output is equal to that of the coordinator alone, all 200' "$WORK/err" ||
    fail "$name: not compared: $(cat "$WORK/err")"
  expect_nothing_left "$name"
  echo "  $name: $(grep -a -c '^troupe: fault: ' "$WORK/err") lines"
}

again='[1-9][0-9]* shares again to '
carry_out kill-one mpi "kill of worker 2 at pass 1[0-9]; noticed after .*ended; $again"
carry_out kill-one zmq "kill of worker 2 at pass 1[0-9]; noticed after .*ended; $again"
carry_out kill-all-but-one mpi 'kill of worker 1 at read 5; noticed after .*ended' \
  'kill of worker 2 at pass 2[0-9]; noticed after .*ended' \
  'kill of worker 3 at pass 2[0-9]; noticed after .*ended'
# A worker that hangs is noticed after 600 ms, and so long at least somebody waits for its share.
stalled='[1-9][0-9]* shares again to .*; stalled [0-9]{3,}\.'
carry_out stop zmq \
  "stop of worker 1 at pass [0-9]+; noticed after .*(silent|late).*; $stalled" \
  "stop of worker 2 at pass [0-9]+; noticed after .*(silent|late).*; $stalled"
carry_out wrong-answers mpi 'not-a-number of worker 1 at pass [4-9]; noticed .*not finite' \
  'corrupt of worker 2 at pass [0-9]+; noticed .*checksum' 'duplicate of worker 1' \
  'delay of worker 2' 'drop of worker 1 at pass [0-9]+; noticed after .*late'
carry_out link zmq 'cut of worker 1 at pass [89]; noticed after .*silent' \
  'drop of a share for worker 2 at pass [0-9]+; noticed after .*late' \
  'duplicate of a share for worker 3' \
  'corrupt of a share for worker 3 at pass [0-9]+; noticed after .*late'
grep -a -q 'worker 1 .* is back after' "$WORK/err" || fail "link: worker 1 is not back"
grep -a -q 'worker 3: warning: frame dropped: .*checksum' "$WORK/err" ||
  fail "link: worker 3 takes a damaged share"
run "no room" "$TROUPE" run -w 2 --faults "$plans/kill-one.yaml" "${options[@]}" \
  --coordinator-memory-mib 1
[ "$status" = 0 ] || fail "no room: exit status $status: $(cat "$WORK/err")"
grep -a -q 'faults: the output is not compared: .* all experts and has 1' "$WORK/err" ||
  fail "no room: $(cat "$WORK/err")"
carry_out disk mpi 'slow-disk of worker 1' 'read-error of worker 2 at read 5; noticed .*gave up' \
  'no-memory of worker 3 at read [0-9]+; noticed .*gave up'

# Workers that are wrong in the same way, and a coordinator that has room for hardly any expert.
# Who is wrong three times is given up, and told so.
printf 'faults:\n  - {fault: not-a-number, worker: %s, pass: 4, times: %s}\n' 1 3 2 2 |
  sed '3d' >"$WORK/plan.yaml"
run "twice wrong" "$TROUPE" run -w 2 --faults "$WORK/plan.yaml" "${options[@]}" \
  --coordinator-memory-mib 1
[ "$status" = 0 ] || fail "twice wrong: exit status $status: $(cat "$WORK/err")"
cmp -s "$WORK/wanted" "$WORK/out" || fail "twice wrong: another text"
for worker in 1 2; do
  grep -a -q "worker $worker computed layer .* wrongly" "$WORK/err" ||
    fail "twice wrong: worker $worker is not blamed: $(cat "$WORK/err")"
done
grep -a -q 'worker 1 .* answered numbers that are not finite, again and again' "$WORK/err" ||
  fail "twice wrong: worker 1 is not given up: $(cat "$WORK/err")"
grep -a "coordinator is gone" "$WORK/err" && fail "twice wrong: it is there"
expect_nothing_left "twice wrong"

# Numbers that are not finite, but the model's own: they are no fault of any worker.
/usr/bin/python3 -B "$(dirname "$0")/infinite_model.py" "$MODEL" "$WORK/infinite.gguf"
infinite=(-m "$WORK/infinite.gguf" --ids "1 2 3 4" -n 40 --ignore-eos --temp 0)
run "infinite, alone" "$TROUPE" run "${infinite[@]}"
[ "$status" = 0 ] || fail "infinite, alone: exit status $status: $(cat "$WORK/err")"
cp "$WORK/out" "$WORK/wanted"
for memory in 0 1; do
  run "infinite" "$TROUPE" run -w 3 "${infinite[@]}" --coordinator-memory-mib $memory
  [ "$status" = 0 ] || fail "infinite: exit status $status: $(cat "$WORK/err")"
  cmp -s "$WORK/wanted" "$WORK/out" || fail "infinite: another text"
  grep -a -E "wrongly|died|lost|suspect|others compute" "$WORK/err" &&
    fail "infinite: a worker is blamed"
  expect_nothing_left "infinite"
done

# A server carries plans out, too, and reports when it ends.
start_server served -w 3 --faults "$plans/kill-one.yaml"
/usr/bin/python3 - "$url" >"$WORK/out" <<'PY' || fail "served: no answer"
import json, sys, urllib.request
body = json.dumps({"prompt": "ROMEO:", "max_tokens": 40, "temperature": 0}).encode()
answer = json.load(urllib.request.urlopen(sys.argv[1] + "/v1/completions", body, timeout=60))
print(answer["choices"][0]["text"])
PY
stop_server served
cp "$WORK/out" "$WORK/served"
run "served, alone" "$TROUPE" run -m "$MODEL" -p "ROMEO:" -n 40 --temp 0
[ "$(cat "$WORK/served")" = "$(cat "$WORK/out")" ] ||
  fail "served: another text: $(cat "$WORK/served") not $(cat "$WORK/out")"
grep -a -q -E "^troupe: fault: [0-9.]+ s: kill of worker 2 at pass 1[0-9]; noticed" \
  "$WORK/served.err" || fail "served: no report: $(cat "$WORK/served.err")"

# A plan that ends the run while it loads is reported all the same.
printf 'faults:\n  - {fault: kill, worker: all, read: 3}\n' >"$WORK/plan.yaml"
run "dead on loading" "$TROUPE" run -w 2 --faults "$WORK/plan.yaml" "${options[@]}" \
  --replacement none --coordinator-memory-mib 1 --timeout-ms 2000
[ "$status" = 5 ] || fail "dead on loading: exit status $status: $(cat "$WORK/err")"
[ "$(grep -a -c '^troupe: fault: .*kill of worker [12] at read 3; noticed' "$WORK/err")" = 2 ] ||
  fail "dead on loading: $(cat "$WORK/err")"
expect_nothing_left "dead on loading"

# A plan that can't be carried out is said before anything starts.
refuse() {
  run "$1" "$TROUPE" run "${options[@]}" --faults "$WORK/plan.yaml" "${@:3}"
  [ "$status" = 2 ] || fail "$1: exit status $status"
  [ "$(grep -a -c "$2" "$WORK/err")" = 1 ] || fail "$1: $(cat "$WORK/err")"
  expect_nothing_left "$1"
}
printf 'faults:\n  - fault: murder\n    worker: 1\n' >"$WORK/plan.yaml"
refuse "an unknown fault" 'faults\[1\].fault "murder": give kill, stop' -w 2
printf 'faults:\n  - fault: kill\n    worker: 3\n' >"$WORK/plan.yaml"
refuse "a worker that there is not" 'entry 1 is for worker 3, but there are 2' -w 2
refuse "no workers" 'there are none: give -w N'
expect_error "a server without workers" 2 'there are none: give -w N' "$TROUPE" serve -m "$MODEL" \
  --port 0 --faults "$WORK/plan.yaml"
finish
