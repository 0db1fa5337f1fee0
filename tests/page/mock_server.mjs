/* mock_server.mjs - a server that speaks the API of `troupe serve` and makes everything up.
 *
 * A cluster of four workers that is always a little busy: other people's requests come and go, each
 * layer has its favourite experts, one worker's load is above the others'.  Answers are streamed in
 * pieces that end anywhere, within a line or a character, as a network may cut them.
 *
 * USE    node mock_server.mjs [PORT] [--layers N --experts N --workers N --top-k N]
 *        const mock = await startMock({ port: 0 });   mock.base, mock.cluster
 *        mock.lose(2, "why"); mock.regain(2); mock.requireKey("secret"); mock.seen
 *        mock.nonsense = ANYTHING;   what GET /cluster answers instead of the truth
 *        await mock.goAway(); await mock.comeBack(); await mock.close();
 *        A prompt of "refuse" is answered by an error, one of "break" by half an answer, one of
 *        "markup" by something that looks like HTML.
 * NEEDS  node 18 or later, no packages
 *
 * SPDX-License-Identifier: Apache-2.0 */
import { readFile } from "node:fs/promises";
import http from "node:http";
import { fileURLToPath } from "node:url";

const WEB = new URL("../../coordinator/serve/web/", import.meta.url);
const FILES = {
  "/": ["index.html", "text/html; charset=utf-8"],
  "/page.css": ["page.css", "text/css; charset=utf-8"],
  "/page.js": ["page.js", "text/javascript; charset=utf-8"],
};

const LINES = [
  "The curtain is a promise, and the promise is kept by people nobody sees.",
  "Eight of them wait in the wings \u2014 and only two are called for any word.",
  "\u00bbWho speaks next?\u00ab asks the prompter. The router has already decided.",
  "One knows verbs, one knows ships, one has read nothing but letters.",
  "They answer in order, whoever was quicker, so the play is the same each night.",
  "Na\u00efve or not, the caf\u00e9 across the street fills at ten \ud835\udd38 and empties.",
];
const MARKUP = " <b>Not bold</b>, <img src=x onerror=alert(1)> and &amp; stay what they are.";

/* Numbers that repeat: a test that fails once fails again. */
function randomFrom(seed) {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 4294967296;
  };
}

const now = () => Date.now() / 1000;
const matrix = (rows, columns, value) =>
  Array.from({ length: rows }, (_, r) => Array.from({ length: columns }, (_, c) => value(r, c)));

function makeCluster(o) {
  const workers = Array.from({ length: o.workers }, (_, i) => ({
    rank: i + 1, host: i < 2 ? "anna" : "bertolt", pid: 4100 + i, state: "ready", reason: null,
    since: now(), memory_bytes: 310e6 + 9e6 * i, expert_bytes: 268435456,
    experts: 0, rows: 0, compute_seconds: 0, wait_seconds: 0, bytes_out: 0, bytes_in: 0,
  }));
  const holder = matrix(o.layers, o.experts, (layer, expert) =>
    (expert % 16 === 15 ? 0 : 1 + Math.floor((expert * o.workers) / o.experts)));
  for (const w of workers) w.experts = holder.flat().filter((rank) => rank === w.rank).length;
  return {
    time: now(),
    model: { name: "demo", architecture: "olmoe", layers: o.layers,
      experts: o.experts, top_k: o.top_k, context: 2048 },
    coordinator: { host: "anna", pid: process.pid, isa: "avx512", threads: 2,
      memory_bytes: 188e6, uptime_seconds: 0 },
    workers,
    requests: { running: 0, waiting: 0, finished: 0, failed: 0, cancelled: 0 },
    tokens: { prompt: 0, generated: 0 }, batch: { rows: 0, max_rows: 64, steps: 0 },
    ttft_ms: { p50: 20, p95: 50 }, inter_token_ms: { p50: 10, p95: 20 },
    kv: { pages: 512, used: 12, cached: 30, prefix_hit_tokens: 0, prefix_tokens: 0 },
    picks: matrix(o.layers, o.experts, () => 0), holder, last_request: null,
    events: [{ time: now(), level: "info", text: "4 workers joined" }],
  };
}

