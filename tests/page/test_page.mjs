/* test_page.mjs - what must stay true of the page of `troupe serve`, seen through a browser.
 *
 * USE    node test_page.mjs --browser /usr/bin/chromium [--base URL] [--shots FOLDER]
 *          [--mode chat|text] [--prompt TEXT] [--key KEY] [--losses]
 *        With --base the claims that hold for every server are checked at URL; without it a mock
 *        server is started, and those that need a server on command are checked too.
 *        With --losses too, workers 2 and 3 of the server, on this machine, are stopped and killed.
 * NEEDS  node 18 or later, chromium
 *
 * SPDX-License-Identifier: Apache-2.0 */
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openBrowser } from "./browser.mjs";
import { startMock } from "./mock_server.mjs";

const { values: options } = parseArgs({ options: {
  browser: { type: "string", default: "chromium" },
  base: { type: "string" },
  shots: { type: "string", default: "" },
  mode: { type: "string", default: "chat" },
  prompt: { type: "string", default: "Who is on stage tonight?" },
  key: { type: "string", default: "" },
  losses: { type: "boolean", default: false },
} });

const DESK = { width: 1440, height: 900 };
const PHONE = { width: 390, height: 844, touch: true, scale: 2 };

let page;
let mock;

async function shot(name, whole) {
  if (options.shots) await page.shot(join(options.shots, name + ".png"), whole);
}

/* --- in the page ----------------------------------------------------------------------- */

const last = (part) => "document.querySelector('.say:last-of-type " + part + "')";
const answered = last(".text") + ".textContent.length - " + /* a completion's prompt is no answer */
  "(" + last(".given") + "?.textContent.length ?? 0)";
const settled = "document.querySelector('.say.busy') === null && " +
  "!document.querySelector('#send').hidden";
const canvas = "document.querySelector('#heat-canvas').toDataURL()";
const picks = "Number(document.querySelector('#heat-canvas').dataset.picks ?? 0)";
const worker = "document.querySelector('.card[data-rank=\"1\"] dl')?.textContent";

/* Elements that stand out to the right, other than in a box that scrolls by itself. */
const sticking_out = `(() => {
  const wide = document.documentElement.clientWidth;
  const out = document.documentElement.scrollWidth > wide ? ["the page itself"] : [];
  for (const e of document.body.querySelectorAll("*")) {
    if (e.closest(".heat, .unseen, .skip, svg")) continue;
    const r = e.getBoundingClientRect();
    if (r.width && (r.right > wide + 0.5 || r.left < -0.5)) out.push(e.outerHTML.slice(0, 90));
  }
  return out;
})()`;

/* Texts whose contrast to what is behind them is below 4.5 (3 for large ones), by WCAG 2. */
const too_faint = `(() => {
  const rgba = (text) => {
    const v = text.match(/[\\d.]+/g).map(Number);
    return [v[0], v[1], v[2], v[3] ?? 1];
  };
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor);
      if (c[3] === 1) return c;
    }
    return [255, 255, 255, 1];
  };
  const faint = new Set();
  for (const e of document.body.querySelectorAll("*")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.getClientRects().length || e.closest(".unseen, .skip, noscript")) continue;
    const style = getComputedStyle(e);
    const pair = [light(rgba(style.color)), light(behind(e))].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (contrast < (large ? 3 : 4.5)) {
      faint.add(e.className + " '" + e.textContent.slice(0, 30) + "' " + contrast.toFixed(2));
    }
  }
  return [...faint];
})()`;

/* Things to operate that have no name, and canvases or drawings that say nothing. */
const nameless = `[...document.querySelectorAll("input, textarea, button, summary, [role=img]")]
  .filter((e) => !(e.labels?.[0]?.textContent ?? e.getAttribute("aria-label") ?? e.textContent)
    .trim()).map((e) => e.outerHTML.slice(0, 90))`;

async function openPage() {
  await page.view({ ...DESK, dark: false });
  await page.go(options.base);
  if (options.key) {
    await page.until("the key is asked for", "!document.querySelector('#key-form').hidden");
    await page.click("#key");
    await page.type(options.key);
    await page.press("Enter");
  }
  await page.until("the cluster is shown", picks + " >= 0 && " +
    "document.querySelectorAll('.card').length > 0");
  await page.run("document.querySelector('input[name=mode][value=" + options.mode + "]').click()");
}

