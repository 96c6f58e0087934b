import assert from "node:assert/strict";
import { test } from "node:test";

import { ArtifactError } from "../lib/payload.js";
import { Preprocessor, roundHalfEven, sampleOf, toTensor } from "../lib/picture.js";
import { bytesOf, casesOf } from "./cases.mjs";

const cases = casesOf("pictures");

/** Byte for byte; one level would do for the self-test. */
function same(made, name) {
  const expected = bytesOf(name);
  assert.equal(made.length, expected.length, name);
  let worst = 0;
  for (let at = 0; at < made.length; at++) worst = Math.max(worst, Math.abs(made[at] - expected[at]));
  assert.equal(worst, 0, name);
}

test("RGB becomes the bytes that Pillow makes of it", () => {
  assert.ok(cases.length > 100);
  for (const { picture, width, height, contract, input, sample } of cases) {
    const made = new Preprocessor(contract).run(bytesOf(picture), width, height, 3);
    same(made, input);
    assert.deepEqual(Array.from(sampleOf(made, contract.size)), sample);
  }
});

test("RGBA becomes the same, whatever its alpha", () => {
  for (const { picture, width, height, contract, input } of cases) {
    const rgb = bytesOf(picture);
    const rgba = Uint8ClampedArray.from({ length: width * height * 4 }, (_, at) => (at % 4 === 3 ? at : rgb[Math.floor(at / 4) * 3 + (at % 4)]));
    same(new Preprocessor(contract).run(rgba, width, height, 4), input);
  }
});

test("one preprocessor takes frames of all sizes in any order, and makes no new buffers for a size that it had last", () => {
  const contract = cases[0].contract;
  const alike = cases.filter((item) => JSON.stringify(item.contract) === JSON.stringify(contract));
  assert.ok(alike.length > 5);
  const preprocessor = new Preprocessor(contract);
  for (const { picture, width, height, input } of [...alike, ...[...alike].reverse()]) {
    const made = preprocessor.run(bytesOf(picture), width, height, 3);
    same(made, input);
    const buffers = ({ input, narrow, columns, rows, sums, words }) => [input, narrow, columns, rows, sums, words];
    const before = buffers(preprocessor);
    preprocessor.run(bytesOf(picture), width, height, 3);
    assert.ok(buffers(preprocessor).every((buffer, at) => buffer === before[at]));
  }
});

test("pixels that begin anywhere in a buffer", () => {
  const { picture, width, height, contract, input } = cases[0];
  const rgb = bytesOf(picture);
  const whole = new Uint8Array(width * height * 4 + 1);
  for (let at = 0; at < width * height; at++) whole.set(rgb.subarray(at * 3, at * 3 + 3), 1 + at * 4);
  same(new Preprocessor(contract).run(whole.subarray(1), width, height, 4), input);
});

test("a picture of another length, or too long and thin, is refused", () => {
  const preprocessor = new Preprocessor({ ...cases[0].contract, resize: "crop" });
  assert.throws(() => preprocessor.run(new Uint8Array(11), 2, 2, 3), ArtifactError);
  assert.throws(() => preprocessor.run(new Uint8Array(0), 0, 0, 3), ArtifactError);
  assert.throws(() => preprocessor.run(new Uint8Array(3e6), 1e6, 1, 3), /too long and thin/);
});

test("planes of a tensor", () => {
  assert.deepEqual(Array.from(toTensor(new Uint8ClampedArray([1, 2, 3, 4, 5, 6]), new Float32Array(6))), [1, 4, 2, 5, 3, 6]);
});

test("rounding is Python's", () => {
  for (const [value, rounded] of [[0.5, 0], [1.5, 2], [2.5, 2], [70.5, 70], [71.5, 72], [0.49999999999999994, 0], [73.2, 73]]) {
    assert.equal(roundHalfEven(value), rounded);
  }
});