/* The cluster in motion: what a tenth of a second changes. */
function makeLife(cluster, random) {
  const { layers, experts, top_k } = cluster.model;
  /* How much each router likes each expert: a few favourites, a long tail. */
  const liking = matrix(layers, experts, () => 0.25 + random() ** 5 * 6);
  const others = { running: 2, waiting: 0 };
  const started = now();

  function pick(layer) {
    const scores = liking[layer].map((like, expert) => [Math.log(random()) / like, expert]);
    return scores.sort((a, b) => b[0] - a[0]).slice(0, top_k).map((s) => s[1]);
  }

  function token(into) {
    for (let l = 0; l < layers; l++) {
      for (const expert of pick(l)) {
        cluster.picks[l][expert]++;
        if (into) into[l][expert]++;
        const w = cluster.workers[cluster.holder[l][expert] - 1];
        if (w?.state !== "ready") continue;
        w.rows++;
        w.compute_seconds += 0.00012 * (w.rank === 2 ? 1.7 : 1);
        w.wait_seconds += 0.00006;
        w.bytes_out += 2100;
        w.bytes_in += 2050;
      }
    }
    cluster.tokens.generated++;
  }

  function tick() {
    const t = now() - started;
    const rush = 1 + Math.sin(t / 9) + 0.6 * Math.sin(t / 2.3);
    others.running = Math.max(1, Math.round(2 + 2 * rush + random()));
    others.waiting = Math.max(0, Math.round(rush * 2 - 2.4 + random()));
    const healthy = cluster.workers.every((w) => w.state === "ready");
    const rows = others.running + cluster.mine;
    for (let i = 0; i < others.running * (healthy ? 2 : 1); i++) token(null);
    Object.assign(cluster.requests, { running: rows, waiting: others.waiting });
    if (random() < 0.08) {
      cluster.requests.finished++;
      cluster.tokens.prompt += 90;
      cluster.kv.prefix_tokens += 90;
      cluster.kv.prefix_hit_tokens += Math.floor(random() * 60);
    }
    cluster.batch.rows = rows;
    cluster.batch.steps += 2;
    cluster.kv.used = 12 + rows * 17;
    cluster.kv.cached = 30 + Math.floor(t * 2) % 200;
    cluster.ttft_ms = { p50: 18 + 7 * rush + 3 * random() + (healthy ? 0 : 25),
      p95: 45 + 20 * rush + 9 * random() + (healthy ? 0 : 60) };
    cluster.inter_token_ms = { p50: 9 + rush, p95: 19 + 3 * rush };
    cluster.time = now();
    cluster.coordinator.uptime_seconds = t;
  }

  cluster.mine = 0;
  const timer = setInterval(tick, 100);
  return { token, stop: () => clearInterval(timer) };
}

function sendJson(res, status, body) {
  res.writeHead(status, { "Content-Type": "application/json" });
  res.end(JSON.stringify(body));
}

const sendError = (res, status, message, type) =>
  sendJson(res, status, { error: { message, type, code: null } });

async function readBody(req) {
  const parts = [];
  for await (const piece of req) parts.push(piece);
  return Buffer.concat(parts).toString("utf8");
}

/* One answer; ends early when the reader goes. */
async function complete(mock, req, res, chat) {
  const body = JSON.parse(await readBody(req));
  mock.seen.push(body);
  const asked = chat ? body.messages.at(-1).content : body.prompt;
  if (asked === "refuse") {
    mock.cluster.requests.failed++;
    return sendError(res, 400, "The prompt has 9000 tokens; <i>2048</i> fit.", "invalid_request");
  }
  const id = (chat ? "chatcmpl-" : "cmpl-") + mock.seen.length.toString(16).padStart(16, "0");
  const c = mock.cluster;
  const request = { id, tokens: 0, picks: matrix(c.model.layers, c.model.experts, () => 0) };
  const words = (LINES.join(" ") + (asked === "markup" ? MARKUP : "")).split(/(?<= )/);
  const most = Math.min(body.max_tokens ?? 256, 4 * words.length);
  let gone = false;
  res.on("close", () => { gone = true; });
  res.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });

  const send = async (event, cut) => {
    const whole = Buffer.from("data: " + event + (request.tokens % 3 ? "\n\n" : "\r\n\r\n"));
    const at = 1 + (cut % (whole.length - 1));
    res.write(whole.subarray(0, at));
    await new Promise((go) => setTimeout(go, 8));
    if (!gone) res.write(whole.subarray(at));
  };
  const chunk = (choice, more) => JSON.stringify({ id, object: "chunk", model: "demo",
    choices: choice ? [{ index: 0, ...choice }] : [], ...more });

  c.mine++;
  await new Promise((go) => setTimeout(go, 40));
  if (chat) await send(chunk({ delta: { role: "assistant" }, finish_reason: null }), 9);
  while (request.tokens < most && !gone) {
    const word = words[request.tokens % words.length];
    const choice = chat ? { delta: { content: word } } : { text: word };
    mock.life.token(request.picks);
    request.tokens++;
    c.last_request = request;
    await send(chunk({ ...choice, finish_reason: null }), 31 * request.tokens);
    if (asked === "break" && request.tokens === 5) res.destroy();
    await new Promise((go) => setTimeout(go, 14));
  }
  c.mine--;
  if (gone) {
    c.requests.cancelled++;
    return;
  }
  c.requests.finished++;
  await send(chunk({ ...(chat ? { delta: {} } : { text: "" }), finish_reason: "length" }), 5);
  if (body.stream_options?.include_usage) {
    await send(chunk(null, { usage: { prompt_tokens: 9, completion_tokens: request.tokens,
      total_tokens: 9 + request.tokens } }), 7);
  }
  await send("[DONE]", 3);
  res.end();
}