async function setField(id, value) {
  await page.run("document.querySelector('.settings').open = true");
  await page.click("#" + id);
  await page.run("document.querySelector('#" + id + "').select()");
  await page.type(String(value));
  await page.run("document.querySelector('.settings').open = false");
}

/* Types a prompt as a person would; the lengths that its answer had are noted in the page. */
async function ask(prompt) {
  const said = await page.run("document.querySelectorAll('.say').length");
  await page.run(`window.lengths = new Set(); window.watch?.disconnect();
    window.watch = new MutationObserver(() => {
      window.lengths.add(document.querySelector(".say .text") ? ${answered} : 0);
    });
    window.watch.observe(document.querySelector("#talk"), { childList: true, subtree: true });`);
  await page.click("#prompt");
  await page.type(prompt);
  await page.press("Enter");
  await page.until("the answer has begun", "document.querySelectorAll('.say').length > " + said);
}

/* --- claims that hold for every server ------------------------------------------------- */

const everywhere = [
  ["the cluster, the model and its state are shown", async () => {
    await openPage();
    assert.match(await page.run("document.querySelector('#health').textContent"),
      /^(ready|degraded)$/);
    assert.match(await page.run("document.querySelector('#model-shape').textContent"), /layer/);
    assert.equal(await page.run("document.querySelector('#banner').hidden"), true);
    assert.equal(await page.run("document.querySelector('#events').children.length > 0"), true);
  }, options.key ? /401/ : undefined],

  ["an answer streams in, and its speed stands below it", async () => {
    const seen = { heat: await page.run(canvas), picks: await page.run(picks),
      worker: await page.run(worker) };
    await setField("max-tokens", mock ? 96 : 240); /* a fast server needs time to be watched */
    await setField("seed", 11);
    await ask(options.prompt);
    await page.until("text is there", answered + " > 20");
    await page.until("the answer is whole", settled, 120);
    const lengths = await page.run("window.lengths.size");
    assert.ok(lengths >= 4, "the answer came in one piece: lengths seen: " + lengths);
    const figures = await page.run(last(".figures") + ".textContent");
    assert.match(figures, /^\d+ tokens? . [\d.]+ tokens\/s . first after [\d.]+ ms/);

    await page.until("the last request is known as ours",
      "document.querySelector('#last-request').textContent.startsWith('your last request: ')");
    await page.until("the heat map changes", picks + " > " + seen.picks);
    assert.notEqual(await page.run(canvas), seen.heat);
    if (seen.worker !== undefined) {
      await page.until("the worker's rows change", worker + " !== " + JSON.stringify(seen.worker));
    }
  }],

  ["stop ends an answer, here and on the server", async () => {
    const cluster = "fetch('cluster', { headers: sessionStorage['troupe-api-key'] ? " +
      "{ Authorization: 'Bearer ' + sessionStorage['troupe-api-key'] } : {} })" +
      ".then((r) => r.json())";
    const cancelled = cluster + ".then((c) => c.requests.cancelled)";
    const before = await page.run(cancelled);
    const context = await page.run(cluster + ".then((c) => c.model.context)");
    await setField("max-tokens", Math.floor(0.75 * Math.min(2000, context)));
    await ask(options.prompt + " And then?");
    await page.until("text is there", answered + " > 3");
    await page.click("#stop");
    await page.until("it has stopped", settled);
    const length = await page.run(last(".text") + ".textContent.length");
    assert.match(await page.run(last(".figures") + ".textContent"), /^\d+ token.*stopped by you/);
    await page.until("the server has noticed", cancelled + ".then((n) => n > " + before + ")");
    assert.equal(await page.run(last(".text") + ".textContent.length"), length);
    assert.equal(await page.run("document.activeElement.id"), "prompt");
  }],

  ["the heat map tells about a cell, by pointer and by keys", async () => {
    const tip = "document.querySelector('#heat-tip').textContent";
    const about = /^layer \d+, expert \d+\n\d+ picks?.*\n\d+ picks? by the last request\nheld by /;
    await page.point("#heat-canvas");
    await page.until("the tip is shown", "!document.querySelector('#heat-tip').hidden");
    const pointed = await page.run(tip);
    assert.match(pointed, about);
    await page.run("document.querySelector('#heat-canvas').focus()");
    await page.press("ArrowRight");
    assert.match(await page.run(tip), about);
    assert.notEqual(await page.run(tip), pointed);
    assert.match(await page.run("document.querySelector('#heat-said').textContent"), /^layer/);
    await page.press("Escape");
  }],

  ["the heat map shows all or the last request, and the holders", async () => {
    const choose = (what) => page.run("document.querySelector('" + what + "').click()");
    await choose("#show-path");
    const all = await page.run(canvas);
    await choose("input[name=heat][value=last]");
    const one = await page.run(canvas);
    assert.notEqual(one, all);
    await choose("#show-path");
    assert.notEqual(await page.run(canvas), one);
    await choose("#by-holder");
    assert.match(await page.run("document.querySelector('#holders').textContent"),
      /worker 1|coordinator/);
    await shot("last-by-worker");
    await choose("#by-holder");
    await choose("input[name=heat][value=all]");
  }],

  ["nothing sticks out and all can be read: light, dark, desk, phone", async () => {
    assert.deepEqual(await page.run(nameless), []);
    for (const [name, view] of [["desk", DESK], ["tablet", { width: 820, height: 1180 }],
      ["phone", PHONE]]) {
      for (const dark of [false, true]) {
        await page.view({ ...view, dark });
        await page.run("new Promise((go) => setTimeout(go, 700)).then(() => scrollTo(0, 0))");
        assert.deepEqual(await page.run(sticking_out), [], name);
        assert.deepEqual(await page.run(too_faint), [], name + (dark ? " dark" : " light"));
        await shot(name + (dark ? "-dark" : "-light"), name === "phone");
      }
    }
  }],

  ["nothing moves for those who don't want it", async () => {
    await page.view({ ...DESK, dark: false, still: true });
    await page.run("document.querySelector('.chip').dataset.state = 'loading'");
    assert.equal(await page.run("document.getAnimations().length"), 0);
    await page.view({ ...DESK, dark: false });
  }],
];

