#!/usr/bin/python3
"""serve_check.py - the server, one property after the other, through plain HTTP.

  serve_check.py URL TROUPE MODEL     exit status 0: all hold; 1: those that don't are named

TROUPE and MODEL are for comparing with what `troupe run` writes.
SPDX-License-Identifier: Apache-2.0"""
import http.client
import json
import math
import os
import random
import socket
import subprocess
import sys
import time
import urllib.parse

URL = urllib.parse.urlsplit(sys.argv[1])
TROUPE, MODEL = sys.argv[2:4]
failed = []


def check(what, holds, seen=""):
    if not holds:
        failed.append(what)
        print("FAILED: %s: %s" % (what, str(seen)[:400]))


def ask(method, path, body=None, headers=()):
    c = http.client.HTTPConnection(URL.hostname, URL.port, timeout=60)
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    c.request(method, path, data, dict(headers))
    r = c.getresponse()
    raw = r.read()
    c.close()
    try:
        return r.status, json.loads(raw), r
    except ValueError:
        return r.status, raw, r


def complete(**request):
    status, body, _ = ask("POST", "/v1/completions", request)
    if status != 200:
        raise RuntimeError("status %d: %s" % (status, body))
    return body


def events(path, **request):
    c = http.client.HTTPConnection(URL.hostname, URL.port, timeout=60)
    c.request("POST", path, json.dumps(dict(request, stream=True)))
    r = c.getresponse()
    lines = [line[6:].strip() for line in r.read().split(b"\n") if line.startswith(b"data: ")]
    c.close()
    check("a stream ends with [DONE]", lines and lines[-1] == b"[DONE]", lines[-1:])
    return [json.loads(line) for line in lines[:-1]]


def error_of(what, want_status, body, path="/v1/completions"):
    status, answer, _ = ask("POST", path, body)
    ok = status == want_status and isinstance(answer, dict) and answer["error"]["message"]
    check("%s: status %d with a message" % (what, want_status), ok, (status, answer))
    return answer


def the_paths():
    status, body, _ = ask("GET", "/health")
    check("ready", status == 200 and body["status"] == "ready", body)
    status, body, _ = ask("GET", "/v1/models")
    check("models", body["object"] == "list" and body["data"][0]["object"] == "model", body)
    status, body, r = ask("GET", "/metrics")
    text = body.decode()
    check("metrics", "troupe_steps_total" in text and 'le="+Inf"' in text and
          r.getheader("Content-Type").startswith("text/plain; version=0.0.4"), text[:200])
    for line in text.splitlines():
        if not line.startswith("#"):
            float(line.rsplit(" ", 1)[1])
    status, body, _ = ask("GET", "/cluster")
    m = body["model"]
    check("cluster", len(body["picks"]) == m["layers"] and
          all(len(row) == m["experts"] for row in body["holder"]), body.keys())
    status, body, r = ask("GET", "/")
    check("page", status == 200 and r.getheader("Content-Type").startswith("text/html"), status)
    check("policy", "default-src 'self'" in r.getheader("Content-Security-Policy"))
    check("unknown path", ask("GET", "/nothing")[0] == 404)
    check("wrong method", ask("GET", "/v1/completions")[0] == 405)
    evil = {"Origin": "http://evil.example"}
    check("foreign origin", ask("GET", "/health", None, evil)[0] == 403)
    for host in "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "":
        status, body, _ = ask("GET", "/health", None, {"Host": host})
        check("foreign host " + host, status == 403 and
              body["error"]["message"].startswith("Host: "), body)
    for host in "localhost", "LOCALHOST:1", "127.0.0.5:8080", "[::1]:8080", socket.gethostname():
        check("host " + host, ask("GET", "/health", None, {"Host": host})[0] == 200)


def the_words():
    tokens = ask("POST", "/tokenize", {"content": "Hello, Ωorld!\n"})[1]["tokens"]
    back = ask("POST", "/detokenize", {"tokens": tokens})[1]["content"]
    check("tokens and back", back == "Hello, Ωorld!\n", (tokens, back))
    error_of("detokenize: no such id", 400, {"tokens": [10**9]}, "/detokenize")
    error_of("tokenize: nothing", 400, {}, "/tokenize")
    a = complete(prompt=tokens, max_tokens=4, seed=1)
    b = complete(prompt="Hello, Ωorld!\n", max_tokens=4, seed=1)["usage"]["prompt_tokens"]
    check("a text begins with BOS where the file wants it", b - len(tokens) in (0, 1), b)
    check("usage", a["usage"] == {"prompt_tokens": len(tokens), "completion_tokens": 4,
                                  "total_tokens": len(tokens) + 4}, a["usage"])


