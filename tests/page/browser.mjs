/* browser.mjs - a headless Chromium, driven through the DevTools protocol over a pipe.
 *
 * USE    const page = await openBrowser(program);
 *        await page.view({ width: 390, height: 844, dark: false, touch: true });
 *        await page.go("http://127.0.0.1:8080/");
 *        await page.until("what is waited for", "document.title !== ''");
 *        await page.click("#send"); await page.type("text"); await page.press("Enter");
 *        await page.shot("a.png"); page.complaints; await page.close();
 * FAILS  by throwing, with the name of what was waited for or the script that threw
 * NEEDS  node 18 or later and a chromium; the pipe needs no WebSocket and so no packages
 *
 * SPDX-License-Identifier: Apache-2.0 */
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const sleep = (ms) => new Promise((go) => setTimeout(go, ms));

/* Messages are JSON, each ended by a zero byte: written to descriptor 3, read from 4. */
function connect(child) {
  const waiting = new Map();
  const listeners = [];
  let last = 0;
  let rest = "";
  const closed = (why) => {
    for (const { fail } of waiting.values()) fail(new Error("the browser is gone: " + why));
    waiting.clear();
  };
  child.stdio[4].setEncoding("utf8");
  child.stdio[4].on("data", (piece) => {
    const messages = (rest + piece).split("\0");
    rest = messages.pop();
    for (const m of messages.map((whole) => JSON.parse(whole))) {
      if (!m.id) {
        listeners.forEach((f) => f(m));
        continue;
      }
      const { done, fail, method } = waiting.get(m.id) ?? { done() {}, fail() {} };
      waiting.delete(m.id);
      if (m.error) fail(new Error(method + ": " + m.error.message));
      else done(m.result);
    }
  });
  child.stdio[3].on("error", (error) => closed(error.message));
  child.on("exit", (code) => closed("status " + code));
  const send = (method, params = {}, sessionId = undefined) => new Promise((done, fail) => {
    const id = ++last;
    waiting.set(id, { done, fail, method });
    child.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
  });
  return { send, listen: (f) => listeners.push(f) };
}

/* What a reader of the browser's console would see as an error. */
function collect(complaints, message) {
  const p = message.params;
  if (message.method === "Runtime.exceptionThrown") {
    const e = p.exceptionDetails;
    complaints.push({ kind: "exception", text: e.exception?.description ?? e.text, url: "" });
  } else if (message.method === "Runtime.consoleAPICalled" && p.type === "error") {
    complaints.push({ kind: "console", text: p.args.map((a) => a.value).join(" "), url: "" });
  } else if (message.method === "Log.entryAdded" && p.entry.level === "error") {
    complaints.push({ kind: p.entry.source, text: p.entry.text, url: p.entry.url ?? "" });
  }
}

export async function openBrowser(program) {
  const home = await mkdtemp(join(tmpdir(), "troupe-page-"));
  const child = spawn(program, ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe", "--lang=en",
    "--user-data-dir=" + home], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
  const ended = new Promise((done) => {
    child.on("exit", done);
    child.on("error", done);
  });
  const browser = connect(child);
  const { targetId } = await browser.send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: true });
  const send = (method, params) => browser.send(method, params, sessionId);
  const page = { complaints: [] };
  browser.listen((m) => collect(page.complaints, m));
  for (const domain of ["Page", "Runtime", "Log"]) await send(domain + ".enable");

  page.run = async (script) => {
    const r = await send("Runtime.evaluate", { expression: script, returnByValue: true,
      awaitPromise: true });
    if (r.exceptionDetails) {
      throw new Error(script + ": " + (r.exceptionDetails.exception?.description ?? "threw"));
    }
    return r.result.value;
  };
  page.until = async (what, script, seconds = 30) => {
    const end = Date.now() + 1000 * seconds;
    for (;;) {
      const value = await page.run(script);
      if (value) return value;
      if (Date.now() > end) throw new Error("waited " + seconds + " s in vain until " + what);
      await sleep(50);
    }
  };
  page.view = async ({ width, height, dark, touch = false, scale = 1, still = false }) => {
    await send("Emulation.setDeviceMetricsOverride",
      { width, height, deviceScaleFactor: scale, mobile: touch });
    await send("Emulation.setEmulatedMedia", { features: [
      { name: "prefers-color-scheme", value: dark ? "dark" : "light" },
      { name: "prefers-reduced-motion", value: still ? "reduce" : "no-preference" }] });
  };
  page.go = async (url) => {
    await send("Page.navigate", { url });
    await page.until(url + " is there", "location.href !== 'about:blank' && " +
      "document.readyState === 'complete'");
  };
  page.point = async (selector) => {
    const p = await page.run("(() => { const e = document.querySelector(" +
      JSON.stringify(selector) + "); e.scrollIntoView({ block: 'center' });" +
      " const r = e.getBoundingClientRect();" +
      " return { x: r.x + r.width / 2, y: r.y + r.height / 2, wide: r.width }; })()");
    if (!p.wide) throw new Error(selector + " cannot be clicked: it isn't shown");
    await send("Input.dispatchMouseEvent", { type: "mouseMoved", x: p.x, y: p.y });
    return p;
  };
  page.click = async (selector) => {
    const { x, y } = await page.point(selector);
    for (const type of ["mousePressed", "mouseReleased"]) {
      await send("Input.dispatchMouseEvent", { type, x, y, button: "left", clickCount: 1 });
    }
  };
  page.type = (text) => send("Input.insertText", { text });
  page.press = async (key) => {
    const code = { Enter: 13, Escape: 27, ArrowRight: 39, ArrowDown: 40, Tab: 9 }[key];
    const what = { key, code: key, windowsVirtualKeyCode: code };
    await send("Input.dispatchKeyEvent", { type: "keyDown", ...what,
      text: key === "Enter" ? "\r" : undefined });
    await send("Input.dispatchKeyEvent", { type: "keyUp", ...what });
  };
  page.shot = async (file, whole = false) => {
    const { data } = await send("Page.captureScreenshot",
      { format: "png", captureBeyondViewport: whole });
    await writeFile(file, Buffer.from(data, "base64"));
  };
  page.close = async () => {
    await browser.send("Browser.close").catch(() => {});
    const killer = setTimeout(() => child.kill("SIGKILL"), 5000);
    await ended;
    clearTimeout(killer);
    await rm(home, { recursive: true, force: true, maxRetries: 5 });
  };
  return page;
}
