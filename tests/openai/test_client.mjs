// test_client.mjs - the server through the client that people have: npm's openai.
//
//   node test_client.mjs URL
//
// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import OpenAI from "openai";

const base = process.argv[2];
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "none", maxRetries: 0 });
const { data: models } = await client.models.list();
const model = models[0].id;
const messages = [{ role: "user", content: "Tell me of the king." }];

const cluster = async () => (await fetch(`${base}/cluster`)).json();

const claims = {
  async "a model is listed and found"() {
    assert.equal(models.length, 1);
    assert.equal(models[0].object, "model");
  },

  async "a completion is the same for the same seed"() {
    const ask = () => client.completions.create({ model, prompt: "Once", max_tokens: 20, seed: 5 });
    const [a, b] = [await ask(), await ask()];
    assert.equal(a.choices[0].text, b.choices[0].text);
    assert.equal(a.choices[0].finish_reason, "length");
    assert.equal(a.usage.completion_tokens, 20);
  },

  async "a chat answers, whole and as a stream"() {
    const request = { model, messages, max_tokens: 24, seed: 7 };
    const whole = await client.chat.completions.create(request);
    assert.equal(whole.choices[0].message.role, "assistant");
    const stream = await client.chat.completions.create(
      { ...request, stream: true, stream_options: { include_usage: true } });
    let text = "", usage = null, reason = null;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      reason = chunk.choices[0]?.finish_reason ?? reason;
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(reason, whole.choices[0].finish_reason);
    assert.deepEqual(usage, whole.usage);
  },

  async "three choices"() {
    const { choices } = await client.chat.completions.create(
      { model, messages, n: 3, max_tokens: 12, seed: 1 });
    assert.deepEqual(choices.map((c) => c.index), [0, 1, 2]);
    assert.ok(new Set(choices.map((c) => c.message.content)).size > 1);
  },

  async "log probabilities"() {
    const { choices } = await client.chat.completions.create(
      { model, messages, max_tokens: 4, logprobs: true, top_logprobs: 3, temperature: 0 });
    const content = choices[0].logprobs.content;
    assert.equal(content.length, 4);
    for (const token of content) {
      assert.equal(token.top_logprobs.length, 3);
      assert.equal(token.top_logprobs[0].token, token.token);
      assert.ok(token.logprob <= 0);
    }
  },

  async "an answer in the form of a schema"() {
    const schema = {
      type: "object", additionalProperties: false, required: ["name", "age", "likes"],
      properties: {
        name: { type: "string", maxLength: 20 }, age: { type: "integer" },
        likes: { type: "array", items: { type: "string", enum: ["tea", "wine"] }, maxItems: 3 },
      },
    };
    for (let seed = 1; seed <= 5; seed++) {
      const { choices } = await client.chat.completions.create({
        model, messages, seed, max_tokens: 300,
        response_format: { type: "json_schema", json_schema: { name: "who", strict: true, schema } },
      });
      assert.equal(choices[0].finish_reason, "stop");
      const who = JSON.parse(choices[0].message.content);
      assert.deepEqual(Object.keys(who), ["name", "age", "likes"]);
      assert.ok(Number.isInteger(who.age) && who.likes.every((l) => ["tea", "wine"].includes(l)));
    }
  },

  async "errors are the client's own classes"() {
    await assert.rejects(client.completions.create({ model, prompt: "a", temperature: 1e6 }),
      (e) => e instanceof OpenAI.BadRequestError && /temperature/.test(e.message));
    await assert.rejects(client.completions.create({ model: "gpt-4", prompt: "a" }),
      (e) => e instanceof OpenAI.NotFoundError && e.code === "model_not_found");
  },

  async "an abort frees the sequence"() {
    const before = (await cluster()).requests.cancelled;
    const stream = await client.completions.create(
      { model, prompt: "Once", max_tokens: 450, n: 8, stream: true });
    for await (const chunk of stream) {
      if (chunk) {
        break; // leaving the loop aborts the request
      }
    }
    for (let i = 0; i < 100; i++) {
      const { requests, kv } = await cluster();
      if (requests.running === 0 && requests.cancelled > before) {
        assert.equal(kv.used, 0);
        return;
      }
      await new Promise((done) => setTimeout(done, 50));
    }
    assert.fail("it runs on");
  },
};

let failed = 0;
for (const [claim, holds] of Object.entries(claims)) {
  try {
    await holds();
    console.log(`ok      ${claim}`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${claim}\n${error.stack}`);
  }
}
process.exit(failed ? 1 : 0);
