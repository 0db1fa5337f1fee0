#!/bin/bash
# test_split_model.sh - a model in several files is the model, whichever file is named; what is
# wrong with one of them is said.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

made=0
split() { /usr/bin/python3 "$(dirname "$0")/split_model.py" "$MODEL" "$WORK/$1" "$2"; }
options=(-p "ROMEO:" -n 40 --temp 0.8 --seed 5)
run "whole" "$TROUPE" run -m "$MODEL" "${options[@]}"
cp "$WORK/out" "$WORK/wanted"

# same NAME COMMAND...: the text of the whole model.
same() {
  local name=$1
  shift
  run "$name" "$@"
  [ "$status" = 0 ] || fail "$name: exit status $status: $(cat "$WORK/err")"
  cmp -s "$WORK/wanted" "$WORK/out" || fail "$name: another text"
}
split m 3 || fail "it can't be split"
split two 2 || fail "it can't be split"
for part in 1 2 3; do
  same "part $part" "$TROUPE" run -m "$WORK/m-0000$part-of-00003.gguf" "${options[@]}"
done
same "two parts" "$TROUPE" run -m "$WORK/two-00002-of-00002.gguf" "${options[@]}"
same "workers" "$TROUPE" run -w 2 -m "$WORK/m-00002-of-00003.gguf" "${options[@]}"
run "inspect" "$TROUPE" inspect "$WORK/m-00003-of-00003.gguf"
[ "$status" = 0 ] || fail "inspect: $(cat "$WORK/err")"
# What is made of parts is whole: the same as what is made of the whole.
for source in "$MODEL" "$WORK/m-00002-of-00003.gguf"; do
  "$TROUPE" quantize "$source" "$WORK/of$((made += 1)).gguf" Q8_0 >/dev/null 2>"$WORK/err" ||
    fail "quantize: $(cat "$WORK/err")"
done
for i in 1 2; do
  "$TROUPE" run -m "$WORK/of$i.gguf" "${options[@]}" >"$WORK/text$i" 2>"$WORK/err" ||
    fail "quantized: $(cat "$WORK/err")"
done
cmp -s "$WORK/text1" "$WORK/text2" || fail "quantized: another text"

first=$WORK/m-00001-of-00003.gguf
cp "$WORK/m-00002-of-00003.gguf" "$WORK/alone.gguf"
expect_error "another name" 3 "must be called" "$TROUPE" run -m "$WORK/alone.gguf" "${options[@]}"
cp "$WORK/two-00002-of-00002.gguf" "$WORK/m-00002-of-00003.gguf"
expect_error "another's part" 3 "says that it is part 2 of 2" "$TROUPE" run -m "$first" \
  "${options[@]}"
split m 3
mv "$WORK/m-00003-of-00003.gguf" "$WORK/gone"
expect_error "a part is missing" 6 "m-00003-of-00003.gguf: open" "$TROUPE" run -m "$first" \
  "${options[@]}"
head -c 1000000 "$WORK/gone" >"$WORK/m-00003-of-00003.gguf"
expect_error "a part is cut" 3 "m-00003-of-00003.gguf.*incomplete" "$TROUPE" run -m "$first" \
  "${options[@]}"
finish
