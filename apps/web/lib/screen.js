/** The state on the page: what is shown, enabled and read aloud. It decides nothing; state.js does. */

import { controlsOf, problemOf, screenOf, sightOf } from "./state.js";
import { TEXT, percent } from "./strings.js";

const at = (id) => document.getElementById(id);
const HINTS = { ready: "ready", loading: "loading", unusable: "nothing", trouble: "nothing", measuring: "measuring", watching: "opening" };

function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

/** Writes only what has changed: a live region that is written again is read aloud again. */
function say(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

/** The texts that are always there. */
export function label(root = document) {
  root.documentElement.lang = TEXT.language;
  for (const item of root.querySelectorAll("[data-text]")) {
    item.textContent = item.dataset.text.split(".").reduce((texts, name) => texts[name], TEXT);
  }
  for (const item of root.querySelectorAll("[data-label]")) item.ariaLabel = TEXT[item.dataset.label];
}

/** @param {import("./state.js").State} state @param {{file: string}} about */
export function render(state, about) {
  const screen = screenOf(state);
  const sight = sightOf(state);
  const problem = problemOf(state);
  say("problem", problem ?? "");
  at("problem").hidden = problem === null;
  at("video").hidden = !(screen === "watching" && state.filming);
  at("picture").hidden = !(screen === "paused" || (screen === "photo" && state.photo.sight !== null));
  at("hint").hidden = !(at("video").hidden && at("picture").hidden);
  const looked = screen === "photo" && state.photo.why !== null ? "nothing" : "looking";
  say("hint", TEXT[screen === "photo" ? looked : (HINTS[screen] ?? "nothing")]);
  showControls(state);
  showSight(sight);
  for (const [part, id] of [["fps", "fps"], ["model", "model-ms"], ["prepare", "prepare-ms"], ["copy", "copy-ms"]]) {
    at(id).textContent = sight?.figures?.[part] ?? "–";
  }
  at("figures").hidden = screen !== "watching" || !state.filming;
  say("spoken", spoken(screen, sight, state));
  if (!state.measuring) showModel(state, about);
}

/** A photo's answer, and what is on the screen when the camera is paused. The live view is not read: it would never end. */
function spoken(screen, sight, state) {
  const named = { photo: state.photo?.name, paused: TEXT.paused }[screen];
  if (!sight?.rows.length || !named) return "";
  const best = sight.rows.find(({ index }) => index === sight.best);
  const first = sight.rows[0];
  return best ? TEXT.says(named, best.label, best.probability) : TEXT.saysUnsure(named, first.label, first.probability);
}

function showControls(state) {
  const { first, usable, switches, torch } = controlsOf(state);
  say("start", TEXT[first]);
  for (const id of ["start", "file", "measure"]) at(id).disabled = !usable;
  at("turn").hidden = state.cameras < 2;
  at("turn").disabled = !switches;
  at("torch").hidden = !torch;
  at("torch").ariaPressed = String(state.torch);
  at("threads").disabled = !usable || at("threads").length === 1;
}

/** Rows are kept and filled anew: what is read or selected does not vanish with each frame. */
function showSight(sight) {
  const unsure = sight !== null && sight.best === null;
  at("said").hidden = sight === null;
  at("said").classList.toggle("unsure", unsure);
  at("unsure").hidden = !unsure;
  const rows = at("answers");
  while (rows.children.length > (sight?.rows.length ?? 0)) rows.lastChild.remove();
  for (const [index, { label: name, index: of, probability }] of (sight?.rows ?? []).entries()) {
    const row = rows.children[index] ?? rows.appendChild(element("li", ""));
    if (!row.children.length) row.append(element("span", "", "label"), element("span", "", "probability"));
    const [what, share] = row.children;
    if (what.textContent !== name) what.textContent = name;
    share.textContent = percent(probability);
    row.style.setProperty("--share", String(probability));
    row.classList.toggle("best", of === sight.best);
  }
}

let shown; // of which model; its lists are written once
function showModel({ model, unusable }, { file }) {
  say("model", model ? TEXT.model({ ...model, name: model.name ?? file }) : unusable === null ? TEXT.loading : TEXT.noModel);
  if (shown === model) return;
  shown = model;
  at("tested").hidden = at("knows").hidden = model === null;
  say("selftest", model ? `${TEXT.passed(model.tested)} ${TEXT.runtime(model.version)}` : "");
  const items = (model?.tested.checks ?? []).map(({ name, passed, found }) => element("li", TEXT.check(passed, name, found)));
  at("checks").replaceChildren(...items);
  say("known", model ? TEXT.known(model.labels.length) : "");
  at("labels").replaceChildren(...(model?.labels ?? []).map((name) => element("li", name)));
}
