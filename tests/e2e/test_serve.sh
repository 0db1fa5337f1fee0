#!/bin/bash
# test_serve.sh - the server as users meet it: what it answers, what it refuses, many at once, and
# how it ends.
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"
here=$(dirname "$0")
python=/usr/bin/python3

check() {
  local name=$1
  shift
  timeout 200 "$python" "$@" >"$WORK/out" 2>&1 || fail "$name: $(cat "$WORK/out")"
  echo "  $name: $(tail -1 "$WORK/out")"
}

start_server alone --queue 100 --idle-s 2
check "alone" "$here/serve_check.py" "$url" "$TROUPE" "$MODEL"
stop_server alone

# Streams that nobody reads end long before --idle-s, and who reads on is told.
start_server unread
"$python" - "$url" >"$WORK/out" 2>&1 <<'PY' || fail "unread: $(cat "$WORK/out")"
import json, socket, sys, time, urllib.parse, urllib.request
url = urllib.parse.urlsplit(sys.argv[1])
def requests():
    return json.load(urllib.request.urlopen(sys.argv[1] + "/cluster", timeout=20))["requests"]
body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 450, "n": 16,
                   "logprobs": True, "top_logprobs": 20, "stream": True}).encode()
sockets = []
for _ in range(2):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    s.settimeout(60)
    s.connect((url.hostname, url.port))
    s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
              b"Content-Length: %d\r\n\r\n" % len(body) + body)
    sockets.append(s)
for _ in range(250):
    r = requests()
    if r["cancelled"] > 16 and r["running"] + r["waiting"] == 0:
        break
    time.sleep(0.1)
assert r["cancelled"] > 16, r
text = b""
while more := sockets[0].recv(1 << 20):
    text += more
assert b'"code":"cancelled"' in text[-500:] and b"[DONE]" in text[-100:], text[-500:]
PY
stop_server unread

# Told to stop, it takes no new connections, and finishes the answers that have begun.
start_server drained --drain-s 100
"$python" - "$url" >"$WORK/out" 2>&1 <<'PY' || fail "drained: $(cat "$WORK/out")"
import json, os, signal, socket, sys, time, urllib.parse, urllib.request
url = urllib.parse.urlsplit(sys.argv[1])
pid = json.load(urllib.request.urlopen(sys.argv[1] + "/cluster", timeout=20))["coordinator"]["pid"]
body = json.dumps({"prompt": "Once", "max_tokens": 450, "n": 4, "stream": True}).encode()
stream = urllib.request.urlopen(sys.argv[1] + "/v1/completions", body, timeout=60)
begin = stream.read(100)
os.kill(pid, signal.SIGTERM)
for _ in range(200):
    try:
        socket.create_connection((url.hostname, url.port), timeout=20).close()
        time.sleep(0.05)
    except ConnectionRefusedError:
        break
else:
    raise SystemExit("connections are taken")
text = (begin + stream.read()).decode()
at = text.find('"error":') # the model's own text can have the word, but not so
assert text.endswith("data: [DONE]\n\n") and at < 0, (text[at - 300:at + 300], text[-300:])
PY
wait "$server" || fail "drained: ends with $?"

# Who does not say how long the answer may be gets what the cache has room for.
start_server small --cache 200
"$python" - "$url" >"$WORK/out" 2>&1 <<'PY' || fail "small: $(cat "$WORK/out")"
import json, sys, urllib.error, urllib.request
def ask(**more):
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], **more}).encode()
    return json.load(urllib.request.urlopen(sys.argv[1] + "/v1/chat/completions", body, timeout=60))
assert ask()["usage"]["total_tokens"] <= 200
try:
    ask(max_tokens=200)
    raise SystemExit("200 tokens are taken")
except urllib.error.HTTPError as e:
    text = e.read().decode()
    assert e.code == 400 and "context of 200" in text, text
PY
stop_server small

# A layer without a router shows the one network that it has.
start_server dense -m "$GOLDEN_MODELS/deepseek2-lite.Q8_0.gguf" -w 2
"$python" - "$url" >"$WORK/out" 2>&1 <<'PY' || fail "dense: $(cat "$WORK/out")"
import json, sys, urllib.request
body = json.dumps({"prompt": "Once", "max_tokens": 20}).encode()
urllib.request.urlopen(sys.argv[1] + "/v1/completions", body, timeout=60).read()
c = json.load(urllib.request.urlopen(sys.argv[1] + "/cluster", timeout=60))
experts = c["model"]["experts"]
for table in c["holder"], c["picks"], c["last_request"]["picks"]:
    assert [len(row) for row in table] == [1] + [experts] * (c["model"]["layers"] - 1), table
assert c["picks"][0][0] > 0 and sum(c["picks"][1]) == c["model"]["top_k"] * c["picks"][0][0], c
PY
stop_server dense

