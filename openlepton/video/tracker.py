"""SORT, ByteTrack and OC-SORT: detections in, the same detections with identities out."""

from collections.abc import Callable
from typing import Any, Protocol

from openlepton.arrays import Image
from openlepton.errors import UsageError
from openlepton.results import Detections
from openlepton.video.bytetrack import ByteTrack
from openlepton.video.ocsort import OcSort
from openlepton.video.sort import Sort

__all__ = ["TRACKERS", "ByteTrack", "OcSort", "Sort", "Tracker", "make_tracker"]


class Tracker(Protocol):
    """Follows objects from frame to frame; its state and its identities are its own."""

    def update(self, found: Detections, *, image: Image | None = None) -> Detections:
        """Return those of the next frame's detections that belong to a track, with `track_ids`.

        Boxes, scores and masks are those that came in, in their order. Identities start at 1 and are never given twice. Call it
        for every frame, with no detections where there are none.

        Args:
            found: The detections of the next frame.
            image: The frame, `(H, W, 3)`, for a tracker that makes up for the camera's motion.

        Raises:
            ShapeError: A box or score is not a finite number.
            UsageError: The tracker needs the image.
        """


TRACKERS: dict[str, Callable[..., Tracker]] = {"sort": Sort, "bytetrack": ByteTrack, "ocsort": OcSort}
"""Every tracker by name."""


def make_tracker(name: str, **options: Any) -> Tracker:
    """Return a new tracker: `sort`, `bytetrack` or `ocsort`, with the options of its class (`min_score`, `class_aware`, ...).

    Raises:
        UsageError: There is no tracker of that name, it has no such option, or one is out of range.
    """
    if name not in TRACKERS:
        raise UsageError(f"no tracker {name!r}: choose {', '.join(TRACKERS)}")
    try:
        return TRACKERS[name](**options)
    except TypeError as error:
        raise UsageError(f"{name}: has no option of that name ({error})") from error
