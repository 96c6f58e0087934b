/**
 * Logits to what is shown, in float64, as in every language: tests/golden/answers.json and decisions.json.
 *
 * @typedef {{label: string, index: number, probability: number}} Answer
 */

/**
 * @param {ArrayLike<number>} logits one per label
 * @param {number} temperature of the contract: above 1 the model is less sure than its logits say
 * @returns {Float64Array}
 */
export function softmax(logits, temperature) {
  const values = Float64Array.from(logits, (value) => value / temperature);
  const largest = values.reduce((a, b) => Math.max(a, b));
  const exponents = values.map((value) => Math.exp(value - largest));
  const sum = exponents.reduce((total, value) => total + value, 0);
  return exponents.map((value) => value / sum);
}

/** Index of the largest value, the first of equal ones. @param {ArrayLike<number>} values */
export function topOf(values) {
  let best = 0;
  for (let index = 1; index < values.length; index++) if (values[index] > values[best]) best = index;
  return best;
}

/**
 * What a picture is called by.
 * @param {ArrayLike<number>} probabilities
 * @param {number} threshold of the contract
 * @returns {number | null} the index of a label; null: not sure
 */
export function decide(probabilities, threshold) {
  const best = topOf(probabilities);
  return probabilities[best] >= threshold ? best : null;
}

/**
 * The most probable labels, the most probable first, of equal ones that with the smaller index.
 * @param {ArrayLike<number>} probabilities one per label
 * @param {string[]} labels
 * @param {number} count
 * @returns {Answer[]}
 */
export function ranked(probabilities, labels, count) {
  const order = labels.map((_, index) => index).sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  return order.slice(0, count).map((index) => ({ label: labels[index], index, probability: probabilities[index] }));
}

const TIME_CONSTANT = 0.5; // seconds
const MARGIN = 0.1; // by which another label must lead, or the one that is shown must fall below the threshold, before it changes

/** The answer of a live view: of frames' averaged probabilities, and kept until another one is clearly ahead. */
export class Steady {
  /** @param {number} threshold */
  constructor(threshold) {
    this.threshold = threshold;
    this.reset();
  }

  /** After a switch of camera, a pause, another model. */
  reset() {
    /** @type {Float64Array | null} the averages */
    this.average = null;
    /** @type {number | null} */
    this.shown = null;
    this.last = 0;
  }

  /**
   * @param {number} seconds when the frame was taken, by a clock that runs on; no frame is before the last
   * @param {ArrayLike<number>} probabilities
   * @returns {number | null} the index of a label; null: not sure
   */
  add(seconds, probabilities) {
    if (this.average) {
      const share = 1 - Math.exp(-Math.max(seconds - this.last, 0) / TIME_CONSTANT);
      for (let index = 0; index < this.average.length; index++) {
        this.average[index] += share * (probabilities[index] - this.average[index]);
      }
    } else {
      this.average = Float64Array.from(probabilities);
    }
    this.last = seconds;
    const best = topOf(this.average);
    const [shown, leads] = [this.shown === null ? -1 : this.average[this.shown], this.average[best]];
    const keeps = this.shown !== null && shown >= this.threshold - MARGIN && leads - shown < MARGIN;
    if (!keeps) this.shown = leads >= this.threshold ? best : null;
    return this.shown;
  }
}
