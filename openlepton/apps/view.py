"""One camera of a watch: frames in, and for each all that was found out about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from openlepton.apps.abnormal import Normal
from openlepton.apps.events import Episodes, Event
from openlepton.apps.privacy import Veil, regions
from openlepton.apps.rules import Rules
from openlepton.apps.security import find
from openlepton.arrays import Boxes, Image
from openlepton.results import Detections
from openlepton.video.analytics import Analytics, Heat, Moment
from openlepton.video.stream import Frame
from openlepton.video.tracker import ByteTrack, Tracker

Detector = Callable[[Image], Detections]
"""A predictor whose task is detect, or anything that does the same."""


TRACKER = partial(ByteTrack, min_score=0.25)
"""What follows the objects unless the caller says otherwise: sure of what a detector of ours reports by default."""


@dataclass(frozen=True, eq=False)
class Step:
    """One frame, and all that was found out about it."""

    frame: Frame
    found: Detections
    """With `track_ids`."""
    moment: Moment
    covered: Boxes
    """`(N, 4)` what must not be recognisable."""
    opened: tuple[Event, ...]
    closed: tuple[Event, ...]
    going: tuple[Event, ...]
    """The events that go on, those that begin included."""
    totals: dict[str, Any]
    """What `Analytics.totals` says."""


class View:
    """One camera: its own tracker, its own past, its own events.

    Args:
        source: Its name.
        rules: What to look for.
        detect: Finds objects in a frame; may be shared by views.
        tracker: Follows them; belongs to this view alone.
        run: What the numbers of events begin with.
        normals: What each rule of kind `abnormal` learned, by the rule's name.
        labels_zh: Chinese names of classes.
        clock: The time of day, UTC.
    """

    def __init__(
        self,
        source: str,
        rules: Rules,
        detect: Detector,
        tracker: Tracker,
        *,
        run: str,
        normals: Mapping[str, Normal] | None = None,
        labels_zh: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.source, self.rules = source, rules
        self.analytics = Analytics(rules)
        self.heat: Heat | None = None
        self._detect, self._tracker, self._clock = detect, tracker, clock
        self._normals = normals or {}
        self._episodes = Episodes(source, run=run, labels_zh=labels_zh)
        self._veil = Veil()
        self._going: dict[str, Event] = {}
        self._last_s = 0.0

    def step(self, frame: Frame) -> Step:
        """Return what the next frame tells."""
        seen = self._detect(frame.image)
        found = self._tracker.update(seen, image=frame.image)
        moment = self.analytics.update(found, frame.time_s)
        privacy = self.rules.privacy
        covered = self._veil.update(regions(seen, privacy.blur, privacy.classes), frame.time_s)
        findings = find(moment, self.rules.rule, self._normals)
        opened, closed = self._episodes.update(findings, frame.time_s, self._clock())
        self._going |= {event.id: event for event in opened}
        for event in closed:
            del self._going[event.id]
        if self.heat is None:
            self.heat = Heat(moment.image_hw)
        self.heat.update(moment)
        self._last_s = frame.time_s
        going = tuple(self._going.values())
        return Step(frame, found, moment, covered, tuple(opened), tuple(closed), going, self.analytics.totals())

    def finish(self) -> list[Event]:
        """Return the events that went on until the stream ended or broke off, closed; the view may go on after that."""
        self._going.clear()
        return self._episodes.finish(self._last_s, self._clock())
