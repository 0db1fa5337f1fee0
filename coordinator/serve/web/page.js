/* page.js - the page of `troupe serve`: talks to the model, and shows the cluster at work.
 *
 * Sections: values, server, cluster state, status, charts, heat map, cards, events, conversation,
 * the clock.  The server is asked for GET cluster every second, every ten while the page is hidden;
 * what it counts since its start is turned into rates here.  Sections draw what `state` holds, and
 * only the clock fills it.
 *
 * Nothing from the server is trusted: numbers go through num(), lists through list(), and text
 * becomes text nodes, never markup.  Addresses are relative, so a prefix in front does no harm.
 *
 * SPDX-License-Identifier: Apache-2.0 */

/* --- values ---------------------------------------------------------------------------- */

const num = (v) => (typeof v === "number" && Number.isFinite(v) ? v : 0);
const list = (v) => (Array.isArray(v) ? v : []);
const part = (v) => (v !== null && typeof v === "object" ? v : {});
const text = (v) => (v === null || v === undefined ? "" : String(v));
const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
const $ = (id) => document.getElementById(id);

/* make("p.hint", "text", child, ...): an element with classes; strings become text nodes. */
function make(what, ...children) {
  const [tag, ...classes] = what.split(".");
  const e = document.createElement(tag);
  if (classes.length) e.className = classes.join(" ");
  e.append(...children);
  return e;
}

/* Sets text only where it differs, so that selections and screen readers are left in peace. */
function put(e, value) {
  if (e.textContent !== value) e.textContent = value;
}

function short(v) {
  const units = ["", "k", "M", "G", "T"];
  let i = 0;
  for (v = num(v); v >= 1000 && i < units.length - 1; i++) v /= 1000;
  return (i === 0 && Number.isInteger(v) ? v : v.toFixed(v < 10 ? 2 : v < 100 ? 1 : 0)) + units[i];
}

function bytes(v) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (v = num(v); v >= 1024 && i < units.length - 1; i++) v /= 1024;
  return v.toFixed(i === 0 || v >= 100 ? 0 : 1) + " " + units[i];
}

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return s + " s";
  if (s < 7200) return Math.floor(s / 60) + " min";
  if (s < 172800) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " days";
}

const clock = (seconds) =>
  new Date(num(seconds) * 1000).toLocaleTimeString([], { hourCycle: "h23" });
const plural = (n, word) => n + " " + word + (n === 1 ? "" : "s");
const decimals = (v) => (v >= 100 ? v.toFixed(0) : v.toFixed(1));

/* --- server ---------------------------------------------------------------------------- */

const KEY = "troupe-api-key";
let apiKey = "";
try {
  apiKey = sessionStorage.getItem(KEY) || "";
} catch { /* storage may be forbidden; then the key lives as long as the page */ }

const headers = (more) => (apiKey ? { ...more, Authorization: "Bearer " + apiKey } : { ...more });

function askForKey() {
  if (!$("key-form").hidden) return;
  put($("key-hint"), apiKey ? "The server did not accept the last key."
    : "It stays in this tab and is forgotten with it.");
  $("key-form").hidden = false;
  $("key").focus();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  apiKey = $("key").value.trim();
  try {
    sessionStorage.setItem(KEY, apiKey);
  } catch { /* as above */ }
  $("key").value = "";
  $("key-form").hidden = true;
  $("prompt").focus();
  pollNow();
});

/* GET a JSON document; {status, body}, with status 0 when there was no answer in time. */
async function get(path) {
  const give_up = new AbortController();
  const timer = setTimeout(() => give_up.abort(), 8000);
  try {
    const r = await fetch(path, { headers: headers(), cache: "no-store", signal: give_up.signal });
    return { status: r.status, body: part(await r.json().catch(() => null)) };
  } catch {
    return { status: 0, body: {} };
  } finally {
    clearTimeout(timer);
  }
}

/* The data of each server-sent event of a response body, in order. */
async function* sentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    /* A lone CR at the end may be the first half of CRLF: it waits for the next piece. */
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) yield line.slice(5).trimStart();
    }
  }
}

async function errorOf(response) {
  const body = part(await response.json().catch(() => null));
  return text(part(body.error).message) || "The server answered " + response.status + ".";
}

/* --- cluster state --------------------------------------------------------------------- */

const WINDOW = 180; /* seconds that the charts show, once so many have passed */

const state = {
  now: null,      /* the newest answer of GET cluster */
  before: null,   /* the one before it, of the same server run */
  seconds: 0,     /* between the two, by the server's clock */
  samples: [],    /* of the charts, oldest first; null is a gap */
  health: {},
  away: 0,        /* when the server stopped answering, in ms; 0: it answers */
  said: [],       /* events that only this page knows */
};

const layersOf = (c) => list(c.picks).length;
const expertsOf = (c) => Math.max(0, ...list(c.picks).map((row) => list(row).length));

/* The server was started again: counters went back, so differences mean nothing. */
function restarted(now, before) {
  return num(now.time) < num(before.time) ||
    num(part(now.coordinator).uptime_seconds) < num(part(before.coordinator).uptime_seconds) ||
    part(now.coordinator).pid !== part(before.coordinator).pid ||
    layersOf(now) !== layersOf(before) || expertsOf(now) !== expertsOf(before);
}

function take(now) {
  if (state.now && now.time === state.now.time) return;
  const before = state.now && !restarted(now, state.now) ? state.now : null;
  state.before = before;
  state.now = now;
  state.seconds = before ? num(now.time) - num(before.time) : 0;
  if (!before) {
    state.samples = state.samples.filter((s) => s === null || s.time < num(now.time));
    state.samples.push(null);
    return;
  }
  const made = num(part(now.tokens).generated) - num(part(before.tokens).generated);
  state.samples.push({
    time: num(now.time),
    speed: Math.max(0, made / state.seconds),
    first: num(part(now.ttft_ms).p50),
    slow: num(part(now.ttft_ms).p95),
    rows: num(part(now.batch).rows),
    waiting: num(part(now.requests).waiting),
    running: num(part(now.requests).running),
  });
  const oldest = num(now.time) - WINDOW - 2;
  while ((state.samples[0]?.time ?? 0) < oldest && state.samples.length > 1) state.samples.shift();
}

