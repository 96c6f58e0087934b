import assert from "node:assert/strict";
import { test } from "node:test";

import { Pixels } from "../lib/frames.js";
import { ArtifactError } from "../lib/payload.js";

/** A VideoFrame of grey pixels, as a browser gives it; `changed` overrides parts of it. */
function frame(width, height, changed = {}) {
  return {
    visibleRect: { width, height },
    displayWidth: width,
    displayHeight: height,
    format: "I420",
    closed: 0,
    allocationSize: ({ format }) => (format === "RGBA" ? width * height * 4 : (width * height * 3) / 2),
    copyTo: async (buffer, { format }) => {
      assert.equal(format, "RGBA");
      buffer.fill(99);
      return [{ offset: 0, stride: width * 4 }];
    },
    close() {
      this.closed += 1;
    },
    ...changed,
  };
}

/** A canvas as far as it is used; `data` of its ImageData can be anything. */
function canvas(data) {
  const drawn = [];
  globalThis.OffscreenCanvas = class {
    constructor(width, height) {
      Object.assign(this, { width, height });
    }
    getContext() {
      return {
        fillRect: () => {},
        drawImage: (source) => drawn.push(source),
        getImageData: (_, __, width, height) => ({ data: data ?? new Uint8ClampedArray(width * height * 4).fill(7) }),
      };
    }
  };
  return drawn;
}

test("frames are copied into one buffer, which changes with their size only, and are closed", async () => {
  const pixels = new Pixels();
  const frames = [frame(6, 4), frame(6, 4), frame(6, 4)];
  const buffers = [];
  for (const source of frames) buffers.push((await pixels.read(source)).pixels);
  assert.ok(buffers.every((buffer) => buffer === buffers[0] && buffer.length === 96));
  assert.ok(frames.every(({ closed }) => closed === 1));
  const other = await pixels.read(frame(4, 6));
  assert.deepEqual([other.width, other.height, other.pixels.length], [4, 6, 96]);
  assert.equal((await pixels.read(frame(8, 6))).pixels.length, 192);
});

test("what cannot be copied as it lies is drawn", async () => {
  const drawn = canvas();
  const sources = [
    frame(6, 4, { rotation: 90 }),
    frame(6, 4, { flip: true }),
    frame(6, 4, { displayWidth: 8 }),
    frame(6, 4, { allocationSize: () => 36 }), // does not know the option, copies in the frame's own format
    frame(6, 4, { allocationSize: () => assert.fail("NotSupportedError") }),
    { width: 6, height: 4, close: () => {} }, // an ImageBitmap
  ];
  for (const source of sources) {
    const { pixels, width, height } = await new Pixels().read(source);
    assert.deepEqual([width, height, pixels.length, pixels[0]], [source.displayWidth ?? 6, 4, (source.displayWidth ?? 6) * 16, 7]);
  }
  assert.deepEqual(drawn, sources);
});

test("a frame of unexpected format or size is refused, and closed", async () => {
  const strange = [
    frame(6, 4, { copyTo: async () => [{ offset: 0, stride: 32 }] }),
    frame(6, 4, { allocationSize: (options) => options.format && 12 }),
    frame(0, 0, { rotation: 90 }),
    frame(60_000, 60_000, { rotation: 90 }),
  ];
  canvas();
  for (const source of strange) {
    await assert.rejects(new Pixels().read(source), (error) => error instanceof ArtifactError && /unexpected format: \d+ x \d+, I420/.test(error.message));
    assert.equal(source.closed, 1);
  }
  for (const data of [new Uint8ClampedArray(95), new Float32Array(96)]) {
    canvas(data);
    await assert.rejects(new Pixels().read(frame(6, 4, { flip: true })), ArtifactError);
  }
});
