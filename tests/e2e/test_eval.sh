#!/bin/bash
# test_eval.sh - perplexity and divergence are those that others computed, the same with any number
# of workers, 0 against themselves, and what can't be compared is refused.
#
# Others: the code that trained the shipped model (tests/golden/vec/demo.vec), and the logits of the
# independent forward pass (tests/golden/vec/*.ref.bin) put together here by numpy.
#
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

root=$(cd "$(dirname "$0")/../.." && pwd)
vec=$root/tests/golden/vec

# value KEY: of the JSON object in $WORK/out, inner ones too.
value() { sed -n "s/^ *\"$1\": \([^,]*\),\{0,1\}$/\1/p" "$WORK/out" | head -1; }

# near NAME GOT WANT RELATIVE: within that share of it.
near() {
  awk -v g="$2" -v w="$3" -v r="$4" \
    'BEGIN { d = g - w; if (d < 0) d = -d; exit !(g != "" && d <= r * w) }' ||
    fail "$1: $2, not $3"
  echo "  $1: $2 (reference $3)"
}

# good NAME COMMAND...: ends well; the JSON result is in $WORK/out.
good() {
  run "$@"
  [ "$status" = 0 ] || fail "$1: exit status $status: $(cat "$WORK/err")"
}

# ---- the perplexity of the code that trained the model: all positions of windows of 512
for domain in shakespeare bible c; do
  sed -n "s/^$domain\.tokens [0-9]* //p" "$vec/demo.vec" >"$WORK/$domain.ids"
  want=$(sed -n "s/^$domain\.nll 1 //p" "$vec/demo.vec")
  good "$domain" "$TROUPE" eval --ids-file "$WORK/$domain.ids" -m "$MODEL" --skip 0 --json
  near "$domain, mean surprise" "$(value mean_surprise)" "$want" 0.001
  [ "$(value positions)" = 4088 ] || fail "$domain: $(value positions) positions"
done

# ---- the same to the last digit, however it is computed
text=$root/LICENSE
keep() { grep -v -E '"(workers|load_seconds|tokens_per_second)"' "$WORK/out"; }
good "alone" "$TROUPE" eval "$text" -m "$MODEL" --save "$WORK/base.json" --json
keep >"$WORK/want"
grep -q '"positions": 1785' "$WORK/want" || fail "alone: $(cat "$WORK/want")"
good "three workers" "$TROUPE" eval "$text" -m "$MODEL" -w 3 --save "$WORK/base3.json" --json
keep | cmp - "$WORK/want" || fail "three workers: another result"
cmp "$WORK/base.json" "$WORK/base3.json" || fail "three workers: another base"
good "chunks of 7" "$TROUPE" eval "$text" -m "$MODEL" --batch 7 --threads 1 --json
keep | cmp - "$WORK/want" || fail "chunks of 7: another result"
timeout 60 "$TROUPE" eval -p - --json --cluster "$root/cluster-configs/local-3.yaml" -m "$MODEL" \
  <"$text" >"$WORK/out" 2>"$WORK/err" || fail "cluster file: $(cat "$WORK/err")"
keep | cmp - "$WORK/want" || fail "cluster file: another result"

# ---- nothing beside itself, something beside others
good "itself" "$TROUPE" eval "$text" -m "$MODEL" -w 2 --kl "$WORK/base.json" --json
for key in mean mean_error median p99 largest log_prob_difference; do
  [ "$(value $key)" = 0.0 ] || fail "itself: $key is $(value $key)"
done
[ "$(value same_top)" = 1785 ] || fail "itself: $(value same_top) first tokens are the same"
good "other arithmetic" "$TROUPE" eval "$text" -m "$MODEL" --activations f32 \
  --kl "$WORK/base.json" --json
awk -v d="$(value mean)" 'BEGIN { exit !(d > 1e-5 && d < 0.02) }' || fail "other: $(value mean)"

# ---- divergence and perplexity from the logits of the independent forward pass
# (a family whose prompts are the same for both types)
family=granitemoe
ids=$(sed -n 's/^p2\.tokens 40 //p' "$vec/$family.F32.vec")
options=(--ids "$ids" --ctx 40 --skip 0 --activations f32 --json)
good "F32" "$TROUPE" eval -m "$GOLDEN_MODELS/$family.F32.gguf" "${options[@]}" \
  --save "$WORK/f32.json" --top 0
f32=$(value mean_surprise)
good "F32, a few tokens" "$TROUPE" eval -m "$GOLDEN_MODELS/$family.F32.gguf" "${options[@]}" \
  --save "$WORK/few.json" --top 20
