/** tests/golden/, which the tests of every language read. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Steady, decide, ranked, softmax, topOf } from "../lib/answers.js";
import { ArtifactError, readContract } from "../lib/payload.js";
import { Preprocessor } from "../lib/picture.js";
import { digest, latency } from "../lib/report.js";

const golden = (name) => readFileSync(new URL(`../../../tests/golden/${name}`, import.meta.url));
const listed = (name) => JSON.parse(golden(`${name}.json`));

/** Upright RGBA: a browser's own frames are, so the library does not turn them. */
function upright({ name, width, height, rotation, mirrored, planes: [plane] }) {
  const data = golden(`${name}.frame`);
  const [wide, high] = rotation % 180 ? [height, width] : [width, height];
  const turned = new Uint8ClampedArray(wide * high * 4);
  for (let row = 0; row < high; row++) {
    for (let column = 0; column < wide; column++) {
      const x = mirrored ? wide - 1 - column : column;
      const from = { 0: [row, x], 90: [height - 1 - x, row], 180: [height - 1 - row, width - 1 - x], 270: [x, width - 1 - row] };
      const [sourceRow, sourceColumn] = from[rotation];
      const at = plane.offset + sourceRow * plane.row_stride + sourceColumn * plane.pixel_stride;
      turned.set(data.subarray(at, at + 4), (row * wide + column) * 4);
    }
  }
  return [turned, wide, high];
}

test("RGBA frames become their inputs", () => {
  const frames = listed("frames").filter(({ format }) => format === "rgba");
  assert.equal(frames.length, 8);
  for (const frame of frames) {
    const made = new Preprocessor(frame.contract).run(...upright(frame), 4);
    assert.equal(Buffer.compare(Buffer.from(made), golden(`${frame.name}.input`)), 0, frame.name);
  }
});

test("times become the field latency", () => {
  for (const { runs, step_ns: step, latency: expected } of listed("report").series) {
    const samples = Array.from({ length: runs }, (_, run) => 5_000_000 + ((7919 * run) % 900_001));
    assert.deepEqual(latency(samples, samples.map((_, run) => run * step)), expected);
  }
});

test("the digest of a document", async () => {
  const { document, sha256 } = listed("report");
  assert.equal(await digest(document), sha256);
});

test("labels in order, and their probabilities", () => {
  for (const { logits, softmax: shares, top } of listed("answers")) {
    assert.equal(topOf(logits), top[0]);
    const labels = logits.map((_, index) => `label ${index}`);
    const probabilities = softmax(Float32Array.from(logits), 1);
    const made = ranked(probabilities, labels, 3);
    assert.deepEqual(made.map(({ index }) => index), top);
    assert.deepEqual(made.map(({ label }) => label), top.map((index) => labels[index]));
    for (const { index, probability } of made) assert.ok(Math.abs(probability - shares[index]) <= 1e-4);
    assert.equal(ranked(probabilities, labels, 99).length, logits.length);
  }
});

const close = (made, wanted) => made.forEach((value, index) => assert.ok(Math.abs(value - wanted[index]) <= 1e-9, `${value}`));

test("contracts of both formats say when a model is sure", () => {
  const { contracts } = listed("decisions");
  assert.ok(contracts.length > 10);
  for (const { text, refused, temperature, threshold } of contracts) {
    if (refused) assert.throws(() => readContract(text), ArtifactError, text);
    else assert.deepEqual([readContract(text).temperature, readContract(text).threshold], [temperature, threshold]);
  }
});

test("an answer, or none", () => {
  const { answers } = listed("decisions");
  assert.ok(answers.length > 10);
  for (const { logits, temperature, threshold, probabilities, answer } of answers) {
    const made = softmax(logits, temperature);
    close(made, probabilities);
    assert.equal(decide(made, threshold), answer);
  }
});

test("a live view's answer is steady", () => {
  const { live } = listed("decisions");
  for (const { threshold, frames } of live) {
    assert.ok(frames.length > 10);
    const steady = new Steady(threshold);
    for (const { seconds, probabilities, average, shown } of frames) {
      assert.equal(steady.add(seconds, probabilities), shown);
      close(steady.average, average);
    }
    steady.reset();
    steady.add(0, frames[0].probabilities);
    close(steady.average, frames[0].probabilities); // nothing of before
  }
});
