/**
 * Measures an .onnx in ONNX Runtime Web and writes the report that every harness of lavit-edge writes.
 *
 * @typedef {object} Job
 * @property {string} artifact URL of the .onnx
 * @property {string} file its name
 * @property {string} runtime URL of the folder with ONNX Runtime Web, with a slash at its end
 * @property {string} version of lavit-edge
 * @property {number} threads
 * @property {number} seconds the least duration of the measurement, warm-up not counted
 * @property {boolean} force measure although the digest or the self-test fails; the report says so
 * @property {Record<string, any> | null} device field `device` of the report, where something outside the browser knows it
 * @property {"cold" | "warm" | null} file_cache whether the .onnx had to be read from storage
 * @property {() => Promise<Record<string, any>>} condition the device's state now
 * @property {(what: string, share: number) => void} progress what is going on, and the share of the whole that is done
 */

import { browser, device } from "./device.js";
import { ArtifactError, checkSeal, readMetadata, readPayload, sha256 } from "./payload.js";
import { Preprocessor, toTensor } from "./picture.js";
import { finish, latency, now, quantile, sorted } from "./report.js";
import { heapBytes, openModel, openRuntime } from "./runtime.js";
import { selftest } from "./selftest.js";

export const LEAST_RUNS = 50;
const WARMUP = { policy: "3 runs and 1 s, whichever is later", runs: 3, seconds: 1 };
const FRAME = { width: 640, height: 480, runs: 20 }; // that preprocessing is timed on
const TELL_EVERY = 500e6; // ns
const PRECISIONS = { int8: "int8", float: "float32" }; // of an .onnx

/** The clock as integer ns. Browsers make it coarse: 5 microseconds where isolated, 100 elsewhere. */
const clock = () => Math.round(performance.now() * 1e6);

/**
 * One report. The page must not have opened the runtime before.
 * @param {Job} job
 * @returns {Promise<Record<string, any>>}
 * @throws {ArtifactError} the artifact is not ours, is damaged, or the runtime refuses it
 */
export async function benchmark(job) {
  const created = now();
  const before = await job.condition();
  job.progress("loading", 0);
  const entered = clock();
  const { ort, version, threads } = await openRuntime(job.runtime, job.threads);
  const started = clock();
  const bytes = await download(job.artifact);
  const downloaded = clock();
  const { facts, payload, problem } = await inspect(bytes, job);
  const { size } = payload.contract;
  const opening = clock();
  const model = await openModel(ort, bytes, size);
  const cold = clock() - opening + downloaded - started;

  const [golden] = payload.golden;
  const preprocessor = new Preprocessor(payload.contract);
  const tensor = new Float32Array(3 * size * size);
  toTensor(preprocessor.run(golden.picture, golden.width, golden.height, 3), tensor);
  const first = await timed(() => model.run(tensor), 0, 1);
  job.progress("self-test", 0);
  const tested = await test(payload, model.run, problem, job.force);

  let warm = null;
  let times = null;
  if (tested.passed || job.force) {
    warm = await timed(() => model.run(tensor), WARMUP.seconds, WARMUP.runs);
    const tell = (share) => job.progress(`${threads} thread${threads > 1 ? "s" : ""}`, share);
    const { samples, starts } = await timed(() => model.run(tensor), job.seconds, LEAST_RUNS, tell);
    times = latency(samples, starts);
  }
  const least = Math.round(job.seconds * 1e9);
  return finish({
    created,
    harness: { name: "web", version: job.version, build: "release" },
    device: await device(job.device),
    runtime: { name: "ONNX Runtime Web", version, backend: "WASM", delegated_macs_permille: null, graph_breaks: null },
    artifact: facts,
    settings: {
      threads,
      least_duration_ns: least,
      least_runs: LEAST_RUNS,
      warmup: { policy: WARMUP.policy, runs: warm?.samples.length ?? 0, duration_ns: warm?.duration ?? 0 },
    },
    self_test: tested,
    load: { cold_ns: cold, first_inference_ns: first.samples[0], file_cache: job.file_cache },
    latency: times,
    preprocessing: await timePreprocessing(payload.contract, tensor),
    memory: { peak_bytes: heapBytes(), source: "WASM heap" },
    conditions: { before, after: await job.condition() },
    least_duration_met: times !== null && times.duration_ns >= least && times.runs >= LEAST_RUNS,
    notes: await notes(job.threads, threads, started - entered),
  });
}

