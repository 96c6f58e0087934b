/** The page's side of its service worker (sw.js). */

import { TEXT } from "./strings.js";

/**
 * Keeps what the server gives now, for when it does not answer.
 * @param {string} site digest of all its files (about.json): another one is another service worker, with a cache of its own
 * @returns {Promise<string>} for people
 */
export async function keepOffline(site) {
  if (!navigator.serviceWorker) return TEXT.keptNotSecure;
  try {
    const script = new URL(`sw.js?site=${site}`, location.href).href;
    const before = await navigator.serviceWorker.getRegistration();
    if (before?.active?.scriptURL === script) return TEXT.kept; // to register it once more would wait for a server that is silent
    const registration = await navigator.serviceWorker.register(script);
    const made = registration.installing ?? registration.waiting ?? registration.active;
    await new Promise((resolve, reject) => {
      const look = () => {
        if (made.state === "activated") resolve();
        if (made.state === "redundant") reject(new Error("sw.js could not keep all of files.json"));
      };
      made.addEventListener("statechange", look);
      look();
    });
    return TEXT.kept;
  } catch (error) {
    return TEXT.keptNot(error.message);
  }
}
