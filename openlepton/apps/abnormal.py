"""How unusual a movement is for its place: a density learned from tracks that were normal, without a label.

The picture is a grid. For each cell is counted how often tracks were there and how they moved: whether they stood, or in which
of 8 directions and in which band of speed. A movement that is seen now scores its surprise in nats,

    -log p(cell) / p(uniform)  -  log p(movement | cell),

averaged over the last second. Counts spread to neighbouring cells, directions and speeds, and what a cell has not seen enough of
is filled up from the whole picture, so that a short clip suffices. Speeds are in the track's own heights a second: an object far
away counts like one nearby.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openlepton.errors import RulesInvalid
from openlepton.files import write_atomic
from openlepton.video.analytics import Moment, Track, velocity

Counts = NDArray[np.float64]

GRID = (18, 32)
DIRECTIONS = 8
BANDS = (0.1, 0.4, 0.8, 1.4, 2.4, 4.0, 7.0)
"""Where the bands of speed begin, heights a second; what is slower stands."""

STEP_S = 0.2
"""A track is looked at five times a second, whatever the frame rate."""

SPAN_S = 0.6
"""Over which a speed is measured."""

LEAST_SAMPLES = 50

FORMAT = "openlepton-abnormal-1"
MAX_BYTES = 16 * 1024 * 1024
_BINS = 1 + DIRECTIONS * len(BANDS)
_PRIOR = 2.0  # a cell's own counts weigh as much as the whole picture's from so many samples on
_FLOOR = 0.02  # of a sample for each movement that was never seen


@dataclass(frozen=True, eq=False)
class Normal:
    """What is normal on one view."""

    surprise: Counts
    """`(rows, columns, movements)` nats."""
    limit: float
    """The score that hardly any normal track reaches."""
    samples: int
    """How many movements it was learned from."""

    def score(self, track: Track, image_hw: tuple[int, int], *, span_s: float = 1.0) -> float:
        """Return how unusual the track moved in the last `span_s` seconds, nats; NaN if it is too new to tell."""
        times = track.times[-1] - np.arange(0.0, span_s, STEP_S)
        samples = _samples(
            track,
            times[times - track.times[0] >= SPAN_S / 2],
            image_hw,
            (self.surprise.shape[0], self.surprise.shape[1]),
        )
        return float(np.mean([self.surprise[sample] for sample in samples])) if samples else float("nan")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON.

        Raises:
            OutputError: The disk does not take it.
        """
        document = {
            "format": FORMAT,
            "limit": self.limit,
            "samples": self.samples,
            "surprise": np.round(self.surprise, 3).tolist(),
        }
        write_atomic(path, json.dumps(document).encode())


class Learner:
    """Learns what is normal from the moments of a clip."""

    def __init__(self, *, grid: tuple[int, int] = GRID) -> None:
        self.grid = grid
        self._next: dict[int, float] = {}
        self._numbers: dict[int, int] = {}
        self._samples: list[tuple[int, int, int]] = []
        self._tracks: list[int] = []
        self._count = 0

    def update(self, moment: Moment) -> None:
        """Take in what the tracks of the next frame did."""
        for track in moment.tracks:
            if moment.time_s < self._next.get(track.id, -np.inf):
                continue
            for sample in _samples(track, track.times[-1:], moment.image_hw, self.grid):
                self._next[track.id] = moment.time_s + STEP_S - 1e-6
                self._samples.append(sample)
                if track.id not in self._numbers:
                    self._count += 1
                    self._numbers[track.id] = self._count
                self._tracks.append(self._numbers[track.id])

    def forget(self) -> None:
        """Take the identities that come next for others than those until now: another clip begins."""
        self._next.clear()
        self._numbers.clear()

    def result(self, *, quantile: float = 0.995) -> Normal:
        """Return what was learned; so much of the normal tracks' time scores below its limit.

        The limit is measured on tracks that were left out: each fifth of them against what the others teach.

        Raises:
            RulesInvalid: There were too few movements to learn from.
        """
        if len(self._samples) < LEAST_SAMPLES:
            raise RulesInvalid(
                f"too little moved to learn what is normal: {len(self._samples)} samples, {LEAST_SAMPLES} are the least"
            )
        samples, tracks = np.array(self._samples), np.array(self._tracks)
        fold = np.unique(tracks, return_inverse=True)[1] % 5
        scores = np.empty(len(samples))
        for left_out in range(5):
            tested = fold == left_out
            scores[tested] = self._surprise(samples[~tested])[tuple(samples[tested].T)]
        length = round(1 / STEP_S)
        means: list[float] = []
        for number in np.unique(tracks):
            own = scores[tracks == number]
            means += np.convolve(own, np.full(min(length, len(own)), 1 / min(length, len(own))), "valid").tolist()
        return Normal(self._surprise(samples), float(np.quantile(means, quantile)), len(samples))

    def _surprise(self, samples: NDArray[np.int64]) -> Counts:
        counts = np.zeros((*self.grid, _BINS))
        np.add.at(counts, tuple(samples.T), 1.0)
        return _surprise(counts)


