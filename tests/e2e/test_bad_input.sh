#!/bin/bash
# test_bad_input.sh - whatever is wrong gets one line that says what, its own class of exit status,
# and no process stays.  Alone and with workers.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

cut=$WORK/cut.gguf
head -c 1000000 "$MODEL" >"$cut"
head -c 20 "$MODEL" >"$WORK/short.gguf"
: >"$WORK/empty.gguf"
printf 'GGUF\0\0\0\3\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\1' >"$WORK/big-endian.gguf"
printf 'GGUF\3\0\0\0\377\377\377\377\377\377\377\177\1\0\0\0\0\0\0\0' >"$WORK/counts.gguf"
# replace OLD NEW FILE: the shipped model with one text of equal length changed
replace() {
  [ "${#1}" = "${#2}" ] || fail "replace: lengths differ"
  LC_ALL=C sed "s/$1/$2/" "$MODEL" >"$WORK/$3"
}
LC_ALL=C sed '0,/architecture.\{12\}qwen3moe/s/\(tecture.\{12\}\)qwen3moe/\1nosuchon/' "$MODEL" \
  >"$WORK/architecture.gguf"
replace 'blk.1.attn_norm.weight' 'blk.0.attn_norm.weight' duplicate.gguf
replace 'blk.1.attn_q.weight' 'blk.1.attn_z.weight' missing.gguf
LC_ALL=C sed 's/blk.1.attn_q.weight/blk.1.attn_T.weight/
  s/blk.1.attn_k.weight/blk.1.attn_q.weight/
  s/blk.1.attn_T.weight/blk.1.attn_k.weight/' "$MODEL" >"$WORK/shape.gguf"

LC_ALL=C sed "0,/expert_feed_forward_length/s/\(expert_feed_forward_length....\)./\1\x07/" \
  "$MODEL" >"$WORK/width.gguf"
"$TROUPE" synth --like tiny --type f32 -o "$WORK/nan.gguf" 2>"$WORK/err" ||
  fail "synth: $(cat "$WORK/err")"
head -c 65536 /dev/zero | tr '\0' '\377' |
  dd of="$WORK/nan.gguf" bs=65536 conv=notrunc oflag=seek_bytes status=none \
    seek=$(($(stat -c %s "$WORK/nan.gguf") - 65536))

go=("$TROUPE" run -n 4 -p hello)
for workers in 0 2; do
  w=(-w "$workers")
  expect_error "missing file, $workers" 6 'No such file' "${go[@]}" "${w[@]}" -m "$WORK/none.gguf"
  expect_error "a directory, $workers" 6 'regular file' "${go[@]}" "${w[@]}" -m "$WORK"
  expect_error "empty file, $workers" 3 'empty' "${go[@]}" "${w[@]}" -m "$WORK/empty.gguf"
  expect_error "cut file, $workers" 3 'incomplete' "${go[@]}" "${w[@]}" -m "$cut"
  expect_error "cut header, $workers" 3 'incomplete' "${go[@]}" "${w[@]}" -m "$WORK/short.gguf"
  expect_error "big-endian, $workers" 3 'big-endian' "${go[@]}" "${w[@]}" -m "$WORK/big-endian.gguf"
  expect_error "counts, $workers" 3 'promises' "${go[@]}" "${w[@]}" -m "$WORK/counts.gguf"
  expect_error "architecture, $workers" 3 'nosuchon' \
    "${go[@]}" "${w[@]}" -m "$WORK/architecture.gguf"
  expect_error "tensor twice, $workers" 3 'twice' "${go[@]}" "${w[@]}" -m "$WORK/duplicate.gguf"
  expect_error "tensor missing, $workers" 3 'attn_q.weight is missing' \
    "${go[@]}" "${w[@]}" -m "$WORK/missing.gguf"
  expect_error "shape lies, $workers" 3 'attn_q.weight has shape' \
    "${go[@]}" "${w[@]}" -m "$WORK/shape.gguf"
  expect_error "expert width lies, $workers" 3 'experts are .* wide' \
    "${go[@]}" "${w[@]}" -m "$WORK/width.gguf"
  expect_error "weights that are no numbers, $workers" 3 'is no number' \
    "${go[@]}" "${w[@]}" -m "$WORK/nan.gguf"
  expect_error "prompt too long, $workers" 4 'context only 4' \
    "${go[@]}" "${w[@]}" -m "$MODEL" -p 'a prompt of more than four tokens' --ctx 4
  expect_error "invalid UTF-8, $workers" 4 'UTF-8' "${go[@]}" "${w[@]}" -m "$MODEL" -p $'a\xff'
  expect_error "token out of range, $workers" 4 'model has 4096 tokens' \
    "$TROUPE" run -n 4 "${w[@]}" -m "$MODEL" --ids "1 2 4096"
  expect_error "no memory for the weights, $workers" 7 'needed here .weights .* 1048576 are' \
    "${go[@]}" "${w[@]}" -m "$MODEL" --memory-mib 1
  expect_error "no memory for the context, $workers" 7 '268435456 are available: lower --ctx' \
    "$TROUPE" run "${w[@]}" -m "$MODEL" -p hello --ctx 131072 -n 131000 --memory-mib 256
  expect_error "unknown kernels, $workers" 2 'isa' "${go[@]}" "${w[@]}" -m "$MODEL" --isa sse1
