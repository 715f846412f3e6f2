"""Keeps what a watch finds: events, snapshots, clips, videos and webhooks, written while the next frames are looked at."""

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from openlepton.apps.events import Event
from openlepton.apps.privacy import cover
from openlepton.apps.recorder import ClipWriter, EventLog, Ring, fitted, take
from openlepton.apps.rules import Rules
from openlepton.apps.scenery import annotate
from openlepton.apps.sources import free
from openlepton.apps.view import Step
from openlepton.apps.webhook import Delivery, Webhook
from openlepton.arrays import Image
from openlepton.errors import OutputError
from openlepton.images import write_image
from openlepton.video.stream import Frame, VideoWriter


class Keeper:
    """Writes what the views find, in a thread of its own: events, snapshots, clips, videos, webhooks; a context manager.

    What was put is kept before `close` returns. A disk that takes no more ends the watch: the next `put` raises.

    Args:
        out: The folder, made where there is none.
        rules: Where events go, and how much of the stream is kept of them.
        video: Whether to write each source's video, annotated.
        waiting: The most frames that wait.

    Raises:
        OutputError: The folder cannot be made or written to.
        UsageError: A webhook's token is not set.
    """

    def __init__(self, out: Path, rules: Rules, *, video: bool = False, waiting: int = 4) -> None:
        self.out, self.rules, self.video = out, rules, video
        self.deliveries: list[Delivery] = []
        self.events: dict[str, Counter[str]] = {}
        self.last: dict[str, Image] = {}
        self._hooks = [Webhook(hook) for hook in rules.webhook]
        try:
            for folder in ("snapshots", "clips"):
                (out / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{out}: cannot be made: {error.strerror or error}") from error
        self._log = EventLog(out)
        self._clips = ClipWriter(self._note)
        self._rings: dict[str, Ring] = {}
        self._videos: dict[str, tuple[VideoWriter, tuple[int, int]]] = {}
        self._error: Exception | None = None
        self._queue: queue.Queue[Step | list[Event] | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._work, name="openlepton-keeper", daemon=True)
        self._thread.start()

    def put(self, what: Step | list[Event]) -> None:
        """Keep a step, or events that were closed without one; waits while too many wait already.

        Raises:
            OutputError: The disk did not take what was put before.
        """
        if self._error is not None:
            raise self._error
        self._queue.put(what)

    def close(self) -> None:
        """Keep what was put, finish every file, and let webhooks have a few seconds more.

        Raises:
            OutputError: The disk did not take it all.
        """
        if not self._thread.is_alive():
            return
        self._queue.put(None)
        self._thread.join()
        self.deliveries = [hook.close() for hook in self._hooks]
        self._log.close()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _work(self) -> None:
        while (what := self._queue.get()) is not None:
            if self._error is None:
                self._try(self._keep, what)
        for ring in self._rings.values():
            self._try(ring.finish)
        self._clips.close()
        for video, _ in self._videos.values():
            self._try(video.close)

    def _try(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001 - it is raised again by `put` or `close`, in the caller's thread
            self._note(error)

    def _keep(self, what: Step | list[Event]) -> None:
        if isinstance(what, list):
            self._close(what)
            return
        frame, clips = what.frame, self.rules.clips
        shown = cover(frame.image, what.covered) if len(what.covered) else frame.image
        drawn = annotate(shown, what) if self.video or what.opened else shown
        if self.video:
            self._write_video(frame, drawn)
        ring = self._rings.setdefault(frame.source, Ring(clips, self._clips.write))
        if clips.wanted:
            ring.add(take(shown, what.found, frame.time_s, width=clips.width))
        self.last[frame.source] = shown
        for event in what.opened:
            self._open(event, drawn, ring, frame.time_s)
        self._close(what.closed)

    def _open(self, event: Event, drawn: Image, ring: Ring, time_s: float) -> None:
        event = self._placed(event)
        assert event.snapshot is not None
        write_image(self.out / event.snapshot, drawn)
        if event.clip is not None:
            ring.begin(self.out / event.clip, time_s)
        self._log.opened(event)
        self._send(event, "start")
        self.events.setdefault(event.source, Counter())[event.rule] += 1

    def _close(self, events: Iterable[Event]) -> None:
        for event in map(self._placed, events):
            self._log.closed(event)
            self._send(event, "end")

    def _placed(self, event: Event) -> Event:
        """Return the event with the files that belong to it."""
        clip = f"clips/{event.id}.mp4" if self.rules.clips.wanted else None
        return replace(event, snapshot=f"snapshots/{event.id}.jpg", clip=clip)

    def _send(self, event: Event, phase: str) -> None:
        for hook in self._hooks:
            hook.send(f"{event.id}-{phase}", {"phase": phase, "event": event.to_dict()})

    def _write_video(self, frame: Frame, drawn: Image) -> None:
        if frame.source not in self._videos:
            path = free(self.out / f"{frame.source}.mp4")
            self._videos[frame.source] = VideoWriter(path), (drawn.shape[0], drawn.shape[1])
        video, size_hw = self._videos[frame.source]
        video.write(fitted(drawn, size_hw), frame.time_s)

    def _note(self, error: Exception) -> None:
        self._error = self._error or error
