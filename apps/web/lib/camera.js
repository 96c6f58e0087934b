/** The camera, and what to tell a user when there is none. */

const REASONS = {
  NotAllowedError: "The camera is not permitted. Allow it in the browser's settings for this site, then start it again.",
  NotFoundError: "There is no camera here. A picture can be classified instead.",
  NotReadableError: "The camera cannot be read; another app may be using it.",
  OverconstrainedError: "No camera here gives such frames.",
};
const NOT_SECURE = "Browsers give a camera to pages over https or from localhost only.";
const WANTED = { width: { ideal: 640 }, height: { ideal: 480 } };

/** Its message is for the user. */
export class CameraError extends Error {}

/**
 * @param {"environment" | "user"} facing the camera that is preferred
 * @returns {Promise<MediaStream>}
 * @throws {CameraError}
 */
export async function openCamera(facing) {
  if (!navigator.mediaDevices?.getUserMedia) throw new CameraError(NOT_SECURE);
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: false, video: { ...WANTED, facingMode: { ideal: facing } } });
  } catch (error) {
    throw new CameraError(REASONS[error.name] ?? `The camera cannot be opened (${error.message || error.name}).`);
  }
}

/** What a video shows now, to be handed to a worker. Browsers without VideoFrame copy it. */
export async function frameOf(video) {
  return typeof VideoFrame === "function" ? new VideoFrame(video) : createImageBitmap(video);
}