def the_same_as_run():
    for seed, temp in (1, 0), (7, 1):
        ran = subprocess.run([TROUPE, "run", "-m", MODEL, "-p", "The king", "-n", "30", "--seed",
                              str(seed), "--temp", str(temp), "--top-k", "0", "--top-p", "1",
                              "--min-p", "0", "-q"], capture_output=True, check=True, timeout=60)
        text = complete(prompt="The king", max_tokens=30, seed=seed,
                        temperature=temp)["choices"][0]["text"]
        check("the text of troupe run, seed %d" % seed,
              ran.stdout.decode().rstrip("\n") == text.rstrip("\n"), (ran.stdout, text))


def the_options():
    one = complete(prompt="Once upon", max_tokens=30, seed=5)["choices"][0]
    three = complete(prompt="Once upon", max_tokens=30, seed=5, n=3)["choices"]
    check("n: indices", [c["index"] for c in three] == [0, 1, 2], three)
    check("n: the first is that of one", three[0]["text"] == one["text"])
    check("n: they differ", len({c["text"] for c in three}) > 1)
    stop = one["text"][8:11]
    cut = complete(prompt="Once upon", max_tokens=30, seed=5, stop=[stop])["choices"][0]
    check("stop", cut["finish_reason"] == "stop" and
          cut["text"] == one["text"][:one["text"].index(stop)], (stop, cut, one))
    check("length", one["finish_reason"] == "length")
    echo = complete(prompt="Once upon", max_tokens=3, seed=5, echo=True)["choices"][0]["text"]
    check("echo", echo.startswith("Once upon") and one["text"].startswith(echo[9:]), echo)
    ids = ask("POST", "/tokenize", {"content": "日本é"})[1]["tokens"]
    for prompt in "日本é", ids[:-1]:  # the second ends within a character
        request = {"prompt": prompt, "echo": True, "max_tokens": 3, "seed": 5}
        whole = complete(**request)["choices"][0]["text"]
        parts = [e["choices"][0]["text"] for e in events("/v1/completions", **request)]
        check("echo in a stream", "".join(parts) == whole and parts[0].startswith("日本"),
              (parts, whole))
    first = ask("POST", "/tokenize", {"content": " king"})[1]["tokens"][0]
    biased = complete(prompt="The", max_tokens=3, logit_bias={str(first): 100})
    check("logit_bias", biased["choices"][0]["text"] == " king" * 3, biased)
    never = complete(prompt="The", max_tokens=3, temperature=0, logit_bias={str(first): -100})
    check("logit_bias -100", " king" not in never["choices"][0]["text"], never)
    flat = complete(prompt="a a a a", max_tokens=20, temperature=0)["choices"][0]["text"]
    punished = complete(prompt="a a a a", max_tokens=20, temperature=0, presence_penalty=2,
                        frequency_penalty=2)["choices"][0]["text"]
    check("penalties change an answer", flat != punished, flat)


def the_probabilities():
    c = complete(prompt="The", max_tokens=5, temperature=0, logprobs=3)["choices"][0]
    lp = c["logprobs"]
    check("logprobs", len(lp["tokens"]) == len(lp["token_logprobs"]) == len(lp["top_logprobs"]) == 5
          and "".join(lp["tokens"]) == c["text"], lp)
    check("greedy takes the most probable",
          all(math.isclose(max(t.values()), p) for t, p in
              zip(lp["top_logprobs"], lp["token_logprobs"])), lp)
    # whole characters, also while text is held back because a stop string may begin in it
    text = c["text"]
    stops = [text[i:i + 3] + "\u2603" for i in range(len(text) - 3)][:16]
    for seed in range(4):
        c = complete(prompt="The", max_tokens=24, seed=seed, logprobs=0, stop=stops)["choices"][0]
        lp = c["logprobs"]
        check("offsets of tokens", all(c["text"][at:at + len(t)] == t for t, at in
                                       zip(lp["tokens"], lp["text_offset"]) if "\ufffd" not in t)
              and lp["text_offset"][-1] > 0, lp)
    _, chat, _ = ask("POST", "/v1/chat/completions", {
        "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "logprobs": True,
        "top_logprobs": 2})
    content = chat["choices"][0]["logprobs"]["content"]
    check("chat logprobs", len(content) == 4 and all(len(t["top_logprobs"]) == 2 for t in content)
          and all(bytes(t["bytes"]).decode(errors="replace") == t["token"] for t in content),
          content)