done

printf 'a\xffb' >"$WORK/no-text"
expect_error "a file of invalid UTF-8" 4 'UTF-8' \
  "$TROUPE" run -n 4 -m "$MODEL" -f "$WORK/no-text"
expect_error "a worker with a bad option" 2 'threads' "${go[@]}" -m "$MODEL" -w 2 \
  --worker-threads 513
expect_error "more workers than experts" 2 '17 workers' "${go[@]}" -m "$MODEL" -w 17
expect_error "experts that don't add up" 2 'adds up to 9' "${go[@]}" -m "$MODEL" -w 2 --experts 4,5
expect_error "temperature" 2 'temp' "${go[@]}" -m "$MODEL" --temp -1
expect_error "top-p" 2 'top-p' "${go[@]}" -m "$MODEL" --top-p 1.5
expect_error "no number" 2 'tokens' "${go[@]}" -m "$MODEL" -n 4x
expect_error "unknown option" 2 'no-such' "${go[@]}" -m "$MODEL" --no-such
expect_error "no model" 2 'no model' "${go[@]}"
expect_error "unknown command" 2 'no command' "$TROUPE" walk
expect_error "cluster file with an unknown key" 2 'wrokers' \
  "${go[@]}" -m "$MODEL" --cluster <(printf 'hosts: [{name: localhost, slots: 2}]\nwrokers: 2\n')
expect_error "worker without mpirun" 2 'not started by mpirun' "$BIN/troupe-worker"
expect_error "worker with a bad option" 2 'threads' "$BIN/troupe-worker" --threads 0
expect_error "synth to nowhere" 6 'can.t be written' \
  "$TROUPE" synth --like tiny -o "$WORK/none/x.gguf"
expect_error "synth of an unknown shape" 2 'no such shape' \
  "$TROUPE" synth --like gpt-5 -o "$WORK/x.gguf"

# What is there stays there: the part of another, and what was made before.
echo mine >"$WORK/mine"
echo mine >"$WORK/other.part"
ln -s "$WORK/nowhere" "$WORK/dangling"
for at in mine other; do
  expect_error "synth in the place of $at" 6 "$at.*: .*--overwrite" \
    "$TROUPE" synth --like tiny -o "$WORK/$at"
  expect_error "quantize in the place of $at" 6 "$at.*: .*--overwrite" \
    "$TROUPE" quantize "$WORK/nan.gguf" "$WORK/$at" Q8_0
  expect_error "a base in the place of $at" 6 "$at.*: .*--overwrite" \
    "$TROUPE" eval "$0" -m "$MODEL" --save "$WORK/$at"
