/** The page: the model, the camera, a photo and the benchmark, brought together by the state (lib/state.js). */

import { Steady, decide, ranked } from "./lib/answers.js";
import { Awake } from "./lib/awake.js";
import { keepOffline } from "./lib/offline.js";
import { Film } from "./lib/film.js";
import { decode } from "./lib/frames.js";
import { Pace } from "./lib/pace.js";
import { label, render } from "./lib/screen.js";
import { after, controlsOf, initial, watches } from "./lib/state.js";
import { TEXT } from "./lib/strings.js";
import { Closed, Workplace } from "./lib/workplace.js";

const at = (id) => document.getElementById(id);
const here = (path) => new URL(path, location.href).href;
const MOST_THREADS = 8; // more do not help a model of this size
const SHOWN = 3; // labels
const LARGEST = 1024; // pixels of a photo's side on the screen

let state = initial();
let about = { file: "model.onnx", version: "", site: "" };
let workplace = null; // with an open model, or null
let filming = null; // which camera, and by which model; null while there is none
let steady = new Steady(0);
let pace = new Pace();
const awake = new Awake();
const film = new Film(at("video"), on, see);

/** Something has happened. */
function on(event) {
  if (event.kind === "pauseOrResume" && watches(state)) still(); // before the camera goes
  state = after(state, event);
  run();
  render(state, about);
}

/** Starts and stops the camera as the state wants it. */
function run() {
  const wanted = watches(state) ? { front: state.front, workplace } : null;
  awake.keep(wanted !== null || state.measuring);
  if (wanted?.front === filming?.front && wanted?.workplace === filming?.workplace) return;
  filming = wanted;
  steady = new Steady(state.model?.threshold ?? 0);
  pace = new Pace();
  if (wanted) film.start(wanted.front, wanted.workplace);
  else film.stop();
}

/** A frame of the camera. */
function see({ probabilities, times }, seconds) {
  const best = steady.add(seconds, probabilities);
  const rows = ranked(steady.average, state.model.labels, SHOWN);
  on({ kind: "seen", sight: { rows, best, figures: pace.add(times, performance.now()) } });
}

/** Draws on the canvas, no larger than a screen. */
function draw(source, width, height, mirrored) {
  const canvas = at("picture");
  const scale = Math.min(1, LARGEST / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.classList.toggle("mirrored", mirrored);
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
}

/** The camera's last picture stays while it is paused. */
function still() {
  const video = at("video");
  if (video.videoWidth) draw(video, video.videoWidth, video.videoHeight, video.classList.contains("mirrored"));
}

async function openModel() {
  workplace?.close();
  workplace = null;
  on({ kind: "opening" });
  const opening = new Workplace();
  try {
    const given = { artifact: here("model.onnx"), runtime: here("runtime/"), threads: Number(at("threads").value) };
    const model = await opening.ask("open", given);
    workplace = opening;
    on({ kind: "opened", model });
  } catch (error) {
    opening.close();
    on({ kind: "refused", why: TEXT.unusable(about.file, error.message) });
  }
}

async function classifyPhoto(file) {
  on({ kind: "photoPicked", name: file.name });
  const mine = state.photo;
  const working = workplace;
  try {
    const source = await decode(file).catch(() => null);
    if (mine !== state.photo) return source?.close();
    if (!source) return on({ kind: "photoRefused", why: TEXT.photoUndecoded(file.name) });
    draw(source, source.width, source.height, false);
    const { probabilities } = await working.ask("classify", { source }, { transfer: [source] });
    if (mine !== state.photo) return; // another one was picked meanwhile
    const { labels, threshold } = state.model;
    on({ kind: "photoSeen", sight: { rows: ranked(probabilities, labels, SHOWN), best: decide(probabilities, threshold) } });
  } catch (error) {
    if (mine === state.photo && !(error instanceof Closed)) on({ kind: "photoRefused", why: TEXT.photoFailed(file.name, error.message) });
  }
}

async function measure() {
  at("report").hidden = true;
  at("result").textContent = "";
  if (document.hidden) return on({ kind: "noticed", why: TEXT.benchmarkHidden(about.file) });
  workplace?.close(); // it would take its share of the processor, and its runtime is no longer fresh
  workplace = null;
  on({ kind: "measuring" });
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
  let why = null;
  try {
    showReport(await working.ask("benchmark", { ...job, ...settings }, { progress }));
  } catch (error) {
    at("result").textContent = "";
    why = error instanceof Closed ? TEXT.benchmarkHidden(about.file) : TEXT.benchmarkFailed(about.file, error.message);
  }
  document.removeEventListener("visibilitychange", hide);
  working.close();
  at("progress").hidden = true;
  await openModel();
  if (why) on({ kind: "noticed", why });
}

function showReport(report) {
  const { latency, self_test: tested, settings } = report;
  const ms = (ns) => (ns / 1e6).toFixed(1);
  at("result").textContent = latency
    ? TEXT.measured(ms(latency.p50_ns), ms(latency.p90_ns), latency.runs, settings.threads)
    : TEXT.notMeasured(tested.detail);
  const link = at("report");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([`${JSON.stringify(report, null, 1)}\n`], { type: "application/json" }));
  link.download = `lavit-edge-${report.id}.json`;
  link.hidden = false;
}

function offerThreads() {
  const isolated = globalThis.crossOriginIsolated;
  const most = isolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
  at("threads").replaceChildren(...Array.from({ length: most }, (_, index) => new Option(String(index + 1))));
  at("threads").value = String(Math.max(1, Math.min(most - 1, 4))); // a core is left to the camera: on two, one thread was quicker
  at("threads-hint").textContent = isolated ? TEXT.threadsHint : TEXT.oneThread;
}

async function switchTorch() {
  const wanted = !state.torch;
  try {
    await film.torch(wanted);
    on({ kind: "torch", on: wanted });
  } catch (error) {
    on({ kind: "noticed", why: TEXT.torchFailed(error.message) });
  }
}

label();
offerThreads();
render(state, about);
at("start").onclick = () => on({ kind: "pauseOrResume" });
at("turn").onclick = () => on({ kind: "switched" });
at("torch").onclick = switchTorch;
at("file").onchange = ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same can be chosen again
  if (file && controlsOf(state).usable) classifyPhoto(file);
};
at("measure").onclick = measure;
at("threads").onchange = openModel;
document.addEventListener("visibilitychange", () => on({ kind: "hidden", hidden: document.hidden }));

try {
  const response = await fetch("about.json");
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  about = await response.json();
  await openModel();
} catch (error) {
  on({ kind: "refused", why: TEXT.about("about.json", error.message) });
}
at("offline").textContent = await keepOffline(about.site);
