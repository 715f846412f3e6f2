"""Frames of files, folders, cameras and network streams, one or several at once; what is lost is counted and told."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Literal, NamedTuple, Self

from openlepton.arrays import Image
from openlepton.errors import UsageError, VideoError, VideoUnreadable
from openlepton.video.decode import Shot, Source, camera_number, check_source, display_name, is_url, open_source
from openlepton.video.writer import VideoWriter

__all__ = ["Counters", "Frame", "Policy", "Reader", "Source", "StreamEvent", "VideoWriter", "frames"]

Policy = Literal["all", "latest"]
"""`all`: every frame, the decoder waits for the consumer. `latest`: the newest frame, older ones are dropped and counted; a
file is then played at its own speed, as a camera would."""

_POLL_S = 0.2  # waiting for ever could not be interrupted on Windows
_JOIN_S = 2.0  # a thread that waits for the network is left to its time-out


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
    """`dead`: no frames any more. `recovered`: frames again. `ended`: that was all."""
    time_s: float
    """The source's own time: that of its last frame (dead, ended) or of its first new one (recovered)."""
    reason: str = ""
    """In words, one line; empty where nothing went wrong."""
    again: bool = False
    """Whether a dead source is tried again."""


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


class _Waiting(NamedTuple):
    """What a source's thread has for the consumer."""

    what: StreamEvent | Frame | BaseException
    at: float
    """When it came, on the clock that never goes back."""


@dataclass(eq=False)
class _Lane:
    """One source; what two threads share is touched under the reader's condition."""

    name: str
    source: Source
    waiting: deque[_Waiting] = field(default_factory=deque)
    ready: int = 0
    """How many of those that wait are frames."""
    tally: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Counters.__dataclass_fields__, 0))
    done: bool = False
    # The rest belongs to the source's own thread.
    index: int = 0
    started: float | None = None
    base_s: float = 0.0
    last_s: float = 0.0
    dead: bool = False