def read_normal(path: str | os.PathLike[str]) -> Normal:
    """Return what `Normal.save` wrote.

    Raises:
        RulesInvalid: It is missing, or not such a file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        document = json.loads(data) if len(data) <= MAX_BYTES else {}
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise RulesInvalid(f"{path}: not a model that `openlepton watch --learn` wrote")
        surprise = np.array(document["surprise"], np.float64)
        limit, samples = float(document["limit"]), int(document["samples"])
    except OSError as error:
        raise RulesInvalid(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RulesInvalid(f"{path}: damaged; learn it anew with `openlepton watch --learn`") from error
    if surprise.ndim != 3 or surprise.shape[2] != _BINS or not surprise.size or not np.isfinite(surprise).all():
        raise RulesInvalid(f"{path}: damaged; learn it anew with `openlepton watch --learn`")
    return Normal(surprise, limit, samples)


def movement(per_second: NDArray[np.float64]) -> int:
    """Return which movement a velocity `(2,)` in heights a second is: 0 stands, then band after band of 8 directions."""
    band = int(np.searchsorted(BANDS, np.hypot(*per_second), side="right"))
    if band == 0:
        return 0
    direction = int(np.round(np.arctan2(per_second[1], per_second[0]) / (2 * np.pi / DIRECTIONS))) % DIRECTIONS
    return 1 + (band - 1) * DIRECTIONS + direction


def _samples(
    track: Track, times: Iterable[float], image_hw: tuple[int, int], grid: tuple[int, int]
) -> list[tuple[int, int, int]]:
    """Return row, column and movement of a track at each of `times`, without those before which it was seen too shortly."""
    feet, height = track.feet, max(track.height, 1.0)
    samples = []
    for time_s in times:
        first, last = np.searchsorted(track.times, (time_s - SPAN_S - 1e-9, time_s + 1e-9))
        per_second = velocity(track.times[first:last], feet[first:last]) / height
        if not np.isnan(per_second).any():
            column, row = (feet[last - 1] / image_hw[::-1] * grid[::-1]).astype(int)
            samples.append((min(max(row, 0), grid[0] - 1), min(max(column, 0), grid[1] - 1), movement(per_second)))
    return samples


def _surprise(counts: Counts) -> Counts:
    """Return `-log p` of each cell and movement from how often each was seen, both `(rows, columns, movements)`."""
    smooth = _spread(_spread(counts, 0), 1)
    moving = smooth[..., 1:].reshape(*counts.shape[:2], len(BANDS), DIRECTIONS)
    moving = _spread(_spread(moving, 2), 3, around=True)
    smooth = np.concatenate([smooth[..., :1], moving.reshape(*counts.shape[:2], -1)], axis=2)
    whole = smooth.sum(axis=(0, 1)) + _FLOOR
    whole /= whole.sum()
    here = smooth.sum(axis=2)
    given_cell = (smooth + _PRIOR * whole) / (here[..., None] + _PRIOR)
    share = (here + _FLOOR) / (here + _FLOOR).sum() * here.size
    surprise: Counts = -np.log(share)[..., None] - np.log(given_cell)
    return surprise


def _spread(counts: Counts, axis: int, *, around: bool = False) -> Counts:
    """Return `counts` with a quarter of each given to either neighbour along `axis`; `around` joins its ends."""
    half, quarter = counts * 0.5, counts * 0.25
    if around:
        return half + np.roll(quarter, 1, axis) + np.roll(quarter, -1, axis)
    ends = [(1, 1) if each == axis else (0, 0) for each in range(counts.ndim)]
    padded, size = np.pad(quarter, ends, mode="edge"), counts.shape[axis]
    spread: Counts = half + padded.take(range(size), axis) + padded.take(range(2, size + 2), axis)
    return spread
