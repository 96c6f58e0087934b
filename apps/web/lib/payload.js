/**
 * Reads what an .onnx of ours carries: contract, provenance, golden pictures, digest (docs/payload.md).
 *
 * onnxruntime-web does not show a model's metadata, so the file is walked as protobuf, its outermost message only. A length that
 * points behind the end, or a number that does not end, is an error; nothing is allocated by what a file says of itself.
 *
 * @typedef {{format: string, size: number, labels: string[], resize: "squash"|"crop", interpolation: "bilinear"|"bicubic",
 *   crop_fraction: number, mean: number[], std: number[], temperature: number, threshold: number}} Contract
 * @typedef {{name: string, width: number, height: number, picture: Uint8Array, sample: Uint8Array, logits: Float32Array,
 *   tolerance: number}} Golden `picture`: RGB, height x width x 3; `sample`: 16 x 16 x 3 of the input; `logits`: one per label;
 *   `tolerance`: the largest difference of a logit that passes, in steps.
 * @typedef {{contract: Contract, contractText: string, provenance: Record<string, any>, golden: Golden[], step: number,
 *   closeSteps: number, closePictures: number}} Payload So many of the pictures must be that close, besides each being within its
 *   tolerance.
 * @typedef {{dtype: string, shape: number[], bytes: Uint8Array}} Tensor
 */

export const KEY = "org.lavit_edge.";
export const GRID = 16; // an input is remembered as GRID x GRID of its pixels
const GOLDEN_FORMAT = "lavit_edge.golden/2";
const OLD_GOLDEN_FORMAT = "lavit_edge.golden/1"; // one tolerance for all, and the step is 1/255 of the range of all expected logits
const CONTRACT_FORMAT = "lavit_edge.contract/2";
const OLD_CONTRACT_FORMAT = "lavit_edge.contract/1"; // one that always answers: temperature 1, threshold 0
const FIELDS = ["size", "labels", "resize", "interpolation", "crop_fraction", "mean", "std"];
const ANSWER_FIELDS = ["temperature", "threshold"]; // of the newer format alone
const ENTRIES = ["contract", "provenance", "golden", "digest"];
const MARK = new TextEncoder().encode(`${KEY}sha256:`);
const DIGITS = 64;
const METADATA_PROPS = 14; // field of ModelProto
const COLDEST = 0.01; // a temperature below it makes any lead a certainty
const LARGEST_SIDE = 4096; // of a golden picture and of an input
const BYTES = { U8: 1, F32: 4 };

/** What a user can be told as it is: the file, not this code, is at fault. */
export class ArtifactError extends Error {}

/**
 * @param {Uint8Array} bytes
 * @returns {Promise<string>} SHA-256 in hexadecimal
 */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) throw new ArtifactError("no WebCrypto here: open this page over https or from localhost");
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * The digest of an artifact: of its bytes, with the digest's own digits as zeros.
 * @param {Uint8Array} bytes
 * @returns {Promise<{digest: string, problem: string | null}>} `problem` says why the bytes are not what was exported.
 */
export async function checkSeal(bytes) {
  const blank = bytes.slice();
  const stored = [];
  for (const at of marks(bytes)) {
    stored.push(new TextDecoder().decode(bytes.subarray(at, at + DIGITS)));
    blank.fill(0x30, at, at + DIGITS);
  }
  const digest = await sha256(blank);
  if (stored.length !== 1) {
    const what = stored.length ? `${stored.length} digests` : "no digest";
    return { digest, problem: `has ${what}; only an artifact exported by lavit-edge can test itself` };
  }
  const says = `its bytes have SHA-256 ${digest.slice(0, 16)}..., it says ${stored[0].slice(0, 16)}...`;
  return { digest, problem: stored[0] === digest ? null : `is not what was exported: ${says}` };
}

/** Where digests begin: 64 lower-case hexadecimal digits behind the mark. */
function* marks(bytes) {
  for (let at = bytes.indexOf(MARK[0]); at >= 0; at = bytes.indexOf(MARK[0], at + 1)) {
    const digits = bytes.subarray(at + MARK.length, at + MARK.length + DIGITS);
    if (MARK.every((byte, index) => bytes[at + index] === byte) && digits.length === DIGITS && digits.every(isHex)) {
      yield at + MARK.length;
    }
  }
}

const isHex = (byte) => (byte >= 0x30 && byte <= 0x39) || (byte >= 0x61 && byte <= 0x66);

/**
 * The metadata of an .onnx.
 * @param {Uint8Array} bytes
 * @returns {Map<string, string>}
 */