done
[ "$(cat "$WORK/mine" "$WORK/other.part")" = $'mine\nmine' ] || fail "something was replaced"
"$TROUPE" synth --like tiny -o "$WORK/mine" --overwrite || fail "synth --overwrite"
cp "$MODEL" "$WORK/in.part" # which the output's part takes the place of while it is read
"$TROUPE" quantize "$WORK/in.part" "$WORK/in" Q4_K --dense Q8_0 --force --overwrite 2>"$WORK/log" ||
  fail "quantize from the output's part: $(cat "$WORK/log")"
"$TROUPE" quantize "$MODEL" "$WORK/same" Q4_K --dense Q8_0 --force 2>"$WORK/log" &&
  cmp "$WORK/in" "$WORK/same" || fail "quantize from the output's part makes something else"
expect_error "synth to an empty name" 2 'name .* is empty' "$TROUPE" synth --like tiny -o ''
expect_error "--overwrite without --save" 2 '\-\-overwrite: only' \
  "$TROUPE" eval "$0" -m "$MODEL" --overwrite
expect_error "quantize to a dangling link" 6 'no regular file' \
  "$TROUPE" quantize "$MODEL" "$WORK/dangling" Q4_K --force --overwrite
# A mistyped rule would make another file than was meant, without a word.
run "rules that fit nothing" "$TROUPE" quantize "$MODEL" "$WORK/rules" Q8_0 --force --overwrite \
  --tensor 'nothing.*=Q4_K' --tensor 'blk.*=Q8_0' --tensor 'blk.0.ffn_down_exp.weight=F16'
[ "$status" = 0 ] || fail "rules that fit nothing: exit status $status: $(cat "$WORK/err")"
[ "$(grep -c 'warning: ' "$WORK/err")" = 2 ] &&
  grep -q "warning: .*'nothing\.\*=Q4_K': no tensor" "$WORK/err" &&
  grep -q "warning: .*'blk\.0\.ffn_down_exp\.weight=F16': no tensor" "$WORK/err" ||
  fail "rules that fit nothing: $(cat "$WORK/err")"

expect_error "inspect nothing" 2 'one model file' "$TROUPE" inspect
expect_error "inspect a text" 3 'no GGUF file' "$TROUPE" inspect "$0"
printf '\100\0\0\0\0\0\0\0{"w":%059d}' 0 >"$WORK/model.safetensors"
expect_error "inspect safetensors" 3 'troupe convert' "$TROUPE" inspect "$WORK/model.safetensors"
mkfifo "$WORK/pipe"
for what in "$WORK" "$WORK/pipe" /dev/null /dev/zero; do
  expect_error "inspect $what" 6 'not a regular file' timeout 20 "$TROUPE" inspect "$what"
done
head -c 100000 /dev/urandom >"$WORK/noise"
expect_error "inspect noise" 3 'no GGUF file' "$TROUPE" inspect "$WORK/noise"
printf 'GGUF\3\0\0\0' | cat - "$WORK/noise" >"$WORK/noise.gguf"
expect_error "inspect noise that begins well" 3 'promises' "$TROUPE" inspect "$WORK/noise.gguf"

# An output that takes nothing.
for workers in 0 2; do
  "$TROUPE" run -n 50 -m "$MODEL" -p hello -w "$workers" >/dev/full 2>"$WORK/err"
  [ $? = 6 ] || fail "full disk, $workers workers: exit status not 6"
  grep -q 'error: standard output.*No space left' "$WORK/err" ||
    fail "full disk, $workers: $(cat "$WORK/err")"
  expect_nothing_left "full disk"
done
for command in "inspect $MODEL" "bench -m $MODEL --repeats 1 --steps 1" "help run" "--help"; do
  # shellcheck disable=SC2086
  "$TROUPE" $command >/dev/full 2>"$WORK/err"
  [ $? = 6 ] || fail "full disk, $command: exit status not 6"
  grep -q 'error: standard output' "$WORK/err" || fail "full disk, $command: $(cat "$WORK/err")"
done
"$BIN/troupe-worker" --help >/dev/full 2>"$WORK/err"
[ $? = 6 ] || fail "full disk, worker --help: exit status not 6"

