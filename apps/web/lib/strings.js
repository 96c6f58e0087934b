/**
 * Every text of the page, in one place: another language is another object of this shape. What is wrong with an artifact, a frame or
 * the runtime comes from their own files, is put in as `why`, and stays English.
 */

/** A probability as people read it: a share of 99.97 % is not yet 100, and one of 0.01 % is more than nothing. */
export function percent(probability) {
  const least = probability > 0 ? 1 : 0;
  const most = probability < 1 ? 999 : 1000;
  const tenths = Math.min(Math.max(Math.round(1000 * probability), least), most);
  return `${(tenths / 10).toFixed(1)} %`;
}

const threads = (count) => (count === 1 ? "1 thread" : `${count} threads`);

export const TEXT = {
  language: "en",

  // buttons and headings: the words that all three apps share (docs/apps.md)
  start: "Start camera",
  pause: "Pause",
  resume: "Resume",
  retry: "Try again",
  switchCamera: "Switch camera",
  torch: "Torch",
  photo: "Photo",
  benchmark: "Benchmark",
  seconds: "Seconds",
  threads: "Threads",
  measure: "Measure",
  saveReport: "Save report",
  selftest: "Self-test",
  labels: "What it knows",
  notSure: "Not sure",

  // what the picture's place says while there is none
  loading: "Testing the model on this device",
  ready: "Start the camera or choose a photo. Nothing leaves this device.",
  opening: "Waiting for the camera",
  looking: "Looking at the photo",
  measuring: "The camera rests during the benchmark",
  nothing: "No picture",

  figures: { fps: "frames/s", model: "model, ms", prepare: "prepare, ms", copy: "copy, ms" },
  model: ({ name, precision, size, labels, threads: count }) =>
    [name, precision, `${size} px`, `${labels.length} labels`, threads(count)].filter(Boolean).join(", "),
  noModel: "No model",
  known: (count) => `It knows these ${count} and nothing else:`,
  unsureHint: "Most likely, but not enough:",

  // read aloud
  says: (picture, best, share) => `${picture}: ${best}, ${percent(share)}`,
  saysUnsure: (picture, best, share) => `${picture}: not sure; most likely ${best}, ${percent(share)}`,
  paused: "Paused",

  benchmarkHint: "Times the model alone, as lavit_edge.benchmark does. Keep this page on the screen.",
  threadsHint: "Threads are the live view's too.",
  oneThread: "One thread: this page is not cross-origin isolated.",
  measured: (p50, p90, runs, count) => `Median ${p50} ms, 90 % within ${p90} ms, ${runs} runs, ${threads(count)}.`,
  notMeasured: (why) => `Nothing was measured, the self-test failed: ${why}`,
  passed: ({ pictures, same_top1: same, worst_millisteps: worst }) =>
    `Self-test passed: ${same} of ${pictures} pictures have the expected label, logits at most ${(worst / 1000).toFixed(2)} steps off.`,
  each: "Each picture",
  check: (passed, name, found) => `${passed ? "passed" : "failed"}: ${name}: ${found}`,
  runtime: (version) => `ONNX Runtime Web ${version}.`,

  kept: "Kept on this device: it works offline.",
  keptNot: (why) => `Not kept for use offline: ${why}`,
  keptNotSecure: "Not kept for use offline: browsers do that over https or from localhost only.",

  // what is wrong: the first word says of what
  about: (file, why) => `${file}: ${why}. Nothing is classified.`,
  unusable: (file, why) => `The model ${file} cannot be used: ${why}. Nothing is classified.`,
  cameraStopped: (why) => `Camera stopped: ${why}.`,
  cameraTaken: "The camera was taken away. Start it again when it is free or permitted.",
  photoUndecoded: (file) => `${file} is not a picture that this browser can decode.`,
  photoFailed: (file, why) => `${file}: ${why}.`,
  torchFailed: (why) => `The torch cannot be switched: ${why}.`,
  benchmarkFailed: (file, why) => `Benchmark of ${file}: ${why}.`,
  benchmarkHidden: (file) =>
    `Benchmark of ${file}: the page was hidden, and browsers slow hidden pages down. Nothing is reported; measure again.`,
  camera: {
    NotAllowedError: "The camera is not permitted. Allow it in the browser's settings for this site, then try again.",
    NotFoundError: "There is no camera here. A photo can be classified instead.",
    NotReadableError: "The camera cannot be read; another app may be using it.",
    OverconstrainedError: "No camera here gives such frames.",
    insecure: "Browsers give a camera to pages over https or from localhost only.",
    other: (why) => `The camera cannot be opened (${why}).`,
  },
};
