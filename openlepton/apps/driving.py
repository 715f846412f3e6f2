"""What is on the road ahead: how far, how fast it comes nearer, and what deserves a warning. An aid to look at recordings.

It must not steer, brake or be relied on by anybody who drives: `docs/driving.md` says what it does not see.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from openlepton.apps.dashcam import SPAN_S, Dashcam, Lens, growth
from openlepton.apps.events import Episodes, Event, reasons
from openlepton.apps.rules import Rule
from openlepton.apps.security import Finding
from openlepton.apps.sources import free
from openlepton.apps.view import TRACKER, Detector
from openlepton.arrays import Boxes, Image
from openlepton.errors import OutputError
from openlepton.results import Detections
from openlepton.video.analytics import Analytics, Moment, Track, velocity
from openlepton.video.flow import ahead
from openlepton.video.overlay import ALERT, Color, draw_label, draw_panel, font_size
from openlepton.video.stream import Frame, Policy, Reader, Source, StreamEvent, VideoWriter
from openlepton.video.tracker import Tracker
from openlepton.video.zones import Scene

Kind = Literal["pedestrian-ahead", "vehicle-closing", "stop-sign", "speed-limit"]

GROUPS: Mapping[str, str] = {
    "person": "pedestrian", "cyclist": "cyclist",
    **dict.fromkeys(("bicycle", "bus", "car", "motorbike", "motorcycle", "train", "truck"), "vehicle"),
    **dict.fromkeys(("crosswalk", "speedlimit", "stop", "stop sign", "traffic light", "trafficlight"), "sign"),
}  # fmt: skip
"""What each class counts as; other classes are left out."""

COLORS: Mapping[str, Color] = {
    "pedestrian": (240, 228, 66), "cyclist": (0, 158, 115), "vehicle": (86, 180, 233), "sign": (204, 121, 167),
}  # fmt: skip

WORDS: Mapping[str, tuple[str, str]] = {
    "pedestrian-ahead": ("{who} is ahead, {distance:.0f} m away", "前方 {distance:.0f} 米处有{who_zh}"),
    "vehicle-closing": ("{who} would be reached in {collision:.1f} s", "{collision:.1f} 秒后将与{who_zh}相遇"),
    "stop-sign": ("a stop sign", "停车让行标志"),
    "speed-limit": ("a speed limit; which one is not read", "限速标志（不识别数值）"),
}
"""The reason of each warning, in English and in Chinese."""

ROADSIGNS = "yolov5n-roadsign"
"""The model that looks for signs beside the general one."""

UNCALIBRATED = Dashcam(camera=Lens(fov_deg=60.0))
"""What is assumed of a camera of which nothing is known: distances from heights of boxes, right to perhaps a third."""

PATH_M, NEAR_M, COMING_S, COLLISION_S = 1.8, 30.0, 1.5, 4.0
"""Half the width of what counts as ahead; pedestrians farther away are not warned of; who will be ahead so soon is; and what would
be reached later than this is not."""


class Caution(Rule):
    """A warning, and for how long what it warns of must be seen."""

    kind: Kind


CAUTIONS: Mapping[Kind, Caution] = {
    "pedestrian-ahead": Caution(kind="pedestrian-ahead", name="pedestrian-ahead", after_s=0.2),
    "vehicle-closing": Caution(kind="vehicle-closing", name="vehicle-closing", after_s=0.3),
    "stop-sign": Caution(kind="stop-sign", name="stop-sign", after_s=0.3, gap_s=2.0),
    "speed-limit": Caution(kind="speed-limit", name="speed-limit", after_s=0.3, gap_s=2.0),
}


@dataclass(frozen=True, eq=False)
class RoadUser:
    """One object on or beside the road."""

    track: int
    label: str
    group: str
    """Pedestrian, cyclist, vehicle or sign."""
    score: float
    box: Boxes
    """`(4,)` x1, y1, x2, y2 in pixels."""
    distance_m: float | None
    method: str
    """`ground` or `height`: what the distance was taken from; empty without one."""
    lateral_m: float | None
    """To the right of the camera's axis."""
    closing_ms: float | None
    """How fast it comes nearer, metres a second; negative if it moves away."""
    collision_s: float | None
    """Until it would be reached at the present speeds; None if it does not come nearer."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, rounded."""
        values = dict(vars(self)) | {
            "box": [round(float(value), 1) for value in self.box],
            "score": round(self.score, 4),
        }
        for name in ("distance_m", "lateral_m", "closing_ms", "collision_s"):
            values[name] = None if values[name] is None else round(values[name], 2)
        return values


