#!/usr/bin/python3
"""serve_load.py - many clients at once, each answer compared with what its request gets alone.

  serve_load.py URL [--clients 64] [--seconds 120] [--cancel 0.2] [--seed 1] [--kinds 24]

Every client asks again and again, streaming, with one of a few dozen requests, and hangs up on some
of them in the middle.  Before, each request is asked alone; every answer that finishes must be the
same text.  Exit status 0: all were equal, none was lost, nothing leaked; 1: not so; what is said.
With --strike S a random worker is killed, stopped for a while, or stopped and then killed, every S
seconds or so; that must not show in any answer.  At the end the server must have no sequence left,
and its memory must not have grown in the second half by more than --memory (8 MiB).

Needs Python's standard library.
SPDX-License-Identifier: Apache-2.0"""
import argparse
import http.client
import json
import os
import random
import signal
import sys
import threading
import time
import urllib.parse


class Server:
    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname, parts.port

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=120)

    def get(self, path):
        c = self.connect()
        c.request("GET", path)
        body = json.load(c.getresponse())
        c.close()
        return body

    def stream(self, request, stop_after=None):
        """The text of a streamed completion; None if we hung up on it after some events."""
        c = self.connect()
        c.request("POST", "/v1/completions", json.dumps(dict(request, stream=True)),
                  {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200:
            raise RuntimeError("status %d: %s" % (r.status, r.read()[:200]))
        text, events = "", 0
        reason = None
        for line in r:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                c.close()
                if reason is None:
                    raise RuntimeError("the stream ended without a reason")
                return text
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"]["message"])
            text += event["choices"][0]["text"]
            reason = event["choices"][0]["finish_reason"] or reason
            events += 1
            if stop_after is not None and events > stop_after:
                r.close()
                c.close()
                return None
        raise RuntimeError("the stream was cut after %d events" % events)


def requests_of(rng, n):
    """Prompts of several lengths, half of which begin alike; greedy and random ones."""
    words = "the king said and she went to see what light of my heart is gone now".split()
    system = " ".join(rng.choice(words) for _ in range(60))
    made = []
    for i in range(n):
        text = " ".join(rng.choice(words) for _ in range(rng.randint(1, 90)))
        made.append({"prompt": (system + " " if i % 2 else "") + text,
                     "max_tokens": rng.randint(1, 80), "seed": i,
                     "temperature": 0 if i % 3 == 0 else 1})
    return made


class Load:
    def __init__(self, server, requests, alone, options):
        self.server, self.requests, self.alone, self.o = server, requests, alone, options
        self.finished = self.hung_up = 0
        self.wrong = []
        self.strikes = {}
        self.lock = threading.Lock()
        self.end = time.time() + options.seconds

    def client(self, number):
        rng = random.Random(self.o.seed * 1000 + number)
        while time.time() < self.end and len(self.wrong) < 5:
            i = rng.randrange(len(self.requests))
            stop = rng.randint(0, 40) if rng.random() < self.o.cancel else None
            try:
                text = self.server.stream(self.requests[i], stop)
                bad = None if text in (None, self.alone[i]) else "another text: %r" % text
            except Exception as e:  # whatever it is, it goes into the report
                text, bad = None, "%s: %s" % (type(e).__name__, e)
            with self.lock:
                if bad:
                    self.wrong.append("request %d: %s" % (i, bad))
                elif text is None:
                    self.hung_up += 1
                else:
                    self.finished += 1

    def memory(self):
        c = self.server.get("/cluster")
        pids = [c["coordinator"]["pid"]]
        if not self.o.strike:  # workers that come and go have no memory to compare
            pids += [w["pid"] for w in c["workers"]]
        total = 0
        for pid in pids:
            with open("/proc/%d/statm" % pid) as f:
                total += int(f.read().split()[1]) * 4096
        return total

    def strike(self, rng, pid):
        """One blow; whoever is gone already needs none."""
        kind = rng.choice(("killed", "killed", "stopped", "hung"))
        try:
            os.kill(pid, signal.SIGKILL if kind == "killed" else signal.SIGSTOP)
            if kind != "killed":
                time.sleep(rng.uniform(0.2, 2))
                os.kill(pid, signal.SIGCONT if kind == "stopped" else signal.SIGKILL)
        except ProcessLookupError:
            return
        self.strikes[kind] = self.strikes.get(kind, 0) + 1

    def striker(self):
        rng = random.Random(self.o.seed)
        while time.time() < self.end:
            time.sleep(rng.uniform(0.5, 1.5) * self.o.strike)
            ready = [w["pid"] for w in self.server.get("/cluster")["workers"]
                     if w["state"] == "ready"]
            if ready:
                self.strike(rng, rng.choice(ready))

    def run(self):
        threads = [threading.Thread(target=self.client, args=(i,)) for i in range(self.o.clients)]
        if self.o.strike:
            threads.append(threading.Thread(target=self.striker))
        for t in threads:
            t.start()
        time.sleep(self.o.seconds / 2)
        half = self.memory()
        for t in threads:
            t.join()
        return self.memory() - half


def nothing_left(server):
    for _ in range(100):
        c = server.get("/cluster")
        if c["requests"]["running"] == 0 and c["requests"]["waiting"] == 0 and \
                c["kv"]["used"] == 0:
            return True
        time.sleep(0.1)
    return False


def main():
    p = argparse.ArgumentParser()
    p.add_argument("url")
    p.add_argument("--clients", type=int, default=64)
    p.add_argument("--seconds", type=float, default=120)
    p.add_argument("--cancel", type=float, default=0.2)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--kinds", type=int, default=24)
    p.add_argument("--memory", type=float, default=8, help="MiB that it may grow by")
    p.add_argument("--strike", type=float, default=0, help="seconds between two blows; 0: none")
    o = p.parse_args()
    server = Server(o.url)
    requests = requests_of(random.Random(o.seed), o.kinds)
    alone = [server.stream(r) for r in requests]
    load = Load(server, requests, alone, o)
    grown = load.run()
    c = server.get("/cluster")
    print("%d finished, %d hung up; %d tokens, %.0f %% of prompt tokens found in the cache, "
          "%d times sent back; memory %+.1f MiB in the second half" %
          (load.finished, load.hung_up, c["tokens"]["generated"],
           100 * c["kv"]["prefix_hit_tokens"] / max(1, c["kv"]["prefix_tokens"]),
           c["requests"]["preempted"], grown / 2**20))
    if o.strike:
        print("blows: %s" % ", ".join("%d %s" % (n, k) for k, n in sorted(load.strikes.items())))
    for line in load.wrong:
        print("WRONG:", line)
    ok = not load.wrong and load.finished > 0 and bool(load.strikes) == bool(o.strike)
    if not nothing_left(server):
        print("WRONG: sequences are left:", server.get("/cluster")["requests"])
        ok = False
    if grown > o.memory * 2**20:
        print("WRONG: memory grows")
        ok = False
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