/* --- claims that need a server on command ---------------------------------------------- */

const banner = "document.querySelector('#banner')";

const on_command = [
  ["what the server sends is text, whatever it looks like", async () => {
    mock.cluster.model.name = "demo <b>model</b>";
    mock.cluster.events.push({ time: 1, level: "info", text: "<img src=x onerror=alert(1)>" });
    await page.until("the event is shown",
      "document.querySelector('#events').textContent.includes('<img src=x')");
    assert.equal(await page.run("document.querySelector('#model-name').innerHTML"),
      "demo &lt;b&gt;model&lt;/b&gt;");
    assert.equal(await page.run("document.querySelectorAll('img').length"), 0);
    mock.cluster.model.name = "demo";
    mock.cluster.events.pop();
  }],

  ["text that was cut within characters arrives whole", async () => {
    await setField("max-tokens", 90);
    await ask("markup");
    await page.until("the answer is whole", settled);
    const text = await page.run(last(".text") + ".textContent");
    for (const piece of ["\u2014 and only", "\u00bbWho speaks", "Na\u00efve", "\ud835\udd38",
      "<b>Not bold</b>", "&amp;"]) {
      assert.ok(text.includes(piece), piece + " is missing in: " + text);
    }
    assert.ok(!text.includes("\ufffd"), text);
    assert.match(await page.run(last(".figures") + ".textContent"), /^90 tokens/);
  }],

  ["a chat remembers, sends the settings, and starts over", async () => {
    await page.click("#clear");
    await setField("max-tokens", 12);
    await setField("temperature", "0.25");
    await setField("seed", 77);
    await ask("First");
    await page.until("the answer is whole", settled);
    const answer = await page.run(last(".text") + ".textContent");
    await ask("Second");
    await page.until("the answer is whole", settled);
    const body = mock.seen.at(-1);
    assert.deepEqual(body.messages, [{ role: "user", content: "First" },
      { role: "assistant", content: answer }, { role: "user", content: "Second" }]);
    assert.deepEqual([body.max_tokens, body.temperature, body.seed, body.model, body.stream],
      [12, 0.25, 77, "demo", true]);
    await page.click("#clear");
    await ask("Third");
    await page.until("the answer is whole", settled);
    assert.equal(mock.seen.at(-1).messages.length, 1);
  }],

  ["completion sends the text as it is, and no history", async () => {
    await page.run("document.querySelector('input[name=mode][value=text]').click()");
    await ask("  Once upon a time ");
    await page.until("the answer is whole", settled);
    assert.equal(mock.seen.at(-1).prompt, "  Once upon a time ");
    assert.equal(mock.seen.at(-1).messages, undefined);
    assert.match(await page.run(last(".text") + ".textContent"), /^  Once upon a time The curtain/);
    await page.run("document.querySelector('input[name=mode][value=chat]').click()");
  }],

  ["a setting that makes no sense is shown, not sent", async () => {
    const sent = mock.seen.length;
    await setField("max-tokens", "0");
    await page.click("#prompt");
    await page.type("Never sent");
    await page.press("Enter");
    assert.equal(await page.run("document.querySelector('.settings').open"), true);
    assert.equal(mock.seen.length, sent);
    await setField("max-tokens", 64);
    await page.run("document.querySelector('#prompt').value = ''");
  }],

  ["a refused prompt says why and comes back", async () => {
    await ask("refuse");
    await page.until("the answer is over", settled);
    assert.equal(await page.run(last(".wrong") + ".textContent"),
      "The prompt has 9000 tokens; <i>2048</i> fit.");
    assert.equal(await page.run("document.querySelector('#prompt').value"), "refuse");
    await page.run("document.querySelector('#prompt').value = ''");
  }, /400/],

  ["an answer that breaks off keeps its text and says so", async () => {
    await ask("break");
    await page.until("the answer is over", settled);
    assert.match(await page.run(last(".text") + ".textContent"), /^The curtain is /);
    assert.match(await page.run(last(".wrong") + ".textContent"), /connection (broke|ended)/);
  }, /ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION/],

  ["a lost worker is seen at once, with the reason, and so is its return", async () => {
    mock.lose(3, "no sign of life for 2.5 s");
    await page.until("the banner is up", "!" + banner + ".hidden");
    const said = await page.run(banner + ".textContent");
    assert.match(said,
      /^Degraded: worker 3 has been lost since [\d:]+.* \(no sign of life for 2\.5 s\)\.$/);
    const card = "document.querySelector('.card[data-rank=\"3\"]')";
    assert.equal(await page.run(card + ".dataset.state"), "lost");
    assert.match(await page.run(card + ".textContent"), /no sign of life for 2.5 s . since/);
    await page.until("the event is listed",
      "document.querySelector('#events').textContent.includes('worker 3 is lost')");
    assert.equal(await page.run("document.querySelector('#health').textContent"), "degraded");
    assert.deepEqual(await page.run(too_faint), []);
    await page.run("scrollTo(0, 0)");
    await shot("lost-worker", true);
    await page.view({ ...DESK, dark: true });
    await shot("lost-worker-dark");
    assert.deepEqual(await page.run(too_faint), []);
    await page.view({ ...DESK, dark: false });
    mock.regain(3);
    await page.until("the banner is gone", banner + ".hidden");
    assert.equal(await page.run(card + ".dataset.state"), "ready");
  }],

  ["a server that goes away is missed, and found again", async () => {
    await mock.goAway();
    await page.until("the page says so", banner + ".textContent.includes('not answered since')");
    assert.equal(await page.run("document.querySelector('#health').textContent"), "no answer");
    await shot("away");
    await mock.comeBack();
    await page.until("the banner is gone", banner + ".hidden");
    assert.match(await page.run("document.querySelector('#events').textContent"),
      /the server answers again after/);
  }, /ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/],

  ["a cluster that makes no sense harms nothing", async () => {
    const name = "document.querySelector('#model-name').textContent";
    const odd = { picks: [null, 3, [1, "x", null]], holder: [[1e9, -4, {}], "no"],
      workers: [null, "x", { rank: {}, state: 7, since: "never", memory_bytes: -1 }],
      last_request: { id: 5, tokens: "all", picks: [[9, 9, 9, 9, 9, 9], null, 4, [1], [2]] },
      events: [null, 4, { time: 1e300, level: {}, text: ["a"] }], tokens: 3, kv: null };
    const bodies = [{ ...odd, time: 1, model: { name: "odd 1" } },
      { ...odd, time: 2, model: { name: "odd 2", top_k: 1e12 }, requests: null },
      { time: 3, model: { name: "odd 3" }, picks: [] },
      { time: 4, model: { name: "odd 4" }, picks: [[]], workers: {}, events: "none" }];
    for (const body of bodies) {
      mock.nonsense = body;
      await page.until(body.model.name + " is shown", name + " === '" + body.model.name + "'");
    }
    for (const body of [[], 7, { picks: "none" }]) {
      mock.nonsense = body;
      await page.until("it counts as no answer", "!" + banner + ".hidden");
    }
    mock.nonsense = null;
    await page.until("the cluster is back", banner + ".hidden && " + name + " === 'demo'");
    await page.until("with all its workers", "document.querySelectorAll('.card').length === 5");
  }],

  ["a key is asked for only when the server wants one", async () => {
    const form = "document.querySelector('#key-form').hidden";
    assert.equal(await page.run(form), true);
    mock.requireKey("open sesame");
    await page.until("the key is asked for", "!" + form);
    await page.click("#key");
    await page.type("wrong");
    await page.press("Enter");
    await page.until("it is refused", "!" + form + " && " +
      "document.querySelector('#key-hint').textContent.includes('not accept')");
    await shot("key");
    await page.click("#key");
    await page.type("open sesame");
    await page.press("Enter");
    const before = await page.run(picks);
    await page.until("the cluster moves again", picks + " > " + before);
    assert.equal(await page.run(form), true);
    assert.equal(await page.run("sessionStorage['troupe-api-key']"), "open sesame");
    assert.equal(await page.run("Object.keys(localStorage).length"), 0);
    mock.requireKey("");
  }, /401/],

  ["a hundred layers of 512 experts fit", async () => {
    const large = await startMock({ layers: 100, experts: 512, workers: 16, top_k: 8 });
    try {
      await page.view({ ...PHONE, dark: true });
      await page.go(large.base);
      await page.until("the cluster is shown", "document.querySelectorAll('.card').length === 17");
      await page.until("picks are shown", picks + " > 20000");
      assert.deepEqual(await page.run(sticking_out), []);
      await page.view({ ...DESK, dark: true });
      await page.run("new Promise((go) => setTimeout(go, 1500))");
      assert.deepEqual(await page.run(sticking_out), []);
      await shot("large");
    } finally {
      await page.go("about:blank#");
      await large.close();
    }
  }],
];

