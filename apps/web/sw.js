/**
 * Service worker: the app without a network. All files of one state of the server are kept together, in a cache named after it; the
 * page registers another worker when the server has another state (lib/offline.js), and that one keeps all files anew.
 *
 * What the server gives comes first, so that a new model is seen at once. It has a few seconds to begin its answer; once it has missed
 * them, it is not waited for again for a while. The headers are kept too, and with them the isolation that threads need.
 */

const OURS = "lavit-edge";
const CACHE = `${OURS} ${new URL(location.href).searchParams.get("site")}`;
const PATIENCE = 3000; // ms until the server answers
const REST = 30_000; // ms in which a server that did not answer is not asked
let asleep = -Infinity; // until when

addEventListener("install", (event) => event.waitUntil(keepAll()));
addEventListener("activate", (event) => event.waitUntil(takeOver()));
addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && new URL(url).origin === location.origin) event.respondWith(answer(event.request));
});

async function keepAll() {
  const files = await (await fetch("files.json", { cache: "no-cache" })).json();
  const cache = await caches.open(CACHE);
  try {
    await cache.addAll(files.map((file) => new Request(file, { cache: "no-cache" })));
  } catch (error) {
    await caches.delete(CACHE); // all or nothing
    throw error;
  }
  await skipWaiting();
}

async function takeOver() {
  for (const name of await caches.keys()) {
    if (name.startsWith(OURS) && name !== CACHE) await caches.delete(name);
  }
  await clients.claim();
}

async function answer(request) {
  const kept = await (await caches.open(CACHE)).match(request, { ignoreSearch: request.mode === "navigate" });
  if (!kept) return fetch(request);
  if (performance.now() < asleep) return kept;
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), PATIENCE);
  try {
    const response = await fetch(request, { signal: stop.signal });
    const tag = response.headers.get("ETag");
    if (response.ok && (!tag || tag !== kept.headers.get("ETag"))) return response; // its body may take its time
    stop.abort(); // the file that lies here already, or a server that has trouble
    return kept;
  } catch {
    asleep = performance.now() + REST;
    return kept;
  } finally {
    clearTimeout(timer);
  }
}
