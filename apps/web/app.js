/** The page: opens the model, shows what it says of the camera or of a picture, and measures it. What it does not know, the model says. */

import { openCamera, frameOf } from "./lib/camera.js";
import { quantile, sorted } from "./lib/report.js";
import { Closed, Workplace } from "./lib/workplace.js";

const at = (id) => document.getElementById(id);
const here = (path) => new URL(path, location.href).href;
const video = at("video");
const MOST_THREADS = 8; // more do not help a model of this size
const KEPT = 60; // frames that the figures are medians of
const PAST = 3000; // ms; older ones do not count: the page may have been hidden
const MISSED = 5; // frames in a row that cannot be classified, before the camera is stopped
const SHOW_EVERY = 250; // ms between two updates of the figures
const HIDDEN = "The page was hidden during the benchmark, and browsers slow hidden pages down. Nothing is reported; measure again.";

let workplace = null; // with an open model, or null
let looking = false; // from the moment that the camera is asked for
let stream = null; // of the camera, while it is on
let facing = "environment";
let view = 0; // counts what has been looked at: an answer to an earlier one is not shown
let fresh = false; // the video shows a frame that has not been classified
let busy = false;
let about = {};

/** Shows what went wrong; an empty message takes the last one away. */
function complain(message) {
  at("problem").textContent = message;
  at("problem").hidden = !message;
}

function attempt(action) {
  return async (event) => {
    complain("");
    try {
      await action(event);
    } catch (error) {
      if (!(error instanceof Closed)) complain(error.message || String(error));
    }
  };
}

const inThreads = (count) => (count === 1 ? "1 thread" : `${count} threads`);

function enable(on) {
  for (const id of ["start", "turn", "file", "measure"]) at(id).disabled = !on;
  at("threads").disabled = !on || at("threads").length === 1;
}

async function openModel() {
  workplace?.close();
  workplace = null;
  busy = false;
  enable(false);
  at("selftest").textContent = "";
  at("model").textContent = "Loading the model";
  const opening = new Workplace();
  const threads = Number(at("threads").value);
  try {
    const model = await opening.ask("open", { artifact: here("model.onnx"), runtime: here("runtime/"), threads });
    const { name, precision, size, labels, tested } = model;
    const facts = [name ?? about.file, precision, `${size} px`, `${labels} labels`, inThreads(model.threads)];
    at("model").textContent = facts.filter(Boolean).join(", ");
    const off = (tested.worst_millisteps / 1000).toFixed(2);
    at("selftest").textContent =
      `Self-test passed: ${tested.same_top1} of ${tested.pictures} pictures have the expected label, logits at most ${off} steps off. ` +
      `ONNX Runtime Web ${model.version}.`;
  } catch (error) {
    opening.close();
    at("model").textContent = "No model";
    throw new Error(`The model cannot be used: ${error.message}. Nothing is classified.`);
  }
  workplace = opening;
  enable(true);
}

/** Ends what is being looked at. */
function clear() {
  view += 1;
  looking = false;
  fresh = false;
  for (const track of stream?.getTracks() ?? []) {
    track.onended = null;
    track.stop();
  }
  stream = null;
  video.srcObject = null;
  for (const element of [video, at("picture"), at("figures"), at("turn")]) element.hidden = true;
  at("hint").hidden = false;
  at("start").textContent = "Camera";
  at("answers").replaceChildren();
}

