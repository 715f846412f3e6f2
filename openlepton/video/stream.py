"""Frames of files, folders, cameras and network streams, one or several at once; what is lost is counted and told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from openlepton.arrays import Image

Source = str | os.PathLike[str] | int
"""A video file, a folder of pictures, the number of a camera, or a URL (`rtsp://`, `http://`, ...)."""

Policy = Literal["all", "latest"]
"""`all`: every frame, the decoder waits for the consumer. `latest`: the newest frame, older ones are dropped and counted; a
file is then played at its own speed, as a camera would."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a stream."""

    image: Image
    """`(H, W, 3)` RGB uint8, the right way up."""
    index: int
    """Which frame of its source, from 0; those that were skipped, dropped or damaged have a number too."""
    time_s: float
    """When, in seconds of the stream: the file's own timestamps from 0, or since the first frame of a live stream. It grows
    with every frame of a source, across reconnections too."""
    age_s: float
    """How long before it was handed out the picture had been received, seconds."""
    source: str
    """The name of its source."""


@dataclass(frozen=True)
class StreamEvent:
    """What happened to a source."""

    source: str
    kind: Literal["dead", "recovered", "ended"]
    """`dead`: no frames any more; a live source is tried again. `recovered`: frames again. `ended`: that was all."""
    time_s: float
    """The source's own time: that of its last frame (dead, ended) or of its first new one (recovered)."""
    reason: str
    """In words, one line; empty where nothing went wrong."""


@dataclass(frozen=True)
class Counters:
    """How a source has fared so far."""

    frames: int = 0
    """Handed out."""
    skipped: int = 0
    """Left out on demand, by `every`."""
    dropped: int = 0
    """Replaced by a newer one before anybody took them (policy `latest`)."""
    damaged: int = 0
    """Not handed out because they did not decode faithfully."""
    errors: int = 0
    """Times that the source failed, attempts to open it again included."""
    reconnects: int = 0
    """Times that it came back."""


class Reader:
    """Frames of several sources at once, each decoded in a thread of its own, in the order of their arrival.

    A context manager and an iterator; it ends when every source has ended. A source that dies does not stop the others: a live
    one is opened again after 1, 2, 4 ... `max_wait_s` seconds, for ever; a file that is damaged is done with (`dead`).
    """

    def __init__(
        self,
        sources: Mapping[str, Source] | Sequence[Source],
        *,
        every: int = 1,
        policy: Policy = "all",
        queue: int = 4,
        timeout_s: float = 10.0,
        max_wait_s: float = 30.0,
        on_event: Callable[[StreamEvent], None] | None = None,
    ) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    @property
    def counters(self) -> dict[str, Counters]:
        """The counters of each source, by name."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop every thread and close every source; does nothing the second time."""
        raise NotImplementedError


def frames(
    source: Source,
    *,
    every: int = 1,
    policy: Policy = "all",
    queue: int = 4,
    timeout_s: float = 10.0,
    max_wait_s: float = 30.0,
    on_event: Callable[[StreamEvent], None] | None = None,
) -> Iterator[Frame]:
    """Yield the frames of one source, decoded a few ahead in a thread.

    Args:
        source: A video file, a folder of pictures (in order of name), a camera's number or a URL.
        every: Yield each `every`-th frame.
        policy: `all` for every frame, `latest` for the newest one.
        queue: The most decoded frames that wait.
        timeout_s: A live stream that sends nothing for so long is dead.
        max_wait_s: The longest pause between two attempts to open a dead stream again.
        on_event: Called, in the thread that iterates, when a live stream dies, recovers or ends.

    Raises:
        VideoNotFound: There is no such file, folder or camera.
        VideoUnreadable: No video, no frames, a damaged file (after its good frames), or a stream that cannot be opened at first.
        MissingExtra: PyAV is not installed.
    """
    raise NotImplementedError


class VideoWriter:
    """Writes an mp4 that keeps each frame's time; a context manager.

    The file appears under its name when it is closed, which an interrupt does too. Until then it grows as `NAME.part.mp4`, which
    plays even if the process is killed. Frames of odd width or height are padded by one pixel, as H.264 demands.
    """

    def __init__(self, path: str | os.PathLike[str], *, fps: float | None = None) -> None:
        self.path = Path(path)
        raise NotImplementedError

    def write(self, image: Image, time_s: float | None = None) -> None:
        """Add a frame, `(H, W, 3)` RGB uint8, shown from `time_s` on; without a time, 1 / `fps` after the one before.

        Raises:
            UsageError: `time_s` is not later than the frame before, or neither `time_s` nor `fps` is given.
            ShapeError: It has another size than the first frame.
            OutputError: The disk does not take it.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Finish the file and give it its name; nothing is left if no frame was written."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
