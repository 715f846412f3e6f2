"""Open one source and decode it: a file or URL (PyAV), a folder of pictures, or a camera (OpenCV).

What did not decode faithfully is told apart from what did: FFmpeg fills in what is missing in a damaged stream, and predicts
the following frames from that, until the next one that stands by itself.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import cv2
import numpy as np

from openlepton.arrays import Array, Image
from openlepton.errors import ImageError, UsageError, VideoNotFound, VideoUnreadable, missing_extra
from openlepton.images import LIMITS, read_image
from openlepton.video.trust import Trust

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

Source: TypeAlias = str | os.PathLike[str] | int
"""A video file, a folder of pictures, the number of a camera, or a URL (`rtsp://`, `http://`, ...)."""

PICTURES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
FOLDER_FPS = 25.0
"""How fast the pictures of a folder follow each other, as nothing in it says."""

FILE_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc,mjpeg,m4v,ivf,mxf,wtv,"
    "yuv4mpegpipe,apng,dv,nut,rm,vob"
)
"""What a file may be: not a playlist, which would name other files and addresses."""

URL_PROTOCOLS = "http,https,httpproxy,tcp,tls,udp,rtp,srtp,rtsp,rtmp,rtmps,rtmpt,srt,crypto,data,hls"
"""What a stream may lead to: not to files."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SMALL = 1280 * 720  # pixels
_UNTIMED = frozenset(("mpjpeg", "mjpeg", "h264", "hevc", "m4v", "mpegvideo"))  # live, their timestamps are made up


class Shot(NamedTuple):
    """One frame of a source, not converted yet."""

    time_s: float
    """Since the source's first frame."""
    picture: Callable[[], Image] | None
    """Makes the picture, `(H, W, 3)` RGB uint8; None where it did not decode faithfully."""


@dataclass(frozen=True)
class Opened:
    """A source that has been opened."""

    shots: Iterator[Shot]
    live: bool
    """Whether it has no end: when it stops, something is wrong."""


def is_url(source: Source) -> bool:
    """Return whether the source is an address, not a file."""
    return isinstance(source, str) and _URL.match(source) is not None


def camera_number(source: Source) -> int | None:
    """Return the number of a camera, `0` or `"0"`; None for everything else."""
    if isinstance(source, int):
        return source
    text = os.fspath(source)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 and not Path(text).exists() else None


def display_name(source: Source) -> str:
    """Return what a source is called in results and messages: its text, without the password of a URL."""
    text = os.fspath(source) if isinstance(source, os.PathLike) else str(source)
    return re.sub(r"(?<=://)[^/@\s]*@", "", text) if is_url(text) else text


def check_source(source: Source) -> None:
    """Raise what can be known of a source before it is opened.

    Raises:
        VideoNotFound: There is no such file or folder.
        MissingExtra: PyAV, which files and URLs need, is not installed.
        UsageError: It is no source.
    """
    if not isinstance(source, (str, os.PathLike, int)) or isinstance(source, bool):
        raise UsageError(f"a source is a path, a URL or the number of a camera, not {type(source).__name__}")
    if camera_number(source) is not None:
        return
    path = Path(source)  # type: ignore[arg-type]  # a whole number is a camera
    if not is_url(source) and not path.exists():
        raise VideoNotFound(f"{display_name(source)}: no such file or folder")
    if is_url(source) or not path.is_dir():
        import_av()


