/**
 * An artifact tests itself: the checks of lavit_edge/selftest.py, on the golden pictures that it carries.
 *
 * @typedef {import("./payload.js").Payload} Payload
 * @typedef {{name: string, passed: boolean, found: string}} Check
 * @typedef {{passed: boolean, pictures: number, same_top1: number, worst_millisteps: number | null, checks: Check[]}} Selftest
 */

import { topOf } from "./answers.js";
import { Preprocessor, sampleOf, toTensor } from "./picture.js";

export const GREY_LEVELS = 1; // that an input may be off

/**
 * @param {Payload} payload
 * @param {(tensor: Float32Array) => Promise<Float32Array>} run input (1, 3, size, size) to logits
 * @returns {Promise<Selftest>} two checks for each picture, and one of them all
 */
export async function selftest(payload, run) {
  const { size } = payload.contract;
  const preprocessor = new Preprocessor(payload.contract);
  const tensor = new Float32Array(3 * size * size);
  const checks = [];
  let same = 0;
  let worst = 0;
  let close = 0;
  for (const golden of payload.golden) {
    const input = preprocessor.run(golden.picture, golden.width, golden.height, 3);
    checks.push(checkInput(golden, input, size));
    const logits = await run(toTensor(input, tensor));
    checks.push(checkLogits(golden, logits, payload));
    if (topOf(logits) === topOf(golden.logits)) same += 1;
    const off = stepsOff(golden, logits, payload).worst;
    worst = Math.max(worst, off);
    if (off <= payload.closeSteps) close += 1;
  }
  checks.push(checkClose(close, payload));
  return {
    passed: checks.every((check) => check.passed),
    pictures: payload.golden.length,
    same_top1: same,
    worst_millisteps: Number.isFinite(worst) ? Math.round(1000 * worst) : null,
    checks,
  };
}

/** Compares 256 pixels of the preprocessed picture with what the exporter had there. */
export function checkInput(golden, input, size) {
  const sample = sampleOf(input, size);
  let worst = 0;
  let at = 0;
  for (let index = 0; index < sample.length; index++) {
    const off = Math.abs(sample[index] - golden.sample[index]);
    if (off > worst) [worst, at] = [off, index];
  }
  const passed = worst <= GREY_LEVELS;
  const [row, column] = [Math.floor(at / 48), Math.floor(at / 3) % 16].map((k) => Math.floor(((2 * k + 1) * size) / 32));
  const where = ` (row ${row}, column ${column}, ${"RGB"[at % 3]}), ${GREY_LEVELS} allowed: resizing or channel order differs`;
  return { name: `${golden.name}: preprocessing`, passed, found: `at most ${worst} of 255 off${passed ? "" : where}` };
}

/** Whether enough golden pictures are answered as the program answers them; a fault in a layer shows on each. */
function checkClose(close, { golden, closeSteps, closePictures }) {
  const found = `${close} of ${golden.length} pictures within ${closeSteps} steps, ${closePictures} needed`;
  return { name: "close pictures", passed: close >= closePictures, found };
}

/**
 * Compares the artifact's logits, less their mean, with those of the program that it was made from; and its first label, where the
 * program's leads by more than the tolerance.
 */
export function checkLogits(golden, logits, payload) {
  const name = `${golden.name}: logits`;
  const { worst, label } = stepsOff(golden, logits, payload);
  if (!Number.isFinite(worst)) {
    return { name, passed: false, found: `${logits.length} for ${golden.logits.length} labels, or values that are not finite` };
  }
  const found = `at most ${worst.toFixed(2)} steps off, ${golden.tolerance} allowed`;
  if (!(worst <= golden.tolerance)) return { name, passed: false, found: `${found}: label '${label}' differs most` };
  const [first, expected] = [topOf(logits), topOf(golden.logits)];
  const lead = (golden.logits[expected] - golden.logits[first]) / payload.step;
  if (lead > golden.tolerance) {
    const { labels } = payload.contract;
    const other = `label '${labels[first]}' is first, not '${labels[expected]}' by ${lead.toFixed(2)} steps`;
    return { name, passed: false, found: `${found}: ${other}` };
  }
  return { name, passed: true, found };
}

/** The largest difference of a logit in steps, and its label; NaN if there is a logit too many, too few or not finite. */
function stepsOff(golden, logits, payload) {
  if (logits.length !== golden.logits.length || !logits.every(Number.isFinite)) return { worst: NaN, label: "" };
  const [given, expected] = [centred(logits), centred(golden.logits)];
  const steps = given.map((value, index) => Math.abs(value - expected[index]) / payload.step);
  const worst = Math.max(...steps);
  return { worst, label: payload.contract.labels[steps.indexOf(worst)] };
}

/** Values less their mean, which neither the first label nor probabilities depend on. */
function centred(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Array.from(values, (value) => value - mean);
}
