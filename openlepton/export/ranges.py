"""What flows between the layers of a graph on real images: means, and the ranges in which rounding to eight bits harms least."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openlepton.arrays import Array, Floats
from openlepton.offline import import_onnxruntime

STEPS = 255
"""Between the smallest and the largest number of eight bits."""

BINS = 2048
MOST = 50_000
"""So many values of a tensor are counted in each image."""


@dataclass(frozen=True, eq=False)
class Flow:
    """What a tensor holds on some images."""

    low: float
    high: float
    """The range that rounds with the least squared error; 0 is in it, and what is outside is cut off."""
    mean: Floats
    """`(C,)` of each channel."""

    @property
    def scale(self) -> float:
        """The distance of two neighbours when it is rounded to eight bits."""
        return (self.high - self.low) / STEPS

    @property
    def zero(self) -> int:
        """Which of 0 to 255 stands for 0."""
        return round(-self.low / self.scale)


def flows(model: Any, names: Collection[str], inputs: Sequence[Mapping[str, Array]]) -> dict[str, Flow]:
    """Return what tensors of a graph hold.

    Args:
        model: The graph, as onnx has it; it is left as it was.
        names: Of the tensors, `(1, C, H, W)` each.
        inputs: What the graph takes, for one image after the other.
    """
    ends = dict.fromkeys(names, (0.0, 0.0))
    sums: dict[str, Any] = dict.fromkeys(names, 0.0)
    for values in _seen(model, names, inputs):
        for name, value in values.items():
            low, high = ends[name]
            ends[name] = min(low, float(value.min())), max(high, float(value.max()))
            sums[name] = sums[name] + value.mean((0, 2, 3), dtype=np.float64)
    counts = {name: np.zeros(BINS) for name in names}
    for values in _seen(model, names, inputs):
        for name, value in values.items():
            some = value.reshape(-1)[:: max(1, value.size // MOST) | 1]
            counts[name] += np.histogram(some, BINS, ends[name])[0]
    return {name: Flow(*best_range(*ends[name], counts[name]), sums[name] / len(inputs)) for name in names}


def best_range(low: float, high: float, counts: Array) -> tuple[float, float]:
    """Return the part of a range in which values round to eight bits with the least squared error.

    Args:
        low: Where the first bin begins, at most 0.
        high: Where the last one ends, at least 0.
        counts: `(BINS,)` how many values are in each bin.
    """
    if high - low <= 0 or not counts.any():
        return low, max(high, low + 1.0)
    filled = np.flatnonzero(counts)
    values = low + (filled + 0.5) * (high - low) / len(counts)
    found = np.inf, low, high
    for start in {low * share for share in np.linspace(0.2, 1, 5)}:
        for end in {high * share for share in np.linspace(0.1, 1, 19)}:
            if end <= start:
                continue
            scale = (end - start) / STEPS
            zero = round(-start / scale)
            rounded = (np.clip(np.rint(values / scale) + zero, 0, STEPS) - zero) * scale
            found = min(found, (float(counts[filled] @ (rounded - values) ** 2), start, end))
    return float(found[1]), float(found[2])


def _seen(model: Any, names: Collection[str], inputs: Sequence[Mapping[str, Array]]) -> Iterator[Mapping[str, Array]]:
    """Yield the tensors of those names, image by image."""
    import onnx

    given = {value.name for value in model.graph.input}
    inner = [name for name in names if name not in given]
    if not inner:
        yield from ({name: one[name] for name in names} for one in inputs)
        return
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for one in inputs:
        values = dict(zip(inner, session.run(inner, dict(one)), strict=True))
        yield values | {name: one[name] for name in names if name in given}