def import_av() -> Any:
    """Return the module `av`.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise missing_extra("av (PyAV)", "video") from error
    return av


def frame_count(source: Source) -> int:
    """Return about how many frames a file or folder has, 0 where that cannot be known beforehand."""
    if is_url(source) or camera_number(source) is not None:
        return 0
    path = Path(source)  # type: ignore[arg-type]
    if not path.exists():
        return 0
    if path.is_dir():
        return sum(file.suffix.lower() in PICTURES for file in path.iterdir())
    try:
        with _container(os.fspath(path), 0) as container:
            if not container.streams.video:
                return 0
            stream = container.streams.video[0]
            seconds = float(container.duration or 0) / 1e6
            return stream.frames or round(seconds * float(stream.average_rate or 0))
    except VideoUnreadable:
        return 0  # who reads it will say so


@contextmanager
def open_source(source: Source, *, timeout_s: float, threads: int = 0) -> Iterator[Opened]:
    """Give a source, opened; it is closed afterwards.

    Args:
        source: What to open.
        timeout_s: How long a network stream may say nothing, seconds.
        threads: Of the decoder; 0 lets it decide.

    Raises:
        VideoNotFound: There is no such file, folder or camera.
        VideoUnreadable: It cannot be opened, has no frames, or (from `shots`) ends in damage.
    """
    number = camera_number(source)
    if number is not None:
        capture = cv2.VideoCapture(number)
        try:
            if not capture.isOpened():
                raise VideoNotFound(f"camera {number}: there is none, or another program has it")
            yield Opened(_camera(capture, f"camera {number}"), live=True)
        finally:
            capture.release()
    elif not is_url(source) and Path(source).is_dir():  # type: ignore[arg-type]
        yield Opened(_folder(Path(source)), live=False)  # type: ignore[arg-type]
    else:
        with _container(os.fspath(source), timeout_s) as container:  # type: ignore[arg-type]
            live = is_url(source) and container.duration is None
            stream = _video_stream(container, display_name(source), threads, live=live)
            yield Opened(_decoded(container, stream, display_name(source), live=live), live)


def _camera(capture: "cv2.VideoCapture", name: str) -> Iterator[Shot]:
    started = None
    while True:
        done, image = capture.read()
        if not done or image is None:
            raise VideoUnreadable(f"{name}: sends no more frames")
        now = time.monotonic()
        started = now if started is None else started
        yield Shot(now - started, partial(_from_bgr, image))


def _from_bgr(image: Array) -> Image:
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _folder(folder: Path) -> Iterator[Shot]:
    files = sorted((file for file in folder.iterdir() if file.suffix.lower() in PICTURES), key=_by_number)
    if not files:
        raise VideoUnreadable(f"{folder}: no pictures in this folder")
    for index, file in enumerate(files):
        try:
            image = read_image(file)
        except ImageError:
            yield Shot(index / FOLDER_FPS, None)
            continue
        yield Shot(index / FOLDER_FPS, partial(np.asarray, image))


def _by_number(file: Path) -> list[str | int]:
    """Return a key that puts frame10 after frame9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name)]


