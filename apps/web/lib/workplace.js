/** A worker with a runtime and a model of its own (worker.js), so that the page stays responsive. */

import { condition } from "./device.js";
import { ArtifactError } from "./payload.js";

/** What was asked of a workplace that has been closed. */
export class Closed extends Error {}

export class Workplace {
  constructor() {
    this.waiting = new Map();
    this.asked = 0;
    this.worker = new Worker(new URL("../worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.#hear(data);
    this.worker.onerror = (event) => this.#end(new Error(event.message ? `worker.js: ${event.message}` : "worker.js or a file that it imports cannot be loaded"));
  }

  /**
   * @param {"open" | "classify" | "benchmark"} job see worker.js
   * @param {Record<string, any>} given
   * @param {{transfer?: Transferable[], progress?: (what: string, share: number) => void}} [more]
   * @returns {Promise<any>}
   * @throws {ArtifactError | Closed | Error}
   */
  ask(job, given, { transfer = [], progress } = {}) {
    const id = this.asked++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, progress });
      this.worker.postMessage({ id, job, given }, transfer);
    });
  }

  close() {
    this.worker.terminate();
    this.#end(new Closed("closed"));
  }

  async #hear({ id, kind, value }) {
    if (kind === "condition") {
      this.worker.postMessage({ condition: await condition() }); // a worker does not see the battery
      return;
    }
    const { resolve, reject, progress } = this.waiting.get(id) ?? {};
    if (kind === "progress") {
      progress?.(value.what, value.share);
      return;
    }
    this.waiting.delete(id);
    if (kind === "done") resolve?.(value);
    else reject?.(kind === "refused" ? new ArtifactError(value) : new Error(value));
  }

  #end(error) {
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}
