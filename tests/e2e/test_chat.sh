#!/bin/bash
# test_chat.sh - a conversation in the terminal is the same alone and over workers.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

# say NAME INPUT OPTIONS...: a conversation; its answers are in $WORK/NAME
say() {
  local name=$1 input=$2
  shift 2
  printf "$input" | timeout 60 "$TROUPE" run -m "$MODEL" --chat -n 20 --seed 5 "$@" \
    >"$WORK/$name" 2>"$WORK/err"
  local status=$?
  [ "$status" = 0 ] || fail "$name: exit status $status: $(cat "$WORK/err")"
  expect_nothing_left "$name"
}

say alone 'Who goes there?\nAnd then?\nWhy?\n'
[ "$(wc -c <"$WORK/alone")" -gt 30 ] || fail "alone: hardly an answer: $(cat "$WORK/alone")"
say workers 'Who goes there?\nAnd then?\nWhy?\n' -w 3
cmp -s "$WORK/alone" "$WORK/workers" || fail "with workers another conversation"
say batch 'Who goes there?\nAnd then?\nWhy?\n/bye\nno more\n' --batch 3 --threads 1
cmp -s "$WORK/alone" "$WORK/batch" || fail "in small batches another conversation"

say cleared 'Who goes there?\n/clear\nAnd then?\n'
say first 'Who goes there?\n'
[ "$(head -c "$(wc -c <"$WORK/first")" "$WORK/cleared")" = "$(cat "$WORK/first")" ] ||
  fail "clear: another first answer"
say longer 'Who \\\\\ngoes there?\n'
say block '"""\nWho \ngoes there?\n"""\n'
[ -s "$WORK/longer" ] && [ -s "$WORK/block" ] || fail "messages of several lines get no answer"
say full 'Who goes there?\nAnd then?\nWhy?\n' --ctx 60
grep -q "the conversation has" "$WORK/err" || fail "a full context is not said"

expect_error "a prompt too" 2 'chat' "$TROUPE" run -m "$MODEL" --chat -p x
expect_error "json too" 2 'chat' "$TROUPE" run -m "$MODEL" --chat --json
expect_error "template" 2 'template' "$TROUPE" run -m "$MODEL" --chat --chat-template nonsense
finish
