/** Keeps the screen on. A browser takes the lock back whenever the page is hidden, so it is asked for again when the page is seen. */

export class Awake {
  constructor() {
    this.wanted = false;
    this.lock = null;
    this.busy = false;
    document.addEventListener("visibilitychange", () => this.#agree());
  }

  /** @param {boolean} wanted */
  keep(wanted) {
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    this.#agree();
  }

  /** One request at a time; what was wanted meanwhile is looked at after it. */
  async #agree() {
    if (this.busy || !navigator.wakeLock) return;
    this.busy = true;
    try {
      for (;;) {
        const wanted = this.wanted && !document.hidden;
        const held = this.lock !== null && !this.lock.released;
        if (wanted === held) return;
        if (wanted) this.lock = await navigator.wakeLock.request("screen");
        else await this.lock.release();
      }
    } catch {
      // refused, as with a battery that is nearly empty: the screen then goes off as it would without
    } finally {
      this.busy = false;
    }
  }
}