/* What a counter of a worker gained in a second. */
function rate(worker, name) {
  const old = list(part(state.before).workers).find((w) => part(w).rank === worker.rank);
  if (!old || state.seconds <= 0) return 0;
  return Math.max(0, (num(worker[name]) - num(part(old)[name])) / state.seconds);
}

/* --- status ---------------------------------------------------------------------------- */

/* What /health said last, unless the workers' states know better already. */
function verdict() {
  const workers = list(part(state.now).workers).map(part);
  const lost = workers.filter((w) => w.state === "lost");
  const said = text(state.health.status) || "ready";
  if (said === "ready" && lost.length) {
    return { status: "degraded", reason: "" };
  }
  if (said === "ready" && workers.some((w) => w.state === "loading")) {
    return { status: "loading", reason: "workers are reading their experts" };
  }
  return { status: said, reason: text(state.health.reason) };
}

function lostWorkers() {
  return list(part(state.now).workers).map(part).filter((w) => w.state === "lost").map((w) =>
    "worker " + text(w.rank) + " has been lost since " + clock(w.since) +
    (w.reason ? " (" + text(w.reason) + ")" : ""));
}

function showBanner(level, message) {
  $("banner").hidden = !message;
  document.body.classList.toggle("warned", message !== "");
  $("banner").dataset.level = level;
  put($("banner"), message);
}

function showStatus() {
  const away = state.away > 0;
  document.body.classList.toggle("stale", away);
  if (away) {
    $("health").dataset.state = "away";
    put($("health"), "no answer");
    showBanner("error", "The server has not answered since " + clock(state.away / 1000) +
      ". What you see is from then; the page keeps trying.");
    return;
  }
  const locked = !$("key-form").hidden;
  if (!state.now || locked) {
    $("health").dataset.state = "loading";
    put($("health"), locked ? "needs a key" : "connecting");
    return showBanner("warning", "");
  }
  const v = verdict();
  $("health").dataset.state = v.status;
  put($("health"), v.status);
  const lost = lostWorkers();
  const why = (lost.length ? lost.join("; ") : v.reason).replace(/[.\s]+$/, "");
  const what = { degraded: "Degraded", loading: "Loading", draining: "Shutting down" }[v.status];
  showBanner(lost.length ? "error" : "warning",
    v.status === "ready" ? "" : (what || v.status) + (why ? ": " + why + "." : "."));
}

function showModel() {
  const c = state.now;
  const m = part(c.model);
  const name = text(m.name) || "unnamed model";
  put($("model-name"), name);
  document.title = name + " - Troupe";
  put($("model-shape"), [text(m.architecture), plural(num(m.layers), "layer"),
    num(m.top_k) + " of " + plural(num(m.experts), "expert") + " each",
    "context " + num(m.context)].filter(Boolean).join(" \u00b7 "));
  put($("empty-text"), "Ask something: every token visits " + num(m.top_k) + " of " +
    num(m.experts) + " experts in each of " + plural(num(m.layers), "layer") +
    ", and you can watch which.");
  const r = part(c.requests);
  put($("totals"), short(part(c.tokens).generated) + " tokens in " +
    plural(num(r.finished), "answer") + (num(r.cancelled) ? ", " + r.cancelled + " stopped" : "") +
    (num(r.failed) ? ", " + r.failed + " failed" : ""));
}

/* --- charts ---------------------------------------------------------------------------- */

const SVG = "http://www.w3.org/2000/svg";
const CHART = { width: 300, height: 54 };

const charts = [
  { id: "speed", title: "Speed", unit: "tokens/s", of: "speed", form: decimals,
    note: (c) => decimals(num(part(c.inter_token_ms).p50)) + " ms/token" },
  { id: "first", title: "First token after", unit: "ms", of: "first", second: "slow",
    form: decimals, note: (c) => "p95 " + decimals(num(part(c.ttft_ms).p95)) + " ms" },
  { id: "rows", title: "Rows in a batch", unit: "", of: "rows", form: short,
    note: (c) => "room for " + num(part(c.batch).max_rows) },
  { id: "queue", title: "Queue", unit: "waiting", of: "waiting", second: "running", form: short,
    note: (c) => num(part(c.requests).running) + " running" },
];

function svg(name, className) {
  const e = document.createElementNS(SVG, name);
  e.setAttribute("class", className);
  return e;
}

function buildChart(chart) {
  const box = make("article.panel.chart");
  box.id = "chart-" + chart.id;
  chart.box = box;
  chart.value = make("span", "\u2013");
  chart.plot = svg("svg", "plot");
  chart.plot.setAttribute("viewBox", "0 0 " + CHART.width + " " + CHART.height);
  chart.plot.setAttribute("preserveAspectRatio", "none");
  chart.plot.setAttribute("role", "img");
  chart.base = svg("path", "base");
  chart.base.setAttribute("d", "M0 " + CHART.height + "H" + CHART.width);
  chart.area = svg("path", "area");
  chart.second_line = svg("path", "second");
  chart.line = svg("path", "line");
  chart.cursor = svg("path", "cursor");
  chart.plot.append(chart.base, chart.area, chart.second_line, chart.line, chart.cursor);
  chart.top = make("span", "");
  chart.foot = make("span", "");
  chart.wide = make("span.wide", "");
  box.append(make("h3", chart.title, chart.wide),
    make("p.now", chart.value, make("span.unit", chart.unit ? " " + chart.unit : "")),
    chart.plot, make("p.note", chart.foot, chart.top));
  chart.plot.addEventListener("pointermove", (event) => {
    const r = chart.plot.getBoundingClientRect();
    chart.at = clamp((event.clientX - r.left) / r.width, 0, 1);
    drawChart(chart);
  });
  chart.plot.addEventListener("pointerleave", () => {
    chart.at = undefined;
    drawChart(chart);
  });
  $("charts").append(box);
}

