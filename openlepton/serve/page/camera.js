// The webcam: one frame after the other, the next only when the last one was answered, so that what is drawn is never late.

import { Problem } from "./server.js";

const LONGEST = 960; // pixels; more would only be scaled down again
const REFUSED = { NotAllowedError: "camera-refused", SecurityError: "camera-refused", NotFoundError: "camera-none" };

let stream = null;

export const running = () => stream !== null;

// Gives each frame to `work` as a picture and as a JPEG, until `stop` is called or `work` throws.
export async function start(work) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Problem("camera-insecure");
  }
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  const mine = await open();
  stream = mine;
  try {
    video.srcObject = mine;
    await video.play();
    while (stream === mine) {
      await fresh(video);
      const frame = await createImageBitmap(video, sized(video));
      const file = await jpeg(frame);
      if (stream === mine) {
        await work(frame, file);
      }
    }
  } finally {
    release(mine);
  }
}

export function stop() {
  if (stream) {
    release(stream);
  }
}

async function open() {
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch (error) {
    throw new Problem(REFUSED[error.name] ?? "camera-none");
  }
}

function release(mine) {
  mine.getTracks().forEach((track) => track.stop());
  if (stream === mine) {
    stream = null;
  }
}

// Waits for a frame that was not seen yet; a stopped camera gives none, so not for ever.
function fresh(video) {
  return new Promise((resolve) => {
    setTimeout(resolve, 1000);
    video.requestVideoFrameCallback ? video.requestVideoFrameCallback(resolve) : requestAnimationFrame(resolve);
  });
}

function sized({ videoWidth, videoHeight }) {
  const scale = Math.min(1, LONGEST / Math.max(videoWidth, videoHeight));
  return { resizeWidth: Math.round(videoWidth * scale), resizeHeight: Math.round(videoHeight * scale) };
}

async function jpeg(frame) {
  const canvas = new OffscreenCanvas(frame.width, frame.height);
  canvas.getContext("2d").drawImage(frame, 0, 0);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 });
}
