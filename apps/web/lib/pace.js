/** What frames cost: medians of the last ones, and how many a second. */

import { quantile, sorted } from "./report.js";

const KEPT = 60; // frames
const PAST = 3000; // ms; older ones do not count
const EVERY = 250; // ms between two of the figures: faster ones cannot be read

export class Pace {
  constructor() {
    this.times = [];
    this.told = -Infinity;
    this.figures = {};
  }

  /**
   * @param {{model: number, prepare: number, copy: number}} times of a frame, in ms
   * @param {number} now in ms
   * @returns {Record<string, string>} `model`, `prepare`, `copy`, and from the second frame on `fps`
   */
  add(times, now) {
    this.times.push({ ...times, end: now });
    while (this.times.length > KEPT || now - this.times[0].end > PAST) this.times.shift();
    if (now - this.told < EVERY) return this.figures;
    this.told = now;
    const median = (part) => quantile(sorted(this.times.map((item) => item[part])), 500).toFixed(1);
    const span = now - this.times[0].end;
    const rate = span > 0 ? { fps: (((this.times.length - 1) * 1000) / span).toFixed(1) } : {};
    this.figures = { ...rate, model: median("model"), prepare: median("prepare"), copy: median("copy") };
    return this.figures;
  }
}
