import assert from "node:assert/strict";
import { test } from "node:test";

import { sha256 } from "../lib/payload.js";
import { canonical, digest, finish, lacks, LACKING, latency } from "../lib/report.js";
import { casesOf } from "./cases.mjs";

test("canonical JSON and its digest are Python's", async () => {
  for (const { value, text, sha256: expected, digest: ofReport } of casesOf("canonical")) {
    assert.equal(canonical(value), text);
    assert.equal(await sha256(new TextEncoder().encode(canonical(value))), expected);
    assert.equal(await digest({ x: value, sha256: "another" }), ofReport);
  }
});

test("what has no place in a report is refused", () => {
  for (const value of [0.5, NaN, Infinity, 2 ** 53, undefined, { a: undefined }, [() => 1], "\ud800", { "\udc00": 1 }, 1n]) {
    assert.throws(() => canonical(value), TypeError);
  }
  assert.equal(canonical(-0), "0");
});

test("the field latency is Python's", () => {
  for (const { samples, starts, latency: expected } of casesOf("latency")) assert.deepEqual(latency(samples, starts), expected);
});

test("a finished report is one that Python would have finished", async () => {
  for (const report of casesOf("reports")) {
    assert.equal(await digest(report), report.sha256);
    assert.deepEqual(lacks(report), report.lacks);
    const { lacks: _, sha256: __, ...rest } = report;
    assert.deepEqual(await finish(rest), report);
  }
  const made = await finish({});
  assert.match(made.id, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.match(made.created, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  assert.deepEqual(made.lacks, LACKING);
});

test("the fields that may lack are the schema's", () => assert.deepEqual(LACKING, casesOf("lacks")));
