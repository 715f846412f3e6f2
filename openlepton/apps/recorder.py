"""Keeps what happened: events as JSON lines and in SQLite, and the seconds around each as a clip."""

import json
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np

from openlepton.apps import rules
from openlepton.apps.events import Event
from openlepton.arrays import Image
from openlepton.drawing import draw
from openlepton.errors import OutputError
from openlepton.results import Detections
from openlepton.video.stream import VideoWriter

RING_BYTES = 64 * 1024 * 1024
"""The most that the past of one source takes in memory, however long `before_s` is."""

WAITING_CLIPS = 4
"""So many clips may wait to be written; then the next event's frames wait, and a live source counts the frames it drops."""

_TYPES = {"track": "INTEGER", "start_s": "REAL NOT NULL", "end_s": "REAL", "id": "TEXT PRIMARY KEY"}


class EventLog:
    """Events in a folder, twice.

    `events.sqlite` gets a row when an event begins, which is completed when it ends; `events.jsonl` a line when it has ended.

    Raises:
        OutputError: The folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        columns = ", ".join(f"{field.name} {_TYPES.get(field.name, 'TEXT')}" for field in fields(Event))
        try:
            self._lines = (folder / "events.jsonl").open("a", encoding="utf-8")
            self._base = sqlite3.connect(folder / "events.sqlite", check_same_thread=False)
            with self._base:
                self._base.execute(f"CREATE TABLE IF NOT EXISTS events ({columns})")
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"{folder}: events cannot be written there: {error}") from error

    def opened(self, event: Event) -> None:
        """Write an event that begins."""
        self._write(event)

    def closed(self, event: Event) -> None:
        """Write an event that has ended."""
        self._write(event)
        try:
            self._lines.write(json.dumps(event.to_dict(), ensure_ascii=False) + "\n")
            self._lines.flush()
        except OSError as error:
            raise OutputError(f"{self._lines.name}: cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Close both files."""
        self._lines.close()
        self._base.close()

    def _write(self, event: Event) -> None:
        values = event.to_dict()
        marks = ", ".join(f":{name}" for name in values)
        try:
            with self._base:
                self._base.execute(f"INSERT OR REPLACE INTO events VALUES ({marks})", values)  # noqa: S608 - our own names
        except sqlite3.Error as error:
            raise OutputError(f"events.sqlite: cannot be written: {error}") from error


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame as it waits for its clip."""

    time_s: float
    jpeg: bytes
    found: Detections


class Ring:
    """The last seconds of one source, and the clips that are being made of them.

    Args:
        settings: How much of the stream is kept of an event.
        write: What makes a file of shots; called when all are there.
    """

    def __init__(self, settings: rules.Clips, write: Callable[[Path, list[Shot]], None]) -> None:
        self._settings, self._write = settings, write
        self._past: deque[Shot] = deque()
        self._bytes = 0
        self._open: list[tuple[float, Path, list[Shot]]] = []

    def add(self, shot: Shot) -> None:
        """Take in the next frame."""
        self._past.append(shot)
        self._bytes += len(shot.jpeg)
        while self._past and (shot.time_s - self._past[0].time_s > self._settings.before_s or self._bytes > RING_BYTES):
            self._bytes -= len(self._past.popleft().jpeg)
        for until_s, path, shots in self._open:
            shots.append(shot)
            if shot.time_s >= until_s:
                self._write(path, shots)
        self._open = [clip for clip in self._open if shot.time_s < clip[0]]

    def begin(self, path: Path, time_s: float) -> None:
        """Begin a clip of what was kept until now, to go on until `after_s` from `time_s`."""
        self._open.append((time_s + self._settings.after_s, path, list(self._past)))

    def finish(self) -> None:
        """Write the clips that are not complete, as far as they go: the stream is over."""
        for _, path, shots in self._open:
            self._write(path, shots)
        self._open = []


class ClipWriter:
    """Makes files of clips in a thread of its own.

    Args:
        problem: Told, in that thread, what went wrong.
    """

    def __init__(self, problem: Callable[[Exception], None]) -> None:
        self._problem = problem
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="openlepton-clips")
        self._room = threading.BoundedSemaphore(WAITING_CLIPS)

    def write(self, path: Path, shots: list[Shot]) -> None:
        """Write a clip, soon; waits while too many others do."""
        self._room.acquire()
        self._pool.submit(write_clip, path, shots).add_done_callback(self._done)

    def close(self) -> None:
        """Return when every clip is written."""
        self._pool.shutdown()

    def _done(self, future: Future[None]) -> None:
        self._room.release()
        error = future.exception()
        if isinstance(error, Exception):
            self._problem(error)


def take(image: Image, found: Detections, time_s: float, *, width: int) -> Shot:
    """Return a frame as it waits for its clip: as JPEG, no wider than `width`."""
    scale = min(1.0, width / image.shape[1])
    if scale < 1:
        image_wh = (width, max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, image_wh, interpolation=cv2.INTER_AREA), np.uint8)
    found = replace(found, boxes=found.boxes * scale, image_hw=(image.shape[0], image.shape[1]), masks=None)
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return Shot(time_s, jpeg.tobytes(), found)


def write_clip(path: str | os.PathLike[str], shots: list[Shot]) -> None:
    """Write shots as an mp4 with boxes and identities drawn; pictures of another size than the first are made to fit it.

    Raises:
        OutputError: The disk does not take it.
    """
    size_hw = shots[0].found.image_hw
    with VideoWriter(path) as writer:
        for shot in shots:
            bgr = cv2.imdecode(np.frombuffer(shot.jpeg, np.uint8), cv2.IMREAD_COLOR)
            assert bgr is not None, "take() encoded it"
            image = draw(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), shot.found)
            writer.write(fitted(image, size_hw), shot.time_s)


def fitted(image: Image, size_hw: tuple[int, int]) -> Image:
    """Return the picture, stretched to `size_hw` where it has another size: a stream may change while it is watched."""
    if image.shape[:2] == size_hw:
        return image
    return np.asarray(cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)
