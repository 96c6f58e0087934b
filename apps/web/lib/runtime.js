/**
 * ONNX Runtime Web on WebAssembly. Its number of threads is fixed for a page's life by the first session.
 *
 * @typedef {{run: (tensor: Float32Array) => Promise<Float32Array>}} Model input (1, 3, size, size) to logits
 */

import { ArtifactError } from "./payload.js";

/** Memories of WebAssembly that this page makes from here on; they never shrink, so their sizes are their peaks. */
const memories = [];
WebAssembly.Memory = new Proxy(WebAssembly.Memory, {
  construct(target, given) {
    const memory = Reflect.construct(target, given);
    memories.push(memory);
    return memory;
  },
});

const RUNTIME = "ort.wasm.min.mjs";

/** An .onnx of one Identity. To open it makes the runtime fetch and compile its WebAssembly and start its threads. */
const NOTHING = "CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEBQ=";

/**
 * The runtime, ready to open models.
 * @param {string} base URL of the folder with ort.wasm.min.mjs, with a slash at its end; seen from the page
 * @param {number} threads more than one only where the page is cross-origin isolated; else one, as `threads` of the answer says
 */
export async function openRuntime(base, threads) {
  const folder = new URL(base, location.href).href; // the runtime fetches its WebAssembly from its own place, not the page's
  const ort = await import(`${folder}${RUNTIME}`).catch((error) => {
    throw new Error(`ONNX Runtime Web cannot be loaded (${RUNTIME}: ${error.message})`);
  });
  ort.env.wasm.wasmPaths = folder;
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? threads : 1;
  ort.env.logLevel = "error";
  try {
    await (await ort.InferenceSession.create(Uint8Array.from(atob(NOTHING), (letter) => letter.charCodeAt(0)))).release();
  } catch (error) {
    throw new Error(`ONNX Runtime Web cannot start its WebAssembly (${error.message ?? error})`);
  }
  return { ort, version: ort.env.versions.web, threads: ort.env.wasm.numThreads };
}

/** Most bytes that WebAssembly has had in this page. */
export function heapBytes() {
  return memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
}

/**
 * @param {any} ort
 * @param {Uint8Array} bytes an .onnx of ours: `image` (1, 3, size, size) to `logits` (1, classes)
 * @param {number} size
 * @returns {Promise<Model>}
 */
export async function openModel(ort, bytes, size) {
  let session;
  try {
    session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new ArtifactError(`ONNX Runtime Web refuses it (${error.message ?? error})`);
  }
  const run = async (tensor) => {
    const { logits } = await session.run({ image: new ort.Tensor("float32", tensor, [1, 3, size, size]) });
    return logits.data;
  };
  return { run };
}
