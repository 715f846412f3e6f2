"""Which address serves which tasks, and what may stand in its query."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from openlepton.card import TEXT_TASKS, ModelCard

TASKS: Mapping[str, tuple[str, ...]] = {
    "detect": ("detect",),
    "segment": ("segment", "semantic"),
    "classify": ("classify",),
    "classify-text": ("classify-text",),
    "sentiment": ("classify-text",),
    "translate": ("translate",),
}
"""The addresses below `/v1/`, each with the tasks (as cards name them) that it serves."""

TEXT = frozenset(TEXT_TASKS)
"""The tasks whose items are texts; those of all others are images."""

FEELINGS = frozenset(("negative", "positive"))
"""The classes that make a classifier of texts one of sentiment."""

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp", "application/octet-stream")


def serves(address: str, card: ModelCard) -> bool:
    """Return whether a model is one for an address."""
    return card.task in TASKS[address] and (address != "sentiment" or frozenset(card.labels) >= FEELINGS)


def _number(kind: Callable[[str], Any], low: float, high: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return parse


def _flag(text: str) -> bool:
    return {"true": True, "false": False, "1": True, "0": False}[text.lower()]


def _language(text: str) -> str:
    if text not in ("en", "zh"):
        raise ValueError
    return text


def _labels(text: str) -> tuple[str, ...]:
    labels = tuple(part.strip() for part in text.split(",") if part.strip())
    if not 0 < len(labels) <= 1000:
        raise ValueError
    return labels


@dataclass(frozen=True)
class Option:
    """One parameter of a query."""

    argument: str
    """What `load` calls it."""
    parse: Callable[[str], Any]
    schema: Mapping[str, Any]
    """As OpenAPI describes it."""
    hint: str


_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_COUNT = {"type": "integer", "minimum": 1, "maximum": 1000}
_SIZE = {"type": "integer", "minimum": 32, "maximum": 1280, "multipleOf": 32}

OPTIONS: Mapping[str, Option] = {
    "min_score": Option("min_score", _number(float, 0, 1), _SHARE, "report what scores more than this"),
    "max_iou": Option(
        "max_iou", _number(float, 0, 1), _SHARE, "of boxes that overlap by more than this the best stays"
    ),
    "max_detections": Option(
        "max_detections",
        _number(int, 1, 1000),
        {"type": "integer", "minimum": 1, "maximum": 1000},
        "the most in one image",
    ),
    "classes": Option("classes", _labels, {"type": "string", "minLength": 1}, "names or ids, separated by commas"),
    "agnostic": Option("agnostic", _flag, {"type": "boolean"}, "boxes of different classes suppress each other too"),
    "size": Option("size", _number(int, 32, 1280), _SIZE, "longest side seen, pixels"),
    "top": Option("top", _number(int, 1, 1000), _COUNT, "how many classes are listed"),
    "lang": Option("language", _language, {"type": "string", "enum": ["en", "zh"]}, "of the class names"),
}
"""Every option; which of them a model takes is for `load` to say."""
