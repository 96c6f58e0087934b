/** The camera: opened, read frame by frame, and what to tell a user when there is none. */

import { TEXT } from "./strings.js";

const WANTED = { width: { ideal: 640 }, height: { ideal: 480 } };

/** Its message is for the user. */
export class CameraError extends Error {}

/**
 * @param {"environment" | "user"} facing the camera that is preferred
 * @returns {Promise<MediaStream>}
 * @throws {CameraError}
 */
export async function openCamera(facing) {
  if (!navigator.mediaDevices?.getUserMedia) throw new CameraError(TEXT.camera.insecure);
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: false, video: { ...WANTED, facingMode: { ideal: facing } } });
  } catch (error) {
    throw new CameraError(TEXT.camera[error.name] ?? TEXT.camera.other(error.message || error.name));
  }
}

/** What a video shows now, to be handed to a worker. Browsers without VideoFrame copy it. */
export async function frameOf(video) {
  return typeof VideoFrame === "function" ? new VideoFrame(video) : createImageBitmap(video);
}

/** How many cameras there are. Before one has been permitted browsers say one at most. */
export async function countCameras() {
  const devices = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  return devices.filter(({ kind }) => kind === "videoinput").length;
}