/* A round number that is not below v. */
function roundUp(v) {
  const base = 10 ** Math.floor(Math.log10(v));
  return base * [1, 2, 3, 4, 5, 6, 8, 10].find((step) => step * base >= v * 0.9999);
}

/* The seconds that a chart is wide: it begins narrow, so that the first lines can be seen. */
function chartSpan() {
  const first = state.samples.find(Boolean);
  return clamp(state.samples.at(-1).time - first.time, 10, WINDOW);
}

/* Path data of one series, a new stroke after each gap; closed: down to the base line. */
function strokes(samples, name, place, closed) {
  let d = "";
  let run = [];
  const end = () => {
    if (run.length > 1) {
      d += "M" + run.map((p) => p[0].toFixed(1) + " " + p[1].toFixed(1)).join("L");
      if (closed) d += "L" + run.at(-1)[0].toFixed(1) + " " + CHART.height + "L" +
        run[0][0].toFixed(1) + " " + CHART.height + "Z";
    }
    run = [];
  };
  for (const s of samples) {
    if (s === null) end();
    else run.push(place(s.time, s[name]));
  }
  end();
  return d;
}

function drawChart(chart) {
  const samples = state.samples;
  const last = samples.at(-1);
  if (!last) return;
  const names = chart.second ? [chart.of, chart.second] : [chart.of];
  const most = Math.max(...samples.filter(Boolean).flatMap((s) => names.map((n) => s[n])));
  const top = most > 0 ? roundUp(most) : 1;
  const wide = chartSpan();
  const place = (time, v) => [
    CHART.width * clamp(1 - (last.time - time) / wide, 0, 1), CHART.height * (1 - v / top)];
  chart.line.setAttribute("d", strokes(samples, chart.of, place, false));
  chart.area.setAttribute("d", strokes(samples, chart.of, place, true));
  chart.second_line.setAttribute("d",
    chart.second ? strokes(samples, chart.second, place, false) : "");

  const shown = chart.at === undefined ? last : nearest(samples, last.time - wide * (1 - chart.at));
  const ago = last.time - shown.time;
  put(chart.value, chart.form(shown[chart.of]));
  chart.cursor.setAttribute("d", chart.at === undefined ? "" :
    "M" + place(shown.time, 0)[0].toFixed(1) + " 0V" + CHART.height);
  put(chart.foot, ago > 0.5 ? span(ago) + " ago" : chart.note(state.now));
  put(chart.wide, span(wide));
  put(chart.top, "top " + chart.form(top).replace(/\.0$/, ""));
  chart.plot.setAttribute("aria-label", chart.title + " over " + span(wide) + ": now " +
    chart.form(last[chart.of]) + ", at most " + chart.form(most));
}

function nearest(samples, wanted) {
  return samples.filter(Boolean).reduce((best, s) =>
    (Math.abs(s.time - wanted) < Math.abs(best.time - wanted) ? s : best));
}

/* --- heat map -------------------------------------------------------------------------- */

/* Colours of workers 1, 2, ...; rank 0 is the coordinator.  Later ranks walk around the circle
 * in steps of the golden angle, so neighbours stay apart. */
const OF_RANK = [[63, 131, 221], [224, 138, 60], [53, 167, 119], [201, 78, 134], [140, 104, 218],
  [190, 160, 40], [42, 165, 184], [134, 148, 66]];

