"""Write frames to an mp4 that keeps their times, and that can be played whatever happens to the program."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from openlepton.arrays import Image
from openlepton.errors import OutputError, ShapeError, UsageError
from openlepton.video.decode import import_av

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

TICKS = 60_000
"""In a second: 24, 25, 30, 50 and 60 frames and 1,000 milliseconds divide it, and MPEG-4 admits no more than 65,535."""

_CODECS = (
    ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "crf": "23"}),
    ("mpeg4", {"qmin": "2", "qmax": "8"}),
)
_MEMORY = {"movflags": "hybrid_fragmented"}  # pieces that play by themselves, joined into a plain file at the end


class VideoWriter:
    """Writes an mp4 that keeps each frame's time; a context manager.

    The file appears under its name when it is closed, which an interrupt does too. Until then it grows as `NAME.part.mp4`, which
    plays even if the process is killed. Frames of odd width or height get one more column or row, as H.264 demands.

    Args:
        path: Ends in `.mp4`; what is there before is replaced when the file is closed.
        fps: Frames a second, for frames that come without a time.

    Raises:
        UsageError: The suffix is another, or `fps` is out of range.
        OutputError: There is no such folder.
        MissingExtra: PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, fps: float | None = None) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise UsageError(f"{path}: a video is written as .mp4")
        if fps is not None and not 0 < fps <= 1000:
            raise UsageError(f"fps: expected above 0 and at most 1000, got {fps}")
        if not self.path.parent.is_dir():
            raise OutputError(f"{path}: cannot be written: there is no folder {self.path.parent}")
        import_av()
        self._part = self.path.with_name(f"{self.path.stem}.part{self.path.suffix}")
        self._fps = fps
        self._opened: tuple[OutputContainer, VideoStream] | None = None
        self._shape: tuple[int, ...] = ()
        self._count = 0
        self._failed = False
        self._first_s = 0.0
        self._held: VideoFrame | None = None  # the last frame, until it is known how long it is shown
        self._held_ticks = -1
        self._span = round(TICKS / (fps or 25))

    def write(self, image: Image, time_s: float | None = None) -> None:
        """Add a frame, `(H, W, 3)` RGB uint8, shown from `time_s` on; without a time, 1 / `fps` after the one before.

        The first frame is the beginning, whatever its time.

        Raises:
            UsageError: `time_s` is not later than the frame before, or neither `time_s` nor `fps` is given.
            ShapeError: It is no such picture, or has another size than the first.
            OutputError: The disk does not take it.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ShapeError(f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
        if self._shape and image.shape != self._shape:
            raise ShapeError(f"{self.path}: begun with frames of {self._shape}, cannot go on with {image.shape}")
        ticks = self._ticks(time_s)
        with self._writing():
            if self._opened is None:
                self._opened = self._open(image)
                self._shape = image.shape
            if self._held is not None:
                self._span = ticks - self._held_ticks
                self._encode(*self._opened, self._held)
            self._held = import_av().VideoFrame.from_ndarray(_even(image), format="rgb24")
        self._held_ticks = ticks
        self._count += 1

    def close(self) -> None:
        """Finish the file and give it its name; nothing is left if no frame was written.

        Raises:
            OutputError: The disk does not take it.
        """
        opened, self._opened = self._opened, None
        held, self._held = self._held, None
        if opened is None:
            return
        container, stream = opened
        with self._writing():
            try:
                if held is not None and not self._failed:  # FFmpeg crashes if it is made to go on
                    self._encode(container, stream, held)
                    container.mux(stream.encode())
            finally:
                container.close()
            if self._failed:
                raise OutputError(f"{self.path}: is not whole; what could be written is {self._part}")
            self._part.replace(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ticks(self, time_s: float | None) -> int:
        """Return when the next frame is shown, in ticks since the first."""
        if time_s is None:
            if self._fps is None:
                raise UsageError(
                    "a frame needs a time, or the video a rate: write(image, time_s) or VideoWriter(path, fps=25)"
                )
            time_s = self._first_s + self._count / self._fps
        if self._count == 0:
            self._first_s = time_s
        ticks = round((time_s - self._first_s) * TICKS)
        if ticks <= self._held_ticks:
            raise UsageError(f"{self.path}: {time_s:.6f} s is not later than the frame before")
        return ticks

    def _open(self, image: Image) -> "tuple[OutputContainer, VideoStream]":
        av = import_av()
        name, options = next(each for each in _CODECS if each[0] in av.codec.codecs_available)
        container = av.open(str(self._part), "w", format="mp4", container_options=_MEMORY)
        rate = Fraction(self._fps or 25).limit_denominator(1001)
        stream = container.add_stream(name, rate=rate, options=options)
        stream.height, stream.width = (side + side % 2 for side in image.shape[:2])
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, TICKS)
        context.gop_size = max(1, round(2 * rate))  # a piece is what lies between two frames that stand by themselves
        context.flags |= av.codec.context.Flags.frame_duration  # the last frame's is written nowhere else
        context.colorspace, context.color_range = 6, 1  # how the conversion below is done: BT.601, 16 to 235
        return container, stream

    def _encode(self, container: "OutputContainer", stream: "VideoStream", frame: "VideoFrame") -> None:
        frame.pts, frame.time_base, frame.duration = self._held_ticks, Fraction(1, TICKS), self._span
        container.mux(stream.encode(frame))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # of PyAV too
            self._failed = True
            raise OutputError(f"{self.path}: cannot be written: {error.strerror or error}") from error


def _even(image: Image) -> Image:
    """Return the picture with its last column and row repeated where their number is odd."""
    height, width = image.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return np.ascontiguousarray(image)
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
