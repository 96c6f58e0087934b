/**
 * The model and all that is done to a frame. Three jobs: `open` a model and let it test itself, `classify` a frame with it, or, in a
 * worker that has done nothing before, `benchmark` it.
 */

import { answers } from "./lib/answers.js";
import { benchmark, download } from "./lib/benchmark.js";
import { Pixels } from "./lib/frames.js";
import { ArtifactError, checkSeal, readMetadata, readPayload } from "./lib/payload.js";
import { Preprocessor, toTensor } from "./lib/picture.js";
import { openModel, openRuntime } from "./lib/runtime.js";
import { selftest } from "./lib/selftest.js";

const SHOWN = 3; // labels
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
    const { checks, ...tested } = await selftest({ contract, ...rest }, model.run);
    const failed = checks.find((check) => !check.passed);
    if (failed) throw new ArtifactError(`fails its self-test here: ${failed.name}: ${failed.found}`);
    opened = {
      model,
      labels: contract.labels,
      preprocessor: new Preprocessor(contract),
      tensor: new Float32Array(3 * contract.size ** 2),
    };
    const { checkpoint, precision } = provenance;
    return { name: checkpoint?.name, precision, size: contract.size, labels: contract.labels.length, tested, threads, version };
  },

  /**
   * @param {{source: VideoFrame | ImageBitmap}} given
   * @returns the most probable labels, and how long each part took, in ms
   */
  async classify({ source }) {
    const { model, labels, preprocessor, tensor } = opened;
    const begin = performance.now();
    const picture = await pixels.read(source);
    const copied = performance.now();
    toTensor(preprocessor.run(picture.pixels, picture.width, picture.height, 4), tensor);
    const prepared = performance.now();
    const logits = await model.run(tensor);
    if (!logits.every(Number.isFinite)) throw new ArtifactError("gives logits that are not finite");
    const times = { copy: copied - begin, prepare: prepared - copied, model: performance.now() - prepared };
    return { answers: answers(logits, labels, SHOWN), times };
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