export function readMetadata(bytes) {
  const metadata = new Map();
  for (const [number, value] of fields(bytes)) {
    if (number !== METADATA_PROPS) continue;
    if (!(value instanceof Uint8Array)) throw new ArtifactError("damaged: metadata is not a message");
    const pair = { 1: "", 2: "" };
    for (const [part, text] of fields(value)) {
      if (part in pair && text instanceof Uint8Array) pair[part] = decode(text, "metadata");
    }
    metadata.set(pair[1], pair[2]);
  }
  return metadata;
}

/** Number and value of each field of a protobuf message; a value is bytes, or null for a number, which nobody asks for. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    for (let value = 0, scale = 1, count = 0; count < 10; count++, scale *= 128) {
      if (at >= bytes.length) throw new ArtifactError("damaged: ends within a number");
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new ArtifactError("damaged: a number of more than ten bytes");
  };
  while (at < bytes.length) {
    const tag = varint();
    const number = Math.floor(tag / 8);
    const type = tag % 8;
    if (number === 0) throw new ArtifactError("damaged or not an .onnx: field 0");
    if (type === 0) {
      varint();
      yield [number, null];
      continue;
    }
    if (type !== 1 && type !== 2 && type !== 5) throw new ArtifactError(`damaged or not an .onnx: wire type ${type}`);
    const length = type === 2 ? varint() : type === 1 ? 8 : 4;
    if (length > bytes.length - at) throw new ArtifactError(`damaged: field ${number} is longer than the file`);
    yield [number, bytes.subarray(at, at + length)];
    at += length;
  }
}

/**
 * A safetensors file.
 * @param {Uint8Array} blob
 * @returns {{tensors: Map<string, Tensor>, metadata: Record<string, string>}}
 */
export function readSafetensors(blob) {
  if (blob.length < 8) throw new ArtifactError("payload: golden is damaged (no header)");
  const length = Number(new DataView(blob.buffer, blob.byteOffset, 8).getBigUint64(0, true));
  if (length > blob.length - 8) throw new ArtifactError("payload: golden is damaged (its header is longer than itself)");
  const header = parse(decode(blob.subarray(8, 8 + length), "payload: golden"), "golden");
  const data = blob.subarray(8 + length);
  const tensors = new Map();
  let covered = 0;
  for (const [name, facts] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: offsets } = facts ?? {};
    const sound = Object.hasOwn(BYTES, dtype) && isSizes(shape) && isSizes(offsets) && offsets.length === 2;
    const size = sound ? shape.reduce((product, side) => product * side, BYTES[dtype]) : -1;
    if (!sound || offsets[1] > data.length || offsets[1] - offsets[0] !== size) {
      throw new ArtifactError(`payload: golden is damaged (tensor ${JSON.stringify(name)})`);
    }
    tensors.set(name, { dtype, shape, bytes: data.subarray(offsets[0], offsets[1]) });
    covered += size;
  }
  if (covered !== data.length) throw new ArtifactError("payload: golden is damaged (its tensors do not fill it)");
  return { tensors, metadata: header.__metadata__ ?? {} };
}

const isSizes = (value) => Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);

/**
 * The payload in an artifact's metadata.
 * @param {Map<string, string>} metadata
 * @returns {Payload}
 */
export function readPayload(metadata) {
  const [contractText, provenanceText, goldenText] = ENTRIES.map((name) => {
    if (metadata.has(KEY + name)) return metadata.get(KEY + name);
    throw new ArtifactError(`payload: entry '${name}' is missing; only an artifact exported by lavit-edge can test itself`);
  });
  const contract = readContract(contractText);
  const provenance = object(provenanceText, "provenance", "lavit_edge.provenance/1");
  delete provenance.format;
  return { contract, contractText, provenance, ...readGolden(base64(goldenText), contract.labels.length) };
}