def the_streams():
    request = {"prompt": "Once upon a time", "max_tokens": 40, "seed": 3, "n": 2}
    answer = complete(**request)
    whole = answer["choices"]
    parts = ["", ""]
    reasons = [None, None]
    for e in events("/v1/completions", stream_options={"include_usage": True}, **request):
        if not e["choices"]:
            check("usage of a stream", e["usage"] == answer["usage"], e)
            continue
        c = e["choices"][0]
        parts[c["index"]] += c["text"]
        reasons[c["index"]] = c["finish_reason"] or reasons[c["index"]]
    check("a stream is the whole", parts == [c["text"] for c in whole], (parts, whole))
    check("its reasons", reasons == [c["finish_reason"] for c in whole], reasons)
    messages = [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "hi"}]
    _, chat, _ = ask("POST", "/v1/chat/completions", {"messages": messages, "max_tokens": 12,
                                                      "seed": 2})
    seen = events("/v1/chat/completions", messages=messages, max_tokens=12, seed=2)
    delta = seen[0]["choices"][0]["delta"]
    check("the role comes first", delta.get("role") == "assistant", delta)
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in seen)
    whole = chat["choices"][0]["message"]["content"]
    check("a chat's stream is the whole", text == whole, text)


def the_schemas():
    person = {"type": "object", "required": ["name", "age", "mood"], "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["a", "b c"]}, "minItems": 1, "maxItems": 3},
        "mood": {"anyOf": [{"const": None}, {"type": "boolean"}]}}}
    for seed in range(12):
        _, body, _ = ask("POST", "/v1/chat/completions", {
            "messages": [{"role": "user", "content": "Who?"}], "seed": seed, "max_tokens": 300,
            "response_format": {"type": "json_schema",
                                "json_schema": {"name": "person", "schema": person}}})
        c = body["choices"][0]
        o = json.loads(c["message"]["content"])
        check("a schema is held, seed %d" % seed, c["finish_reason"] == "stop" and
              set(o) <= set(person["properties"]) and {"name", "age", "mood"} <= set(o) and
              1 <= len(o["name"]) <= 12 and type(o["age"]) is int and
              o["mood"] in (None, True, False) and
              all(t in ("a", "b c") for t in o.get("tags", ["a"])) and
              1 <= len(o.get("tags", ["a"])) <= 3, o)
    free = complete(prompt="{", max_tokens=200, seed=3, n=4, temperature=0.7,
                    response_format={"type": "json_object"})["choices"]
    for c in free:
        check("an object", c["text"][:1] == "{", c)
        if c["finish_reason"] == "stop":
            check("a whole object", isinstance(json.loads(c["text"]), dict), c)
    tree = {"$ref": "#/$defs/node", "$defs": {"node": {
        "type": "object", "required": ["next"], "properties": {
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}}}}
    c = complete(prompt="x", max_tokens=200, seed=1, response_format={
        "type": "json_schema", "json_schema": {"schema": tree}})["choices"][0]
    check("a schema within itself", c["finish_reason"] == "length" or
          "next" in json.loads(c["text"]), c)
    error_of("nothing may come", 400, {
        "prompt": "x", "logit_bias": {str(i): -100 for i in range(900)}, "response_format": {
            "type": "json_schema", "json_schema": {"schema": {"const": "abc"}}}})
    for what, schema in [("pattern", {"type": "string", "pattern": "a+"}),
                         ("itself", {"$ref": "#"}), ("nowhere", {"$ref": "#/$defs/x"}),
                         ("type", {"type": "cat"}), ("required", {"type": "object",
                                                                  "required": ["x"]}),
                         ("counts", {"type": "array", "minItems": 3, "maxItems": 2}),
                         ("list", []), ("two", {"enum": [1], "const": 1}),
                         ("beside", {"type": "array", "anyOf": [{"type": "integer"}]}),
                         ("minimum", {"type": "integer", "minimum": 3})]:
        error_of("schema: " + what, 400, {"prompt": "a", "response_format": {
            "type": "json_schema", "json_schema": {"schema": schema}}})


