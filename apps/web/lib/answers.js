/** Logits to what is shown. @typedef {{label: string, index: number, probability: number}} Answer */

/**
 * The most probable labels, the most probable first, of equal ones that with the smaller index.
 * @param {ArrayLike<number>} logits one per label
 * @param {string[]} labels
 * @param {number} count
 * @returns {Answer[]} probabilities are softmax over all labels
 */
export function answers(logits, labels, count) {
  const values = Array.from(logits);
  const largest = Math.max(...values);
  const exponents = values.map((value) => Math.exp(value - largest));
  const sum = exponents.reduce((total, value) => total + value, 0);
  const order = values.map((_, index) => index).sort((a, b) => values[b] - values[a] || a - b);
  return order.slice(0, count).map((index) => ({ label: labels[index], index, probability: exponents[index] / sum }));
}