@dataclass(frozen=True, eq=False)
class RoadStep:
    """One frame of a drive."""

    frame: Frame
    users: tuple[RoadUser, ...]
    warnings: tuple[Event, ...]
    """Those that begin with this frame."""
    going: tuple[Event, ...]
    """Those that hold now, with the reason that they have now."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings."""
        return {
            "frame": self.frame.index,
            "time_s": round(self.frame.time_s, 3),
            "objects": [user.to_dict() for user in self.users],
            "warnings": [
                {"kind": event.kind, "track": event.track, "reason": event.reason, "reason_zh": event.reason_zh}
                for event in self.warnings
            ],
        }


class Drive:
    """Follows what is ahead through time.

    Args:
        detectors: Each looks at every frame; what they find is tracked together.
        camera: Its calibration.
        tracker: Makes a tracker.
        labels_zh: Chinese names of classes.
        source: What its warnings name as their source.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        camera: Dashcam,
        *,
        tracker: Callable[[], Tracker] = TRACKER,
        labels_zh: Mapping[str, str] | None = None,
        source: str = "road",
    ) -> None:
        self.detectors, self.camera = tuple(detectors), camera
        self._tracker = tracker()
        self._analytics = Analytics(Scene())
        self._labels_zh = labels_zh or {}
        self._episodes = Episodes(source, run="drive", labels_zh=labels_zh, words=WORDS)
        self._going: dict[str, Event] = {}

    def look(self, image: Image) -> Detections:
        """Return what the detectors find in an image, whatever came before it: for any number of threads at once."""
        return riders(joined([detect(image) for detect in self.detectors]))

    def step(self, frame: Frame, found: Detections | None = None) -> RoadStep:
        """Return what the next frame shows; `found` is what `look` returned for it, where that has been asked already."""
        found = self.look(frame.image) if found is None else found
        tracked = self._tracker.update(found, image=frame.image)
        moment = self._analytics.update(tracked, frame.time_s)
        users = tuple(self._users(moment, tracked))
        sides = {track.id: track for track in moment.tracks}
        findings = [
            (CAUTIONS[kind], finding) for user in users for kind, finding in self._warn(user, sides[user.track], moment)
        ]
        opened, closed = self._episodes.update(findings, frame.time_s, datetime.now(UTC))
        self._going |= {event.id: event for event in opened}
        for event in closed:
            self._going.pop(event.id)
        self._retell(findings)
        return RoadStep(frame, users, tuple(opened), tuple(self._going.values()))

    def _retell(self, findings: Sequence[tuple[Caution, Finding]]) -> None:
        """Give the warnings that hold the distance and the time that they have now."""
        now = {(caution.name, finding.track): (caution, finding) for caution, finding in findings}
        for event in self._going.values():
            if (event.rule, event.track) in now:
                reason, reason_zh = reasons(WORDS[event.kind], *now[event.rule, event.track], self._labels_zh)
                self._going[event.id] = replace(event, reason=reason, reason_zh=reason_zh)

    def _users(self, moment: Moment, tracked: Detections) -> Iterator[RoadUser]:
        for track, score in zip(moment.tracks, tracked.scores.tolist(), strict=True):
            group = GROUPS.get(track.label)
            if group is None:
                continue
            distance_m, method = self.camera.distance(track, moment.image_hw)
            grown = growth(track, moment.image_hw)
            lateral_m = closing_ms = None
            if distance_m is not None:
                lateral_m = self.camera.lateral(track, distance_m, moment.image_hw)
                closing_ms = None if grown is None else grown.rate * distance_m
            collision_s = None if grown is None else grown.collision_s
            box = track.boxes[-1].astype(np.float32)
            yield RoadUser(
                track.id, track.label, group, score, box, distance_m, method, lateral_m, closing_ms, collision_s
            )

    def _warn(self, user: RoadUser, track: Track, moment: Moment) -> Iterator[tuple[Kind, Finding]]:
        """Yield what an object is a reason to warn of."""
        about = {"distance": user.distance_m or 0.0, "collision": user.collision_s or 0.0}
        finding = Finding(user.track, user.label, about)
        if user.label in ("stop", "stop sign"):
            yield "stop-sign", finding
        elif user.label == "speedlimit":
            yield "speed-limit", finding
        if user.distance_m is None or user.lateral_m is None:
            return
        drift = self._drift(track, user, moment.image_hw)
        soon = user.lateral_m + np.array([0.0, drift * COMING_S])
        in_path = bool(soon.min() <= PATH_M and soon.max() >= -PATH_M)
        if user.group in ("pedestrian", "cyclist") and in_path and user.distance_m <= NEAR_M:
            yield "pedestrian-ahead", finding
        reached_soon = user.collision_s is not None and user.collision_s <= COLLISION_S
        if user.group == "vehicle" and abs(user.lateral_m) <= PATH_M and reached_soon:
            yield "vehicle-closing", finding

    def _drift(self, track: Track, user: RoadUser, image_hw: tuple[int, int]) -> float:
        """Return how fast an object moves to the right, metres a second; 0 where that is unknown.

        What is beside the axis drifts outwards on the picture as it comes nearer, without moving: that is taken off.
        """
        recent = track.between(SPAN_S)
        pixels = velocity(recent.times, recent.centres)[0]
        if user.distance_m is None or user.lateral_m is None or user.closing_ms is None or np.isnan(pixels):
            return 0.0
        return (
            float((pixels / self.camera.focal(image_hw)) * user.distance_m)
            - user.lateral_m * user.closing_ms / user.distance_m
        )


def joined(found: Sequence[Detections]) -> Detections:
    """Return what several models found in the same image as if one had: the names of their classes one after the other."""
    names = tuple(name for part in found for name in part.names)
    before = np.cumsum([0, *(len(part.names) for part in found)])
    return Detections(
        np.concatenate([part.boxes for part in found]),
        np.concatenate([part.scores for part in found]),
        np.concatenate([part.class_ids + start for part, start in zip(found, before[:-1], strict=True)]),
        names,
        found[0].image_hw,
    )


def riders(found: Detections) -> Detections:
    """Return the detections with each person on a bicycle made one `cyclist`, and on a motorbike part of the motorbike.

    A person rides what is below their middle, overlaps them by half its width or theirs, and reaches lower than they do.
    """
    names = (*found.names, "cyclist")
    labels = np.array([*found.labels, ""], dtype=object)[:-1]
    boxes, class_ids, keep = found.boxes.copy(), found.class_ids.copy(), np.ones(len(found), bool)
    for bike in np.flatnonzero(np.isin(labels, ["bicycle", "motorbike", "motorcycle"])):
        for person in np.flatnonzero((labels == "person") & keep):
            if _rides(found.boxes[person], found.boxes[bike]):
                boxes[bike, :2] = np.minimum(boxes[bike, :2], found.boxes[person, :2])
                boxes[bike, 2:] = np.maximum(boxes[bike, 2:], found.boxes[person, 2:])
                keep[person] = False
                if labels[bike] == "bicycle":
                    class_ids[bike] = len(names) - 1
                break
    return replace(found, boxes=boxes, class_ids=class_ids, names=names)[keep]


def _rides(person: Boxes, bike: Boxes) -> bool:
    shared = min(person[2], bike[2]) - max(person[0], bike[0])
    narrower = min(person[2] - person[0], bike[2] - bike[0])
    middle = (person[1] + person[3]) / 2
    return bool(
        shared >= narrower / 2
        and person[1] < bike[1]
        and middle <= bike[3]
        and bike[1] < person[3] <= bike[3] + 0.1 * (bike[3] - bike[1])
    )


def annotate(image: Image, step: RoadStep) -> Image:
    """Return a copy of `image` with boxes in the colour of their group, distances and times, a legend, and what is warned of."""
    canvas = image.copy()
    alarmed = {event.track for event in step.going}
    size = font_size((canvas.shape[0], canvas.shape[1]))
    for user in sorted(step.users, key=lambda user: -(user.distance_m or 0.0)):  # the nearest on top
        color = ALERT if user.track in alarmed else COLORS[user.group]
        x1, y1, x2, y2 = (int(value) for value in user.box)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, 3 if user.track in alarmed else 2)
        far = "" if user.distance_m is None else f" {user.distance_m:.0f} m"
        soon = "" if user.collision_s is None or user.collision_s > 10 else f" {user.collision_s:.1f} s"
        draw_label(canvas, f"{user.label} {user.track}{far}{soon}", (x1, y1), color, size=max(11, size - 1))
    legend = [*COLORS.items(), ("12 m 3.4 s: distance, time to reach", (120, 120, 120))]
    draw_panel(canvas, [*legend, *((event.reason, ALERT) for event in step.going)])
    return canvas


def drive(
    sources: Mapping[str, Source],
    detectors: Sequence[Detector],
    camera: Dashcam,
    *,
    out: Path,
    tracker: Callable[[], Tracker] = TRACKER,
    video: bool = True,
    every: int = 1,
    policy: Policy = "all",
    workers: int = 1,
    labels_zh: Mapping[str, str] | None = None,
    on_event: Callable[[StreamEvent], None] | None = None,
    until: Callable[[], bool] = lambda: False,
) -> Iterator[RoadStep]:
    """Yield a step for each frame, and write `NAME.jsonl`, a line a frame, and `NAME.mp4`, annotated, into `out`.

    Frames are looked at in `workers` threads. Nothing that is there is replaced. `on_event` is told when a source dies, recovers
    or ends; `until` is asked several times a second whether to stop.

    Raises:
        VideoNotFound: A source is missing.
        OutputError: The disk does not take what is written.
    """
    drives = {name: Drive(detectors, camera, tracker=tracker, labels_zh=labels_zh, source=name) for name in sources}
    try:
        out.mkdir(parents=True, exist_ok=True)
        lines = {name: free(out / f"{name}.jsonl").open("x", encoding="utf-8") for name in sources}
    except OSError as error:
        raise OutputError(f"{out}: cannot be written to: {error.strerror or error}") from error
    videos = {name: VideoWriter(free(out / f"{name}.mp4")) for name in sources} if video else {}

    def keep(step: RoadStep) -> RoadStep:
        name = step.frame.source
        try:
            lines[name].write(json.dumps(step.to_dict(), ensure_ascii=False) + "\n")
        except OSError as error:
            raise OutputError(f"{lines[name].name}: cannot be written: {error.strerror or error}") from error
        if name in videos:
            videos[name].write(annotate(step.frame.image, step), step.frame.time_s)
        return step

    try:
        with Reader(sources, every=every, policy=policy, on_event=on_event, until=until) as reader:
            looked = ahead(lambda frame: (frame, drives[frame.source].look(frame.image)), reader, workers=workers)
            yield from ahead(keep, (drives[frame.source].step(frame, found) for frame, found in looked))
    finally:
        for file in lines.values():
            file.close()
        for writer in videos.values():
            writer.close()