/* --- one after the other --------------------------------------------------------------- */

/* A claim also fails for what it leaves in the browser's console, but for what it provokes. */
/* Of a real server whose workers are processes here. */
const with_losses = [
  ["workers that are stopped or killed are seen in the page, and so is their return", async () => {
    const of = async (rank) => (await (await fetch(new URL("cluster", options.base))).json())
      .workers.find((w) => w.rank === rank);
    const state = (rank) => `document.querySelector('.card[data-rank="${rank}"]').dataset.state`;
    const events = "document.querySelector('#events').textContent";
    const stopped = (await of(2)).pid;
    process.kill(stopped, "SIGSTOP");
    try {
      await page.until("worker 2 is suspected", state(2) + " === 'suspect'");
      await page.until("the banner is up", "!" + banner + ".hidden");
      assert.match(await page.run(banner + ".textContent"), /worker 2/);
      assert.equal(await page.run("document.querySelector('#health').textContent"), "degraded");
      await shot("suspect-worker");
    } finally {
      process.kill(stopped, "SIGCONT");
    }
    await page.until("worker 2 is back", state(2) + " === 'ready'");
    await page.until("the banner is gone", banner + ".hidden");
    const killed = (await of(3)).pid;
    process.kill(killed, "SIGKILL");
    await page.until("the loss is listed", events + ".includes('worker 3')");
    for (let i = 0; i < 200 && (await of(3)).state !== "ready"; i++) {
      await new Promise((done) => setTimeout(done, 50));
    }
    assert.notEqual((await of(3)).pid, killed);
    await page.until("worker 3 is replaced", state(3) + " === 'ready'");
    await page.until("the banner is gone", banner + ".hidden");
  }],
];

async function check([name, claim, provoked]) {
  page.complaints.length = 0;
  try {
    await claim();
    const others = page.complaints.filter((c) =>
      !(c.kind === "network" && provoked?.test(c.text + " " + c.url)));
    assert.deepEqual(others, [], "complaints in the console");
    console.log("ok      " + name);
    return true;
  } catch (error) {
    console.log("FAILED  " + name + "\n" + String(error.stack).replace(/^/gm, "        "));
    await shot("failed").catch(() => {});
    return false;
  }
}

if (options.shots) await mkdir(options.shots, { recursive: true });
const claims = [...everywhere];
if (!options.base) {
  mock = await startMock();
  options.base = mock.base;
  claims.push(...on_command);
} else if (options.losses) {
  claims.push(...with_losses);
}
page = await openBrowser(options.browser);
let passed = 0;
for (const claim of claims) passed += await check(claim);
await page.close();
await mock?.close();
console.log(passed + " passed, " + (claims.length - passed) + " failed");
process.exitCode = passed === claims.length ? 0 : 1;
