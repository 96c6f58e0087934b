/**
 * A picture to the model's input, by the contract: antialiased resize in two passes, to squash or to crop.
 *
 * The reference is Pillow's resize, whose sums are integer: weights are rounded to 22 bits, and the columns' pass is rounded to 8
 * bits before the rows' pass. Doing the same gives the same bytes. No specification says which filter a canvas's drawImage has.
 *
 * @typedef {import("./payload.js").Contract} Contract
 * @typedef {{first: Int32Array, count: Int32Array, weights: Int32Array, stride: number}} Taps
 *   For each output pixel: its first source pixel, how many, and their weights from `index * stride` on.
 */

import { ArtifactError, GRID } from "./payload.js";

const MAX_PIXELS = 178_956_970; // as in lavit_edge/contract/pictures.py
const BITS = 22; // of a weight's fraction: 255 times the largest sum of weights stays within 31 bits
const HALF = 1 << (BITS - 1);
const CUBIC = -0.5; // the parameter of Pillow's cubic

const FILTERS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    at: (x) => {
      const d = Math.abs(x);
      if (d < 1) return ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1;
      return d < 2 ? ((d - 5) * d + 8) * d * CUBIC - 4 * CUBIC : 0;
    },
  },
};

/**
 * Makes inputs of one contract. Its buffers are made once for each size of frame; a frame after that allocates nothing.
 *
 * It reads whole pixels, as little-endian words, and adds whole rows: 640 x 480 to 160 x 160, bicubic, took 3.4 ms on a desktop
 * CPU, byte by byte 5.4 ms.
 */
export class Preprocessor {
  /** @param {Contract} contract */
  constructor(contract) {
    this.contract = contract;
    /** uint8 RGB, size x size x 3; the next call of run overwrites it. */
    this.input = new Uint8ClampedArray(contract.size * contract.size * 3);
    this.sums = new Int32Array(contract.size * 3);
    this.words = new Uint32Array(0);
    this.width = 0;
    this.height = 0;
  }

  /**
   * @param {Uint8Array | Uint8ClampedArray} pixels rows of RGB or RGBA; alpha is ignored
   * @param {number} width
   * @param {number} height
   * @param {3 | 4} channels
   * @returns {Uint8ClampedArray} `this.input`
   */
  run(pixels, width, height, channels) {
    if (!(width > 0 && height > 0) || pixels.length !== width * height * channels) {
      throw new ArtifactError(`a picture of ${width} x ${height} pixels does not have ${pixels.length} values`);
    }
    if (width !== this.width || height !== this.height) this.#prepare(width, height);
    const { columns, rows, firstRow, lastRow, narrow, sums, input } = this;
    const words = this.#words(pixels, width * height, channels);
    const { size } = this.contract;
    for (let row = firstRow; row < lastRow; row++) squeezeRow(words, row * width, columns, narrow, (row - firstRow) * size * 3, size);
    for (let row = 0; row < size; row++) squeezeColumns(narrow, firstRow, rows, row, sums, input);
    return input;
  }

  /** One word per pixel, red in its low byte: RGBA as it lies in memory; RGB, which golden pictures have, is copied. */
  #words(pixels, count, channels) {
    if (channels === 4 && pixels.byteOffset % 4 === 0) return new Uint32Array(pixels.buffer, pixels.byteOffset, count);
    if (this.words.length !== count) this.words = new Uint32Array(count);
    for (let pixel = 0, at = 0; pixel < count; pixel++, at += channels) {
      this.words[pixel] = pixels[at] | (pixels[at + 1] << 8) | (pixels[at + 2] << 16);
    }
    return this.words;
  }

  #prepare(width, height) {
    const { size, interpolation } = this.contract;
    const view = frame(this.contract, width, height);
    this.columns = taps(width, view.width, view.left, size, FILTERS[interpolation]);
    this.rows = taps(height, view.height, view.top, size, FILTERS[interpolation]);
    this.firstRow = this.rows.first[0];
    this.lastRow = this.rows.first[size - 1] + this.rows.count[size - 1];
    this.narrow = new Uint8ClampedArray((this.lastRow - this.firstRow) * size * 3);
    this.width = width;
    this.height = height;
  }
}

/**
 * The size that a picture is resized to, and where in it the square begins.
 * @param {Contract} contract
 * @param {number} width
 * @param {number} height
 */
