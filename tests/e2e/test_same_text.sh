#!/bin/bash
# test_same_text.sh - real processes: the same bytes with any number of workers, any threads,
# any cut of the prompt, any placement; greedy and sampled; with shared experts or without;
# launched by us or by plain mpirun.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

prompt='ROMEO:
But soft, what light through yonder window breaks? It is the east, and Juliet is the sun.'

# check NAME COMMAND...: the text of the command must be that of $WORK/want.
check() {
  local name=$1
  shift
  run "$name" "$@"
  [ "$status" = 0 ] || fail "$name: exit status $status: $(cat "$WORK/err")"
  cmp -s "$WORK/out" "$WORK/want" || fail "$name: another text"
}

for temperature in 0 0.8; do
  common=(-m "$MODEL" -p "$prompt" -n 40 --temp "$temperature" --seed 7)
  run reference "$TROUPE" run "${common[@]}" --threads 1
  [ "$status" = 0 ] || fail "reference: exit status $status: $(cat "$WORK/err")"
  [ "$(wc -c <"$WORK/out")" -gt 40 ] || fail "reference: hardly any text"
  cp "$WORK/out" "$WORK/want"
  check "two threads" "$TROUPE" run "${common[@]}" --threads 2
  check "token by token" "$TROUPE" run "${common[@]}" --batch 1
  check "chunks of 7" "$TROUPE" run "${common[@]}" --batch 7
  check "plain C kernels" "$TROUPE" run "${common[@]}" --isa c
  for workers in 1 2 3 5; do
    check "$workers workers" "$TROUPE" run "${common[@]}" -w "$workers"
  done
  check "rotated, two threads each" "$TROUPE" run "${common[@]}" -w 3 --placement rotate \
    --worker-threads 2 --batch 7
  check "uneven experts" "$TROUPE" run "${common[@]}" -w 2 --experts 13,3
  check "plain mpirun" mpirun --oversubscribe -n 1 "$TROUPE" run "${common[@]}" \
    : -n 3 "$BIN/troupe-worker"
  check "cluster file" "$TROUPE" run "${common[@]}" \
    --cluster "$(dirname "$0")/../../cluster-configs/local-3.yaml"
  # As between machines: no shared memory, connections that are made on the way.
  printf 'hosts: [{name: localhost, slots: 3}]\nmpirun: {arguments: [--mca, btl, "self,tcp"]}\n' \
    >"$WORK/tcp.yaml"
  check "over TCP" "$TROUPE" run "${common[@]}" --cluster "$WORK/tcp.yaml"
  # Rows over encrypted connections; a port that is given is the control plane's, data has the next.
  check "over ZeroMQ" "$TROUPE" run "${common[@]}" -w 3 --transport zmq
  check "over ZeroMQ, one worker" "$TROUPE" run "${common[@]}" -w 1 --transport zmq --batch 7 \
    --listen 127.0.0.1:$((20000 + $$ % 20000))
  printf 'hosts: [{name: localhost, slots: 2}]\ntransport: zmq\n' >"$WORK/zmq.yaml"
  check "over ZeroMQ, cluster file" "$TROUPE" run "${common[@]}" --cluster "$WORK/zmq.yaml"
  # Workers that mpirun did not start: by an invitation in a file.  Two alone, one beside others.
  for outside in 2 1; do
    mkdir -p "$WORK/invites"
    options=(--outside $outside --invite-dir "$WORK/invites")
    [ $outside = 1 ] && options+=(-w 2)
    [ $outside = 1 ] && names=(worker-3) || names=(worker-1 worker-2)
    joiners=()
    for name in "${names[@]}"; do
      (
        until [ -e "$WORK/invites/$name.invite" ]; do sleep 0.05; done
        [ "$(stat -c %a "$WORK/invites/$name.invite")" = 600 ] || exit 99
        exec "$BIN/troupe-worker" --join "$WORK/invites/$name.invite"
      ) &
      joiners+=($!)
    done
    check "$outside from elsewhere" "$TROUPE" run "${common[@]}" "${options[@]}"
    for joiner in "${joiners[@]}"; do
      [ "$status" = 0 ] || kill "$joiner" 2>/dev/null
      wait "$joiner" || fail "$outside from elsewhere: the worker ended with $?"
    done
    [ -z "$(ls -A "$WORK/invites")" ] || fail "$outside from elsewhere: invitations are left"
  done
  run "dry run" "$TROUPE" run "${common[@]}" -w 2 --dry-run
  cp "$WORK/out" "$WORK/line.sh"
  check "the line of a dry run" bash "$WORK/line.sh"
done
printf '%s' "$prompt" >"$WORK/prompt.txt"
check "prompt from a file" "$TROUPE" run -m "$MODEL" -f "$WORK/prompt.txt" -n 40 --temp 0.8 --seed 7
timeout 60 "$TROUPE" run -m "$MODEL" -p - -n 40 --temp 0.8 --seed 7 -w 2 \
  <"$WORK/prompt.txt" >"$WORK/out" 2>"$WORK/err" || fail "prompt from standard input"
cmp -s "$WORK/out" "$WORK/want" || fail "prompt from standard input: another text"
# Experts that every row passes stay in the coordinator, beside those that workers answer for: with
# a gate of their own (qwen2moe) or without (glm4moe).
for model in qwen2moe.Q8_0 glm4moe.Q8_0; do
  file=${GOLDEN_MODELS:?the reference models}/$model.gguf
  grep -a -q ffn_up_shexp "$file" || fail "$model: has no shared expert"
  for temperature in 0 0.8; do
    common=(-m "$file" -p "The router is a matrix, 12345 of them: don't" -n 40 --ignore-eos
      --temp "$temperature" --seed 7)
    run "$model alone" "$TROUPE" run "${common[@]}" --threads 1
    [ "$status" = 0 ] || fail "$model alone: exit status $status: $(cat "$WORK/err")"
    grep -q 'generated 40 tokens' "$WORK/err" && [ "$(wc -c <"$WORK/out")" -gt 40 ] ||
      fail "$model alone: hardly any text"
    cp "$WORK/out" "$WORK/want"
    for workers in 1 2 3; do
      check "$model, $workers workers" "$TROUPE" run "${common[@]}" -w "$workers"
    done
  done
  check "$model, rotated, chunks of 7" "$TROUPE" run "${common[@]}" -w 3 --placement rotate \
    --batch 7
done
expect_nothing_left "all"
finish
