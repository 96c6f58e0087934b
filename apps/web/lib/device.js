/** What a browser tells of its device: little, and null for the rest. */

const KINDS = { Windows: "computer", macOS: "computer", Linux: "computer", "Chrome OS": "computer", Android: "tablet" };

/**
 * The field `device` of a report. A browser that hides what it runs on (Safari, Firefox) leaves nearly all of it null.
 * @param {Record<string, any> | null} host the same field as the machine's own harness knows it, if one drives this browser
 */
export async function device(host) {
  const known = host ?? (await guess());
  const features = new Set([...(known.cpu_features ?? []), "wasm_simd"]); // the runtime is built for it and refuses to run without
  return { ...known, arch: "wasm32", cpu_features: [...features].sort() };
}

async function guess() {
  const agent = navigator.userAgentData;
  const told = (await agent?.getHighEntropyValues?.(["model", "platformVersion"])) ?? {};
  const iPhone = /\biPhone\b/.test(navigator.userAgent); // an iPad says that it is a Mac
  return {
    name: told.model || (iPhone ? "iPhone" : null),
    kind: agent?.mobile || iPhone ? "phone" : (KINDS[agent?.platform] ?? null),
    os: agent?.platform || (iPhone ? "iOS" : null),
    os_version: told.platformVersion || null,
    cpu: null,
    cpu_features: null,
    cores: navigator.hardwareConcurrency ?? null,
    memory_bytes: null, // navigator.deviceMemory is rounded, and capped so that it does not tell people apart
    emulated: false,
    emulator: null,
  };
}

/** One of `conditions`: the battery, where the browser tells of it. */
export async function condition() {
  const battery = await navigator.getBattery?.().catch(() => null);
  // without a battery Chromium says full and charging, as of a full one
  const none = battery?.charging && battery.level === 1 && battery.chargingTime === 0;
  return {
    power: battery ? (battery.charging ? "mains" : "battery") : null,
    battery_permille: battery && !none ? Math.round(battery.level * 1000) : null,
    low_power: null,
    thermal: null,
    temperature_millicelsius: null,
    governor: null,
    load_permille: null,
  };
}

/** The browser's name and version, for people. */
export async function browser() {
  const told = await navigator.userAgentData?.getHighEntropyValues?.(["fullVersionList"]);
  const brands = (told?.fullVersionList ?? []).filter(({ brand }) => !/not.?a.?brand/i.test(brand));
  return brands.map(({ brand, version }) => `${brand} ${version}`).join(", ") || navigator.userAgent;
}