export function frame(contract, width, height) {
  const { size } = contract;
  if (contract.resize === "squash") return within(size, size, height, { left: 0, top: 0 });
  const short = Math.max(size, roundHalfEven(size / contract.crop_fraction));
  const scale = short / Math.min(width, height);
  const [wide, high] = [width, height].map((side) => Math.max(short, roundHalfEven(side * scale)));
  return within(wide, high, height, { left: Math.floor((wide - size) / 2), top: Math.floor((high - size) / 2) });
}

function within(width, height, from, corner) {
  if (width * Math.max(height, from) > MAX_PIXELS) throw new ArtifactError("a picture too long and thin");
  return { width, height, ...corner };
}

/** As Python rounds: halves to the even neighbour. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * Weights for `size` output pixels from `offset` on, of an axis of `from` pixels resized to `to`.
 * @returns {Taps}
 */
function taps(from, to, offset, size, filter) {
  const scale = from / to;
  const wide = Math.max(scale, 1); // antialiasing: the filter grows with the shrinking
  const support = filter.support * wide;
  const stride = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(size);
  const count = new Int32Array(size);
  const weights = new Int32Array(size * stride);
  const exact = new Float64Array(stride);
  for (let index = 0; index < size; index++) {
    const centre = (offset + index + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    let sum = 0;
    for (let at = begin; at < end; at++) sum += exact[at - begin] = filter.at((at - centre + 0.5) * (1 / wide));
    for (let k = 0; k < end - begin; k++) {
      const weight = (exact[k] / sum) * (1 << BITS);
      weights[index * stride + k] = Math.trunc(weight + (weight < 0 ? -0.5 : 0.5));
    }
    first[index] = begin;
    count[index] = end - begin;
  }
  return { first, count, weights, stride };
}

/** One row of the source, from the word `base` on, to `size` RGB pixels of `out`, which clamps to 0..255. */
function squeezeRow(words, base, columns, out, to, size) {
  const { first, count, weights, stride } = columns;
  for (let x = 0; x < size; x++) {
    let red = HALF;
    let green = HALF;
    let blue = HALF;
    let at = base + first[x];
    const end = x * stride + count[x];
    for (let k = x * stride; k < end; k++, at++) {
      const weight = weights[k];
      const word = words[at];
      red = (red + Math.imul(word & 255, weight)) | 0;
      green = (green + Math.imul((word >>> 8) & 255, weight)) | 0;
      blue = (blue + Math.imul((word >>> 16) & 255, weight)) | 0;
    }
    out[to++] = red >> BITS;
    out[to++] = green >> BITS;
    out[to++] = blue >> BITS;
  }
}

/** One row of the input from rows of `narrow`, the first of which is the source's `firstRow`; `sums` is one row. */
function squeezeColumns(narrow, firstRow, rows, row, sums, out) {
  const { first, count, weights, stride } = rows;
  const length = sums.length;
  const end = row * stride + count[row];
  sums.fill(HALF);
  for (let k = row * stride, at = (first[row] - firstRow) * length; k < end; k++, at += length) {
    const weight = weights[k];
    for (let x = 0; x < length; x++) sums[x] = (sums[x] + Math.imul(narrow[at + x], weight)) | 0;
  }
  for (let x = 0, to = row * length; x < length; x++) out[to++] = sums[x] >> BITS;
}

/**
 * An input as the model takes it: (1, 3, size, size), values 0 to 255.
 * @param {Uint8ClampedArray} input size x size x 3
 * @param {Float32Array} tensor filled
 * @returns {Float32Array} `tensor`
 */
export function toTensor(input, tensor) {
  const plane = tensor.length / 3;
  for (let pixel = 0, at = 0; pixel < plane; pixel++) {
    tensor[pixel] = input[at++];
    tensor[plane + pixel] = input[at++];
    tensor[2 * plane + pixel] = input[at++];
  }
  return tensor;
}

/** 16 x 16 pixels of an input, those in rows and columns (2 i + 1) size / 32, rounded down. */
export function sampleOf(input, size) {
  const at = Array.from({ length: GRID }, (_, index) => Math.floor(((2 * index + 1) * size) / (2 * GRID)));
  const pixels = at.flatMap((row) => at.map((column) => (row * size + column) * 3));
  return Uint8Array.from(pixels.flatMap((pixel) => [input[pixel], input[pixel + 1], input[pixel + 2]]));
}
