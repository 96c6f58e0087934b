/**
 * Writes benchmark reports (lavit_edge/benchmark/report.schema.json). All numbers are integers, so canonical JSON takes no rule
 * for floating point and the digest is the same in every language.
 */

import { sha256 } from "./payload.js";

export const FORMAT = "lavit_edge.report/1";
export const MOST_SAMPLES = 20_000; // beyond it a report has quantiles instead
const MINUTE = 60_000_000_000; // ns

/** The fields of which `lacks` speaks; a test holds them against the schema. */
export const LACKING = [
  "artifact.content_sha256",
  "artifact.contract_sha256",
  "artifact.precision",
  "conditions.after.thermal",
  "conditions.before.power",
  "conditions.before.thermal",
  "device.cpu",
  "device.cpu_features",
  "device.name",
  "device.os_version",
  "harness.build",
  "memory.peak_bytes",
  "preprocessing",
  "runtime.version",
  "settings.threads",
];

/**
 * RFC 8785 for what a report holds: sorted names, no white space, integers.
 * @param {any} value
 * @returns {string}
 */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const names = Object.keys(value).sort();
    return `{${names.map((name) => `${canonical(name)}:${canonical(value[name])}`).join(",")}}`;
  }
  if (typeof value === "number" && !Number.isSafeInteger(value)) throw new TypeError(`${value} is not an integer of a report`);
  if (typeof value === "string" && /\p{Surrogate}/u.test(value)) throw new TypeError("a text with half of a surrogate pair");
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`a ${typeof value} has no place in a report`);
  return text === "-0" ? "0" : text;
}

/**
 * SHA-256 of the canonical JSON of all but the report's own `sha256`.
 * @param {Record<string, any>} report
 */
export async function digest(report) {
  const { sha256: _, ...rest } = report;
  return sha256(new TextEncoder().encode(canonical(rest)));
}

/** Those of LACKING that are null in a report. */
export function lacks(report) {
  return LACKING.filter((path) => (path.split(".").reduce((value, name) => value?.[name], report) ?? null) === null);
}

/**
 * By nearest rank: value ceil(q n) of the n in order, from 1; no interpolation.
 * @param {ArrayLike<number>} ordered
 * @param {number} permille
 */
export function quantile(ordered, permille) {
  return ordered[Math.max(Math.ceil((permille * ordered.length) / 1000), 1) - 1];
}

/** In order; of typed arrays too, whose sort is numeric as it is. */
export function sorted(values) {
  return Float64Array.from(values).sort();
}

/**
 * The field `latency` of runs that took `samples` and began at `starts`, integers in ns, in the order of the runs.
 * @param {number[]} samples
 * @param {number[]} starts
 */
export function latency(samples, starts) {
  const ordered = sorted(samples);
  const duration = starts.at(-1) + samples.at(-1) - starts[0];
  /** @type {number[][]} */
  const minutes = [];
  for (const [index, start] of starts.entries()) {
    (minutes[Math.floor((start - starts[0]) / MINUTE)] ??= []).push(samples[index]);
  }
  const whole = minutes.slice(0, Math.floor(duration / MINUTE)).filter(Boolean); // a run of over a minute leaves minutes without a start
  const few = samples.length <= MOST_SAMPLES;
  return {
    runs: samples.length,
    duration_ns: duration,
    min_ns: ordered[0],
    p50_ns: quantile(ordered, 500),
    p90_ns: quantile(ordered, 900),
    p99_ns: quantile(ordered, 990),
    max_ns: ordered[ordered.length - 1],
    samples_ns: few ? [...samples] : null,
    quantiles_ns: few ? null : Array.from({ length: 1001 }, (_, permille) => quantile(ordered, permille)),
    minutes_p50_ns: whole.map((minute) => quantile(sorted(minute), 500)),
  };
}

/** Now, UTC, in whole seconds. */
export function now() {
  return `${new Date().toISOString().slice(0, 19)}Z`;
}

/**
 * A report with what every report has: format, id, `lacks`, digest.
 * @param {Record<string, any>} report
 */
export async function finish(report) {
  const whole = { format: FORMAT, id: crypto.randomUUID(), created: now(), ...report };
  whole.lacks = lacks(whole);
  whole.sha256 = await digest(whole);
  return whole;
}