class Reader:
    """Frames of several sources at once, each decoded in a thread of its own, in the order of their arrival.

    A context manager and an iterator; it ends when every source has ended. A source that dies does not stop the others: a live
    one is opened again after `wait_s`, 2 `wait_s`, 4 `wait_s` ... `max_wait_s` seconds, for ever; a damaged file is not.

    Args:
        sources: Video files, folders of pictures, numbers of cameras, URLs; a mapping gives them names.
        every: Hand out each `every`-th frame.
        policy: `all` for every frame, `latest` for the newest one.
        queue: The most decoded frames that wait, for each source.
        timeout_s: A network stream that sends nothing for so long is dead.
        wait_s: The pause before a dead stream is opened again; each further one is twice as long.
        max_wait_s: The longest such pause.
        patient: Whether the others go on when a file turns out to be damaged or a stream cannot be opened at first; otherwise
            that is an error.
        on_event: Called, in the thread that iterates, when a source dies, recovers or ends.
        until: Asked several times a second; iteration ends when it says so, even while no source sends anything.

    Raises:
        VideoNotFound: There is no such file or folder.
        UsageError: An option is out of range, or two sources have the same name.
        MissingExtra: PyAV is not installed.
    """

    def __init__(
        self,
        sources: Mapping[str, Source] | Sequence[Source],
        *,
        every: int = 1,
        policy: Policy = "all",
        queue: int = 4,
        timeout_s: float = 10.0,
        wait_s: float = 1.0,
        max_wait_s: float = 30.0,
        patient: bool = True,
        on_event: Callable[[StreamEvent], None] | None = None,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        for what, value in (("every", every), ("queue", queue)):
            if value < 1:
                raise UsageError(f"{what}: expected 1 or more, got {value}")
        if policy not in ("all", "latest"):
            raise UsageError(f"policy: expected all or latest, got {policy!r}")
        if isinstance(sources, (str, bytes, os.PathLike)):
            raise UsageError("sources: expected several; for one there is frames(source)")
        named = sources if isinstance(sources, Mapping) else {display_name(source): source for source in sources}
        if len(named) < len(sources) or not named:
            raise UsageError("sources: expected at least one, each with a name of its own; pass a mapping from names")
        for source in named.values():
            check_source(source)
        self._lanes = [_Lane(name, source) for name, source in named.items()]
        self._every, self._policy, self._queue = every, policy, queue
        self._timeout_s, self._wait_s, self._max_wait_s = timeout_s, wait_s, max_wait_s
        self._patient, self._on_event, self._until = patient, on_event, until
        self._changed = Condition()
        self._stop = Event()
        self._threads: list[Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        if not self._threads:
            self._threads = [
                Thread(target=self._read, args=(lane,), name=f"openlepton-{lane.name}", daemon=True)
                for lane in self._lanes
            ]
            for thread in self._threads:
                thread.start()
        while (took := self._take()) is not None:
            match took:
                case Frame():
                    yield took
                case StreamEvent():
                    if self._on_event is not None:
                        self._on_event(took)
                case BaseException():
                    raise took

    @property
    def counters(self) -> dict[str, Counters]:
        """The counters of each source, by name."""
        with self._changed:
            return {lane.name: Counters(**lane.tally) for lane in self._lanes}

    def close(self) -> None:
        """Stop every thread and close every source; does nothing the second time."""
        self._stop.set()
        with self._changed:
            for lane in self._lanes:
                lane.waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_JOIN_S)

    def _take(self) -> StreamEvent | Frame | BaseException | None:
        """Return what has waited longest; None when everything has ended."""
        with self._changed:
            while not (self._stop.is_set() or self._until()):
                busy = [lane for lane in self._lanes if lane.waiting]
                if busy:
                    lane = min(busy, key=lambda lane: lane.waiting[0].at)
                    what, at = lane.waiting.popleft()
                    self._changed.notify_all()
                    if isinstance(what, Frame):
                        lane.ready -= 1
                        lane.tally["frames"] += 1
                        return Frame(what.image, what.index, what.time_s, time.monotonic() - at, what.source)
                    return what
                if all(lane.done for lane in self._lanes):
                    break
                self._changed.wait(_POLL_S)
        return None

    def _read(self, lane: _Lane) -> None:
        """Run a source's thread."""
        try:
            self._follow(lane)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the consumer's thread
            self._put(lane, error)
        with self._changed:
            lane.done = True
            self._changed.notify_all()

    def _follow(self, lane: _Lane) -> None:
        """Read a source until it ends, opening it again as often as it dies."""
        wait_s = self._wait_s
        while not self._stop.is_set():
            live = is_url(lane.source) or camera_number(lane.source) is not None
            error: VideoError = VideoUnreadable(f"{lane.name}: the stream ended")
            came = lane.index
            try:
                threads = 0 if len(self._lanes) == 1 else 1
                with open_source(lane.source, timeout_s=self._timeout_s, threads=threads) as opened:
                    live = opened.live
                    for shot in opened.shots:
                        if self._stop.is_set():
                            return
                        if came == lane.index:
                            self._begin(lane)
                        self._offer(lane, shot, paced=not live and self._policy == "latest")
                if not live:
                    self._put(lane, StreamEvent(lane.name, "ended", lane.last_s))
                    return
            except VideoError as caught:
                error = caught
            if not self._mourn(lane, error, live=live):
                return
            wait_s = self._wait_s if lane.index > came else wait_s
            if self._stop.wait(wait_s):
                return
            wait_s = min(2 * wait_s, self._max_wait_s)

    def _begin(self, lane: _Lane) -> None:
        """Note the first frame of a source that was opened, perhaps again."""
        now = time.monotonic()
        if lane.started is None:
            lane.started = now
        else:
            lane.base_s = max(lane.last_s + 1e-3, now - lane.started)
        if lane.dead:
            lane.dead = False
            with self._changed:
                lane.tally["reconnects"] += 1
            self._put(lane, StreamEvent(lane.name, "recovered", lane.base_s))

    def _mourn(self, lane: _Lane, error: VideoError, *, live: bool) -> bool:
        """Tell of a source that died; return whether to try again."""
        with self._changed:
            lane.tally["errors"] += 1
        again = live and (self._patient or lane.index > 0)
        if not again and not self._patient:
            self._put(lane, error)
        elif not lane.dead:
            lane.dead = True
            self._put(lane, StreamEvent(lane.name, "dead", lane.last_s, str(error), again))
        return again

    def _offer(self, lane: _Lane, shot: Shot, *, paced: bool) -> None:
        """Put a frame where the consumer finds it, or count why not."""
        index, lane.index = lane.index, lane.index + 1
        lane.last_s = lane.base_s + shot.time_s
        why = "damaged" if shot.picture is None else "skipped" if index % self._every else ""
        if why or shot.picture is None:
            with self._changed:
                lane.tally[why] += 1
            return
        if paced and lane.started is not None:
            self._stop.wait(max(0.0, lane.started + shot.time_s - time.monotonic()))
        self._put(lane, Frame(shot.picture(), index, lane.last_s, 0.0, lane.name))

    def _put(self, lane: _Lane, what: StreamEvent | Frame | BaseException) -> None:
        at = time.monotonic()
        with self._changed:
            if isinstance(what, Frame):
                if self._policy == "latest":
                    older = [one for one in lane.waiting if isinstance(one.what, Frame)]
                    lane.waiting = deque(one for one in lane.waiting if not isinstance(one.what, Frame))
                    lane.tally["dropped"] += len(older)
                    lane.ready = 0
                while lane.ready >= self._queue and not self._stop.is_set():
                    self._changed.wait(_POLL_S)
                lane.ready += 1
            if not self._stop.is_set():
                lane.waiting.append(_Waiting(what, at))
                self._changed.notify_all()


def frames(
    source: Source,
    *,
    every: int = 1,
    policy: Policy = "all",
    queue: int = 4,
    timeout_s: float = 10.0,
    wait_s: float = 1.0,
    max_wait_s: float = 30.0,
    on_event: Callable[[StreamEvent], None] | None = None,
) -> Iterator[Frame]:
    """Return the frames of one source, decoded a few ahead in a thread.

    Args:
        source: A video file, a folder of pictures (in order of name), a camera's number or a URL.
        every: Yield each `every`-th frame.
        policy: `all` for every frame, `latest` for the newest one.
        queue: The most decoded frames that wait.
        timeout_s: A network stream that sends nothing for so long is dead.
        wait_s: The pause before a dead stream is opened again; each further one is twice as long.
        max_wait_s: The longest such pause.
        on_event: Called, in the thread that iterates, when a live stream dies, recovers or ends.

    Raises:
        VideoNotFound: There is no such file, folder or camera.
        VideoUnreadable: No video, no frames, a damaged file (after its good frames), or a stream that cannot be opened at first.
        MissingExtra: PyAV is not installed.
    """
    reader = Reader(
        {display_name(source): source},
        every=every,
        policy=policy,
        queue=queue,
        timeout_s=timeout_s,
        wait_s=wait_s,
        max_wait_s=max_wait_s,
        patient=False,
        on_event=on_event,
    )
    return _all(reader)


def _all(reader: Reader) -> Iterator[Frame]:
    with reader:
        yield from reader
