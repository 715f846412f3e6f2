"""Train a linear classifier of texts: logistic regression on hashed n-grams, by L-BFGS, in seconds.

How strongly weights are held back is chosen on the dev split. N-grams that occur once teach nothing and are left out; of the others
those with the largest weights are kept.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from openlepton.arrays import Array, Floats
from openlepton.card import NgramFacts
from openlepton.errors import DataEmpty, UsageError
from openlepton.text.labelled import Labelled
from openlepton.text.linear import Linear
from openlepton.text.ngrams import ngrams


@dataclass(frozen=True)
class LinearConfig:
    """How a linear classifier learns.

    Attributes:
        words: The longest n-gram of words; 0 for none.
        chars: The longest n-gram of characters; 0 for none.
        buckets: What n-grams are hashed to.
        min_count: An n-gram occurs in so many texts, or is not learned from.
        keep: The most n-grams of the finished model.
        l2: What is tried, strongest first: half the squared weights count so much in the loss, which is a mean over texts.
        steps: Of L-BFGS, for each `l2`.
    """

    words: int = 2
    chars: int = 5
    buckets: int = 1 << 22
    min_count: int = 2
    keep: int = 200_000
    l2: tuple[float, ...] = (1e-5, 3e-6, 1e-6)
    steps: int = 30

    def __post_init__(self) -> None:
        if not self.words and not self.chars:
            raise UsageError("words, chars: one of them must be at least 1")
        for name in ("min_count", "keep", "steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if not self.l2 or min(self.l2) <= 0:
            raise UsageError("l2: expected values above 0")


@dataclass(frozen=True)
class Trained:
    """What came out, and how well each strength did."""

    linear: Linear
    tried: dict[float, float]
    """Share of dev that is right, by `l2`."""
    seconds: float


def fit_linear(
    train: Labelled, dev: Labelled, config: LinearConfig, watch: Callable[[str], None] = lambda _: None
) -> Trained:
    """Return the linear classifier of `train` that does best on `dev`.

    Raises:
        DataEmpty: No n-gram occurs often enough.
    """
    began = time.monotonic()
    facts = NgramFacts(buckets=config.buckets, words=config.words, chars=config.chars)
    starts, found = ngrams(train.texts, facts)
    counts = np.bincount(found, minlength=config.buckets)
    used = np.flatnonzero(counts >= config.min_count)
    if not len(used):
        raise DataEmpty(f"no n-gram occurs in {config.min_count} of the {len(train):,} texts of train")
    rarity = (np.log((1 + len(train)) / (1 + counts[used])) + 1).astype(np.float32)  # inverse document frequency
    column = np.full(config.buckets, -1, np.int32)
    column[used] = np.arange(len(used))
    inputs = _matrix(starts, column[found], rarity)
    outputs = _matrix(*_known(ngrams(dev.texts, facts), column), rarity)[0]
    watch(f"{len(train):,} texts, {len(used):,} n-grams, {time.monotonic() - began:.1f} s")
    truth = torch.from_numpy(_targets(train))
    weights = torch.zeros(len(used) + 1, truth.shape[1])
    best, tried = weights, dict[float, float]()
    for l2 in config.l2:
        weights = _minimised(weights, inputs, truth, l2, config.steps, exclusive=_exclusive(train))
        logits = (outputs @ weights[:-1] + weights[-1]).numpy()
        tried[l2] = _right(logits, dev)
        watch(f"l2 {l2:g}: {tried[l2]:.4f} of dev, {time.monotonic() - began:.1f} s")
        if tried[l2] == max(tried.values()):
            best = weights.clone()
        elif tried[l2] < max(tried.values()) - 0.005:
            break
    linear = _kept(best.numpy(), used, rarity, facts, train, config.keep)
    return Trained(linear, tried, time.monotonic() - began)


def _exclusive(data: Labelled) -> bool:
    return data.truth.ndim == 1 and len(data.names) > 2


def _targets(data: Labelled) -> Floats:
    """Return `(N, K)` what is learned: one column for two classes that exclude each other, else one for each class."""
    if data.truth.ndim == 2:
        return data.truth.astype(np.float32)
    if len(data.names) == 2:
        return data.truth[:, None].astype(np.float32)
    found: Floats = np.eye(len(data.names), dtype=np.float32)[data.truth]
    return found


def _known(features: tuple[Array, Array], column: Array) -> tuple[Array, Array]:
    starts, found = features
    return starts, column[found]


def _matrix(starts: Array, columns: Array, rarity: Floats) -> tuple[Tensor, Tensor]:
    """Return `(N, F)` features as a sparse matrix, and the same transposed; -1 is an n-gram that is not learned from.

    Each text's row has its n-grams' rarities, divided by the root of how many n-grams it has, known or not.
    """
    lengths = np.diff(starts)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    share = (1 / np.sqrt(np.maximum(lengths, 1))).astype(np.float32)
    there = columns >= 0
    rows, columns = rows[there], columns[there].astype(np.int64)
    values = rarity[columns] * share[rows]
    size = len(lengths), len(rarity)
    order = np.argsort(columns, kind="stable")
    return _sparse(rows, columns, values, size), _sparse(columns[order], rows[order], values[order], size[::-1])


def _sparse(rows: Array, columns: Array, values: Floats, size: tuple[int, int]) -> Tensor:
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(rows, minlength=size[0]))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch may change these matrices
        return torch.sparse_csr_tensor(
            torch.from_numpy(starts), torch.from_numpy(columns), torch.from_numpy(values), size, check_invariants=False
        )


def _minimised(
    weights: Tensor, inputs: tuple[Tensor, Tensor], truth: Tensor, l2: float, steps: int, *, exclusive: bool
) -> Tensor:
    """Return `(F + 1, K)` weights, the last row what is added, that make the loss small, starting from `weights`."""
    matrix, transposed = inputs
    weights = weights.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=steps, history_size=8, line_search_fn="strong_wolfe", tolerance_change=1e-8
    )

    @torch.no_grad()
    def loss() -> Tensor:
        matter = weights[:-1]
        logits = matrix @ matter + weights[-1]
        if exclusive:
            value = functional.cross_entropy(logits, truth)
            slope = (logits.softmax(1) - truth) / len(truth)
        else:
            value = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(1).mean()
            slope = (logits.sigmoid() - truth) / len(truth)
        weights.grad = torch.cat([transposed @ slope + l2 * matter, slope.sum(0, keepdim=True)])
        return value + l2 / 2 * matter.square().sum()

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()


def _right(logits: Floats, data: Labelled) -> float:
    if data.truth.ndim == 2:
        return float(((logits > 0) == data.truth).all(1).mean())
    best = (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else logits.argmax(1)
    return float((best == data.truth).mean())


def _kept(weights: Floats, used: Array, rarity: Floats, facts: NgramFacts, data: Labelled, keep: int) -> Linear:
    """Return the classifier of the `keep` n-grams with the largest weights."""
    matter = weights[:-1] * rarity[:, None]
    size = np.abs(matter).max(1)
    rows = np.sort(np.argsort(-size, kind="stable")[:keep])
    return Linear.of(facts, used[rows], matter[rows], weights[-1], len(data.names), multi_label=data.truth.ndim == 2)
