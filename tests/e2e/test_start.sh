#!/bin/bash
# test_start.sh - ranks that never come up end the run at the join deadline, with one line: MPI
# itself would wait for them for ever.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

line='error: mpi: not all [23] processes of this job came up within 2.0 s'
line="$line|error: a worker \\(process [0-9]+\\) ended before all had come up"
line="$line|error: not all workers came up"

# ended_well NAME: what ran ended with one line, status 5, and left nothing behind.
ended_well() {
  [ "$status" = 5 ] || fail "$1: exit status $status: $(cat "$WORK/err")"
  [ "$(grep -a -c -E "$line" "$WORK/err")" = 1 ] || fail "$1: $(cat "$WORK/err")"
  expect_nothing_left "$1"
}

# never NAME COMMAND...: so ends the command.
never() {
  run "$@"
  ended_well "$1"
}

for program in /bin/true /bin/false; do
  never "worker is $program" "$TROUPE" run -m "$MODEL" -p hi -n 2 -w 2 --worker-binary $program \
    --join-timeout-ms 2000
done
# One that lives long enough to be seen is missed at once, not at the deadline of a minute.
printf '#!/bin/sh\nsleep 1\nexit 3\n' >"$WORK/troupe-worker"
chmod +x "$WORK/troupe-worker"
never "a worker gives up" "$TROUPE" run -m "$MODEL" -p hi -n 2 -w 2 \
  --worker-binary "$WORK/troupe-worker"
plain=(mpirun --oversubscribe -n 1 "$TROUPE" run -m "$MODEL" -p hi -n 2 --join-timeout-ms 2000
  : -n 1 "$BIN/troupe-worker")
# A rank that fails at once makes plain mpirun end the job by itself; so does one that ends well, if
# others had called MPI by then: whoever is faster.
for program in /bin/true /bin/false; do
  name="a rank is $program"
  run "$name" "${plain[@]}" : -n 1 $program
  if [ $program = /bin/false ] || grep -a -q "mpirun has exited due to" "$WORK/err"; then
    [ "$status" != 0 ] || fail "$name: exit status 0"
    expect_nothing_left "$name"
  else
    ended_well "$name"
  fi
done
finish