# Standard input that is no text.
printf 'a\xffb' | "$TROUPE" run -n 4 -m "$MODEL" -p - >"$WORK/out" 2>"$WORK/err"
[ $? = 4 ] || fail "standard input of invalid UTF-8: exit status not 4"
grep -q 'UTF-8' "$WORK/err" || fail "standard input of invalid UTF-8: $(cat "$WORK/err")"

# Two coordinators in one job.
for command in "run -p hello -n 4" "bench --repeats 1 --steps 1"; do
  # shellcheck disable=SC2086
  run "two coordinators" mpirun --oversubscribe -n 2 "$TROUPE" $command -m "$MODEL"
  [ "$status" != 0 ] || fail "two coordinators, $command: exit status 0"
  grep -a -q 'error: rank 1 runs troupe' "$WORK/err" ||
    fail "two coordinators, $command: $(cat "$WORK/err")"
  expect_nothing_left "two coordinators"
done

# Rows over ZeroMQ: the port after the one that is given must be free, and workers from elsewhere
# must come.
by_zmq=(run -m "$MODEL" -p hello --transport zmq)
expect_error "no next port" 2 'data takes the next port' \
  "$TROUPE" "${by_zmq[@]}" -w 1 --listen 127.0.0.1:65535
port=$((20000 + $$ % 20000))
python3 -c "import socket, sys, time
s = socket.socket(); s.bind(('127.0.0.1', $port + 1)); s.listen()
print('bound', flush=True); time.sleep(60)" >"$WORK/bound" &
holder=$!
until [ -s "$WORK/bound" ] || ! kill -0 "$holder" 2>/dev/null; do sleep 0.05; done
expect_error "the next port is taken" 7 "data plane: can't listen on 127.0.0.1:$((port + 1))" \
  "$TROUPE" "${by_zmq[@]}" -w 1 --listen "127.0.0.1:$port"
kill "$holder"
expect_error "nobody comes from elsewhere" 5 'worker 1 did not join' \
  "$TROUPE" "${by_zmq[@]}" --outside 1 --invite-dir "$WORK" --join-timeout-ms 300
ls "$WORK"/*.invite >/dev/null 2>&1 && fail "nobody comes from elsewhere: an invitation is left"
expect_error "no place for invitations" 6 'invitation in .*nowhere' \
  "$TROUPE" "${by_zmq[@]}" --outside 1 --invite-dir "$WORK/nowhere"
expect_error "no invitation" 6 'nowhere' "$BIN/troupe-worker" --join "$WORK/nowhere"

# A worker of another version: both sides say so.
run "another version" mpirun --oversubscribe -n 1 "$TROUPE" run -m "$MODEL" -p hello \
  : -n 1 "$BIN/troupe-worker" : -n 1 "$OTHER_WORKER"
[ "$status" = 5 ] || fail "another version: exit status $status, not 5"
grep -a -q 'troupe: error: worker 2 .*version 0.0.9' "$WORK/err" ||
  fail "another version: the coordinator says: $(cat "$WORK/err")"
grep -a -q 'worker 2: error: .*version 0.0.9' "$WORK/err" ||
  fail "another version: the worker says: $(cat "$WORK/err")"
expect_nothing_left "another version"

# A worker that is given another model.
cp "$MODEL" "$WORK/other.gguf"
printf 'x' >>"$WORK/other.gguf"
run "another model" mpirun --oversubscribe -n 1 "$TROUPE" run -m "$MODEL" -p hello \
  : -n 1 "$BIN/troupe-worker" -m "$WORK/other.gguf"
[ "$status" = 5 ] || fail "another model: exit status $status, not 5"
grep -a -q 'troupe: error: worker 1 .*is refused: its model file' "$WORK/err" ||
  fail "another model: the coordinator says: $(cat "$WORK/err")"
grep -a -q 'worker 1: error: the coordinator refuses this worker: its model' "$WORK/err" ||
  fail "another model: the worker says: $(cat "$WORK/err")"
expect_nothing_left "another model"
finish
