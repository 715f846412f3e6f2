"""How well unusual movements are told from normal ones that were not learned from: ROC of a made street, by kind.

    python bench/abnormal.py [--picture docs/images/abnormal-roc.png]

The street, 800 x 450 pixels at 10 frames a second: two pavements with people in both directions, two lanes with cars in one
direction each, a crossing, a bus stop where people stand. Boxes tremble by 2 % of their height, 3 % of the frames are missing.
300 normal tracks teach; 300 others and 40 of each unusual kind are scored. A track's score is its most unusual second.

For comparison the same with a Mahalanobis distance of the velocity in each cell, and over the whole picture.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from openlepton.apps.abnormal import GRID, Learner, Normal
from openlepton.results import Detections
from openlepton.video.analytics import Analytics, Moment, Track, velocity
from openlepton.video.zones import Scene

HW, FPS = (450, 800), 10
PAVEMENTS, LANES, CROSSING, STOP = ((105, 135), (365, 395)), ((190, 1), (280, -1)), (520, 560), (200, 260)
UNUSUAL = (
    "runs on the pavement", "walks on the road", "stands on the road", "wanders about", "turns and turns again",
    "car the wrong way", "car on the pavement", "car at twice the speed", "car stops on the road",
)  # fmt: skip

Path2 = np.ndarray
"""`(T, 2)` where a foot is, frame by frame."""


def line(start: tuple[float, float], end: tuple[float, float], speed: float) -> Path2:
    """Return the way from `start` to `end` at `speed` pixels a second."""
    count = max(2, round(float(np.hypot(end[0] - start[0], end[1] - start[1])) / speed * FPS))
    return np.linspace(start, end, count)


def pavement_walk(rng: np.random.Generator, speed: float) -> Path2:
    """Return a walk along a pavement, in either direction."""
    y = rng.uniform(*PAVEMENTS[rng.integers(2)])
    ends = [(10.0, y), (790.0, y + rng.normal(0, 3))]
    return line(*(ends if rng.random() < 0.5 else ends[::-1]), speed)


def drive(rng: np.random.Generator, speed: float, *, wrong: bool = False, lane: int | None = None) -> Path2:
    """Return a drive along a lane."""
    y, direction = LANES[rng.integers(2) if lane is None else lane]
    y += rng.normal(0, 5)
    ends = [(10.0, y), (790.0, y)]
    return line(*(ends if (direction > 0) != wrong else ends[::-1]), speed)


def normal(rng: np.random.Generator) -> tuple[str, Path2]:
    """Return the class and the way of somebody who does what is usual here."""
    walk = rng.uniform(35, 60)  # a person is 60 px tall
    kind = rng.choice(4, p=(0.4, 0.1, 0.1, 0.4))
    if kind == 0:
        return "person", pavement_walk(rng, walk)
    if kind == 1:
        x = rng.uniform(*CROSSING)
        ends = [(x, 120.0), (x + rng.normal(0, 5), 380.0)]
        way = line(*(ends if rng.random() < 0.5 else ends[::-1]), walk)
        return "person", way
    if kind == 2:  # waits for the bus
        x, y = rng.uniform(*STOP), rng.uniform(*PAVEMENTS[0])
        wait = np.tile([x, y], (int(rng.integers(50, 150)), 1))
        return "person", np.concatenate([line((10, y), (x, y), walk), wait, line((x, y), (790, y), walk)])
    return "car", drive(rng, rng.uniform(150, 230))  # a car is 50 px tall


def unusual(rng: np.random.Generator, kind: str) -> tuple[str, Path2]:
    """Return the class and the way of somebody who does what `kind` says."""
    walk, road = rng.uniform(35, 60), rng.uniform(180, 300)
    if kind == "runs on the pavement":
        return "person", pavement_walk(rng, rng.uniform(120, 180))
    if kind == "walks on the road":
        return "person", line((10, road), (rng.uniform(300, 790), road), walk)
    if kind == "stands on the road":
        x = rng.uniform(300, 480)
        there = np.tile([x, road], (60, 1))
        return "person", np.concatenate([line((x, 120), (x, road), walk), there, line((x, road), (x, 380), walk)])
    if kind == "wanders about":
        turns = np.cumsum(rng.normal(0, 0.25, 200))
        way = np.array([300, 250]) + np.cumsum(np.column_stack([np.cos(turns), np.sin(turns)]) * walk / FPS, axis=0)
        return "person", way.clip((10, 90), (790, 440))
    if kind == "turns and turns again":
        y, legs = rng.uniform(*PAVEMENTS[0]), []
        for _ in range(4):
            legs += [line((400, y), (480, y), walk), line((480, y), (400, y), walk)]
        return "person", np.concatenate(legs)
    if kind == "car the wrong way":
        return "car", drive(rng, rng.uniform(150, 230), wrong=True)
    if kind == "car on the pavement":
        y = rng.uniform(*PAVEMENTS[rng.integers(2)])
        return "car", line((10, y), (790, y), rng.uniform(100, 200))
    if kind == "car at twice the speed":
        return "car", drive(rng, rng.uniform(380, 460))
    way = drive(rng, rng.uniform(150, 230))
    stop = int(len(way) * rng.uniform(0.2, 0.5))
    return "car", np.concatenate([way[:stop], np.tile(way[stop], (60, 1)), way[stop:]])


def moments(label: str, way: Path2, rng: np.random.Generator) -> list[Moment]:
    """Return what analytics make of detections of a way that tremble and are sometimes missing."""
    size = np.array([24.0, 60.0]) if label == "person" else np.array([95.0, 50.0])
    analytics, seen = Analytics(Scene()), []
    for frame, foot in enumerate(way):
        if rng.random() < 0.03:
            continue
        x, y = foot
        box = np.array([x - size[0] / 2, y - size[1], x + size[0] / 2, y]) + rng.normal(0, 0.02 * size[1], 4)
        found = Detections(box[None], [1.0], [0], (label,), HW, track_ids=[1])
        seen.append(analytics.update(found, frame / FPS))
    return seen


def worst(moments_: list[Moment], score: Callable[[Track], float]) -> float:
    """Return the score of a track's most unusual second."""
    scores = [score(moment.tracks[0]) for moment in moments_[:: FPS // 5]]
    return float(np.nanmax(scores)) if np.isfinite(scores).any() else 0.0


def mahalanobis(taught: list[list[Moment]], grid: tuple[int, int]) -> Callable[[Track], float]:
    """Return the distance of the velocity from what was usual in its cell of `grid`, or anywhere where a cell saw too little."""
    cells: dict[tuple[int, int], list[np.ndarray]] = {}

    def cell(track: Track) -> tuple[int, int]:
        x, y = track.feet[-1]
        return int(np.clip(y / HW[0] * grid[0], 0, grid[0] - 1)), int(np.clip(x / HW[1] * grid[1], 0, grid[1] - 1))

    def speed(track: Track) -> np.ndarray:
        recent = track.between(0.6)
        return velocity(recent.times, recent.feet) / track.height

    for one in taught:
        for moment in one[:: FPS // 5]:
            cells.setdefault(cell(moment.tracks[0]), []).append(speed(moment.tracks[0]))
    known = {where: np.array([one for one in values if np.isfinite(one).all()]) for where, values in cells.items()}
    shapes = {
        where: (values.mean(axis=0), np.linalg.inv(np.cov(values.T) + 0.02 * np.eye(2)))
        for where, values in known.items()
        if len(values) > 5
    }
    everything = np.concatenate([values for values in known.values() if len(values)])
    anywhere = (everything.mean(axis=0), np.linalg.inv(np.cov(everything.T)))

    def distance(track: Track) -> float:
        mean, inverse = shapes.get(cell(track), anywhere)
        away = speed(track) - mean
        return float(away @ inverse @ away)

    return distance


def auc(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC: how often a positive scores above a negative, ties counting half."""
    return float(np.mean(np.sign(positive[:, None] - negative[None]) / 2 + 0.5))


def measure(seed: int = 0) -> tuple[Normal, np.ndarray, dict[str, np.ndarray], dict[str, dict[str, float]]]:
    """Return what was learned, the scores of normal tracks and of each kind, and the areas under the ROC of each method."""
    rng = np.random.default_rng(seed)
    taught = [moments(*normal(rng), rng) for _ in range(300)]
    calm = [moments(*normal(rng), rng) for _ in range(300)]
    strange = {kind: [moments(*unusual(rng, kind), rng) for _ in range(40)] for kind in UNUSUAL}
    learner = Learner()
    for one in taught:
        for moment in one:
            learner.update(moment)
        learner.forget()
    learned = learner.result()
    methods: dict[str, Callable[[Track], float]] = {
        "density in cells (ours)": lambda track: learned.score(track, HW),
        "Mahalanobis in cells": mahalanobis(taught, GRID),
        "Mahalanobis, whole picture": mahalanobis(taught, (1, 1)),
    }
    areas: dict[str, dict[str, float]] = {}
    kept: tuple[np.ndarray, dict[str, np.ndarray]] | None = None
    for method, score in methods.items():
        low = np.array([worst(one, score) for one in calm])
        high = {kind: np.array([worst(one, score) for one in ones]) for kind, ones in strange.items()}
        kept = kept or (low, high)
        areas[method] = {kind: auc(low, scores) for kind, scores in high.items()}
        areas[method]["all together"] = auc(low, np.concatenate(list(high.values())))
    assert kept is not None
    return learned, *kept, areas


def draw(path: Path, low: np.ndarray, high: dict[str, np.ndarray]) -> None:
    """Write the ROC of each kind as a picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for kind, scores in {**high, "all together": np.concatenate(list(high.values()))}.items():
        limits = np.sort(np.concatenate([low, scores]))[::-1]
        together = kind == "all together"
        axes.step(
            [0, *((low >= limit).mean() for limit in limits)],
            [0, *((scores >= limit).mean() for limit in limits)],
            where="post", label=f"{kind}, {auc(low, scores):.3f}", color="black" if together else None,
            linewidth=2.2 if together else 1.2,
        )  # fmt: skip
    axes.set(xlabel="normal tracks that are reported", ylabel="unusual tracks that are reported", xlim=(-0.01, 0.3))
    axes.legend(fontsize=8, loc="lower right", title="kind, area under the whole curve", title_fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the areas under the ROC, and how many of each kind the limit reports that was learned without a label."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    learned, low, high, areas = measure()
    width = max(map(len, areas))
    print(f"{'area under the ROC':<24}" + "".join(f"{method:>{width + 2}}" for method in areas) + "   reported")
    for kind in (*UNUSUAL, "all together"):
        scores = np.concatenate(list(high.values())) if kind == "all together" else high[kind]
        row = "".join(f"{areas[method][kind]:>{width + 2}.3f}" for method in areas)
        print(f"{kind:<24}{row}   {(scores >= learned.limit).mean():7.0%}")
    print(f"normal tracks reported: {(low >= learned.limit).mean():.1%}")
    print(f"limit {learned.limit:.2f} nats, learned from {learned.samples:,} movements")
    if options.picture:
        draw(options.picture, low, high)


if __name__ == "__main__":
    main()
