"""Classifiers of texts: text in, `Classification` out; linear ones and encoders behind one predictor.

::

    texts -> clean -> scorer (text/linear.py, or text/encode.py around a runtime) -> Classification
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from openlepton.arrays import Floats
from openlepton.card import ModelCard
from openlepton.errors import UsageError
from openlepton.results import Classification
from openlepton.text.languages import language_of
from openlepton.text.predictor import TextPredictor


class Scorer(Protocol):
    """Texts to scores."""

    def __call__(self, texts: list[str]) -> Floats:
        """Return `(N, C)` scores, 0..1."""


@dataclass(frozen=True, eq=False)
class TextClassifier(TextPredictor[Classification]):
    """A loaded classifier of texts: call it with one text, with `batch`, or with `stream`; safe from any number of threads."""

    card: ModelCard
    scorer: Scorer
    names: Sequence[str]
    top: int = 5
    min_score: float | None = None
    """Classes score more than this or are not reported as there; None where the most probable one always is."""

    @property
    def runtime(self) -> Any:
        """What runs the graph; of a linear classifier, which has none, the weights."""
        return getattr(self.scorer, "runtime", self.scorer)

    def batch(self, texts: Sequence[str]) -> list[Classification]:
        """Return one result for each text, in order, each what the text gives alone.

        Of a text without a single character that can be seen nothing is known: its scores are equal.

        Raises:
            UsageError: One of them is not a string.
        """
        for text in texts:
            if not isinstance(text, str):
                raise UsageError(f"text: expected a string, got {type(text).__name__}")
        rows = [row for row, text in enumerate(texts) if _is_seen(text)]
        nothing = 0.0 if self.card.classify is not None else 1 / len(self.names)
        scores = np.full((len(texts), len(self.names)), nothing, np.float32)
        if rows:
            scores[rows] = self.scorer([texts[row] for row in rows])
        return [Classification(one, self.names, top=self.top, min_score=self.min_score) for one in scores]


@dataclass(frozen=True, eq=False)
class ByLanguage(TextPredictor[Classification]):
    """Several classifiers with the same classes, of which each text goes to the one that knows its language."""

    card: ModelCard
    members: Mapping[str, TextClassifier]
    """By language."""

    @property
    def runtime(self) -> Any:
        """The members' runtimes, by the members' names."""
        return {member.card.name: member.runtime for member in self.members.values()}

    def batch(self, texts: Sequence[str]) -> list[Classification]:
        """Return one result for each text, in order, each what the text gives alone.

        Raises:
            UsageError: One of them is not a string.
        """
        among = tuple(self.members)
        by_language: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise UsageError(f"text: expected a string, got {type(text).__name__}")
            by_language.setdefault(language_of(text, among), []).append(row)
        found: dict[int, Classification] = {}
        for language, rows in by_language.items():
            found |= zip(rows, self.members[language].batch([texts[row] for row in rows]), strict=True)
        return [found[row] for row in range(len(texts))]


def open_classifier(
    card: ModelCard, scorer: Scorer, *, top: int = 5, min_score: float | None = None, language: str = "en"
) -> TextClassifier:
    """Return a classifier of texts around what scores them.

    Args:
        card: Of the model.
        scorer: An `Encoder` or a `Linear`.
        top: How many classes a result lists when it is printed.
        min_score: Classes score more than this or are not reported as there; by default what the card says.
        language: Of the class names, `en` or `zh`.

    Raises:
        UsageError: `min_score` is out of range.
    """
    if min_score is not None and not 0 <= min_score <= 1:
        raise UsageError(f"min_score: expected 0 to 1, got {min_score}")
    if min_score is None and card.classify is not None:
        min_score = card.classify.min_score
    return TextClassifier(card, scorer, card.names(language), top, min_score)


def _is_seen(text: str) -> bool:
    """Return whether a text has a character that is neither white space nor control."""
    return any(character.isprintable() and not character.isspace() for character in text)
