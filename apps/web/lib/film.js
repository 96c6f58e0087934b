/** The camera's film: its newest frame is classified, as often as the model is ready, until it is stopped. */

import { countCameras, frameOf, openCamera } from "./camera.js";
import { TEXT } from "./strings.js";
import { Closed } from "./workplace.js";

const MISSED = 5; // frames in a row that cannot be classified, before the camera is stopped

export class Film {
  /**
   * @param {HTMLVideoElement} video
   * @param {(event: {kind: string, [field: string]: any}) => void} tell `filming`, `missed` and `cameraFailed` of state.js
   * @param {(seen: {probabilities: Float64Array, times: Record<string, number>}, seconds: number) => void} see for each frame
   */
  constructor(video, tell, see) {
    Object.assign(this, { video, tell, see });
    this.turn = 0; // counts starts and stops: what was asked for in an earlier one is dropped
    this.stream = null;
  }

  /**
   * @param {boolean} front
   * @param {import("./workplace.js").Workplace} model open
   */
  async start(front, model) {
    this.stop();
    const mine = this.turn;
    let stream;
    try {
      stream = await openCamera(front ? "user" : "environment");
    } catch (error) {
      if (mine === this.turn) this.tell({ kind: "cameraFailed", why: error.message });
      return;
    }
    const [track] = stream.getVideoTracks();
    if (mine !== this.turn) {
      track.stop();
      return;
    }
    this.stream = stream;
    track.onended = () => this.tell({ kind: "cameraFailed", why: TEXT.cameraTaken });
    const { video } = this;
    video.classList.toggle("mirrored", track.getSettings().facingMode === "user");
    video.srcObject = stream;
    this.#look(mine, model);
    const cameras = await countCameras();
    if (mine === this.turn) this.tell({ kind: "filming", cameras, hasTorch: Boolean(track.getCapabilities?.().torch) });
    await video.play().catch(() => {}); // interrupted when the camera is stopped at once
  }

  /** Frames to the model, the newest when it is ready: one that came meanwhile and was followed by another is left out. */
  #look(mine, model) {
    let fresh = null; // when the newest frame came, in ms, unless it has been classified
    let busy = false;
    let missed = 0;
    const classify = async () => {
      if (busy || fresh === null || mine !== this.turn) return;
      if (this.video.readyState < this.video.HAVE_CURRENT_DATA) return; // the callback was for a frame of the stream before
      const came = fresh;
      [fresh, busy] = [null, true];
      try {
        const source = await frameOf(this.video);
        const seen = await model.ask("classify", { source }, { transfer: [source] });
        if (mine !== this.turn) return;
        missed = 0;
        this.see(seen, came / 1000);
      } catch (error) {
        if (mine !== this.turn || error instanceof Closed) return;
        this.tell({ kind: "missed" });
        // between two streams a frame may be gone before it is read
        if (++missed >= MISSED) this.tell({ kind: "cameraFailed", why: TEXT.cameraStopped(error.message) });
      } finally {
        busy = false;
        classify();
      }
    };
    const onFrame = (now) => {
      if (mine !== this.turn) return;
      fresh = now;
      classify();
      this.video.requestVideoFrameCallback(onFrame);
    };
    this.video.requestVideoFrameCallback(onFrame);
  }

  /** @param {boolean} on */
  async torch(on) {
    await this.stream?.getVideoTracks()[0].applyConstraints({ advanced: [{ torch: on }] });
  }

  stop() {
    this.turn += 1;
    for (const track of this.stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.stream = null;
    this.video.srcObject = null;
  }
}
