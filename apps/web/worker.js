/**
 * The model and all that is done to a frame. Three jobs: `open` a model and let it test itself, `classify` a frame with it, or, in a
 * worker that has done nothing before, `benchmark` it.
 */

import { decide, ranked, softmax } from "./lib/answers.js";
import { benchmark, download } from "./lib/benchmark.js";
import { Pixels } from "./lib/frames.js";
import { ArtifactError, checkSeal, readMetadata, readPayload } from "./lib/payload.js";
import { Preprocessor, toTensor } from "./lib/picture.js";
import { openModel, openRuntime } from "./lib/runtime.js";
import { selftest } from "./lib/selftest.js";

const TOP = 3; // labels
const pixels = new Pixels();
let opened = null; // what `classify` needs

const jobs = {
  /**
   * @param {{artifact: string, runtime: string, threads: number}} given URLs
   * @returns what the page shows of the model
   */
  async open({ artifact, runtime, threads: wanted }) {
    const bytes = await download(artifact);
    const { problem } = await checkSeal(bytes);
    if (problem) throw new ArtifactError(problem);
    const { contract, provenance, ...rest } = readPayload(readMetadata(bytes));
    const { ort, version, threads } = await openRuntime(runtime, wanted);
    const model = await openModel(ort, bytes, contract.size);
    const tested = await selftest({ contract, ...rest }, model.run);
    const failed = tested.checks.find((check) => !check.passed);
    if (failed) throw new ArtifactError(`fails its self-test here: ${failed.name}: ${failed.found}`);
    opened = { model, contract, preprocessor: new Preprocessor(contract), tensor: new Float32Array(3 * contract.size ** 2) };
    const { checkpoint, precision } = provenance;
    const { size, labels, threshold } = contract;
    return { name: checkpoint?.name, precision, size, labels, threshold, tested, threads, version };
  },

  /**
   * @param {{source: VideoFrame | ImageBitmap}} given
   * @returns `answers`, the most probable labels; `best`, the index of the one that the picture is called by, null: not sure; all
   *   `probabilities`, which a live view's Steady wants; `times`, how long each part took, in ms
   */
  async classify({ source }) {
    const { model, contract, preprocessor, tensor } = opened;
    const begin = performance.now();
    const picture = await pixels.read(source);
    const copied = performance.now();
    toTensor(preprocessor.run(picture.pixels, picture.width, picture.height, 4), tensor);
    const prepared = performance.now();
    const logits = await model.run(tensor);
    if (!logits.every(Number.isFinite)) throw new ArtifactError("the model gives logits that are not finite");
    const times = { copy: copied - begin, prepare: prepared - copied, model: performance.now() - prepared };
    const probabilities = softmax(logits, contract.temperature);
    const best = decide(probabilities, contract.threshold);
    return { answers: ranked(probabilities, contract.labels, TOP), best, probabilities, times };
  },

  /** @param {import("./lib/benchmark.js").Job} given without its functions */
  async benchmark(given, id) {
    return benchmark({
      ...given,
      condition: () => {
        postMessage({ id, kind: "condition" });
        return new Promise((resolve) => (heard = resolve));
      },
      progress: (what, share) => postMessage({ id, kind: "progress", value: { what, share } }),
    });
  },
};
let heard = null; // waits for the page to tell the device's condition

let turn = Promise.resolve(); // one job after another: they share buffers and a session

addEventListener("message", ({ data }) => {
  if (data.condition) heard(data.condition);
  else turn = turn.then(() => work(data));
});

async function work({ id, job, given }) {
  try {
    postMessage({ id, kind: "done", value: await jobs[job](given, id) });
  } catch (error) {
    postMessage({ id, kind: error instanceof ArtifactError ? "refused" : "failed", value: error.message || String(error) });
  }
}
