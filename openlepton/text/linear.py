"""Linear classifiers of texts: the n-grams that are there, each with a weight for each class, in a safetensors file."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from openlepton.arrays import Array, Floats, Tensors
from openlepton.card import ModelFolder, NgramFacts
from openlepton.errors import CardInvalid, ModelFormatRefused
from openlepton.text.ngrams import ngrams

WEIGHTS = "model.safetensors"

_TYPES = {"I8": "int8", "U32": "<u4", "F32": "<f4"}
_WANTED = {"buckets": "U32", "weight": "I8", "scale": "F32", "bias": "F32", "temperature": "F32"}


@dataclass(frozen=True, eq=False)
class Linear:
    """Weights, and what they are for; called with texts it gives their scores, from any number of threads."""

    facts: NgramFacts
    buckets: Array
    """`(F,)` uint32, rising: which n-grams have a weight."""
    weight: Array
    """`(F, K)` int8; K is 1 for two classes that exclude each other, else one for each."""
    scale: Floats
    """`(K,)` what a step of a weight is worth."""
    bias: Floats
    """`(K,)`"""
    temperature: float
    """What logits are divided by, so that scores are as right as they say."""
    classes: int
    multi_label: bool
    table: Floats
    """`(F + 1, K)` the weights; the last row is that of all other n-grams, 0."""
    rows: Array
    """`(buckets,)` int32 row in `table`."""

    @classmethod
    def of(
        cls, facts: NgramFacts, buckets: Array, weights: Floats, bias: Floats, classes: int, *, multi_label: bool
    ) -> "Linear":
        """Return the classifier with `(F, K)` float32 `weights`, rounded to int8, and a temperature of 1."""
        scale = np.maximum(np.abs(weights).max(0, initial=0), 1e-12).astype(np.float32) / np.float32(127)
        rounded = np.rint(weights / scale).astype(np.int8)
        there = rounded.any(1)
        return cls._made(
            facts,
            buckets[there].astype(np.uint32),
            rounded[there],
            scale,
            bias.astype(np.float32),
            1.0,
            classes,
            multi_label,
        )

    @classmethod
    def _made(
        cls,
        facts: NgramFacts,
        buckets: Array,
        weight: Array,
        scale: Floats,
        bias: Floats,
        temperature: float,
        classes: int,
        multi_label: bool,
    ) -> "Linear":
        table = np.zeros((len(buckets) + 1, len(scale)), np.float32)
        table[:-1] = weight * scale
        rows = np.full(facts.buckets, len(buckets), np.int32)
        rows[buckets] = np.arange(len(buckets))
        return cls(facts, buckets, weight, scale, bias, temperature, classes, multi_label, table, rows)

    def heated(self, temperature: float) -> "Linear":
        """Return the same classifier with another temperature."""
        return self._made(
            self.facts, self.buckets, self.weight, self.scale, self.bias, temperature, self.classes, self.multi_label
        )

    def logits(self, texts: list[str]) -> Floats:
        """Return `(N, K)` logits, before the temperature; each text's depend on nothing else in the batch."""
        starts, found = ngrams(texts, self.facts)
        lengths = np.diff(starts)
        total = np.zeros((len(texts), len(self.scale)), np.float32)
        some = lengths > 0
        if some.any():
            total[some] = np.add.reduceat(self.table[self.rows[found]], starts[:-1][some], axis=0)
        logits: Floats = total / np.sqrt(np.maximum(lengths, 1)).astype(np.float32)[:, None] + self.bias
        return logits

    def __call__(self, texts: list[str]) -> Floats:
        """Return `(N, C)` scores, 0..1, which sum to 1 unless classes do not exclude each other."""
        logits = self.logits(texts) / np.float32(self.temperature)
        if not self.multi_label and logits.shape[1] == 1:
            logits = np.hstack([-logits / 2, logits / 2])
        return probabilities(logits, multi_label=self.multi_label)

    def tensors(self) -> Tensors:
        """Return what the file of weights holds."""
        return {
            "buckets": self.buckets,
            "weight": self.weight,
            "scale": self.scale,
            "bias": self.bias,
            "temperature": np.array([self.temperature], np.float32),
        }


def probabilities(logits: Floats, *, multi_label: bool) -> Floats:
    """Return `(N, C)` sigmoids of logits where classes do not exclude each other, else their softmax."""
    if multi_label:
        found: Floats = (1 / (1 + np.exp(-np.clip(logits, -80, 80)))).astype(np.float32)
        return found
    raised = np.exp(logits - logits.max(1, keepdims=True))
    shares: Floats = raised / raised.sum(1, keepdims=True)
    return shares


def open_linear(folder: ModelFolder) -> Linear:
    """Return the linear classifier in a model folder.

    Raises:
        ModelCorrupt: The file differs from its card.
        ModelFormatRefused: It is not what the card says.
    """
    card, where = folder.card, str(folder.path / WEIGHTS)
    if card.ngrams is None:
        raise CardInvalid(f"{card.name}: a linear classifier needs a [ngrams] table")
    found = read_tensors(folder.read(WEIGHTS), where)
    multi_label, classes = card.classify is not None, len(card.labels)
    columns = 1 if classes == 2 and not multi_label else classes
    count = len(found["buckets"])
    shapes = {
        "buckets": (count,),
        "weight": (count, columns),
        "scale": (columns,),
        "bias": (columns,),
        "temperature": (1,),
    }
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise ModelFormatRefused(f"{where}: {name}: expected {shape}, found {found[name].shape}")
    buckets, temperature = found["buckets"], float(found["temperature"][0])
    if count and (buckets[-1] >= card.ngrams.buckets or (np.diff(buckets.astype(np.int64)) <= 0).any()):
        raise ModelFormatRefused(f"{where}: buckets: expected rising numbers below {card.ngrams.buckets}")
    if not temperature > 0 or not all(np.isfinite(found[name]).all() for name in ("scale", "bias", "temperature")):
        raise ModelFormatRefused(f"{where}: expected finite numbers, and a temperature above 0")
    return Linear._made(
        card.ngrams, buckets, found["weight"], found["scale"], found["bias"], temperature, classes, multi_label
    )


def read_tensors(data: bytes, where: str) -> Tensors:
    """Return the tensors of a safetensors file of a linear classifier; numbers are all that such a file can hold.

    Raises:
        ModelFormatRefused: It is not such a file.
    """
    size = int.from_bytes(data[:8], "little")
    body = memoryview(data)[8 + size :]
    try:
        header: dict[str, Any] = json.loads(data[8 : 8 + size])
        header.pop("__metadata__", None)
        if {name: one["dtype"] for name, one in header.items()} != _WANTED:
            raise ValueError(f"expected {', '.join(_WANTED)}")
        found = {}
        for name, one in header.items():
            begin, end = one["data_offsets"]
            if not 0 <= begin <= end <= len(body):
                raise ValueError(f"{name} lies outside of the file")
            found[name] = np.frombuffer(body[begin:end], _TYPES[one["dtype"]]).reshape(one["shape"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFormatRefused(f"{where}: not the weights of a linear classifier: {error}"[:500]) from None
    return found
