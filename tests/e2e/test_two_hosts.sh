#!/bin/bash
# test_two_hosts.sh - two network namespaces stand for two hosts: a host dies, its link is cut for a
# while, its link is slow; each time the text is the same.  Skipped where namespaces can't be made.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

near=trA$$ far=trB$$
remove_hosts() {
  ip netns pids "$far" 2>/dev/null | xargs -r kill -9 2>/dev/null
  ip netns pids "$near" 2>/dev/null | xargs -r kill -9 2>/dev/null
  ip netns del "$near" 2>/dev/null
  ip netns del "$far" 2>/dev/null
}
make_hosts() {
  ip netns add "$near" && ip netns add "$far" &&
    ip -n "$near" link add eth0 type veth peer name eth0 netns "$far" &&
    ip -n "$near" addr add 10.99.7.1/24 dev eth0 && ip -n "$far" addr add 10.99.7.2/24 dev eth0 &&
    ip -n "$near" link set lo up && ip -n "$far" link set lo up &&
    ip -n "$near" link set eth0 up && ip -n "$far" link set eth0 up
}
trap 'remove_hosts; rm -rf "$WORK"' EXIT
if ! command -v ip >/dev/null || ! make_hosts 2>"$WORK/why"; then
  echo "skipped: no network namespaces can be made here: $(cat "$WORK/why" 2>/dev/null)"
  exit 77
fi

# The remote shell of Open MPI: HOST COMMAND, each host with a name of its own.
cat >"$WORK/shell" <<'EOF'
#!/bin/sh
host=$1;
shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; $*"
EOF
chmod +x "$WORK/shell"
cat >"$WORK/cluster.yaml" <<EOF
model: $MODEL
hosts: [{ name: $near, slots: 2 }, { name: $far, slots: 2 }]
coordinator: { host: $near, listen: 10.99.7.1 }
mpirun:
  network: 10.99.7.0/24
  arguments: [--mca, plm_rsh_agent, $WORK/shell]
EOF

n=${SANITIZED:+100}
options=(-p "ROMEO:" -n "${n:-1200}" --ctx 2048 --ignore-eos --temp 0.8 --seed 5)
run "alone" "$TROUPE" run -m "$MODEL" "${options[@]}"
[ "$status" = 0 ] || fail "alone: exit status $status: $(cat "$WORK/err")"
cp "$WORK/out" "$WORK/wanted"

once_there_is_text() {
  local i
  for i in $(seq 1500); do
    [ -s "$WORK/out" ] && return
    sleep 0.01
  done
}
kill_host() { ip netns pids "$far" | xargs -r kill -9; }
cut_link() {
  ip -n "$far" link set eth0 down
  sleep 3
  ip -n "$far" link set eth0 up
}
slow_link() {
  ip netns exec "$near" tc qdisc add dev eth0 root tbf rate 50mbit burst 64kbit latency 400ms
}

# survive NAME BLOW PATTERN [OPTION...]
survive() {
  local name=$1 blow=$2 pattern=$3
  shift 3
  : >"$WORK/out"
  { once_there_is_text; "$blow"; } &
  run "$name" "$WORK/shell" "$near" exec "$TROUPE" run --cluster "$WORK/cluster.yaml" \
    "${options[@]}" "$@"
  wait
  [ "$status" = 0 ] || fail "$name: exit status $status: $(cat "$WORK/err")"
  cmp -s "$WORK/wanted" "$WORK/out" || fail "$name: another text"
  grep -a -q -E "$pattern" "$WORK/err" || fail "$name: no line '$pattern': $(cat "$WORK/err")"
  kill_host
  expect_nothing_left "$name"
  echo "  $name: $(grep -a -m1 -E "$pattern" "$WORK/err")"
}
survive "two hosts" true "rows per worker"
survive "link cut for 3 s" cut_link "worker [34] .* is silent for"
survive "host lost" kill_host "worker [34] .*died"
survive "zmq, link cut for 3 s" cut_link "worker [34] .* is silent for" --transport zmq
survive "zmq, host lost" kill_host "worker [34] .*died" --transport zmq
survive "slow link" slow_link "rows per worker"
finish