def the_errors():
    for what, body in [
            ("no prompt", {}), ("empty prompt", {"prompt": []}), ("a number", {"prompt": 4}),
            ("no ids", {"prompt": [1, "a"]}), ("an id too large", {"prompt": [10**8]}),
            ("an id too large, echoed", {"prompt": [10**8], "echo": True}),
            ("a long text", {"prompt": " " * 4000000}),
            ("stream_options", {"prompt": "a", "stream_options": "x"}),
            ("suffix auto", {"prompt": "a", "suffix": "auto"}),
            ("negative", {"prompt": [-1]}), ("n 0", {"prompt": "a", "n": 0}),
            ("n 1000", {"prompt": "a", "n": 1000}), ("hot", {"prompt": "a", "temperature": 1000}),
            ("temperature text", {"prompt": "a", "temperature": "x"}),
            ("top_p", {"prompt": "a", "top_p": 0}),
            ("max_tokens 0", {"prompt": "a", "max_tokens": 0}),
            ("too many tokens", {"prompt": "a", "max_tokens": 10**6}),
            ("long prompt", {"prompt": "a b " * 2000}), ("stop", {"prompt": "a", "stop": 3}),
            ("empty stop", {"prompt": "a", "stop": [""]}),
            ("stops", {"prompt": "a", "stop": ["a"] * 100}),
            ("bias", {"prompt": "a", "logit_bias": {"x": 1}}),
            ("bias value", {"prompt": "a", "logit_bias": {"1": 1000}}),
            ("stream", {"prompt": "a", "stream": "yes"}),
            ("suffix", {"prompt": "a", "suffix": "b"}),
            ("best_of", {"prompt": "a", "best_of": 5}),
            ("format", {"prompt": "a", "response_format": {"type": "nonsense"}}),
            ("echo logprobs", {"prompt": "a", "echo": True, "logprobs": 1}),
            ("no object", [1]), ("seed", {"prompt": "a", "seed": -1})]:
        error_of(what, 400, body)
    for what, body in [("no messages", {}), ("empty", {"messages": []}),
                       ("no role", {"messages": [{"content": "a"}]}),
                       ("strange role", {"messages": [{"role": "cat", "content": "a"}]}),
                       ("a picture", {"messages": [{"role": "user",
                                                    "content": [{"type": "image_url"}]}]}),
                       ("stops", {"messages": [{"role": "user", "content": "a"}],
                                  "stop": ["%d" % i for i in range(16)]}),
                       ("tools", {"messages": [{"role": "user", "content": "a"}],
                                  "tools": [{"type": "function"}]})]:
        error_of("chat: " + what, 400, body, "/v1/chat/completions")
    part = {"type": "text", "text": "king "}
    begin = time.time()
    error_of("many parts", 400, {"messages": [{"role": "user", "content": [part] * 100000}]},
             "/v1/chat/completions")
    check("many parts hold nobody up", time.time() - begin < 10, time.time() - begin)
    error_of("a long text to tokenize", 400, {"content": " " * 4000000}, "/tokenize")
    check("an empty suffix", ask("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1,
                                                             "suffix": ""})[0] == 200)
    error_of("another model", 404, {"prompt": "a", "model": "gpt-4"})
    for what, raw in [("not JSON", b"{"), ("bytes", b"\xff\xfe{}"),
                      ("deep", b"[" * 100000), ("twice", b'{"prompt":"a","prompt":"b"}'),
                      ("NUL", b'{"prompt":"a\\u0000b"}')]:
        error_of(what, 400, raw)
    for mib in 5, 20:
        error_of("a body of %d MiB" % mib, 413, b'{"prompt":"' + b"a" * (mib << 20) + b'"}')
    check("an empty body", "empty" in error_of("nothing", 400, b"")["error"]["message"])


