/**
 * Service worker: the app without a network. What the server gives comes first, so that a new model is seen at once; what it gave
 * last is for when it does not answer. The headers are kept too, and with them the isolation that threads need.
 */

const CACHE = "lavit-edge";

addEventListener("install", (event) => event.waitUntil(keepAll()));
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && new URL(url).origin === location.origin) event.respondWith(answer(event));
});

async function keepAll() {
  const files = await (await fetch("files.json")).json();
  await (await caches.open(CACHE)).addAll(files);
  await skipWaiting();
}

async function answer(event) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(event.request);
  try {
    const response = await fetch(event.request);
    const another = response.headers.get("ETag") !== kept?.headers.get("ETag");
    if (response.ok && kept && another) event.waitUntil(cache.put(event.request, response.clone()));
    return response;
  } catch (error) {
    if (kept) return kept;
    throw error;
  }
}