/** Bytes of an artifact. @throws {ArtifactError} */
export async function download(url) {
  try {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    throw new ArtifactError(`cannot be fetched (${error.message})`);
  }
}

/** What an artifact is, before the runtime sees it. */
async function inspect(bytes, job) {
  const { digest, problem } = await checkSeal(bytes);
  if (problem && !job.force) throw new ArtifactError(`${problem}; nothing was measured`);
  const payload = readPayload(readMetadata(bytes));
  const { checkpoint, precision, val_top1: top1 } = payload.provenance;
  const facts = {
    file: job.file,
    bytes: bytes.length,
    sha256: await sha256(bytes),
    content_sha256: digest,
    contract_sha256: await sha256(new TextEncoder().encode(payload.contractText)), // as written it is canonical
    model: typeof checkpoint?.name === "string" ? checkpoint.name : null,
    precision: PRECISIONS[precision] ?? null,
    image_size: payload.contract.size,
    top1_permille: Number.isFinite(top1) && top1 >= 0 && top1 <= 1 ? Math.round(1000 * top1) : null,
  };
  return { facts, payload, problem };
}

/** The field `self_test`. `problem` is what was wrong with the artifact before it was loaded. */
async function test(payload, run, problem, force) {
  const { checks, passed, ...counts } = await selftest(payload, run);
  const wrong = checks.find((check) => !check.passed);
  const detail = problem ?? (wrong ? `${wrong.name}: ${wrong.found}` : null);
  return { ...counts, passed: detail === null, forced: force && detail !== null, detail: detail?.slice(0, 500) ?? null };
}

/**
 * Runs one after another until `seconds` and `runs` are both reached.
 * @param {() => Promise<unknown>} run
 * @param {number} seconds
 * @param {number} runs
 * @param {(share: number) => void} [tell] called between runs, with the share that is done
 * @returns {Promise<{samples: number[], starts: number[], duration: number}>} integers, ns
 */
export async function timed(run, seconds, runs, tell) {
  const samples = [];
  const starts = [];
  const least = Math.round(seconds * 1e9);
  let told = clock();
  for (;;) {
    const start = clock();
    await run();
    const end = clock();
    starts.push(start);
    samples.push(end - start);
    const duration = end - starts[0];
    if (duration >= least && samples.length >= runs) return { samples, starts, duration };
    if (tell && end - told > TELL_EVERY) {
      told = end;
      tell(Math.min(duration / Math.max(least, 1), samples.length / runs, 1));
      await new Promise((resolve) => setTimeout(resolve)); // lets the page breathe; no run is under way
    }
  }
}

/** The field `preprocessing`: a frame of noise, as a canvas hands it over. */
async function timePreprocessing(contract, tensor) {
  const { width, height, runs } = FRAME;
  const pixels = new Uint8ClampedArray(width * height * 4);
  for (let index = 0, state = 1; index < pixels.length; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    pixels[index] = state >>> 24;
  }
  const preprocessor = new Preprocessor(contract);
  const { samples } = await timed(async () => toTensor(preprocessor.run(pixels, width, height, 4), tensor), 0, runs);
  return { frame: `${width}x${height} RGBA`, runs, p50_ns: quantile(sorted(samples), 500) };
}

async function notes(wanted, threads, runtimeTime) {
  const isolated = globalThis.crossOriginIsolated;
  const told = [`Browser: ${await browser()}.`];
  told.push(`Before load, the runtime's WebAssembly took ${Math.round(runtimeTime / 1e6)} ms to fetch and compile.`);
  told.push(`Times are multiples of ${isolated ? 5 : 100} microseconds at best: the browser's clock.`);
  if (threads !== wanted) told.push(`${wanted} threads were asked for; this page is not cross-origin isolated and has one.`);
  return told.map((note) => note.slice(0, 500));
}