# Places to run in count, not only those to wait in; who can never fit hears that.
start_server places --parallel 6 --queue 0
"$python" - "$url" >"$WORK/out" 2>&1 <<'PY' || fail "places: $(cat "$WORK/out")"
import concurrent.futures, json, sys, urllib.error, urllib.request
def ask(n):
    body = json.dumps({"prompt": "Once", "max_tokens": 100, "n": n}).encode()
    try:
        return len(json.load(urllib.request.urlopen(sys.argv[1] + "/v1/completions", body,
                                                    timeout=60))["choices"])
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()
assert ask(6) == 6
with concurrent.futures.ThreadPoolExecutor(6) as pool:
    many = list(pool.map(ask, [1, 2, 1, 1, 1]))
assert many == [1, 2, 1, 1, 1], many
status, text = ask(7)
assert status == 400 and "7 answers are more than the 6" in text, text
PY
stop_server places

start_server workers -w 3 --worker-binary "$BIN/troupe-worker" --parallel 12 --cache 2000
check "many clients, three workers, little memory" "$here/serve_load.py" "$url" --clients 16 \
  --seconds 5 --kinds 16 --memory "${SANITIZED:-8}"
check "and workers that are killed and stopped" "$here/serve_load.py" "$url" --clients 16 \
  --seconds 5 --kinds 8 --memory "${SANITIZED:-32}" --strike 1.2
# Answers that have begun are finished.
"$python" - "$url" >"$WORK/out" 2>&1 <<'PY' &
import json, sys, urllib.request
body = json.dumps({"prompt": "Once", "max_tokens": 400, "stream": True}).encode()
text = urllib.request.urlopen(sys.argv[1] + "/v1/completions", body, timeout=60).read().decode()
assert text.endswith("data: [DONE]\n\n"), text[-300:]
assert '"finish_reason":"length"' in text or '"finish_reason":"stop"' in text, text[-300:]
PY
client=$!
sleep 0.4
stop_server workers
wait "$client" || fail "drain: $(cat "$WORK/out")"

# A worker that dies or stops costs time: answers are what they would have been; /health says so.
# With the default the stopped one would be replaced if an answer took 10 s.
start_server dying -w 3 --silence-ms 200000
"$python" - "$url" >"$WORK/out" 2>&1 <<'PY' || fail "a worker dies: $(cat "$WORK/out")"
import json, os, signal, sys, time, urllib.request
def get(path):
    return urllib.request.urlopen(sys.argv[1] + path, timeout=60)
def ask():
    body = json.dumps({"prompt": "Once", "max_tokens": 500, "n": 8, "seed": 7, "stream": True})
    return urllib.request.urlopen(sys.argv[1] + "/v1/completions", body.encode(), timeout=60)
def texts(stream):
    text = [""] * 8
    for event in stream.split("\n\n"):
        for c in json.loads(event[6:])["choices"] if event.startswith("data: {") else []:
            text[c["index"]] += c["text"]
    return text
def until(wanted):
    for _ in range(600):
        health = json.load(get("/health"))
        if health["status"] == wanted:
            return health
        time.sleep(0.05)
    raise SystemExit("not %s but %s: %s" % (wanted, health, json.load(get("/cluster"))["events"]))
calm = texts(ask().read().decode())
assert min(map(len, calm)) > 100, calm
pid = [w["pid"] for w in json.load(get("/cluster"))["workers"]]
until("ready")
for worker, blow in (2, signal.SIGKILL), (3, signal.SIGSTOP), (3, signal.SIGCONT):
    stream = ask()
    begin = stream.read(2000)
    os.kill(pid[worker - 1], blow)
    struck = (begin + stream.read()).decode()
    assert struck.endswith("data: [DONE]\n\n"), struck[-300:]
    assert texts(struck) == calm, (blow, texts(struck))
    health = until("degraded" if blow == signal.SIGSTOP else "ready")
    states = [w["state"] for w in json.load(get("/cluster"))["workers"]]
    if blow == signal.SIGSTOP:
        assert "worker 3 is silent" in health["reason"], health
        assert states == ["ready", "ready", "suspect"], states
now = [w["pid"] for w in json.load(get("/cluster"))["workers"]]
assert now[0] == pid[0] and now[1] != pid[1] and now[2] == pid[2], (pid, now)
metrics = get("/metrics").read().decode()
for line in ("troupe_workers_lost_total 1", "troupe_workers_replaced_total 1",
             "troupe_workers_suspected_total 1", "troupe_workers_returned_total 1",
             'troupe_worker_up{worker="2"} 1'):
    assert line in metrics, line
events = [e["text"] for e in json.load(get("/cluster"))["events"]]
assert any("worker 2 died" in e or "worker 2 was lost" in e for e in events), events
PY
stop_server dying

"$TROUPE" serve --new-key "$WORK/keys" >"$WORK/key" || fail "no key"
start_server keys --api-keys "$WORK/keys"
"$python" - "$url" "$(cat "$WORK/key")" <<'PY' || fail "keys"
import sys, urllib.error, urllib.request
def get(path, key):
    headers = {"Authorization": "Bearer " + key} if key else {}
    r = urllib.request.Request(sys.argv[1] + path, headers=headers)
    try:
        return urllib.request.urlopen(r, timeout=20).status
    except urllib.error.HTTPError as e:
        return e.code