@contextmanager
def _container(name: str, timeout_s: float) -> "Iterator[InputContainer]":
    av = import_av()
    url = is_url(name)
    shown = display_name(name)
    options = (
        {"protocol_whitelist": URL_PROTOCOLS, "rtsp_transport": "tcp"}
        if url
        else {"protocol_whitelist": "file", "format_whitelist": FILE_FORMATS}
    )
    if not url and Path(name).stat().st_size == 0:
        raise VideoUnreadable(f"{shown}: an empty file")
    try:
        container = av.open(
            name if url else f"file:{name}", container_options=options, timeout=(timeout_s, timeout_s) if url else None
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        what = "cannot be opened" if url else "not a video, or damaged"
        raise VideoUnreadable(f"{shown}: {what} ({_reason(error)})") from error
    try:
        yield container
    finally:
        container.close()


def _video_stream(container: "InputContainer", name: str, threads: int, *, live: bool) -> "VideoStream":
    streams = container.streams
    if not streams.video:
        kinds = ", ".join(sorted({stream.type for stream in streams}))
        raise VideoUnreadable(f"{name}: has no video in it{kinds and f', only {kinds}'}")
    stream = streams.video[0]
    context = stream.codec_context
    if context.width * context.height > LIMITS.max_pixels:
        raise VideoUnreadable(f"{name}: {context.width} x {context.height} pixels, more than {LIMITS.max_pixels:,}")
    # Threads that decode a frame each are fastest, and hold as many frames back: not what a live stream wants. Small frames
    # are decoded faster than anything looks at them.
    context.thread_type = "SLICE" if live else "AUTO"
    context.thread_count = 1 if context.width * context.height <= _SMALL else threads
    return stream


def _decoded(container: "InputContainer", stream: "VideoStream", name: str, *, live: bool) -> Iterator[Shot]:
    av = import_av()
    untimed = live and container.format.name in _UNTIMED
    order = "dts" if container.format.name == "avi" else "pts"  # an AVI only counts frames, in the order of decoding
    clock = _Clock(float(stream.average_rate or stream.guessed_rate or FOLDER_FPS), untimed=untimed)
    reformatter = av.video.reformatter.VideoReformatter()  # kept, as setting one up costs as much as using it
    trust = Trust()
    seen, why = 0, ""
    reached = Fraction(0)

    def shots(frames: "list[tuple[VideoFrame, bool]]") -> Iterator[Shot]:
        for frame, trusted in frames:
            ticks = getattr(frame, order)
            time_s = clock.time_s(
                None if ticks is None or stream.time_base is None else float(ticks * stream.time_base)
            )
            yield Shot(time_s, partial(_picture, frame, reformatter) if trusted else None)

    for packet in _packets(container, stream):
        if isinstance(packet, Exception):
            yield from shots(trust.rest())
            raise VideoUnreadable(f"{name}: broken off after {clock.last_s:.2f} s ({_reason(packet)})") from packet
        if packet is not None:
            trust.packet(packet)
            if packet.pts is not None and packet.duration:
                reached = max(reached, (packet.pts + packet.duration) * (packet.time_base or Fraction(1)))
        try:
            decoded = stream.decode(packet)
        except av.EOFError:
            continue  # emptied already
        except av.FFmpegError as error:
            trust.failed()
            why = f" that can be decoded ({_reason(error)})"
            yield Shot(clock.after_s(), None)
            continue
        seen += len(decoded)
        yield from shots(trust.frames(decoded, stream.codec_context.reorder_depth))
    yield from shots(trust.rest())
    if not seen:
        raise VideoUnreadable(f"{name}: has no frames{why}")
    if not live:
        _check_end(stream, name, reached)


def _packets(container: "InputContainer", stream: "VideoStream") -> "Iterator[Packet[VideoStream] | Exception | None]":
    """Yield the packets of a stream; where it breaks off None, which empties the decoder, and then the error."""
    av = import_av()
    try:
        yield from container.demux(stream)
    except av.EOFError:
        yield None
    except av.FFmpegError as error:
        yield None
        yield error


def _check_end(stream: "VideoStream", name: str, reached: Fraction) -> None:
    """Raise if the file promised noticeably more than it gave."""
    if stream.duration is None or stream.time_base is None:
        return
    end = (stream.duration + (stream.start_time or 0)) * stream.time_base
    slack = max(Fraction(1, 4), 2 / (stream.average_rate or Fraction(25)))
    if reached and end - reached > slack:
        raise VideoUnreadable(f"{name}: cut short: {float(reached):.2f} of {float(end):.2f} s are there")


class _Clock:
    """Turns the timestamps of a stream, which may be missing, repeated or made up, into seconds that always grow."""

    def __init__(self, rate: float, *, untimed: bool) -> None:
        self.step_s = 1 / rate
        self.untimed = untimed
        self.first_s: float | None = None
        self.last_s = -self.step_s

    def after_s(self) -> float:
        """Return a time soon after the last frame, for one of which nothing is known."""
        self.last_s = max(self.last_s, 0.0) + 1e-6
        return self.last_s

    def time_s(self, stamp: float | None) -> float:
        """Return the time of the next frame, from 0."""
        if self.untimed:
            stamp = time.monotonic()
        if stamp is not None and self.first_s is None:
            self.first_s = stamp - max(self.last_s + self.step_s, 0.0)
        now = None if stamp is None or self.first_s is None else stamp - self.first_s
        if now is None or now <= self.last_s:
            now = self.last_s + self.step_s
        elif self.last_s >= 0:
            self.step_s = now - self.last_s
        self.last_s = now
        return now


def _picture(frame: "VideoFrame", reformatter: "VideoReformatter") -> Image:
    converted = reformatter.reformat(frame, format="rgb24", threads=1)
    height, width, plane = converted.height, converted.width, converted.planes[0]
    lines = np.frombuffer(cast("bytes", plane), np.uint8).reshape(height, plane.line_size)  # keeps the frame alive
    image: Image = np.ascontiguousarray(lines[:, : 3 * width]).reshape(height, width, 3)  # a copy only of padded lines
    turn = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}.get(
        frame.rotation % 360
    )
    return image if turn is None else cv2.rotate(image, turn).astype(np.uint8, copy=False)


def _reason(error: Exception) -> str:
    """Return why, on one line and without the address, which may hold a password."""
    if isinstance(error, import_av().ExitError):  # PyAV interrupts FFmpeg when the time is up
        return "nothing came in time"
    return " ".join((getattr(error, "strerror", None) or type(error).__name__).split())