function readGolden(blob, classes) {
  const { tensors, metadata } = readSafetensors(blob);
  const facts = object(metadata.golden ?? "", "golden", GOLDEN_FORMAT, OLD_GOLDEN_FORMAT);
  const old = facts.format === OLD_GOLDEN_FORMAT;
  const { names } = facts;
  if (!Array.isArray(names) || names.length < 4 || !names.every((name) => typeof name === "string")) {
    throw new ArtifactError("payload: golden must name at least 4 pictures");
  }
  const tolerances = old ? names.map(() => facts.tolerance_steps) : facts.tolerance_steps;
  if (!Array.isArray(tolerances) || tolerances.length !== names.length || !tolerances.every(isPositive)) {
    throw new ArtifactError("payload: tolerance_steps must be positive numbers, one per picture");
  }
  const take = (part, index, dtype, fits) => {
    const tensor = tensors.get(`${part}.${index}`);
    tensors.delete(`${part}.${index}`);
    if (tensor?.dtype === dtype && fits(tensor.shape)) return tensor;
    throw new ArtifactError(`payload: golden ${part} ${index} is missing or of another type or shape`);
  };
  const golden = names.map((name, index) => {
    const picture = take("picture", index, "U8", (s) => s.length === 3 && s[2] === 3 && s.every((n) => n > 0 && n <= LARGEST_SIDE));
    const sample = take("sample", index, "U8", (s) => s.join() === `${GRID},${GRID},3`);
    const logits = take("logits", index, "F32", (s) => s.join() === `${classes}`);
    const values = new Float32Array(logits.bytes.slice().buffer); // a slice begins where float32 may
    if (!values.every(Number.isFinite)) throw new ArtifactError(`payload: golden logits ${index} are not finite`);
    const [height, width] = picture.shape;
    return { name, width, height, picture: picture.bytes, sample: sample.bytes, logits: values, tolerance: tolerances[index] };
  });
  if (tensors.size) throw new ArtifactError(`payload: golden tensor ${JSON.stringify([...tensors.keys()][0])} is unknown`);
  const logits = golden.flatMap((item) => Array.from(item.logits)).sort((a, b) => a - b);
  const range = Math.fround(logits.at(-1) - logits[0]);
  if (!(range > 0)) throw new ArtifactError("payload: the expected logits are all equal, which no model gives");
  if (old) return { golden, step: range / 255, closeSteps: 0, closePictures: 0 };
  const { step, close_steps: closeSteps, close_pictures: closePictures } = facts;
  if (!isPositive(step) || !isPositive(closeSteps)) {
    throw new ArtifactError("payload: step and close_steps must be positive numbers");
  }
  if (!(Number.isInteger(closePictures) && closePictures >= 0 && closePictures <= golden.length)) {
    throw new ArtifactError("payload: close_pictures must be a number of the pictures");
  }
  return { golden, step, closeSteps, closePictures };
}

const isPositive = (value) => Number.isFinite(value) && value > 0;

/**
 * @param {string} text canonical JSON
 * @returns {Contract}
 */
export function readContract(text) {
  const { format, ...fields } = object(text, "contract", CONTRACT_FORMAT, OLD_CONTRACT_FORMAT);
  const need = (sound, name) => {
    if (!sound) throw new ArtifactError(`contract: ${name} is not one that lavit-edge writes`);
  };
  const names = format === CONTRACT_FORMAT ? [...FIELDS, ...ANSWER_FIELDS] : FIELDS;
  for (const name of names) need(name in fields, `${name}, which is missing,`);
  for (const name of Object.keys(fields)) need(names.includes(name), `field ${JSON.stringify(name.slice(0, 60))} of ${format}`);
  const contract = { format, temperature: 1, threshold: 0, ...fields };
  const { size, labels, resize, interpolation, crop_fraction: crop, mean, std, temperature, threshold } = contract;
  need(Number.isInteger(size) && size >= 1 && size <= LARGEST_SIDE, "size");
  need(Array.isArray(labels) && labels.length && labels.every((label) => typeof label === "string" && label.trim()), "labels");
  need(new Set(labels).size === labels.length, "labels");
  need(resize === "squash" || resize === "crop", "resize");
  need(interpolation === "bilinear" || interpolation === "bicubic", "interpolation");
  need(Number.isFinite(crop) && crop > 0 && crop <= 1, "crop_fraction");
  need(Array.isArray(mean) && mean.length === 3 && mean.every(Number.isFinite), "mean");
  need(Array.isArray(std) && std.length === 3 && std.every(isPositive), "std");
  need(Number.isFinite(temperature) && temperature >= COLDEST && temperature <= 1 / COLDEST, "temperature");
  need(Number.isFinite(threshold) && threshold >= 0 && threshold < 1, "threshold");
  return contract;
}

function base64(text) {
  try {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    throw new ArtifactError("payload: golden is not base64");
  }
}

function object(text, name, ...formats) {
  const value = parse(text, name);
  if (formats.includes(value.format)) return value;
  const says = typeof value.format === "string" ? `, not '${value.format.slice(0, 60)}'; a newer one needs a newer lavit-edge` : "";
  throw new ArtifactError(`payload: ${name} must be an object with format '${formats[0]}'${says}`);
}

function parse(text, name) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ArtifactError(`payload: ${name} is not JSON (${error.message.slice(0, 100)})`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new ArtifactError(`payload: ${name} is not an object`);
}

function decode(bytes, name) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new ArtifactError(`${name} is not UTF-8`);
  }
}
