"""SORT, ByteTrack and OC-SORT: detections in, the same detections with identities out."""

from typing import Any, Protocol

from openlepton.arrays import Image
from openlepton.results import Detections


class Tracker(Protocol):
    """Follows objects from frame to frame; its state and its identities are its own."""

    def update(self, found: Detections, *, image: Image | None = None) -> Detections:
        """Return those of the next frame's detections that belong to a track, with `track_ids`.

        Boxes, scores and masks are those that came in. Identities start at 1 and are never given twice. Call it for every frame,
        with no detections where there are none.

        Args:
            found: The detections of the next frame.
            image: The frame, `(H, W, 3)`, for a tracker that makes up for the camera's motion.

        Raises:
            ShapeError: A box or score is not a finite number.
        """


def make_tracker(name: str, **options: Any) -> Tracker:
    """Return a new tracker: `sort`, `bytetrack` or `ocsort`, with the options of its class (`class_aware`, `camera_motion`, ...).

    Raises:
        UsageError: There is no tracker of that name, or it has no such option.
    """
    raise NotImplementedError
