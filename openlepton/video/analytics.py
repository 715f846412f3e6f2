"""What tracks tell: who is where and since when, what crossed a line, how fast it went, where it is busy."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Image
from openlepton.errors import UsageError
from openlepton.results import Detections
from openlepton.video.zones import Ground, Points, Scene, meets, offset

Times = NDArray[np.float64]

MAX_SAMPLES = 256
"""The most frames of a track that are remembered, whatever the frame rate."""

MARGIN = 0.005
"""How far beyond a line a track must be to count as across, relative to the picture's diagonal: trembling is no crossing."""


@dataclass(frozen=True, eq=False)
class Track:
    """One object as it was seen in the last seconds."""

    id: int
    label: str
    """The class that it was mostly taken for."""
    times: Times
    """`(T,)` seconds, ascending; the last is now."""
    boxes: NDArray[np.float64]
    """`(T, 4)` x1, y1, x2, y2 in pixels."""

    @property
    def feet(self) -> Points:
        """`(T, 2)` the middle of each box's lower edge: where the object touches the ground."""
        return np.column_stack([(self.boxes[:, 0] + self.boxes[:, 2]) / 2, self.boxes[:, 3]])

    @property
    def centres(self) -> Points:
        """`(T, 2)` the middle of each box."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @property
    def height(self) -> float:
        """The median height of the boxes, pixels."""
        return float(np.median(self.boxes[:, 3] - self.boxes[:, 1]))

    def between(self, oldest_s: float, newest_s: float = 0.0) -> "Track":
        """Return what was seen between `oldest_s` and `newest_s` seconds ago."""
        ago = self.times[-1] - self.times
        chosen = (ago <= oldest_s + 1e-9) & (ago >= newest_s - 1e-9)
        return Track(self.id, self.label, self.times[chosen], self.boxes[chosen])


@dataclass(frozen=True)
class Crossing:
    """A track that went across a line."""

    line: str
    track: int
    label: str
    direction: Literal["in", "out"]
    time_s: float


@dataclass(frozen=True)
class Stay:
    """A track that was in a zone and has left it, or the picture."""

    zone: str
    track: int
    label: str
    entered_s: float
    left_s: float


@dataclass(frozen=True, eq=False)
class Moment:
    """Everything that is known about one frame of a view: what the rules look at."""

    time_s: float
    image_hw: tuple[int, int]
    scene: Scene
    tracks: tuple[Track, ...]
    """Those that are seen now."""
    inside: Mapping[str, Mapping[int, float]]
    """For each zone, the tracks that are in it now, with the second since when."""
    crossings: tuple[Crossing, ...] = ()
    """Of this frame."""
    stays: tuple[Stay, ...] = ()
    """That ended with this frame."""
    lost: tuple[Track, ...] = ()
    """Those that were seen until a moment ago, and are not seen now."""

    def within(self, zone: str | None) -> list[Track]:
        """Return the tracks that are in `zone` now; those of the whole picture for None."""
        if zone is None:
            return list(self.tracks)
        self.scene.zone_named(zone)
        there = self.inside.get(zone, {})
        return [track for track in self.tracks if track.id in there]


def velocity(times: Times, places: Points) -> NDArray[np.float64]:
    """Return the slope of a straight line through `places` `(T, 2)` at `times` `(T,)`, `(2,)` a second.

    Least squares: the trembling of single boxes hardly matters. NaN for less than three places or a tenth of a second.
    """
    if len(times) < 3 or times[-1] - times[0] < 0.1:
        return np.full(2, np.nan)
    centred = times - times.mean()
    slope: NDArray[np.float64] = centred @ (places - places.mean(axis=0)) / (centred @ centred)
    return slope


def speed_kmh(track: Track, ground: Ground, image_hw: tuple[int, int], *, span_s: float = 1.0) -> float:
    """Return how fast the track's foot moved over the ground in the last `span_s` seconds, km/h; NaN where that is unknown."""
    recent = track.between(span_s)
    return float(3.6 * np.hypot(*velocity(recent.times, ground.metres_at(recent.feet, image_hw))))


def pace(track: Track, *, span_s: float = 1.0) -> float:
    """Return how many of its own heights the track moved a second in the last `span_s` seconds: a speed without a ground.

    A person who walks makes about 0.8, one who runs 1.5 and more.
    """
    recent = track.between(span_s)
    return float(np.hypot(*velocity(recent.times, recent.feet)) / max(recent.height, 1e-9))


