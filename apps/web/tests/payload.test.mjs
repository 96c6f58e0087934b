import assert from "node:assert/strict";
import { test } from "node:test";

import { ArtifactError, checkSeal, readMetadata, readPayload, readSafetensors, sha256 } from "../lib/payload.js";
import { Preprocessor } from "../lib/picture.js";
import { bytesOf, casesOf } from "./cases.mjs";

const model = bytesOf("model.onnx");
const expected = casesOf("payload");
const metadata = () => readMetadata(model);
const KEY = "org.lavit_edge.";

/** Numbers that are the same each time. */
function* numbers(state = 1) {
  for (;;) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state / 2 ** 32;
  }
}

const readAll = (bytes) => readPayload(readMetadata(bytes));

test("the payload is Python's", async () => {
  for (const [name, text] of Object.entries(expected.entries)) assert.equal(metadata().get(KEY + name), text);
  const payload = readAll(model);
  assert.deepEqual(payload.contract, { temperature: 1, threshold: 0, ...expected.contract });
  assert.equal(await sha256(new TextEncoder().encode(payload.contractText)), expected.contract_sha256);
  assert.deepEqual(payload.provenance, expected.provenance);
  assert.equal(payload.step, expected.step);
  assert.deepEqual([payload.closeSteps, payload.closePictures], expected.close);
  assert.equal(payload.golden.length, expected.golden.length);
  const preprocessor = new Preprocessor(payload.contract);
  for (const [index, golden] of payload.golden.entries()) {
    const of = expected.golden[index];
    assert.equal(golden.name, of.name);
    assert.deepEqual([golden.height, golden.width, 3], of.shape);
    assert.equal(await sha256(golden.picture), of.picture);
    assert.deepEqual(Array.from(golden.sample), of.sample);
    assert.deepEqual(Array.from(golden.logits), of.logits);
    assert.equal(golden.tolerance, of.tolerance);
    assert.equal(await sha256(preprocessor.run(golden.picture, golden.width, golden.height, 3)), of.input);
  }
});

test("the digest is the one that it says, and no longer so when any byte is another", async () => {
  assert.deepEqual(await checkSeal(model), { digest: expected.digest, problem: null });
  const random = numbers();
  for (let count = 0; count < 40; count++) {
    const changed = model.slice();
    changed[Math.floor(random.next().value * model.length)] ^= 4;
    const { problem } = await checkSeal(changed);
    assert.match(problem, /is not what was exported|has no digest/);
  }
  assert.match((await checkSeal(new Uint8Array(9))).problem, /no digest/);
  const twice = new Uint8Array([...model.slice(-400), ...model.slice(-400)]);
  assert.match((await checkSeal(twice)).problem, /2 digests/);
});

test("an .onnx cut anywhere is refused with a message", async () => {
  const random = numbers(2);
  const lengths = [0, 1, 2, 3, 10, model.length - 1, model.length - 2];
  for (let count = 0; count < 300; count++) lengths.push(Math.floor(random.next().value * model.length));
  for (let back = 1; back < 1500; back += 7) lengths.push(model.length - back);
  for (const length of lengths) {
    const cut = model.subarray(0, length);
    assert.throws(() => readAll(cut), (error) => error instanceof ArtifactError && error.message.length > 5, `${length}`);
  }
  assert.match((await checkSeal(model.subarray(0, 1000))).problem, /no digest/);
});

test("whatever the bytes are, they are read or refused with a message", () => {
  const random = numbers(3);
  const next = (below) => Math.floor(random.next().value * below);
  const golden = Uint8Array.from(atob(expected.entries.golden), (letter) => letter.charCodeAt(0));
  const header = 8 + Number(new DataView(golden.buffer).getBigUint64(0, true));
  const tail = model.length - expected.entries.golden.length - 6000; // near the metadata, where the reader reads
  const attempts = {
    model: (changed) => readAll(changed),
    golden: (changed) => readSafetensors(changed),
  };
  let refused = 0;
  for (let count = 0; count < 2000; count++) {
    const ofGolden = count % 2 === 0;
    const changed = (ofGolden ? golden : model).slice();
    const [from, to] = ofGolden ? [0, header] : count % 4 === 1 ? [Math.max(tail, 0), model.length] : [0, 200];
    for (let flips = 1 + next(3); flips > 0; flips--) changed[from + next(to - from)] = next(256);
    try {
      attempts[ofGolden ? "golden" : "model"](changed);
    } catch (error) {
      assert.ok(error instanceof ArtifactError, `${error.stack}`);
      refused += 1;
    }
  }
  assert.ok(refused > 200, `${refused}`);
  for (let count = 0; count < 500; count++) {
    assert.throws(() => readAll(Uint8Array.from({ length: next(300) }, () => next(256))), ArtifactError);
  }
});

test("a payload that lacks something or is of another format is refused", () => {
  const cases = [
    ["contract", null, /entry 'contract' is missing/],
    ["golden", null, /entry 'golden' is missing/],
    ["digest", null, /entry 'digest' is missing/],
    ["contract", "[]", /contract is not an object/],
    ["contract", "{", /contract is not JSON/],
    ["contract", '{"format":"lavit_edge.contract/3"}', /lavit_edge.contract\/2', not .*3'; a newer one/],
    ["contract", JSON.stringify({ ...expected.contract, format: "lavit_edge.contract/2" }), /contract: temperature, which is missing/],
    ["contract", JSON.stringify({ ...expected.contract, threshold: 0.5 }), /contract: field "threshold" of lavit_edge.contract\/1/],
    ["contract", JSON.stringify({ ...expected.contract, size: 64.5 }), /contract: size/],
    ["contract", JSON.stringify({ ...expected.contract, labels: ["a", "a"] }), /contract: labels/],
    ["contract", JSON.stringify({ ...expected.contract, labels: ["a", "b"] }), /logits 0/],
    ["contract", JSON.stringify({ ...expected.contract, crop_fraction: 0 }), /crop_fraction/],
    ["provenance", "{}", /provenance/],
    ["golden", "*", /base64/],
    ["golden", "AAAA", /no header/],
    ["golden", btoa("\xff\xff\xff\xff\xff\xff\xff\xff{}"), /header is longer/],
    ["golden", btoa("\x02\0\0\0\0\0\0\0{}"), /golden is not JSON/],
  ];
  for (const [name, value, message] of cases) {
    const changed = metadata();
    if (value === null) changed.delete(KEY + name);
    else changed.set(KEY + name, value);
    assert.throws(() => readPayload(changed), (error) => error instanceof ArtifactError && message.test(error.message), name);
  }
});
