"""Anchors for a data set: how well those of a network suit its boxes, and better ones where they do not.

Clusters of box sizes, as YOLOv2 proposed (arXiv:1612.08242, section 2), then mutated while that helps, as in YOLOv5.
"""

import numpy as np
from numpy.random import Generator

from openlepton.arrays import Floats
from openlepton.errors import ShapeError

MIN_RECALL = 0.98
"""Anchors that can learn this share of the boxes are kept."""
MIN_SIDE = 2.0
"""Boxes smaller than this on either side, pixels, do not shape the anchors."""

MAX_BOXES = 10_000
"""More boxes than this say nothing new; so many are drawn."""

Anchors = tuple[tuple[tuple[float, float], ...], ...]


def closeness(sizes: Floats, anchors: Floats) -> Floats:
    """Return for every box how close the best anchor comes, `(N, 2)` and `(A, 2)` widths and heights to `(N,)`.

    1 is the anchor's own size, 1/4 is four times as wide or high, or a fourth of it, whichever side is worse.
    """
    ratio = sizes[:, None] / anchors[None]  # (N, A, 2)
    best: Floats = np.minimum(ratio, 1 / ratio).min(2).max(1)
    return best


def recall(sizes: Floats, anchors: Floats, max_ratio: float = 4.0) -> float:
    """Return the share of boxes that some anchor is close enough to, so that training can learn them."""
    return float((closeness(sizes, anchors) > 1 / max_ratio).mean())


def suit_anchors(
    sizes: Floats, anchors: Anchors, *, max_ratio: float = 4.0, generations: int = 1000, seed: int = 0
) -> Anchors:
    """Return anchors for boxes of these sizes: the given ones where they suit, else the better of them and of new ones.

    Args:
        sizes: `(N, 2)` width and height in pixels of the training images.
        anchors: Widths and heights in pixels per level, finest first.
        max_ratio: How many times larger or smaller a box may be than the anchor that answers for it.
        generations: Mutations that are tried.
        seed: The same seed gives the same anchors.

    Raises:
        ShapeError: `sizes` is not `(N, 2)`, or a side of a box is not above zero.
    """
    sizes = np.asarray(sizes, np.float32)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or not (sizes > 0).all():
        raise ShapeError(f"sizes: expected (N, 2) above zero, got {sizes.shape}")
    old = np.array(anchors, np.float32).reshape(-1, 2)
    if recall(sizes, old, max_ratio) > MIN_RECALL:
        return anchors
    numbers = np.random.default_rng(seed)
    usable = sizes[(sizes >= MIN_SIDE).all(1)]
    if len(usable) > MAX_BOXES:
        usable = usable[numbers.choice(len(usable), MAX_BOXES, replace=False)]
    if len(np.unique(usable, axis=0)) < len(old):
        return anchors
    new = _mutate(_cluster(usable, len(old), numbers), usable, max_ratio, generations, numbers)
    if recall(sizes, new, max_ratio) <= recall(sizes, old, max_ratio):
        return anchors
    new = new[new.prod(1).argsort(kind="stable")]
    levels = new.reshape(len(anchors), -1, 2).astype(np.float64).round(2).tolist()
    return tuple(tuple((w, h) for w, h in level) for level in levels)


def _cluster(sizes: Floats, count: int, numbers: Generator, starts: int = 10, rounds: int = 30) -> Floats:
    """Return `(count, 2)` centres of the sizes: the tightest of several runs of k-means (k-means++) on logarithms.

    Logarithms, because it is ratios that count; on sides as they are, large boxes would get nearly all the anchors.
    """
    kinds, counts = np.unique(sizes, axis=0, return_counts=True)
    points, weights = np.log(kinds), counts.astype(np.float64)
    best, loosest = points[:count], np.inf
    for _ in range(starts):
        centres = points[[numbers.choice(len(points), p=weights / weights.sum())]]
        while len(centres) < count:
            far = weights * _distances(points, centres).min(1)
            centres = np.concatenate((centres, points[[numbers.choice(len(points), p=far / far.sum())]]))
        for _ in range(rounds):
            nearest = _distances(points, centres).argmin(1)
            mine = [nearest == index for index in range(count)]
            centres = np.stack(
                [np.average(points[own], 0, weights[own]) if own.any() else centres[i] for i, own in enumerate(mine)]
            )
        looseness = float((weights * _distances(points, centres).min(1)).sum())
        if looseness < loosest:
            best, loosest = centres, looseness
    found: Floats = np.exp(best).astype(np.float32)
    return found


def _distances(points: Floats, centres: Floats) -> Floats:
    squared: Floats = ((points[:, None] - centres[None]) ** 2).sum(2)  # (N, A)
    return squared


def _mutate(anchors: Floats, sizes: Floats, max_ratio: float, generations: int, numbers: Generator) -> Floats:
    """Return the best of many anchors, each the best so far with most of its sides scaled a little at random."""

    def fitness(candidate: Floats) -> float:
        close = closeness(sizes, candidate)
        return float((close * (close > 1 / max_ratio)).mean())

    best, height = anchors, fitness(anchors)
    for _ in range(generations):
        step = numbers.random() * numbers.normal(0, 0.1, best.shape) * (numbers.random(best.shape) < 0.9)
        candidate = np.maximum(best * (1 + step).clip(0.3, 3), MIN_SIDE).astype(np.float32)
        reached = fitness(candidate)
        if reached > height:
            best, height = candidate, reached
    return best