function hue(degrees) {
  const f = (n) => {
    const k = (n + degrees / 30) % 12;
    return Math.round(255 * (0.55 - 0.29 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [f(0), f(8), f(4)];
}

function rankColour(rank) {
  if (!(rank > 0)) return paint.here;
  return OF_RANK[rank - 1] ?? hue((rank * 137.5) % 360);
}

const css = (rgb) => "rgb(" + rgb.map(Math.round).join(" ") + ")";
const mix = (a, b, t) => a.map((v, i) => v + (b[i] - v) * t);

/* The scheme's colours as numbers; read again when the scheme changes. */
const paint = {};
function readPaint() {
  const style = getComputedStyle(document.documentElement);
  const rgb = (name) => {
    const hex = style.getPropertyValue("--" + name).trim();
    return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  };
  for (const name of ["panel", "ink", "soft", "spark", "path", "here"]) paint[name] = rgb(name);
  paint.heat = [0, 1, 2, 3, 4].map((i) => rgb("heat-" + i));
}

function ramp(t) {
  const at = clamp(t, 0, 1) * (paint.heat.length - 1);
  const i = Math.min(Math.floor(at), paint.heat.length - 2);
  return mix(paint.heat[i], paint.heat[i + 1], at - i);
}

const heat = {
  layers: 0, experts: 0,
  glow: new Float32Array(0),   /* [layers][experts]: what was picked just now, fading */
  image: new ImageData(1, 1),  /* the cells' colours, a pixel each */
  best: [],                    /* the last request's top experts of each layer */
  cells: document.createElement("canvas"), /* image with the glow; scaled up when drawn */
  box: { left: 0, top: 0, width: 1, height: 1 },
  cursor: null,                /* {layer, expert} under the pointer or the keys */
  fading: 0,
};
const still = matchMedia("(prefers-reduced-motion: reduce)");

const wantsLast = () => document.querySelector("input[name=heat]:checked").value === "last";
const lastPicks = () => list(part(part(state.now).last_request).picks);
const shownPicks = () => (wantsLast() ? lastPicks() : list(part(state.now).picks));
const at = (matrix, layer, expert) => num(list(matrix[layer])[expert]);

/* Near the largest count, but not at the mercy of one cell. */
function brightest(values) {
  const sorted = Float64Array.from(values).sort();
  return Math.max(1, sorted[Math.floor((sorted.length - 1) * 0.995)] ?? 1);
}

function takeHeat() {
  const c = state.now;
  const layers = layersOf(c);
  const experts = expertsOf(c);
  if (layers !== heat.layers || experts !== heat.experts) {
    const glow = new Float32Array(layers * experts);
    const image = new ImageData(Math.max(1, experts), Math.max(1, layers));
    Object.assign(heat, { layers, experts, cursor: null, glow, image });
    heat.cells.width = image.width;
    heat.cells.height = image.height;
  }
  const n = Math.max(1, num(part(c.model).top_k));
  heat.best = lastPicks().slice(0, layers).map((row) =>
    strongest(row, n).filter((expert) => expert < experts));
  const before = list(part(state.before).picks);
  const gained = new Float32Array(layers * experts);
  let most = 0;
  let total = 0;
  for (let l = 0; l < layers; l++) {
    for (let e = 0; e < experts; e++) {
      total += at(c.picks, l, e);
      if (!before.length) continue;
      gained[l * experts + e] = Math.max(0, at(c.picks, l, e) - at(before, l, e));
      most = Math.max(most, gained[l * experts + e]);
    }
  }
  if (most > 0) {
    for (let i = 0; i < gained.length; i++) heat.glow[i] = Math.max(heat.glow[i], gained[i] / most);
  }
  $("heat-canvas").dataset.picks = String(total);
  showLastRequest();
  colourHeat();
  fade();
}

/* The glow of fresh picks goes out within a second; without motion it isn't shown at all. */
function fade() {
  if (heat.fading || document.hidden || still.matches || wantsLast()) return;
  heat.fading = setTimeout(() => {
    heat.fading = 0;
    let left = 0;
    for (let i = 0; i < heat.glow.length; i++) {
      heat.glow[i] = heat.glow[i] < 0.04 ? 0 : heat.glow[i] * 0.72;
      left = Math.max(left, heat.glow[i]);
    }
    fillCells();
    drawHeat();
    if (left > 0) fade();
  }, 90);
}

/* The colour of each cell, from new picks, another choice or another scheme. */
function colourHeat() {
  if (!state.now) return;
  const { layers, experts } = heat;
  const picks = shownPicks();
  const holder = list(state.now.holder);
  const by_holder = $("by-holder").checked;
  const values = new Float64Array(layers * experts);
  for (let l = 0; l < layers; l++) {
    for (let e = 0; e < experts; e++) values[l * experts + e] = at(picks, l, e);
  }
  const top = brightest(values);
  for (let i = 0; i < values.length; i++) {
    const t = Math.min(1, (values[i] / top) ** 0.8);
    let rgb;
    if (by_holder) {
      const rank = at(holder, Math.floor(i / experts), i % experts);
      rgb = mix(paint.heat[0], rankColour(rank), values[i] ? 0.14 + 0.86 * t : 0.06);
    } else {
      rgb = ramp(t);
    }
    for (let k = 0; k < 3; k++) heat.image.data[4 * i + k] = rgb[k];
    heat.image.data[4 * i + 3] = 255;
  }
  put($("ramp-top"), short(top) + " picks");
  list(state.now.picks).forEach((row, l) => { /* a dense layer has one network */
    for (let e = list(row).length; e < experts; e++) heat.image.data[4 * (l * experts + e) + 3] = 0;
  });
  drawRamp();
  showHolders();
  fillCells();
  drawHeat();
}

/* The cells as they are to be drawn now: many times a second, so plainly. */
function fillCells() {
  const g = heat.cells.getContext("2d");
  if (still.matches || wantsLast()) return g.putImageData(heat.image, 0, 0);
  const from = heat.image.data;
  const lit = new ImageData(new Uint8ClampedArray(from), heat.image.width);
  for (let i = 0; i < heat.glow.length; i++) {
    const t = 0.6 * heat.glow[i];
    if (t === 0) continue;
    for (let k = 0; k < 3; k++) {
      lit.data[4 * i + k] = from[4 * i + k] + (paint.spark[k] - from[4 * i + k]) * t;
    }
  }
  g.putImageData(lit, 0, 0);
}

/* Room for the cells within the canvas, and the canvas's size on the page. */
function layHeat(canvas) {
  const { layers, experts } = heat;
  const margin = { left: 30, top: 6, bottom: 18 };
  const wide = Math.max($("heat").clientWidth, margin.left + Math.ceil(1.25 * experts));
  const row = clamp(Math.floor(264 / layers), 3, 28);
  const high = margin.top + row * layers + margin.bottom;
  const dots = Math.min(3, devicePixelRatio || 1);
  const width = Math.round(wide * dots);
  const height = Math.round(high * dots);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
    canvas.style.width = wide + "px";
    canvas.style.height = high + "px";
  }
  const { left, top } = margin;
  heat.box = { left, top, width: wide - left, height: row * layers };
  canvas.getContext("2d").setTransform(dots, 0, 0, dots, 0, 0);
}

function drawHeat() {
  const canvas = $("heat-canvas");
  if (!state.now || !heat.layers || !heat.experts) return;
  layHeat(canvas);
  const g = canvas.getContext("2d");
  const { left, top, width, height } = heat.box;
  g.clearRect(0, 0, canvas.width, canvas.height);
  g.imageSmoothingEnabled = false;
  g.drawImage(heat.cells, left, top, width, height);
  drawGrid(g);
  drawAxes(g);
  if ($("show-path").checked) drawPath(g);
  if (heat.cursor) {
    const c = cellBox(heat.cursor.layer, heat.cursor.expert);
    g.strokeStyle = css(paint.ink);
    g.lineWidth = 2;
    g.strokeRect(c.x - 1, c.y - 1, c.w + 2, c.h + 2);
  }
  canvas.setAttribute("aria-label", "Router picks of " + heat.layers + " layers by " +
    heat.experts + " experts, " + (wantsLast() ? "last request" : "all requests"));
}

function cellBox(layer, expert) {
  const w = heat.box.width / heat.experts;
  const h = heat.box.height / heat.layers;
  return { x: heat.box.left + expert * w, y: heat.box.top + layer * h, w, h };
}

/* Gaps between cells, where cells are large enough to spare them. */
function drawGrid(g) {
  const { left, top, width, height } = heat.box;
  const cell = cellBox(0, 0);
  g.fillStyle = css(paint.panel);
  if (cell.h >= 5) {
    for (let l = 1; l < heat.layers; l++) g.fillRect(left, top + l * cell.h - 0.5, width, 1);
  }
  if (cell.w >= 5) {
    for (let e = 1; e < heat.experts; e++) g.fillRect(left + e * cell.w - 0.5, top, 1, height);
  }
}

function drawAxes(g) {
  const step = (n, room, least) =>
    [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100].find((s) => (s * room) / n >= least) ?? n;
  const { left, top, width, height } = heat.box;
  g.fillStyle = css(paint.soft);
  g.font = "11px system-ui, sans-serif";
  g.textBaseline = "middle";
  g.textAlign = "right";
  for (let l = 0; l < heat.layers; l += step(heat.layers, height, 14)) {
    const c = cellBox(l, 0);
    g.fillText(String(l), left - 7, c.y + c.h / 2);
  }
  g.textAlign = "center";
  for (let e = 0; e < heat.experts; e += step(heat.experts, width, 26)) {
    const c = cellBox(0, e);
    g.fillText(String(e), c.x + c.w / 2, top + height + 11);
  }
}

/* The experts that a layer's router took most often for the last request, best first. */
function strongest(row, n) {
  return list(row).map((v, expert) => ({ expert, v: num(v) })).filter((p) => p.v > 0)
    .sort((a, b) => b.v - a.v || a.expert - b.expert).slice(0, n).map((p) => p.expert);
}

/* The last request's way: its top experts of each layer framed, the first of each joined. */
function drawPath(g) {
  const way = [];
  const frames = new Path2D();
  heat.best.forEach((best, layer) => {
    for (const expert of best) {
      const c = cellBox(layer, expert);
      frames.rect(c.x + 0.5, c.y + 0.5, Math.max(2, c.w - 1), Math.max(2, c.h - 1));
    }
    if (best.length) {
      const c = cellBox(layer, best[0]);
      way.push([c.x + c.w / 2, c.y + c.h / 2]);
    }
  });
  const line = new Path2D();
  way.forEach(([x, y], i) => {
    if (i === 0) return line.moveTo(x, y);
    const [px, py] = way[i - 1];
    line.bezierCurveTo(px, (py + y) / 2, x, (py + y) / 2, x, y);
  });
  const cell = cellBox(0, 0);
  const own = $("by-holder").checked ? paint.ink : paint.path; /* blue is a worker's, too */
  g.lineJoin = "round";
  for (const [colour, wider] of [[paint.panel, 2.5], [own, 0]]) {
    g.strokeStyle = css(colour);
    if (cell.w >= 6 && cell.h >= 6) {
      g.lineWidth = 1.8 + wider / 2;
      g.stroke(frames);
    }
    g.lineWidth = 1.8 + wider;
    g.stroke(line);
  }
  g.fillStyle = css(own);
  for (const [x, y] of way) {
    g.beginPath();
    g.arc(x, y, clamp(cell.h / 5, 1.5, 4), 0, 7);
    g.fill();
  }
}

function showLastRequest() {
  const r = part(state.now.last_request);
  if (!r.id) return put($("last-request"), "no request yet");
  const n = list(r.picks).reduce((sum, row) => sum + list(row).filter((v) => num(v) > 0).length, 0);
  put($("last-request"), (r.id === talk.last_id ? "your last request" : text(r.id)) + ": " +
    plural(num(r.tokens), "token") + ", " + plural(n, "expert") + " met");
}

/* Names of the colours, while cells are coloured by worker. */
function showHolders() {
  const ranks = $("by-holder").checked ?
    [...new Set(list(state.now.holder).flatMap(list).map(num))].sort((a, b) => a - b) : [];
  const key = ranks.join();
  if ($("holders").dataset.ranks === key) return;
  $("holders").dataset.ranks = key;
  $("holders").replaceChildren(...ranks.slice(0, 24).map((rank) => {
    const dot = make("i.dot");
    dot.style.background = css(rankColour(rank));
    return make("span", dot, rank ? "worker " + rank : "coordinator");
  }));
}

function drawRamp() {
  const g = $("ramp").getContext("2d");
  const plain = $("by-holder").checked;
  for (let x = 0; x < 120; x++) {
    g.fillStyle = css(plain ? mix(paint.heat[0], paint.here, x / 119) : ramp(x / 119));
    g.fillRect(x, 0, 1, 8);
  }
}

function describe({ layer, expert }) {
  const c = state.now;
  const all = at(c.picks, layer, expert);
  const whole = list(c.picks[layer]).reduce((sum, v) => sum + num(v), 0);
  const rank = at(list(c.holder), layer, expert);
  const share = whole ? " (" + ((100 * all) / whole).toFixed(1) + " % of the layer)" : "";
  return ["layer " + layer + ", expert " + expert,
    plural(all, "pick") + share,
    plural(at(lastPicks(), layer, expert), "pick") + " by the last request",
    "held by " + (rank ? "worker " + rank : "the coordinator")].join("\n");
}

function moveCursor(cell, x, y) {
  heat.cursor = cell;
  drawHeat();
  const tip = $("heat-tip");
  tip.hidden = !cell;
  if (!cell) return;
  put(tip, describe(cell));
  const r = tip.getBoundingClientRect();
  tip.style.left = clamp(x + 14, 4, Math.max(4, innerWidth - r.width - 4)) + "px";
  tip.style.top = (y + r.height + 24 > innerHeight ? y - r.height - 10 : y + 16) + "px";
}

function cellAt(event) {
  const r = $("heat-canvas").getBoundingClientRect();
  const { left, top, width, height } = heat.box;
  const expert = Math.floor(((event.clientX - r.left - left) / width) * heat.experts);
  const layer = Math.floor(((event.clientY - r.top - top) / height) * heat.layers);
  const inside = expert >= 0 && expert < heat.experts && layer >= 0 && layer < heat.layers;
  return inside ? { layer, expert } : null;
}

function walk(event) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[
    event.key];
  if (event.key === "Escape") return moveCursor(null);
  if (!step || !state.now || !heat.layers || !heat.experts) return;
  event.preventDefault();
  const from = heat.cursor ?? { layer: -step[0], expert: -step[1] };
  const cell = { layer: clamp(from.layer + step[0], 0, heat.layers - 1),
    expert: clamp(from.expert + step[1], 0, heat.experts - 1) };
  const c = cellBox(cell.layer, cell.expert);
  const box = $("heat"); /* may be narrower than the map */
  box.scrollLeft = clamp(box.scrollLeft, c.x + c.w + 40 - box.clientWidth, c.x - 40);
  const r = $("heat-canvas").getBoundingClientRect();
  moveCursor(cell, r.left + c.x, r.top + c.y + c.h);
  put($("heat-said"), describe(cell).replaceAll("\n", ", "));
}

/* --- coordinator and workers ----------------------------------------------------------- */

const cards = new Map(); /* "0" the coordinator, else a worker's rank -> its parts */

function buildCard(key) {
  const card = { box: make("article.panel.card"), name: make("b"), chip: make("span.chip"),
    where: make("p.where"), why: make("p.why"), list: make("dl"), facts: new Map(),
    busy: make("i"), wait: make("i"), load: make("p") };
  const bar = make("div.bar", card.busy, card.wait);
  card.box.append(make("div.who", card.name, card.chip), card.where, card.why, card.list,
    make("div.load", bar, card.load));
  card.box.dataset.rank = key;
  cards.set(key, card);
  return card;
}

function fillCard(key, it) {
  const card = cards.get(key) ?? buildCard(key);
  card.box.style.setProperty("--of", css(rankColour(Number(key))));
  card.box.dataset.state = it.state;
  card.chip.dataset.state = it.state;
  put(card.name, it.name);
  put(card.chip, it.state);
  put(card.where, it.where);
  put(card.why, it.why);
  card.why.hidden = !it.why;
  for (const [name, value] of it.facts) {
    if (!card.facts.has(name)) {
      card.facts.set(name, make("dd"));
      card.list.append(make("dt", name), card.facts.get(name));
    }
    put(card.facts.get(name), value);
  }
  card.busy.style.width = clamp(100 * it.busy, 0, 100) + "%";
  card.wait.style.width = clamp(100 * it.wait, 0, 100 - clamp(100 * it.busy, 0, 100)) + "%";
  put(card.load, it.load);
  return card.box;
}

function coordinatorCard(c) {
  const me = part(c.coordinator);
  const kv = part(c.kv);
  const held = list(c.holder).flatMap(list).filter((rank) => rank === 0).length;
  const pages = Math.max(1, num(kv.pages));
  const asked = num(kv.prefix_tokens);
  const facts = [["memory", bytes(me.memory_bytes)], ["experts held", short(held)],
    ["kernels", text(me.isa)], ["threads", text(num(me.threads))],
    ["up for", span(num(me.uptime_seconds))],
    ["prompts cached",
      asked ? ((100 * num(kv.prefix_hit_tokens)) / asked).toFixed(0) + " %" : "-"]];
  return fillCard("0", { name: "Coordinator", state: verdict().status === "draining" ? "draining" :
    "ready", where: text(me.host) + " \u00b7 process " + text(me.pid), why: "", facts,
    busy: num(kv.used) / pages, wait: num(kv.cached) / pages,
    load: "cache pages: " + num(kv.used) + " used, " + num(kv.cached) + " kept, of " +
      num(kv.pages) });
}

function workerCard(w, now) {
  const ready = w.state === "ready";
  const busy = ready ? rate(w, "compute_seconds") : 0;
  const wait = ready ? rate(w, "wait_seconds") : 0;
  const since = Math.max(0, num(now) - num(w.since));
  const why = ready ? "" : (text(w.reason) || text(w.state)) + " \u00b7 since " + clock(w.since) +
    ", " + span(since);
  const facts = [["memory", bytes(w.memory_bytes)], ["experts", num(w.experts) + " \u00b7 " +
    bytes(w.expert_bytes)], ["rows", short(w.rows)],
    ["rows/s", short(Math.round(rate(w, "rows")))],
    ["out", bytes(rate(w, "bytes_out")) + "/s"], ["in", bytes(rate(w, "bytes_in")) + "/s"]];
  const percent = (v) => clamp(100 * v, 0, 100).toFixed(0) + " %";
  return fillCard(text(w.rank), { name: "Worker " + text(w.rank), state: text(w.state) || "unknown",
    where: text(w.host) + " \u00b7 process " + text(w.pid), why, facts, busy, wait,
    load: ready ? "busy " + percent(busy) +
      ("wait_seconds" in w ? ", waiting " + percent(wait) : "") : "not at work" });
}

function showCards() {
  const c = state.now;
  const boxes = [coordinatorCard(c),
    ...list(c.workers).map(part).map((w) => workerCard(w, c.time))];
  if (boxes.length !== $("cards").children.length ||
      boxes.some((box, i) => box !== $("cards").children[i])) {
    $("cards").replaceChildren(...boxes);
  }
}

/* --- events ---------------------------------------------------------------------------- */

/* The page's own remarks (the connection went and came) stand among the server's. */
function say(level, what) {
  state.said.push({ time: Date.now() / 1000, level, text: what });
  if (state.said.length > 50) state.said.shift();
}

let events_shown = "";
function showEvents() {
  const all = [...list(part(state.now).events).map(part), ...state.said]
    .sort((a, b) => num(b.time) - num(a.time)).slice(0, 200);
  const key = JSON.stringify(all);
  if (!all.length || key === events_shown) return;
  events_shown = key;
  $("events").replaceChildren(...all.map((e) => {
    const li = make("li", make("time", clock(e.time)), make("span.level", text(e.level)),
      make("span", text(e.text)));
    li.dataset.level = text(e.level);
    return li;
  }));
}

/* --- conversation ---------------------------------------------------------------------- */

const talk = {
  history: [],      /* messages of the chat so far, as the API wants them */
  running: null,    /* AbortController of the answer that is being written */
  model: "",        /* what GET v1/models names first */
  last_id: "",
};

const mode = () => document.querySelector("input[name=mode]:checked").value;

/* Keeps the end in view, unless the reader has scrolled up. */
function follow(change) {
  const t = $("talk");
  const at_end = t.scrollHeight - t.scrollTop - t.clientHeight < 40;
  change();
  if (at_end) t.scrollTop = t.scrollHeight;
}

function addSaying(kind) {
  const says = { box: make("article.say." + kind), body: make("div.text"),
    figures: make("p.figures") };
  says.figures.hidden = true;
  says.box.append(says.body, says.figures);
  $("empty").hidden = true;
  $("talk").append(says.box);
  $("talk").scrollTop = $("talk").scrollHeight;
  return says;
}

function field(id) {
  const value = $(id).value.trim();
  return value === "" ? undefined : Number(value);
}

function requestFor(prompt) {
  const chat = mode() === "chat";
  const body = { model: talk.model || "model", stream: true,
    stream_options: { include_usage: true }, max_tokens: field("max-tokens"),
    temperature: field("temperature"), seed: field("seed") };
  if (chat) body.messages = [...talk.history, { role: "user", content: prompt }];
  else body.prompt = prompt;
  return { path: chat ? "v1/chat/completions" : "v1/completions", body, chat };
}

function figuresOf(a) {
  const tokens = a.tokens || a.pieces;
  const speed = tokens > 1 && a.last > a.first ? (1000 * (tokens - 1)) / (a.last - a.first) : 0;
  return { tokens, speed, first: a.first ? a.first - a.begun : 0 };
}

function takeChunk(a, chunk) {
  if (chunk.error) throw new Error(text(part(chunk.error).message) || "The server gave up.");
  if (chunk.id) talk.last_id = text(chunk.id);
  const usage = part(chunk.usage);
  if (num(usage.completion_tokens)) a.tokens = usage.completion_tokens;
  const choice = part(list(chunk.choices)[0]);
  const piece = text(choice.text ?? part(choice.delta).content);
  if (choice.finish_reason) a.reason = text(choice.finish_reason);
  if (!piece) return;
  a.last = performance.now();
  a.first ||= a.last;
  a.pieces++;
  a.text += piece;
  a.fresh += piece;
  if (!a.drawing) a.drawing = requestAnimationFrame(() => drawAnswer(a));
}

/* Text goes to the page once a frame, however fast it comes. */
function drawAnswer(a) {
  a.drawing = 0;
  const fresh = a.fresh;
  a.fresh = "";
  if (fresh) follow(() => a.body.append(fresh));
  if (talk.running !== a.abort) return;
  const f = figuresOf(a);
  put($("live-figures"), f.first ? decimals(f.speed) + " tokens/s" : "waiting");
}

async function readAnswer(a, request) {
  const r = await fetch(request.path, { method: "POST", signal: a.abort.signal,
    headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(request.body) });
  if (r.status === 401) askForKey();
  if (!r.ok) throw new Error(await errorOf(r));
  for await (const data of sentEvents(r.body)) {
    if (data === "[DONE]") return;
    let chunk;
    try {
      chunk = JSON.parse(data);
    } catch {
      throw new Error("The server sent something that is not JSON.");
    }
    takeChunk(a, part(chunk));
  }
  throw new Error("The connection ended before the answer did.");
}

/* The line below an answer: how many tokens, how fast, and why it ended. */
function showFigures(a, wrong) {
  const f = figuresOf(a);
  const why = { stop: "", stopped: "stopped by you", length: "at the limit" }[a.reason];
  const line = a.figures;
  line.hidden = false;
  if (f.tokens) {
    line.append(make("b", plural(f.tokens, "token")));
    if (f.speed) line.append(" \u00b7 ", make("b", decimals(f.speed) + " tokens/s"));
    line.append(" \u00b7 first after ", make("b", decimals(f.first) + " ms"));
    if (why ?? a.reason) line.append(" \u00b7 " + (why ?? a.reason));
  } else if (!wrong) {
    line.append(a.reason === "stopped" ? "stopped by you before the first token" :
      "an empty answer");
  }
  if (wrong) line.append(make("span.wrong", (f.tokens ? " \u00b7 " : "") + wrong));
}

function setRunning(abort) {
  talk.running = abort;
  $("send").hidden = abort !== null;
  $("stop").hidden = abort === null;
  put($("live-figures"), abort ? "waiting" : "");
}

async function submit(prompt) {
  const request = requestFor(prompt);
  let says;
  if (request.chat) {
    addSaying("user").body.append(prompt);
    says = addSaying("model-says");
  } else {
    says = addSaying("model-says");
    says.body.append(make("span.given", prompt));
  }
  const a = { ...says, abort: new AbortController(), begun: performance.now(), first: 0, last: 0,
    pieces: 0, tokens: 0, text: "", fresh: "", reason: "", drawing: 0 };
  a.box.classList.add("busy");
  a.box.setAttribute("aria-busy", "true");
  setRunning(a.abort);

  let wrong = "";
  try {
    await readAnswer(a, request);
  } catch (error) {
    if (a.abort.signal.aborted) a.reason = "stopped";
    else if (!(error instanceof TypeError)) wrong = error.message;
    else wrong = a.text ? "The connection broke." : "The server could not be reached.";
  }
  cancelAnimationFrame(a.drawing);
  setRunning(null);
  drawAnswer(a);
  a.box.classList.remove("busy");
  a.box.removeAttribute("aria-busy");
  follow(() => showFigures(a, wrong));
  remember(request, prompt, a, wrong);
}

/* What was said stays in the conversation, also when it was cut short; a question that got no
 * answer goes back where it was typed. */
function remember(request, prompt, a, wrong) {
  if (a.box.isConnected && request.chat && a.text) {
    talk.history.push({ role: "user", content: prompt }, { role: "assistant", content: a.text });
  }
  if (wrong && !a.text && !$("prompt").value) {
    $("prompt").value = prompt;
    grow();
  }
}

function grow() {
  const p = $("prompt");
  p.style.height = "auto";
  p.style.height = Math.min(200, p.scrollHeight + 2) + "px";
}

function startOver() {
  talk.running?.abort();
  talk.history = [];
  $("talk").replaceChildren($("empty"));
  $("empty").hidden = false;
  $("prompt").focus();
}

function setUpTalk() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const prompt = $("prompt").value;
    if (talk.running || !prompt.trim()) return;
    $("prompt").value = "";
    grow();
    submit(mode() === "chat" ? prompt.trim() : prompt);
  });
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("composer").requestSubmit();
  });
  $("prompt").addEventListener("input", grow);
  $("stop").addEventListener("click", () => {
    talk.running?.abort();
    $("prompt").focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") talk.running?.abort();
  });
  $("clear").addEventListener("click", startOver);
  for (const radio of document.querySelectorAll("input[name=mode]")) {
    radio.addEventListener("change", () => {
      $("prompt").placeholder = mode() === "chat" ? "Write a message" : "Begin a text";
    });
  }
  /* An input that is wrong must be seen to be corrected. */
  $("composer").addEventListener("invalid", () => {
    document.querySelector(".settings").open = true;
  }, true);
}