function health(cluster) {
  const lost = cluster.workers.filter((w) => w.state === "lost");
  if (!lost.length) return [200, { status: "ready", reason: null }];
  return [200, { status: "degraded", reason: lost.length + " worker lost" }];
}

async function route(mock, req, res) {
  const path = new URL(req.url, "http://mock").pathname;
  if (req.method === "GET" && FILES[path]) {
    const [name, type] = FILES[path];
    res.writeHead(200, { "Content-Type": type, "Content-Security-Policy": "default-src 'self'" });
    return res.end(await readFile(new URL(name, WEB)));
  }
  if (path === "/favicon.ico") return res.writeHead(204).end();
  if (path === "/health") return sendJson(res, ...health(mock.cluster));
  if (mock.key && req.headers.authorization !== "Bearer " + mock.key) {
    return sendError(res, 401, "An API key is needed.", "authentication");
  }
  if (path === "/cluster") return sendJson(res, 200, mock.nonsense ?? mock.cluster);
  if (path === "/v1/models") return sendJson(res, 200, { object: "list", data: [{ id: "demo" }] });
  if (path === "/v1/chat/completions") return complete(mock, req, res, true);
  if (path === "/v1/completions") return complete(mock, req, res, false);
  return sendError(res, 404, "There is nothing at " + path + ".", "not_found");
}

export async function startMock(options = {}) {
  const o = { port: 0, layers: 16, experts: 64, workers: 4, top_k: 8, ...options };
  const cluster = makeCluster(o);
  const life = makeLife(cluster, randomFrom(7));
  const mock = { cluster, life, seen: [], key: "", nonsense: null };
  const event = (level, text) => cluster.events.push({ time: now(), level, text });

  const listen = async (port) => {
    mock.server = http.createServer((req, res) => route(mock, req, res).catch((error) => {
      if (res.headersSent) res.destroy();
      else sendError(res, 400, error.message, "invalid_request");
    }));
    await new Promise((done) => mock.server.listen(port, "127.0.0.1", done));
    mock.port = mock.server.address().port;
    mock.base = "http://127.0.0.1:" + mock.port + "/";
  };
  mock.goAway = () => new Promise((done) => {
    mock.server.close(done);
    mock.server.closeAllConnections();
  });
  mock.comeBack = () => listen(mock.port);
  mock.close = () => {
    mock.life.stop();
    return mock.goAway();
  };
  mock.requireKey = (key) => { mock.key = key; };
  mock.lose = (rank, reason) => {
    Object.assign(cluster.workers[rank - 1], { state: "lost", reason, since: now() });
    event("error", "worker " + rank + " is lost: " + reason);
    event("warning", "its experts are computed by the others until it is back");
  };
  mock.regain = (rank) => {
    Object.assign(cluster.workers[rank - 1], { state: "ready", reason: null, since: now() });
    event("info", "worker " + rank + " is back");
  };
  await listen(o.port);
  return mock;
}

/* Started as a program: runs until it is ended, and loses a worker for ten seconds in a minute. */
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const o = { port: 8080 };
  for (let i = 2; i < process.argv.length; i++) {
    const name = { "--layers": "layers", "--experts": "experts", "--workers": "workers",
      "--top-k": "top_k" }[process.argv[i]];
    if (name) o[name] = Number(process.argv[++i]);
    else o.port = Number(process.argv[i]);
  }
  const mock = await startMock(o);
  console.log("mock server at " + mock.base);
  setInterval(() => {
    mock.lose(2, "no sign of life for 2.5 s");
    setTimeout(() => mock.regain(2), 10000);
  }, 60000);
}
