"""The main job on a video: detect, track, draw, write, each while the others work on other frames."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

from openlepton.arrays import Image
from openlepton.drawing import PALETTE, draw
from openlepton.errors import OutputError
from openlepton.results import Detections
from openlepton.video.analytics import Analytics
from openlepton.video.flow import ahead
from openlepton.video.overlay import draw_trail
from openlepton.video.stream import Frame, VideoWriter
from openlepton.video.tracker import Tracker
from openlepton.video.zones import Scene


@dataclass(frozen=True)
class Followed:
    """A frame and what is tracked in it."""

    frame: Frame
    found: Detections
    """With `track_ids`."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings: a line of the JSONL."""
        return {
            "source": self.frame.source,
            "frame": self.frame.index,
            "time_s": round(self.frame.time_s, 6),
            **self.found.to_dict(),
        }


def follow(
    frames: Iterable[Frame], detect: Callable[[Image], Detections], tracker: Tracker, *, workers: int = 1
) -> Iterator[Followed]:
    """Yield each frame with what is tracked in it, in order; frames are detected in `workers` threads ahead of the consumer.

    It is fastest with as many workers as there are cores and a detector of one thread:
    `load(name, runtime=partial(OnnxRuntime, threads=1))`.
    """
    for frame, found in ahead(lambda frame: (frame, detect(frame.image)), frames, workers=workers):
        yield Followed(frame, tracker.update(found, image=frame.image))


class Recorder:
    """Writes what is followed: an annotated mp4, a JSONL with a line for each frame, or both; a context manager.

    Args:
        video: Where the mp4 goes.
        lines: Where the JSONL goes; each line is there as soon as it is written.
        trails_s: For how many seconds the way of each track is drawn behind it.

    Raises:
        OutputError: A file cannot be written.
    """

    def __init__(self, *, video: Path | None = None, lines: Path | None = None, trails_s: float = 2.0) -> None:
        self._writer = None if video is None else VideoWriter(video)
        self._analytics = Analytics(Scene(), keep_s=trails_s) if trails_s > 0 else None
        self._size: tuple[int, int] | None = None
        try:
            self._lines = None if lines is None else lines.open("w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise OutputError(f"{lines}: cannot be written: {error.strerror or error}") from error

    def keep(self, step: Followed) -> Followed:
        """Write one frame, and return it."""
        if self._lines is not None:
            try:
                self._lines.write(json.dumps(step.to_dict(), ensure_ascii=False) + "\n")
                self._lines.flush()
            except OSError as error:
                raise OutputError(f"{self._lines.name}: cannot be written: {error.strerror or error}") from error
        if self._writer is not None:
            self._writer.write(self._sized(self._drawn(step)), step.frame.time_s)
        return step

    def close(self) -> None:
        """Finish the files."""
        if self._lines is not None:
            self._lines.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _drawn(self, step: Followed) -> Image:
        image = draw(step.frame.image, step.found)
        if self._analytics is not None:
            tracks = self._analytics.update(step.found, step.frame.time_s).tracks
            for track, index in zip(tracks, step.found.class_ids, strict=True):  # in the colour of its box
                draw_trail(image, track, PALETTE[int(index) % len(PALETTE)])
        return image

    def _sized(self, image: Image) -> Image:
        """Return the picture at the size that the video began with: a camera may come back with another."""
        self._size = self._size or (image.shape[1], image.shape[0])
        if image.shape[1::-1] == self._size:
            return image
        return cv2.resize(image, self._size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