@dataclass
class _Trail:
    """The last samples of a track, in a buffer twice as long as what is kept, so that it is moved only now and then."""

    buffer: NDArray[np.float64] = field(default_factory=lambda: np.empty((2 * MAX_SAMPLES, 5)))
    start: int = 0
    end: int = 0
    labels: Counter[str] = field(default_factory=Counter)

    def add(self, time_s: float, box: NDArray[np.float32], label: str, keep_s: float) -> None:
        if self.end == len(self.buffer):
            kept = self.end - self.start
            self.buffer[:kept] = self.buffer[self.start : self.end]
            self.start, self.end = 0, kept
        self.buffer[self.end, 0] = time_s
        self.buffer[self.end, 1:] = box
        self.end += 1
        oldest = np.searchsorted(self.buffer[self.start : self.end, 0], time_s - keep_s - 1e-9)
        self.start = max(self.start + int(oldest), self.end - MAX_SAMPLES)
        self.labels[label] += 1

    def track(self, number: int) -> Track:
        samples = self.buffer[self.start : self.end].copy()
        return Track(number, self.labels.most_common(1)[0][0], samples[:, 0], samples[:, 1:])


@dataclass
class _Inside:
    entered_s: float
    seen_s: float
    label: str


class Analytics:
    """Follows one view through time: detections with identities in, a `Moment` out, totals on demand; memory is bounded.

    Args:
        scene: What was drawn on the view.
        keep_s: For how long the past of a track is remembered, seconds.
        gap_s: Who is out of sight or of a zone for no longer than this has not left.
    """

    def __init__(self, scene: Scene, *, keep_s: float = 3.0, gap_s: float = 1.0) -> None:
        self.scene, self.keep_s, self.gap_s = scene, keep_s, gap_s
        self._trails: dict[int, _Trail] = {}
        self._inside: dict[str, dict[int, _Inside]] = {zone.name: {} for zone in scene.zone}
        self._sides: dict[str, dict[int, Points]] = {line.name: {} for line in scene.line}
        self._crossed: dict[str, Counter[tuple[str, str]]] = {line.name: Counter() for line in scene.line}
        self._stayed: dict[str, dict[str, list[float]]] = {zone.name: defaultdict(list) for zone in scene.zone}
        self._now_s = -np.inf

    def update(self, found: Detections, time_s: float) -> Moment:
        """Return what the next frame tells.

        Raises:
            UsageError: The detections have no `track_ids`, or `time_s` is not later than that of the frame before.
        """
        if found.track_ids is None:
            raise UsageError("analytics: these detections have no track_ids; a tracker gives them")
        if not time_s > self._now_s:
            raise UsageError(f"analytics: a frame of second {time_s:g} came after one of second {self._now_s:g}")
        self._now_s = time_s
        for number, box, label in zip(found.track_ids.tolist(), found.boxes, found.labels, strict=True):
            self._trails.setdefault(number, _Trail()).add(time_s, box, label, self.keep_s)
        for number in [number for number, trail in self._trails.items() if self._idle(trail) > self.keep_s]:
            del self._trails[number]
            for sides in self._sides.values():
                sides.pop(number, None)
        tracks = tuple(self._trails[number].track(number) for number in found.track_ids.tolist())
        feet = np.array([track.feet[-1] for track in tracks]).reshape(-1, 2)
        crossings = tuple(self._cross(tracks, feet, found.image_hw))
        inside = self._enter(tracks, feet, found.image_hw)
        seen = set(found.track_ids.tolist())
        lost = tuple(
            trail.track(number)
            for number, trail in self._trails.items()
            if number not in seen and self._idle(trail) <= self.gap_s
        )
        return Moment(
            time_s, found.image_hw, self.scene, tracks, inside, crossings, tuple(self._leave(self.gap_s)), lost
        )

    def finish(self) -> tuple[Stay, ...]:
        """Return the stays of all who are still in a zone, as if they left now: for the end of a stream."""
        return tuple(self._leave(-1.0))

    def totals(self) -> dict[str, Any]:
        """Return plain numbers: crossings of each line by class and direction; each zone's occupancy and dwell by class.

        Dwell counts the stays that have ended, with their mean and longest, seconds.
        """
        lines: dict[str, dict[str, dict[str, int]]] = {}
        for line, crossed in self._crossed.items():
            lines[line] = {label: {"in": 0, "out": 0} for label in sorted({label for label, _ in crossed})}
            for (label, direction), count in crossed.items():
                lines[line][label][direction] = count
        zones = {}
        for zone, stayed in self._stayed.items():
            dwell = {
                label: {"count": int(count), "mean_s": round(total / count, 3), "longest_s": round(longest, 3)}
                for label, (count, total, longest) in sorted(stayed.items())
            }
            occupancy = Counter(one.label for one in self._inside[zone].values() if one.seen_s == self._now_s)
            zones[zone] = {"occupancy": dict(sorted(occupancy.items())), "dwell": dwell}
        return {"lines": lines, "zones": zones}

    def _idle(self, trail: _Trail) -> float:
        return self._now_s - float(trail.buffer[trail.end - 1, 0])

    def _cross(self, tracks: Iterable[Track], feet: Points, image_hw: tuple[int, int]) -> Iterable[Crossing]:
        """Yield each track that is on another side of a line than when it was last clearly on one."""
        margin = MARGIN * float(np.hypot(*image_hw))
        for line in self.scene.line:
            drawn, before = line.pixels(image_hw), self._sides[line.name]
            right = offset(drawn, feet)
            for track, foot, away in zip(tracks, feet, right, strict=True):
                if abs(away) <= margin:
                    continue
                last = before.get(track.id)
                before[track.id] = foot
                if last is not None and meets(drawn, last[None], foot[None])[0]:
                    direction: Literal["in", "out"] = "in" if away > 0 else "out"
                    self._crossed[line.name][track.label, direction] += 1
                    yield Crossing(line.name, track.id, track.label, direction, self._now_s)

    def _enter(self, tracks: tuple[Track, ...], feet: Points, image_hw: tuple[int, int]) -> dict[str, dict[int, float]]:
        inside: dict[str, dict[int, float]] = {}
        for zone in self.scene.zone:
            known = self._inside[zone.name]
            there = [track for track, yes in zip(tracks, zone.contains(feet, image_hw), strict=True) if yes]
            for track in there:
                one = known.setdefault(track.id, _Inside(self._now_s, self._now_s, track.label))
                one.seen_s, one.label = self._now_s, track.label
            inside[zone.name] = {track.id: known[track.id].entered_s for track in there}
        return inside

    def _leave(self, gap_s: float) -> Iterable[Stay]:
        for zone, known in self._inside.items():
            for number in [number for number, one in known.items() if self._now_s - one.seen_s > gap_s]:
                one = known.pop(number)
                count, total, longest = self._stayed[zone][one.label] or (0.0, 0.0, 0.0)
                stayed = one.seen_s - one.entered_s
                self._stayed[zone][one.label] = [count + 1, total + stayed, max(longest, stayed)]
                yield Stay(zone, number, one.label, one.entered_s, one.seen_s)


