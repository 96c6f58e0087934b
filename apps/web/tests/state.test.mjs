/** What the page shows when (lib/state.js): the states that all three apps share. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { after, controlsOf, initial, problemOf, screenOf, sightOf, watches } from "../lib/state.js";
import { percent } from "../lib/strings.js";

const model = { labels: ["cat", "dog"], threshold: 0.5 };
const sight = { rows: [{ label: "cat", index: 0, probability: 0.9 }], best: 0 };
const EVENTS = {
  opening: { kind: "opening" },
  opened: { kind: "opened", model },
  refused: { kind: "refused", why: "damaged" },
  first: { kind: "pauseOrResume" },
  filming: { kind: "filming", cameras: 2, hasTorch: true },
  seen: { kind: "seen", sight },
  missed: { kind: "missed" },
  taken: { kind: "cameraFailed", why: "taken" },
  switched: { kind: "switched" },
  lit: { kind: "torch", on: true },
  hide: { kind: "hidden", hidden: true },
  show: { kind: "hidden", hidden: false },
  picked: { kind: "photoPicked", name: "a.jpg" },
  photoSeen: { kind: "photoSeen", sight },
  photoRefused: { kind: "photoRefused", why: "no picture" },
  measuring: { kind: "measuring" },
  noticed: { kind: "noticed", why: "hidden" },
};
const reach = (names) => names.split(" ").reduce((state, name) => after(state, EVENTS[name]), initial());
const WATCHING = "opened first filming seen";

test("screens and the first button", () => {
  const cases = [
    ["opening", "loading", "start", false],
    ["opened", "ready", "start", true],
    ["refused", "unusable", "start", false],
    ["opened first", "watching", "pause", true],
    [WATCHING, "watching", "pause", true],
    [`${WATCHING} first`, "paused", "resume", true],
    ["opened first first", "ready", "start", true], // before there was a picture to keep
    [`${WATCHING} first first`, "watching", "pause", true],
    [`${WATCHING} taken`, "trouble", "retry", true],
    [`${WATCHING} taken first`, "watching", "pause", true],
    ["opened picked photoSeen", "photo", "start", true],
    [`${WATCHING} picked`, "photo", "resume", true],
    [`${WATCHING} taken picked photoSeen`, "photo", "resume", true],
    [`${WATCHING} picked photoSeen first`, "watching", "pause", true],
    [`${WATCHING} measuring`, "measuring", "resume", false],
    [`${WATCHING} measuring opening opened`, "watching", "pause", true],
    [`${WATCHING} opening`, "loading", "resume", false],
    [`${WATCHING} refused`, "unusable", "resume", false],
  ];
  for (const [names, screen, first, usable] of cases) {
    const state = reach(names);
    assert.equal(screenOf(state), screen, names);
    assert.deepEqual([controlsOf(state).first, controlsOf(state).usable], [first, usable], names);
  }
});

test("labels are of what is seen, or are gone", () => {
  for (const names of [WATCHING, `${WATCHING} first`, "opened picked photoSeen"]) assert.equal(sightOf(reach(names)), sight, names);
  const gone = ["missed", "taken", "switched", "opening", "refused", "measuring", "picked", "picked photoRefused", "hide", "first first"];
  for (const names of gone) assert.equal(sightOf(reach(`${WATCHING} ${names}`)), null, names);
  for (const names of ["opened seen", "opened first hide seen", `${WATCHING} first opening opened seen`]) {
    assert.equal(sightOf(reach(names)), null, `${names}: a late answer`);
  }
});

test("the camera runs while it is watched, and at no other time", () => {
  for (const names of ["opened first", WATCHING, `${WATCHING} hide show`, `${WATCHING} measuring opening opened`]) assert.ok(watches(reach(names)), names);
  const rests = ["first", "taken", "picked", "hide", "opening", "refused", "measuring"];
  for (const names of rests) assert.ok(!watches(reach(`${WATCHING} ${names}`)), names);
  assert.ok(!watches(reach("opened hide show")));
});

test("what is wrong, until something else is done", () => {
  assert.equal(problemOf(reach(WATCHING)), null);
  assert.equal(problemOf(reach("refused")), "damaged");
  assert.equal(problemOf(reach(`${WATCHING} taken`)), "taken");
  assert.equal(problemOf(reach(`${WATCHING} taken picked`)), null);
  assert.equal(problemOf(reach("opened picked photoRefused")), "no picture");
  assert.equal(problemOf(reach("opened picked photoRefused first")), null);
  assert.equal(problemOf(reach("opened noticed")), "hidden");
  for (const name of ["first", "picked", "measuring", "opening"]) assert.equal(problemOf(reach(`opened noticed ${name}`)), null, name);
});

test("the torch and the other camera, where there are any", () => {
  assert.deepEqual([controlsOf(reach(WATCHING)).torch, controlsOf(reach(WATCHING)).switches], [true, true]);
  assert.ok(reach(`${WATCHING} lit`).torch);
  for (const names of ["first", "switched", "hide", "picked"]) {
    const state = reach(`${WATCHING} lit ${names}`);
    assert.deepEqual([state.torch, controlsOf(state).torch], [false, false], names);
  }
  assert.ok(reach(`${WATCHING} switched`).front);
  assert.ok(!reach(`${WATCHING} first switched`).front);
  const lonely = after(reach("opened first"), { kind: "filming", cameras: 1, hasTorch: false });
  assert.deepEqual([controlsOf(lonely).torch, controlsOf(lonely).switches], [false, false]);
});

test("shares as people read them", () => {
  const cases = [[0, "0.0 %"], [0.00001, "0.1 %"], [0.4567, "45.7 %"], [0.9997, "99.9 %"], [1, "100.0 %"]];
  for (const [share, text] of cases) assert.equal(percent(share), text);
});