key = sys.argv[2]
assert get("/health", None) == get("/", None) == 200
assert get("/v1/models", None) == get("/cluster", None) == get("/metrics", key[:-1]) == 401
assert get("/v1/models", key) == get("/cluster", key) == 200
PY
# Bodies of those without a key are not kept.
"$python" - "$url" "$(cat "$WORK/key")" "${SANITIZED:-30}" >"$WORK/out" 2>&1 <<'PY' ||
import json, socket, sys, time, urllib.parse, urllib.request
url, key, most = urllib.parse.urlsplit(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def memory():
    r = urllib.request.Request(sys.argv[1] + "/cluster", headers={"Authorization": "Bearer " + key})
    return json.load(urllib.request.urlopen(r, timeout=20))["coordinator"]["memory_bytes"]
before = memory()
sockets = []
for _ in range(40):
    s = socket.create_connection((url.hostname, url.port), timeout=20)
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000001\r\n\r\n"
              + b" " * 4000000)
    sockets.append(s)
time.sleep(0.5)
grown = (memory() - before) >> 20
assert grown < most, "%d MiB" % grown
for s in sockets:
    s.sendall(b" ")
    assert s.recv(4096).startswith(b"HTTP/1.1 401"), "no 401 behind the body"
PY
  fail "bodies without a key: $(cat "$WORK/out")"
grep -q "$(cat "$WORK/key")" "$WORK/keys" "$WORK/keys.err" && fail "the key itself is kept"
stop_server keys

# Which names it goes by: what it listens on; where anybody may ask, no other site's.
asks() { # STATUS HOST ORIGIN
  local got
  got=$("$python" - "$url" "$2" "$3" <<'PY'
import http.client, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
c = http.client.HTTPConnection("127.0.0.5", url.port, timeout=20)
headers = {"Host": sys.argv[2], "Origin": sys.argv[3]}
c.request("GET", "/cluster", headers={name: v for name, v in headers.items() if v})
print(c.getresponse().status)
PY
  )
  [ "$got" = "$1" ] || fail "$name: Host: $2, Origin: $3: $got, not $1"
}
name=far
start_server far --host 0.0.0.0 --insecure --host-name one.example,two.example
asks 200 "127.0.0.5:80" "http://127.0.0.5:80"
asks 403 evil.example http://evil.example
asks 403 one.example,two.example ""
asks 200 Two.example:8080 http://two.example:8080
asks 403 two.example http://evil.example
stop_server far
name=near
start_server near --host 127.0.0.5
asks 200 "127.0.0.5:${url##*:}" "http://127.0.0.5:${url##*:}"
asks 403 evil.example ""
stop_server near

if command -v openssl >/dev/null; then
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout "$WORK/key.pem" \
    -out "$WORK/cert.pem" 2>/dev/null
  start_server tls --tls-cert "$WORK/cert.pem" --tls-key "$WORK/key.pem"
  "$python" - "$url" "$WORK/cert.pem" <<'PY' || fail "tls"
import ssl, sys, urllib.request
url = sys.argv[1].replace("127.0.0.1", "localhost")
context = ssl.create_default_context(cafile=sys.argv[2])
assert url.startswith("https:")
assert urllib.request.urlopen(url + "/health", timeout=20, context=context).status == 200
PY
  stop_server tls
  expect_error "another key" 2 'certificate' "$TROUPE" serve -m "$MODEL" --port 0 \
    --tls-cert "$WORK/cert.pem" --tls-key "$WORK/cert.pem"
fi

start_server cluster --cluster "$here/../../cluster-configs/local-3.yaml"
"$python" - "$url" <<'PY' || fail "a cluster file"
import json, sys, urllib.request
c = json.load(urllib.request.urlopen(sys.argv[1] + "/cluster", timeout=20))
assert [w["state"] for w in c["workers"]] == ["ready"] * 3, c["workers"]
PY
stop_server cluster

expect_error "far without keys" 2 'insecure' "$TROUPE" serve -m "$MODEL" --host 0.0.0.0
expect_error "no worker" 2 'worker-binary' "$TROUPE" serve -m "$MODEL" -w 1 \
  --worker-binary "$WORK/nobody"
expect_error "no model" 2 'no model' "$TROUPE" serve
expect_error "template" 2 'chat' "$TROUPE" serve -m "$MODEL" --chat-template nonsense
expect_error "no address" 2 'host' "$TROUPE" serve -m "$MODEL" --host example --insecure
run "a small context" "$TROUPE" bench --serve -m "$MODEL" --ctx 64 --seconds 1 --concurrent 2 \
  --prompt 8 --answer 4 --shared 50
[ "$status" = 0 ] || fail "a small context: $(cat "$WORK/err")"
start_server taken
run "port taken" "$TROUPE" serve -m "$MODEL" --port "${url##*:}"
[ "$status" = 7 ] || fail "port taken: exit status $status"
grep -q 'error: .*port .*listened' "$WORK/err" || fail "port taken: $(cat "$WORK/err")"
stop_server taken
finish
