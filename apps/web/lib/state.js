/**
 * All that decides what the page shows, without the page: `after` gives the next state, `screenOf` and `controlsOf` what to show of it.
 * Screens and words are those of the Android and the iOS app (docs/apps.md).
 *
 * @typedef {"loading" | "unusable" | "ready" | "watching" | "paused" | "trouble" | "photo" | "measuring"} Screen `ready` is the
 *   browser's own: a page asks for the camera when it is told to, and not before.
 * @typedef {{rows: {label: string, probability: number}[], best: number | null, figures?: Record<string, string>}} Sight what a frame
 *   or a photo showed; `best` is the index of the label that it is called by, null where the model is not sure
 * @typedef {ReturnType<typeof initial>} State
 */

export function initial() {
  return {
    /** what the worker says of the model; null while it is opened, tested or measured */
    model: null,
    /** why there is no model */
    unusable: null,
    measuring: false,
    /** what the page does when nothing else is on it: "ready", "watching" or "paused" */
    mode: "ready",
    front: false,
    /** the browser's page is in the background */
    hidden: false,
    /** how many cameras there are, as far as is known */
    cameras: 0,
    /** frames come, and whether their camera has a torch */
    filming: false,
    hasTorch: false,
    torch: false,
    /** what is wrong with the camera; it waits for the button */
    trouble: null,
    /** @type {Sight | null} */
    sight: null,
    /** @type {{name: string, sight: Sight | null, why: string | null} | null} */
    photo: null,
    /** what else went wrong */
    notice: null,
  };
}

/** @returns {Screen} */
export function screenOf(state) {
  if (state.unusable !== null) return "unusable";
  if (state.measuring) return "measuring";
  if (!state.model) return "loading";
  if (state.photo) return "photo";
  if (state.trouble !== null) return "trouble";
  return state.mode;
}

/** Whether the camera is to run. */
export const watches = (state) => screenOf(state) === "watching" && !state.hidden;

/** What is seen now, of whatever is looked at. @returns {Sight | null} */
export function sightOf(state) {
  const screen = screenOf(state);
  if (screen === "photo") return state.photo.sight;
  return screen === "watching" || screen === "paused" ? state.sight : null;
}

/** What is wrong now, or null. */
export function problemOf(state) {
  return state.unusable ?? (screenOf(state) === "photo" ? state.photo.why : null) ?? state.trouble ?? state.notice;
}

/** The buttons: `first` names the text of the one that begins, pauses and goes on. */
export function controlsOf(state) {
  const screen = screenOf(state);
  const usable = !["loading", "unusable", "measuring"].includes(screen);
  const begun = state.mode === "ready" ? "start" : "resume";
  const first = { watching: "pause", paused: "resume", trouble: "retry", photo: begun }[screen] ?? begun;
  return {
    first,
    usable,
    switches: usable && screen === "watching" && state.cameras > 1,
    torch: screen === "watching" && state.filming && state.hasTorch,
  };
}

const blank = { filming: false, torch: false, hasTorch: false, sight: null };
const changes = {
  opening: () => ({ model: null, unusable: null, notice: null, ...blank }),
  opened: (_, { model }) => ({ model, unusable: null, measuring: false }),
  refused: (_, { why }) => ({ unusable: why, measuring: false, ...blank }),
  hidden: (state, { hidden }) => ({ hidden, ...(state.mode === "watching" ? blank : {}) }),

  /** the first button: begins, pauses, goes on, tries again, or leaves a photo */
  pauseOrResume: (state) => {
    if (!controlsOf(state).usable) return {};
    const pauses = screenOf(state) === "watching";
    const rest = { filming: false, torch: false, trouble: null, notice: null, photo: null };
    return pauses ? { ...rest, mode: state.sight ? "paused" : "ready" } : { ...rest, ...blank, mode: "watching" };
  },
  switched: (state) => (controlsOf(state).switches ? { front: !state.front, ...blank } : {}),
  torch: (state, { on }) => (controlsOf(state).torch ? { torch: on } : {}),

  filming: (state, { cameras, hasTorch }) => (watches(state) ? { filming: true, cameras, hasTorch } : {}),
  seen: (state, { sight }) => (watches(state) ? { sight } : {}),
  missed: (state) => (watches(state) ? { sight: null } : {}),
  cameraFailed: (state, { why }) => (watches(state) ? { trouble: why, ...blank } : {}),

  photoPicked: (state, { name }) =>
    controlsOf(state).usable ? { photo: { name, sight: null, why: null }, trouble: null, notice: null, filming: false, torch: false } : {},
  photoSeen: ({ photo }, { sight }) => (photo ? { photo: { ...photo, sight, why: null } } : {}),
  photoRefused: ({ photo }, { why }) => (photo ? { photo: { ...photo, sight: null, why } } : {}),

  measuring: () => ({ measuring: true, model: null, photo: null, notice: null, trouble: null, ...blank }),
  noticed: (_, { why }) => ({ notice: why }),
};

/**
 * @param {State} state
 * @param {{kind: keyof typeof changes, [field: string]: any}} event
 * @returns {State}
 */
export const after = (state, event) => ({ ...state, ...changes[event.kind](state, event) });