function setUpHeat() {
  const canvas = $("heat-canvas");
  canvas.addEventListener("pointermove", (e) => moveCursor(cellAt(e), e.clientX, e.clientY));
  canvas.addEventListener("pointerdown", (e) => moveCursor(cellAt(e), e.clientX, e.clientY));
  canvas.addEventListener("pointerleave", () => moveCursor(null));
  canvas.addEventListener("blur", () => moveCursor(null));
  canvas.addEventListener("keydown", walk);
  for (const e of [...document.querySelectorAll("input[name=heat]"), $("by-holder"),
    $("show-path")]) {
    e.addEventListener("change", colourHeat);
  }
  new ResizeObserver(drawHeat).observe($("heat"));
}

/* --- the clock ------------------------------------------------------------------------- */

let timer = 0;
let polling = false;
let turns = 0;

/* Every second; slower while nobody looks, while nothing answers, and while a key is missing. */
function pause() {
  if (document.hidden) return 10000;
  if (!$("key-form").hidden) return 15000;
  if (state.away) return clamp((Date.now() - state.away) / 2, 1000, 5000);
  return 1000;
}

function pollNow() {
  clearTimeout(timer);
  if (!polling) poll();
}

function lost() {
  if (state.away) return;
  state.away = Date.now();
  state.samples.push(null);
  say("error", "the server stopped answering");
}