class Heat:
    """Where it is busy: the seconds that tracks spent in each cell of a view.

    Args:
        cell: Side of a cell, pixels.
    """

    def __init__(self, image_hw: tuple[int, int], *, cell: int = 8) -> None:
        self.image_hw, self.cell = image_hw, cell
        self.seconds = np.zeros((-(-image_hw[0] // cell), -(-image_hw[1] // cell)))
        self._now_s: float | None = None

    def update(self, moment: Moment, *, longest_s: float = 1.0) -> None:
        """Add the time since the frame before, at most `longest_s`, to the cell where each track stands."""
        step = 0.0 if self._now_s is None else min(moment.time_s - self._now_s, longest_s)
        self._now_s = moment.time_s
        feet = np.array([track.feet[-1] for track in moment.tracks]).reshape(-1, 2)
        feet = feet * (np.array(self.image_hw[::-1]) / moment.image_hw[::-1])  # a stream may change its size
        rows, columns = (
            np.clip(feet[:, axis] // self.cell, 0, self.seconds.shape[1 - axis] - 1).astype(int) for axis in (1, 0)
        )
        np.add.at(self.seconds, (rows, columns), step)

    def drawn_on(self, image: Image) -> Image:
        """Return a copy of `image` `(H, W, 3)` that glows where tracks spent time, brightest at the busiest cell."""
        spread = cv2.GaussianBlur(self.seconds.astype(np.float32), (0, 0), 1.5)
        peak = max(float(spread.max()), 1e-9)
        share = cv2.resize(np.sqrt(spread / peak), image.shape[1::-1], interpolation=cv2.INTER_LINEAR).clip(0, 1)
        glow = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        opacity = 0.75 * share[..., None]
        mixed: Image = np.rint(image * (1 - opacity) + glow * opacity).astype(np.uint8)
        return mixed
