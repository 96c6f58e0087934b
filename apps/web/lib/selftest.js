/**
 * An artifact tests itself: the checks of lavit_edge/selftest.py, on the golden pictures that it carries.
 *
 * @typedef {import("./payload.js").Payload} Payload
 * @typedef {{name: string, passed: boolean, found: string}} Check
 * @typedef {{passed: boolean, pictures: number, same_top1: number, worst_millisteps: number | null, checks: Check[]}} Selftest
 */

import { Preprocessor, sampleOf, toTensor } from "./picture.js";

export const GREY_LEVELS = 1; // that an input may be off

/**
 * @param {Payload} payload
 * @param {(tensor: Float32Array) => Promise<Float32Array>} run input (1, 3, size, size) to logits
 * @returns {Promise<Selftest>} two checks for each picture
 */
export async function selftest(payload, run) {
  const { size } = payload.contract;
  const preprocessor = new Preprocessor(payload.contract);
  const tensor = new Float32Array(3 * size * size);
  const checks = [];
  let same = 0;
  let worst = 0;
  for (const golden of payload.golden) {
    const input = preprocessor.run(golden.picture, golden.width, golden.height, 3);
    checks.push(checkInput(golden, input, size));
    const logits = await run(toTensor(input, tensor));
    checks.push(checkLogits(golden, logits, payload));
    if (topOf(logits) === topOf(golden.logits)) same += 1;
    worst = Math.max(worst, stepsOff(golden, logits, payload).worst);
  }
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

/** Compares the artifact's logits with those of the program that it was made from. */
export function checkLogits(golden, logits, payload) {
  const name = `${golden.name}: logits`;
  const { worst, label } = stepsOff(golden, logits, payload);
  if (!Number.isFinite(worst)) {
    return { name, passed: false, found: `${logits.length} for ${golden.logits.length} labels, or values that are not finite` };
  }
  const passed = worst <= payload.tolerance;
  const found = `at most ${worst.toFixed(2)} steps off, ${payload.tolerance} allowed`;
  return { name, passed, found: passed ? found : `${found}: label '${label}' differs most` };
}

/** The largest difference of a logit in steps, and its label; NaN if there is a logit too many, too few or not finite. */
function stepsOff(golden, logits, payload) {
  if (logits.length !== golden.logits.length || !logits.every(Number.isFinite)) return { worst: NaN, label: "" };
  const steps = Array.from(logits, (value, index) => Math.abs(value - golden.logits[index]) / payload.step);
  const worst = Math.max(...steps);
  return { worst, label: payload.contract.labels[steps.indexOf(worst)] };
}

/** Index of the largest value, the first of equal ones. */
export function topOf(values) {
  return values.reduce((best, value, index) => (value > values[best] ? index : best), 0);
}
