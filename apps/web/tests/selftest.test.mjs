import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { timed } from "../lib/benchmark.js";
import { readMetadata, readPayload } from "../lib/payload.js";
import { selftest } from "../lib/selftest.js";
import { bytesOf } from "./cases.mjs";

const payload = () => readPayload(readMetadata(bytesOf("model.onnx")));

/** A model that answers what is expected, changed by `change`. */
function answering(payload, change = (logits) => logits) {
  let index = 0;
  return async (tensor) => {
    assert.equal(tensor.length, 3 * payload.contract.size ** 2);
    return change(payload.golden[index].logits.slice(), index++);
  };
}

test("the cases that the tests of every language read", async () => {
  const { payloads, cases } = JSON.parse(readFileSync(new URL("../../../tests/golden/selftest.json", import.meta.url)));
  assert.ok(cases.length >= 20);
  for (const { payload, name, answers, failed, ...figures } of cases) {
    const entries = new Map(Object.entries(payloads[payload]).map(([entry, text]) => [`org.lavit_edge.${entry}`, text]));
    const given = answers.map((logits) => Float32Array.from(logits));
    const { checks, passed, pictures, ...found } = await selftest(readPayload(entries), async () => given.shift());
    assert.equal(checks.find((check) => !check.passed)?.name ?? null, failed, `${name}, format ${payload}`);
    assert.deepEqual([passed, pictures], [failed === null, 4]);
    assert.deepEqual(found, figures, `${name}, format ${payload}`);
  }
});

test("the expected logits pass", async () => {
  const ours = payload();
  const { checks, ...result } = await selftest(ours, answering(ours));
  const pictures = ours.golden.length;
  assert.deepEqual(result, { passed: true, pictures, same_top1: pictures, worst_millisteps: 0 });
  assert.equal(checks.length, 2 * pictures + 1);
});

test("logits within the tolerance pass, beyond it they fail and the label is named", async () => {
  const ours = payload();
  const { tolerance, logits: expected } = ours.golden[2];
  const share = 1 - 1 / expected.length; // of a change of one logit that is left when the mean is taken off
  const off = (steps) => (logits, index) => {
    if (index === 2) logits[3] += (steps * tolerance * ours.step) / share;
    return logits;
  };
  const near = await selftest(ours, answering(ours, off(0.9)));
  assert.ok(near.passed);
  assert.ok(Math.abs(near.worst_millisteps - 900 * tolerance) <= 1);
  const far = await selftest(ours, answering(ours, off(-1.2)));
  const failed = far.checks.filter((check) => !check.passed);
  assert.equal(failed.length, 1);
  assert.equal(failed[0].name, `${ours.golden[2].name}: logits`);
  assert.match(failed[0].found, /allowed: label 'class 3' differs most/);
});

test("another label first is counted", async () => {
  const ours = payload();
  const { same_top1: same } = await selftest(ours, answering(ours, (logits, index) => (index ? logits : logits.map((value) => -value))));
  assert.equal(same, ours.golden.length - 1);
});

test("values that are not finite and another number of them fail", async () => {
  const ours = payload();
  for (const change of [(logits) => logits.fill(NaN), (logits) => logits.fill(Infinity), (logits) => logits.slice(1), () => new Float32Array(0)]) {
    const result = await selftest(ours, answering(ours, change));
    assert.equal(result.passed, false);
    assert.equal(result.worst_millisteps, null);
    assert.match(result.checks[1].found, /not finite/);
  }
});

test("a pixel that is two levels off fails and is named", async () => {
  const ours = payload();
  ours.golden[1].sample = ours.golden[1].sample.slice();
  const at = (5 * 16 + 7) * 3 + 1;
  ours.golden[1].sample[at] += ours.golden[1].sample[at] > 100 ? -1 : 1;
  assert.ok((await selftest(ours, answering(ours))).passed);
  ours.golden[1].sample[at] += ours.golden[1].sample[at] > 100 ? -1 : 1;
  const result = await selftest(ours, answering(ours));
  assert.equal(result.passed, false);
  const { size } = ours.contract;
  const where = `row ${Math.floor((11 * size) / 32)}, column ${Math.floor((15 * size) / 32)}, G`;
  assert.ok(result.checks[2].found.includes(where), result.checks[2].found);
});

test("runs go on until both time and number are reached", async () => {
  const short = await timed(async () => {}, 0, 5);
  assert.equal(short.samples.length, 5);
  const long = await timed(async () => {}, 0.05, 2);
  assert.ok(long.samples.length > 2);
  assert.ok(long.duration >= 50_000_000);
  for (const { samples, starts, duration } of [short, long]) {
    assert.equal(samples.length, starts.length);
    assert.ok([...samples, ...starts].every(Number.isSafeInteger));
    assert.equal(duration, starts.at(-1) + samples.at(-1) - starts[0]);
  }
});