def the_unmannered():
    """Whatever comes over the socket, the server answers 4xx or hangs up, and goes on."""
    rng = random.Random(11)
    good = (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 29\r\n\r\n"
            b'{"prompt":"a","max_tokens":1}')
    sockets = []
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            k = rng.randrange(len(data))
            how = rng.randrange(3)
            if how == 0:
                data[k] = rng.randrange(256)
            elif how == 1:
                del data[k:k + rng.randint(1, 9)]
            else:
                data[k:k] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
        s = socket.create_connection((URL.hostname, URL.port), timeout=20)
        s.sendall(bytes(data))
        s.shutdown(socket.SHUT_WR)
        sockets.append((s, bytes(data)))
    for s, data in sockets:  # what is incomplete is cut off when the server's patience ends
        try:
            while s.recv(65536):
                pass
        except ConnectionError:
            pass
        except socket.timeout:
            check("whatever comes is answered or cut", False, data)
        s.close()
    s = socket.create_connection((URL.hostname, URL.port), timeout=10)
    s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200000 + b"\r\n\r\n")
    try:
        check("endless headers", s.recv(4096)[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 413", b""))
    except ConnectionError:
        pass
    s.close()
    check("still there", ask("GET", "/health")[0] == 200)


def answer_on(s):
    r = http.client.HTTPResponse(s)
    r.begin()
    return r.status, r.read()


def post_bytes(path, body, more=b""):
    data = json.dumps(body).encode()
    return (b"POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n" %
            (path.encode(), more, len(data))) + data


def the_early():
    """Who waits for leave to send a body hears at once that it is not wanted."""
    for path, length, status in [("/v1/completions", 1 << 30, 413), ("/nothing", 1000, 404),
                                 ("/health", 1000, 405)]:
        s = socket.create_connection((URL.hostname, URL.port), timeout=20)
        s.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                  b"Content-Length: %d\r\n\r\n" % (path.encode(), length))
        check("%s: %d before the body" % (path, status), answer_on(s)[0] == status)
        s.close()
    # A byte now and then does not keep a connection: --idle-s is 2.
    s = socket.create_connection((URL.hostname, URL.port), timeout=20)
    s.sendall(post_bytes("/v1/completions", {"prompt": "a" * 100})[:-90])
    begin = time.time()
    try:
        for _ in range(30):
            s.sendall(b"a")
            time.sleep(0.5)
    except ConnectionError:
        pass
    check("a body that trickles is cut off", time.time() - begin < 14, time.time() - begin)
    s.close()


def the_half_closed():
    """A client that ends its side and stays gets its answer, whole or as a stream."""
    for stream in False, True:
        request = {"prompt": "Once", "max_tokens": 450, "n": 8, "seed": 4}
        s = socket.create_connection((URL.hostname, URL.port), timeout=60)
        s.sendall(post_bytes("/v1/completions", dict(request, stream=stream)))
        s.shutdown(socket.SHUT_WR)
        status, body = answer_on(s)
        check("half closed, stream %s" % stream, status == 200 and b'"error":' not in body and
              (b"[DONE]" in body if stream else len(json.loads(body)["choices"]) == 8),
              (status, body[-300:]))
        s.close()


def the_trace():
    """The last request is known by the id of its answer."""
    for path, body in ("/v1/completions", {"prompt": "a"}), \
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}):
        body = ask("POST", path, dict(body, max_tokens=3))[1]
        last = ask("GET", "/cluster")[1]["last_request"]
        check("the last request's id", last["id"] == body["id"], (last["id"], body["id"]))


def the_impatient():
    """Clients that hang up free their sequences: streaming, whole, and still waiting."""
    body = json.dumps({"prompt": "Once", "max_tokens": 500, "n": 16}).encode()
    sockets = []
    for i in range(12):
        stream = b"true" if i % 2 else b"false"
        data = body[:-1] + b', "stream": ' + stream + b"}"
        s = socket.create_connection((URL.hostname, URL.port), timeout=10)
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
                  str(len(data)).encode() + b"\r\n\r\n" + data)
        sockets.append(s)
    time.sleep(0.3)
    c = ask("GET", "/cluster")[1]["requests"]
    check("many run and wait", c["running"] > 0, c)
    for s in sockets:
        s.close()
    for _ in range(50):
        c = ask("GET", "/cluster")[1]
        if c["requests"]["running"] == 0 and c["requests"]["waiting"] == 0:
            break
        time.sleep(0.1)
    check("they are gone", c["requests"]["running"] == 0 and c["kv"]["used"] == 0, c["requests"])


def the_crowd():
    """More requests than the queue takes: 429 with Retry-After, none hangs."""
    body = json.dumps({"prompt": "Once", "max_tokens": 400, "n": 16}).encode()
    sockets = []
    statuses = {}
    for _ in range(40):
        s = socket.create_connection((URL.hostname, URL.port), timeout=30)
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
                  str(len(body)).encode() + b"\r\n\r\n" + body)
        sockets.append(s)
    deadline = time.time() + 5
    for s in sockets:
        s.settimeout(max(0.01, deadline - time.time()))
        try:
            head = s.recv(4096)
            statuses[head[9:12]] = statuses.get(head[9:12], 0) + 1
            check("429 says when", head[9:12] != b"429" or b"Retry-After" in head, head)
        except socket.timeout:
            pass
    check("some are sent away", statuses.get(b"429", 0) > 0, statuses)
    for s in sockets:
        s.close()


def main():
    # fewer steps than there are tokens to read twice
    for part in (the_paths, the_words, the_same_as_run, the_options, the_probabilities, the_streams,
                 the_schemas,
                 the_errors, the_unmannered, the_early, the_half_closed, the_trace, the_impatient,
                 the_crowd):
        try:
            part()
        except Exception as e:  # the rest is checked all the same
            check(part.__name__, False, "%s: %s" % (type(e).__name__, e))
    print("%d wrong" % len(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONIOENCODING", "utf-8")
    sys.exit(main())
