"""How good each form of a model is on a data set, against the original at the same size."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openlepton.predictor import Predictor, load
from openlepton.runtimes.onnx import OnnxRuntime

Numbers = tuple[str, float]
"""A metric's name and its value."""


@dataclass(frozen=True)
class Measured:
    """The number by which a task's models are judged, such as AP50-95."""

    metric: str
    value: float
    original: float
    """That of the original on the same images, of the same size."""

    @property
    def lost(self) -> float:
        """How much lower it is."""
        return self.original - self.value


@dataclass
class Judge:
    """Measures forms of one model on the same images; the original once for each size.

    Args:
        model: The model folder.
        data: A data set for the model's task.
        split: Of the data set.
        limit: Only the first so many images; all by default.
        progress: Called with how many images of a pass are done, and how many there are.

    Raises:
        UsageError: How good models for that task are cannot be measured.
        DataError: The data set cannot be read, or has no such split.
    """

    model: Path
    data: str | os.PathLike[str]
    split: str = "val"
    limit: int | None = None
    progress: Callable[[int, int], None] | None = None
    _known: dict[Any, Numbers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from openlepton.train.lessons import lesson_for

        self._plain: Predictor[Any] = load(self.model, runtime=OnnxRuntime)
        self._lesson = lesson_for(self._plain.card.task)
        self._part = self._lesson.open(str(self.data))[self.split]

    def __call__(self, form: str) -> Measured:
        """Return what the form of that name reaches.

        Raises:
            OpenLeptonError: It cannot be run.
        """
        other: Predictor[Any] = load(self.model, runtime=form)
        metric, value = self._value(other)
        # The original sees what the form sees, which may take one size alone.
        facts = getattr(other.task, "input", None)
        if facts not in self._known:
            self._known[facts] = self._value(replace(other, runtime=self._plain.runtime))
        return Measured(metric, value, self._known[facts][1])

    def _value(self, predictor: Predictor[Any]) -> Numbers:
        found = self._lesson.evaluate(predictor, self._part, limit=self.limit, progress=self.progress)
        name, value = next(iter(found.report.summary().items()))
        return name, float(value)
