"""How the picture as a whole moved from one frame to the next, when the camera does."""

import cv2
import numpy as np

from openlepton.arrays import Array, Image
from openlepton.errors import UsageError

_LONG_SIDE = 480  # corners are followed in a smaller picture
_CORNERS = 400
_LEAST = 12  # so few corners prove nothing


class CameraMotion:
    """Estimates the motion of the whole picture from corners followed by optical flow (Lucas and Kanade, 1981).

    A similarity (shift, turn, scale) is fitted to them with RANSAC, so that what moves by itself does not count.
    """

    def __init__(self) -> None:
        self._last: Array | None = None

    def step(self, image: Image | None) -> Array:
        """Return `(2, 3)` where a point of the last image is in this one; no motion where none can be made out.

        Raises:
            UsageError: There is no image.
        """
        if image is None:
            raise UsageError("camera_motion: update needs the frame's image")
        shrink = min(1.0, _LONG_SIDE / max(image.shape[:2]))
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) if shrink < 1 else grey
        last, self._last = self._last, grey
        motion = np.eye(2, 3) if last is None or last.shape != grey.shape else _between(last, grey)
        motion[:, 2] /= shrink
        return motion


def _between(last: Array, now: Array) -> Array:
    still = np.eye(2, 3)
    corners = cv2.goodFeaturesToTrack(last, _CORNERS, 0.01, 7)
    if corners is None or len(corners) < _LEAST:
        return still
    moved, there, _ = cv2.calcOpticalFlowPyrLK(last, now, corners, None)  # type: ignore[call-overload]
    there = there.ravel() == 1
    if there.sum() < _LEAST:
        return still
    motion, inside = cv2.estimateAffinePartial2D(corners[there], moved[there], ransacReprojThreshold=1.5)
    if motion is None or inside.sum() < _LEAST:
        return still
    return np.asarray(motion, np.float64)
