#!/bin/bash
# test_dry_run.sh - the shipped examples for several machines compose the mpirun line that they
# should, and exact mode gives one text however it is launched.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

configs=$(cd "$(dirname "$0")/../../cluster-configs" && pwd)

# shows NAME WORDS...: the line that was printed has all these words.
shows() {
  local name=$1 word
  shift
  [ "$status" = 0 ] || fail "$name: exit status $status: $(cat "$WORK/err")"
  [ "$(wc -l <"$WORK/out")" = 1 ] || fail "$name: not one line: $(cat "$WORK/out")"
  for word in "$@"; do
    grep -q -F -e "$word" "$WORK/out" || fail "$name: no $word in $(cat "$WORK/out")"
  done
}

run "two hosts" "$TROUPE" run --cluster "$configs/two-hosts.yaml" -m "$MODEL" -p hi --dry-run
shows "two hosts" --listen=10.0.0.1 "--host node1:1 -n 1" "--host node1:2 -n 2" \
  "--host node2:3 -n 3" "--experts=8,8,16,16,16" "--model /data/models/model.gguf"

# An allocation of two nodes, as Slurm describes it to a job.
mkdir "$WORK/bin"
printf '#!/bin/sh\necho node1\necho node2\n' >"$WORK/bin/scontrol"
printf '#!/bin/sh\nexec "%s" "$@" --dry-run\n' "$TROUPE" >"$WORK/bin/troupe"
chmod +x "$WORK/bin/scontrol" "$WORK/bin/troupe"
PATH=$WORK/bin:$PATH SLURM_JOB_NODELIST='node[1-2]' SLURM_CPUS_ON_NODE=8 \
  bash "$configs/slurm.sbatch" "$MODEL" hi >"$WORK/out" 2>"$WORK/err"
status=$?
shows "slurm" --listen=0.0.0.0 "--host node1:1 -n 1" "node2:1" "--threads 8"

# The exact mode through the command line: the same text alone and with workers.
for workers in 0 2; do
  run "exact, $workers" "$TROUPE" run -m "$MODEL" -p "ROMEO:" -n 8 --temp 0 --activations f32 \
    -w "$workers"
  [ "$status" = 0 ] || fail "exact, $workers workers: exit status $status: $(cat "$WORK/err")"
  cp "$WORK/out" "$WORK/exact.$workers"
done
[ -s "$WORK/exact.0" ] || fail "exact: no text"
cmp -s "$WORK/exact.0" "$WORK/exact.2" || fail "exact: other text with workers"
finish
