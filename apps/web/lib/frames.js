/**
 * Pixels of camera frames and pictures, as rows of RGBA.
 *
 * A VideoFrame is copied into a buffer that is kept: a canvas's getImageData would make a new one of 1.2 MB for each frame of
 * 640 x 480. The canvas is for pictures, for frames that are still to be turned, and for browsers that cannot copy as RGBA.
 *
 * @typedef {{pixels: Uint8Array, width: number, height: number}} Picture
 */

import { ArtifactError } from "./payload.js";

export const MAX_PIXELS = 178_956_970; // as in lavit_edge/contract/pictures.py
const AS = { format: "RGBA", colorSpace: "srgb" };

/**
 * A picture's file, upright as its EXIF says and its colours in sRGB as its profile says: so does lavit_edge/contract/pictures.py.
 *
 * @param {Blob} file
 * @returns {Promise<ImageBitmap>} rejected where this browser cannot decode it
 */
export function decode(file) {
  return createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "default" });
}

export class Pixels {
  constructor() {
    this.buffer = new Uint8Array(0);
    this.canvas = null;
  }

  /**
   * @param {VideoFrame | ImageBitmap} source closed afterwards
   * @returns {Promise<Picture>} `pixels` is overwritten by the next call
   * @throws {ArtifactError} a frame of a size or format that cannot be read
   */
  async read(source) {
    try {
      return copies(source) ? await this.#copy(source) : this.#draw(source);
    } finally {
      source.close();
    }
  }

  async #copy(frame) {
    const { width, height } = frame.visibleRect;
    const size = frame.allocationSize(AS);
    if (size !== width * height * 4) throw unreadable(frame.format, width, height);
    if (this.buffer.length !== size) this.buffer = new Uint8Array(size);
    const [{ offset, stride }] = await frame.copyTo(this.buffer, AS);
    if (offset !== 0 || stride !== width * 4) throw unreadable(frame.format, width, height);
    return { pixels: this.buffer, width, height };
  }

  #draw(source) {
    const width = source.displayWidth ?? source.width;
    const height = source.displayHeight ?? source.height;
    if (!(width > 0 && height > 0) || width * height > MAX_PIXELS) throw unreadable(source.format, width, height);
    if (this.canvas?.width !== width || this.canvas.height !== height) {
      this.canvas = new OffscreenCanvas(width, height);
      this.context = this.canvas.getContext("2d", { willReadFrequently: true });
      if (!this.context) throw unreadable(source.format, width, height);
    }
    this.context.fillStyle = "white"; // what is transparent lies over white, as in lavit_edge/contract/pictures.py
    this.context.fillRect(0, 0, width, height);
    this.context.drawImage(source, 0, 0, width, height);
    const { data } = this.context.getImageData(0, 0, width, height);
    if (!(data instanceof Uint8ClampedArray) || data.length !== width * height * 4) throw unreadable(source.format, width, height);
    return { pixels: new Uint8Array(data.buffer), width, height };
  }
}

/** Whether a source can be copied as it lies: a frame that is upright, with square pixels, in a browser that converts to RGBA. */
function copies(source) {
  if (!source.visibleRect || source.rotation || source.flip) return false;
  if (source.displayWidth !== source.visibleRect.width || source.displayHeight !== source.visibleRect.height) return false;
  let asked = false; // a browser that does not know the option copies in the frame's own format
  try {
    source.allocationSize({
      get format() {
        asked = true;
        return AS.format;
      },
    });
  } catch {
    return false; // no conversion from this frame's format
  }
  return asked;
}

function unreadable(format, width, height) {
  return new ArtifactError(`a frame of unexpected format: ${width} x ${height}, ${format ?? "format unknown"}`);
}