async function startCamera() {
  clear();
  const mine = view;
  looking = true;
  at("start").textContent = "Stop";
  const opened = await openCamera(facing).catch((error) => {
    if (mine !== view) return new MediaStream(); // nobody waits for it
    clear();
    throw error;
  });
  if (mine !== view) {
    for (const track of opened.getTracks()) track.stop();
    return;
  }
  stream = opened;
  const [track] = stream.getVideoTracks();
  track.onended = () => {
    clear();
    complain("The camera was taken away. Start it again when it is free or permitted.");
  };
  video.classList.toggle("mirrored", track.getSettings().facingMode === "user");
  video.srcObject = stream;
  video.hidden = at("figures").hidden = at("turn").hidden = false;
  at("hint").hidden = true;
  const window = { times: [], shown: 0, missed: 0 };
  const onFrame = () => {
    if (mine !== view) return;
    fresh = true;
    classifyVideo(mine, window);
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
  await video.play().catch(() => {}); // interrupted when the camera is stopped at once
}

/** Classifies the newest frame, unless one is under way; then it is the next one's turn. */
async function classifyVideo(mine, window) {
  if (busy || !fresh || mine !== view || !workplace) return;
  if (video.readyState < video.HAVE_CURRENT_DATA) return; // the callback was for a frame of the stream before
  const working = workplace;
  fresh = false;
  busy = true;
  try {
    const source = await frameOf(video);
    const { answers, times } = await working.ask("classify", { source }, { transfer: [source] });
    if (mine !== view) return;
    window.missed = 0;
    showAnswers(answers);
    showFigures(window, times);
  } catch (error) {
    if (mine !== view || error instanceof Closed) return;
    at("answers").replaceChildren();
    if (++window.missed < MISSED) return; // between two streams a frame may be gone before it is read
    clear();
    complain(`Stopped: ${error.message}.`);
  } finally {
    if (working === workplace) busy = false;
    classifyVideo(mine, window);
  }
}

function showAnswers(answers) {
  const items = answers.map(({ label, probability }) => {
    const item = document.createElement("li");
    const [name, number] = [document.createElement("span"), document.createElement("span")];
    name.textContent = label;
    number.textContent = `${(100 * probability).toFixed(1)} %`;
    [name.className, number.className] = ["label", "probability"];
    item.style.setProperty("--share", probability);
    item.append(name, number);
    return item;
  });
  at("answers").replaceChildren(...items);
}

/** Medians of the last frames; frames a second over the same. */
function showFigures(window, times) {
  const now = performance.now();
  window.times.push({ ...times, end: now });
  while (window.times.length > KEPT || now - window.times[0].end > PAST) window.times.shift();
  if (now - window.shown < SHOW_EVERY) return;
  window.shown = now;
  const median = (part) => quantile(sorted(window.times.map((item) => item[part])), 500);
  for (const part of ["model", "prepare", "copy"]) at(`${part}-ms`).textContent = median(part).toFixed(1);
  const span = now - window.times[0].end;
  if (span > 0) at("fps").textContent = (((window.times.length - 1) * 1000) / span).toFixed(1);
}

async function classifyPicture(file) {
  clear();
  const mine = view;
  // upright as the file says, its colours as they are: so does lavit_edge/contract/pictures.py
  const decode = () => createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const source = await decode().catch(() => {
    throw new Error(`${file.name} is not a picture that this browser can decode.`);
  });
  const canvas = at("picture");
  const scale = Math.min(1, 1024 / Math.max(source.width, source.height));
  canvas.width = Math.max(1, Math.round(source.width * scale));
  canvas.height = Math.max(1, Math.round(source.height * scale));
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
  const { answers } = await workplace.ask("classify", { source }, { transfer: [source] });
  if (mine !== view) return;
  canvas.hidden = false;
  at("hint").hidden = true;
  showAnswers(answers);
}

async function measure() {
  clear();
  at("report").hidden = true;
  at("result").textContent = "";
  if (document.hidden) throw new Error(HIDDEN);
  workplace?.close(); // it would take its share of the processor, and its runtime is no longer fresh
  workplace = null;
  enable(false);
  const working = new Workplace();
  const hide = () => document.hidden && working.close();
  document.addEventListener("visibilitychange", hide);
  at("progress").hidden = false;
  at("progress").removeAttribute("value");
  const progress = (what, share) => {
    at("result").textContent = what;
    at("progress").value = share;
  };
  const job = { ...about, artifact: here("model.onnx"), runtime: here("runtime/"), force: false, device: null, file_cache: null };
  const settings = { threads: Number(at("threads").value), seconds: Number(at("seconds").value) };
  try {
    showReport(await working.ask("benchmark", { ...job, ...settings }, { progress }));
  } catch (error) {
    at("result").textContent = "";
    throw error instanceof Closed ? new Error(HIDDEN) : error;
  } finally {
    document.removeEventListener("visibilitychange", hide);
    working.close();
    at("progress").hidden = true;
    await openModel().catch((error) => complain(error.message));
  }
}

function showReport(report) {
  const { latency, self_test: tested, settings } = report;
  const ms = (ns) => (ns / 1e6).toFixed(1);
  at("result").textContent = latency
    ? `Median ${ms(latency.p50_ns)} ms, 90 % within ${ms(latency.p90_ns)} ms, ${latency.runs} runs, ${inThreads(settings.threads)}.`
    : `Nothing was measured, the self-test failed: ${tested.detail}`;
  const link = at("report");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([`${JSON.stringify(report, null, 1)}\n`], { type: "application/json" }));
  link.download = `lavit-edge-${report.id}.json`;
  link.hidden = false;
}

async function keepOffline() {
  if (!navigator.serviceWorker) return "Not kept for use offline: browsers do that over https or from localhost only.";
  try {
    await navigator.serviceWorker.register("sw.js");
    await navigator.serviceWorker.ready;
    return "Kept on this device: it works offline.";
  } catch (error) {
    return `Not kept for use offline: ${error.message}`;
  }
}

function offerThreads() {
  const most = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
  at("threads").replaceChildren(...Array.from({ length: most }, (_, index) => new Option(String(index + 1))));
  at("threads").value = String(Math.max(1, Math.min(most - 1, 4))); // a core is left to the camera: on two, one thread was quicker
}

at("start").onclick = attempt(() => (looking ? clear() : startCamera()));
at("turn").onclick = attempt(() => {
  facing = facing === "user" ? "environment" : "user";
  return startCamera();
});
at("file").onchange = attempt(async ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same can be chosen again
  if (file) await classifyPicture(file);
});
at("measure").onclick = attempt(measure);
at("threads").onchange = attempt(() => {
  clear();
  return openModel();
});

offerThreads();
await attempt(async () => {
  about = await (await fetch("about.json")).json();
  await openModel();
})();
at("offline").textContent = await keepOffline();