function back() {
  if (!state.away) return;
  say("info", "the server answers again after " + span((Date.now() - state.away) / 1000));
  state.away = 0;
  talk.model = "";
}

const workerStates = () => list(part(state.now).workers).map((w) => text(part(w).state)).join();

async function askCluster() {
  const before = workerStates();
  const { status, body } = await get("cluster");
  if (status === 401) return askForKey();
  if (status !== 200 || !Array.isArray(body.picks)) return lost();
  back();
  take(body);
  /* /health answers 503 when it isn't ready, which browsers note as a failure: ask it seldom. */
  if (turns++ % 3 === 0 || workerStates() !== before) {
    const health = await get("health");
    if (health.body.status) state.health = health.body;
  }
  if (!talk.model) {
    const models = await get("v1/models");
    if (models.status === 401) return askForKey();
    talk.model = text(part(list(models.body.data)[0]).id) || text(part(body.model).name) || "model";
  }
}

async function poll() {
  polling = true;
  try {
    const shown = state.now;
    await askCluster();
    if (state.now && state.now !== shown) {
      showModel();
      charts.forEach(drawChart);
      takeHeat();
      showCards();
    }
    showStatus();
    showEvents();
  } finally {
    polling = false;
    timer = setTimeout(poll, pause());
  }
}

charts.forEach(buildChart);
readPaint();
drawRamp();
setUpTalk();
setUpHeat();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readPaint();
  colourHeat();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) pollNow();
});
poll();