good "Q8_0" "$TROUPE" eval -m "$GOLDEN_MODELS/$family.Q8_0.gguf" "${options[@]}" \
  --kl "$WORK/f32.json"
cp "$WORK/out" "$WORK/whole"
good "Q8_0, a few tokens" "$TROUPE" eval -m "$GOLDEN_MODELS/$family.Q8_0.gguf" "${options[@]}" \
  --kl "$WORK/few.json"
cp "$WORK/out" "$WORK/few"
/usr/bin/python3 - "$vec/$family" "$f32" "$WORK/whole" "$WORK/few" <<'PY' || fail "another result"
import json, math, sys
import numpy as np

def read(kind):
    lines = dict((l.split()[0], l.split()[2:]) for l in open("%s.%s.vec" % (sys.argv[1], kind)))
    logits = np.fromfile("%s.%s.ref.bin" % (sys.argv[1], kind), "<f4").astype(float)
    counts = [len(lines["p%d.tokens" % i]) for i in range(3)]
    logits = logits.reshape(sum(counts), -1)[counts[0] + counts[1]:][:-1]
    top = logits.max(axis=1, keepdims=True)
    tokens = [int(t) for t in lines["p2.tokens"]]
    return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True)), tokens[1:]

def same(what, got, want, bound):
    print("  %s: %.9g (numpy %.9g)" % (what, got, want))
    assert abs(got - want) <= bound * abs(want), what

p, tokens = read("F32")
q, _ = read("Q8_0")
rows = np.arange(len(tokens))
same("F32, mean surprise", float(sys.argv[2]), -p[rows, tokens].mean(), 1e-5)
whole, few = (json.load(open(name)) for name in sys.argv[3:])
same("Q8_0, mean surprise", whole["mean_surprise"], -q[rows, tokens].mean(), 1e-5)
d = np.sort((np.exp(p) * (p - q)).sum(axis=1))
same("divergence, mean", whole["kl"]["mean"], d.mean(), 1e-2)
same("divergence, error", whole["kl"]["mean_error"], d.std(ddof=1) / math.sqrt(len(d)), 1e-2)
same("divergence, median", whole["kl"]["median"], d[math.ceil(len(d) * 0.5) - 1], 1e-2)
same("divergence, 99 %", whole["kl"]["p99"], d[math.ceil(len(d) * 0.99) - 1], 1e-2)
same("first tokens", whole["kl"]["same_top"], (p.argmax(axis=1) == q.argmax(axis=1)).sum(), 0)
same("difference", whole["kl"]["log_prob_difference"], (q - p)[rows, tokens].mean(), 1e-2)
kept = np.argsort(-p, axis=1)[:, :20]
pk, qk = np.take_along_axis(p, kept, 1), np.take_along_axis(q, kept, 1)
P, Q = 1 - np.exp(pk).sum(axis=1), 1 - np.exp(qk).sum(axis=1)
bound = (np.exp(pk) * (pk - qk)).sum(axis=1) + P * np.log(P / Q)
same("20 tokens, mean", few["kl"]["mean"], bound.mean(), 1e-2)
same("20 tokens, known", few["kl"]["base_known"], np.exp(pk).sum(axis=1).mean(), 1e-4)
assert few["kl"]["mean"] < whole["kl"]["mean"]
PY

# ---- what can't be
evaluate=("$TROUPE" eval "$text" -m "$MODEL")
expect_error "another text" 4 "of another text" "$TROUPE" eval "$root/README.md" -m "$MODEL" \
  --kl "$WORK/base.json"
expect_error "another window" 4 "made with --ctx 512" "${evaluate[@]}" --ctx 64 \
  --kl "$WORK/base.json"
expect_error "another vocabulary" 4 "of another vocabulary" "${evaluate[@]}" --kl "$WORK/f32.json"
expect_error "no base" 4 "line 1: no JSON object" "${evaluate[@]}" --kl "$text"
head -c 100000 "$WORK/base.json" >"$WORK/cut.json"
expect_error "a cut base" 4 "the file ends here" "${evaluate[@]}" --kl "$WORK/cut.json"
sed '5s/"logprob":-/"logprob":/' "$WORK/base.json" >"$WORK/odd.json"
expect_error "a wrong line" 4 "line 5: .*logprob" "${evaluate[@]}" --kl "$WORK/odd.json" -w 1
expect_error "a short text" 4 "a window 512" "$TROUPE" eval -p "hello" -m "$MODEL"
expect_error "can't be saved" 6 "no regular file" "${evaluate[@]}" --save /dev/null
[ -z "$(find "$WORK" -name '*.part')" ] || fail "unfinished files are left"
expect_nothing_left "eval"
finish
