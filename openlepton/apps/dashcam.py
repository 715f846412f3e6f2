"""A camera behind a windscreen: how far away something is, from what is known of the camera and of the thing.

::

    [camera]                      # camera.toml
    fov_deg = 60                  # across the picture; or focal_px, with the `width` of the pictures it was measured on
    height_m = 1.35               # above the road; without it, distances come from heights of boxes alone
    horizon = 0.5                 # where the horizon lies, as a share of the picture's height

    [heights_m]                   # of what is not as tall as is usual
    bus = 3.2
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from openlepton.video.analytics import Track
from openlepton.video.zones import Part, read_toml

HEIGHTS_M: Mapping[str, float] = {
    "bicycle": 1.1, "bus": 3.1, "car": 1.5, "cyclist": 1.75, "motorbike": 1.5, "motorcycle": 1.5, "person": 1.7, "speedlimit": 0.75,
    "stop": 0.75, "stop sign": 0.75, "traffic light": 0.9, "trafficlight": 0.9, "train": 3.8, "truck": 3.2,
}  # fmt: skip
"""How tall things usually are, metres; of signs the plate."""

HANGING = frozenset(("speedlimit", "stop", "stop sign", "traffic light", "trafficlight", "train"))
"""Classes whose lower edge is not where they touch the road."""

LEAST_DROP = 0.02
"""A foot nearer to the horizon than this share of the picture's height says too little about distance."""

SPAN_S = 0.8
"""Over which growth is measured."""


class Lens(Part):
    """Where the camera is and how it sees."""

    fov_deg: float | None = Field(default=None, gt=5, lt=170)
    focal_px: float | None = Field(default=None, gt=0)
    width: int | None = Field(default=None, gt=0)
    height_m: float | None = Field(default=None, gt=0, lt=10)
    horizon: float = Field(default=0.5, ge=-1, le=2)

    @model_validator(mode="after")
    def _told_once(self) -> Self:
        if (self.fov_deg is None) == (self.focal_px is None) or (self.focal_px is None) != (self.width is None):
            raise ValueError("say fov_deg, or focal_px together with width")
        return self


class Dashcam(Part):
    """A calibrated camera."""

    camera: Lens
    heights_m: Mapping[str, float] = {}

    def focal(self, image_hw: tuple[int, int]) -> float:
        """Return the focal length for pictures of `image_hw`, pixels."""
        lens, width = self.camera, image_hw[1]
        if lens.fov_deg is not None:
            return float(width / 2 / np.tan(np.deg2rad(lens.fov_deg) / 2))
        assert lens.focal_px is not None, "the file is checked for it"
        assert lens.width is not None, "the file is checked for it"
        return lens.focal_px * width / lens.width

    def distance(self, track: Track, image_hw: tuple[int, int]) -> tuple[float | None, Literal["ground", "height", ""]]:
        """Return how far ahead an object is, metres, and what that was taken from; None where neither can be trusted.

        Where it touches the road tells (`ground`), if the camera's height is known, the foot is seen and well below the horizon;
        otherwise how tall it seems (`height`), if all of it is seen and its usual height is known.
        """
        box, lens, height = track.boxes[-1], self.camera, image_hw[0]
        foot_seen, all_seen = box[3] < height - 2, box[1] > 1 and box[3] < height - 2
        drop = float(box[3] - lens.horizon * height)
        if lens.height_m is not None and track.label not in HANGING and foot_seen and drop > LEAST_DROP * height:
            return self.focal(image_hw) * lens.height_m / drop, "ground"
        tall = self.heights_m.get(track.label, HEIGHTS_M.get(track.label))
        if tall is not None and all_seen:
            return self.focal(image_hw) * tall / max(float(box[3] - box[1]), 1.0), "height"
        return None, ""

    def lateral(self, track: Track, distance_m: float, image_hw: tuple[int, int]) -> float:
        """Return how far to the right of the camera's axis an object is, metres."""
        middle = float(track.boxes[-1, 0] + track.boxes[-1, 2]) / 2
        return (middle - image_hw[1] / 2) * distance_m / self.focal(image_hw)


@dataclass(frozen=True)
class Growth:
    """How an object's picture changes."""

    rate: float
    """Of its height, a second: 0.5 means half as tall again in a second."""

    @property
    def collision_s(self) -> float | None:
        """Seconds until it would be reached at the present speeds; None if it does not come nearer."""
        return 1 / self.rate if self.rate > 0.02 else None


def growth(track: Track, image_hw: tuple[int, int]) -> Growth | None:
    """Return how fast an object's box grows; None if the picture's edge cuts it off or it is too new.

    Time to collision needs no calibration: it is the height over its change (Lee, A Theory of Visual Control of Braking, 1976).
    """
    recent = track.between(SPAN_S)
    boxes, times = recent.boxes, recent.times
    cut = (boxes[:, 1] <= 1) | (boxes[:, 3] >= image_hw[0] - 2)
    if len(times) < 4 or times[-1] - times[0] < 0.3 or cut.any():
        return None
    logs = np.log(np.maximum(boxes[:, 3] - boxes[:, 1], 1.0))
    centred = times - times.mean()
    return Growth(float(centred @ (logs - logs.mean()) / (centred @ centred)))


def read_dashcam(path: str | os.PathLike[str]) -> Dashcam:
    """Return the calibration in a TOML file.

    Raises:
        RulesInvalid: It is missing, no TOML, or says something that is not understood; the line says where.
    """
    return read_toml(path, Dashcam)
