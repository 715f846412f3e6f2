"""The client of a server: the same typed results as `openlepton.load` gives, from another process or another machine.

::

    client = Client("http://127.0.0.1:8000")
    found = client.detect("photo.jpg", min_score=0.4)     # Detections
    find = client.load("yolov5n-bccd")                    # called like what openlepton.load returns
    client.api.count(image=Path("cells.jpg"))             # whatever else the server has, by its OpenAPI document
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

from openlepton.card import ModelCard
from openlepton.errors import OpenLeptonError, ServeError, UsageError
from openlepton.images import Source, read_bytes, read_image
from openlepton.ops.masks import rle_of_text
from openlepton.predictor import ordered_map
from openlepton.results import Classification, Detections, Segmentation
from openlepton.serve.api import Api
from openlepton.serve.connection import JSON, Connection, Query, segment
from openlepton.serve.schemas import ModelList, ModelSummary
from openlepton.serve.tasks import TEXT

_LANES = 8  # requests under way at a time, for several items
_MOST_CLASSES = 1000  # that a server lists


@dataclass(frozen=True)
class Local:
    """What of a result is a matter of how it is told."""

    language: str = "en"
    top: int | None = None
    min_score: float | None = None


class Client:
    """A server that `openlepton serve` or a `Service` runs; may be used from many threads at once.

    Predictions are the same however often they are asked for, so they are tried again, with back-off, when the server was
    too busy (after as long as it says) or lost; in all no longer than `timeout_s`.

    Args:
        url: Where it listens.
        token: One that it knows, if it asks for any.
        timeout_s: For a call, all its tries and pauses together.
        retries: How often a call is tried again.

    Raises:
        UsageError: The URL is none.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 4,
    ) -> None:
        self._connection = Connection(url, token=token, timeout_s=timeout_s, retries=retries)
        self._cards: dict[tuple[str, str], ModelCard] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._connection.close()

    def models(self) -> list[ModelSummary]:
        """Return the models that the server has."""
        return ModelList.model_validate(self._connection.ask("GET", "/v1/models").json()).models

    def card(self, model: str) -> ModelCard:
        """Return the card of a model.

        Raises:
            ModelNotFound: The server has no such model.
        """
        card = ModelCard.model_validate(self._connection.ask("GET", f"/v1/models/{segment(model)}").json())
        self._cards[card.name, card.version] = card
        return card

    @cached_property
    def api(self) -> Api:
        """Everything the server offers, by its own description: `client.api.NAME(...)`."""
        return Api(self._connection)

    def load(
        self,
        model: str,
        *,
        size: int | None = None,
        language: str = "en",
        min_score: float | None = None,
        max_iou: float | None = None,
        max_detections: int | None = None,
        classes: Sequence[str | int] | None = None,
        agnostic: bool = False,
        top: int | None = None,
    ) -> "Remote":
        """Return a predictor that works on the server; the options are those of `openlepton.load`.

        Raises:
            ModelNotFound: The server has no such model.
        """
        given = {"size": size, "min_score": min_score, "max_iou": max_iou, "max_detections": max_detections}
        options = _query(language, **given, classes=classes, agnostic=agnostic or None)
        return Remote(self, self.card(model), options, Local(language, top, min_score))

    def detect(
        self,
        image: Source,
        *,
        model: str | None = None,
        size: int | None = None,
        language: str = "en",
        min_score: float | None = None,
        max_iou: float | None = None,
        max_detections: int | None = None,
        classes: Sequence[str | int] | None = None,
        agnostic: bool = False,
    ) -> Detections:
        """Return what a detector finds: the server's default one, or `model`."""
        given = {"size": size, "min_score": min_score, "max_iou": max_iou, "max_detections": max_detections}
        options = _query(language, **given, classes=classes, agnostic=agnostic or None, model=model)
        found: Detections = self.predict("/v1/detect", image_body(image), options, Local(language))
        return found

    def segment(
        self, image: Source, *, model: str | None = None, language: str = "en", min_score: float | None = None
    ) -> Detections | Segmentation:
        """Return the objects with their masks, or the class of each pixel, as the segmenter has it."""
        options = _query(language, min_score=min_score, model=model)
        found: Detections | Segmentation = self.predict("/v1/segment", image_body(image), options, Local(language))
        return found

    def classify(
        self, image: Source, *, model: str | None = None, language: str = "en", top: int | None = None
    ) -> Classification:
        """Return how probable each class is for an image."""
        return self._classified("/v1/classify", image_body(image), model, language, top)

    def classify_text(
        self, text: str, *, model: str | None = None, language: str = "en", top: int | None = None
    ) -> Classification:
        """Return how probable each topic is for a text."""
        return self._classified("/v1/classify-text", text_body(text), model, language, top)

    def sentiment(self, text: str, *, model: str | None = None, language: str = "en") -> Classification:
        """Return how probable it is that a text is positive, negative and what else the model tells apart."""
        return self._classified("/v1/sentiment", text_body(text), model, language, None)

    def predict(self, path: str, body: tuple[str, bytes], options: Query, local: Local) -> Any:
        """Return the typed result of an address that predicts.

        Raises:
            OpenLeptonError: What the server said.
        """
        kind, data = body
        headers = {"Content-Type": kind}
        row = self._connection.ask("POST", path, query=options, body=data, headers=headers, repeatable=True).json()
        try:
            model = row["model"]
            card = self._cards.get((model["name"], model["version"])) or self.card(model["name"])
            return result_of(row, card, local)
        except (KeyError, TypeError, ValueError) as error:
            raise ServeError(f"{path}: not an answer that this release knows: {type(error).__name__} {error}") from None

    def _classified(
        self, path: str, body: tuple[str, bytes], model: str | None, language: str, top: int | None
    ) -> Classification:
        options = _query(language, model=model, top=_MOST_CLASSES)
        found: Classification = self.predict(path, body, options, Local(language, top))
        return found


@dataclass(frozen=True)
class Remote:
    """A model on a server, called like the predictor that `openlepton.load` returns; safe from any number of threads."""

    client: Client
    card: ModelCard
    options: Query
    local: Local

    def __call__(self, item: Any) -> Any:
        """Return the result for one item: for vision whatever `read_image` reads, a string for text."""
        text = self.card.task in TEXT
        options = [*self.options, ("top", str(_MOST_CLASSES))] if "classify" in self.card.task else self.options
        body = text_body(item) if text else image_body(item)
        return self.client.predict(f"/v1/models/{segment(self.card.name)}/predict", body, options, self.local)

    def batch(self, items: Sequence[Any]) -> list[Any]:
        """Return one result for each item, in order.

        Raises:
            OpenLeptonError: Of the first item that has none.
        """
        results = []
        for result in self.stream(items):
            if isinstance(result, OpenLeptonError):
                raise result
            results.append(result)
        return results

    def stream(self, items: Iterable[Any], *, workers: int | None = None) -> Iterator[Any]:
        """Yield a result for each item, in order, or the error that it ended in; `workers` requests are under way at a time."""
        return ordered_map(self._attempt, items, workers=workers or _LANES)

    def _attempt(self, item: Any) -> Any:
        try:
            return self(item)
        except OpenLeptonError as error:
            return error


def image_body(image: Source) -> tuple[str, bytes]:
    """Return the media type and the bytes to send: of a file its own, of an array or a PIL image a PNG, which loses nothing."""
    if isinstance(image, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(image, "read"):
        return "application/octet-stream", read_bytes(image)  # type: ignore[arg-type]
    done, data = cv2.imencode(".png", read_image(image)[:, :, ::-1])
    if not done:
        raise UsageError("image: cannot be sent as PNG")
    return "image/png", data.tobytes()


def text_body(text: str, **fields: str | None) -> tuple[str, bytes]:
    """Return the media type and the bytes to send for a text."""
    if not isinstance(text, str):
        raise UsageError(f"text: expected a string, got {type(text).__name__}")
    told = {"text": text, **{name: value for name, value in fields.items() if value is not None}}
    return JSON, json.dumps(told).encode()


def result_of(row: Mapping[str, Any], card: ModelCard, local: Local) -> Any:
    """Return the result that an answer means, its numbers rounded as the server writes them."""
    names = card.names(local.language)
    size_hw = (row["image"]["height"], row["image"]["width"]) if row.get("image") else None
    if "detections" in row:
        assert size_hw is not None
        return _detections(row["detections"], names, size_hw)
    if card.task == "semantic":
        assert size_hw is not None
        return _segmentation(row["classes"], card, names, size_hw)
    if "classes" in row:
        scores = np.zeros(len(names), np.float32)
        for one in row["classes"]:
            scores[one["label_id"]] = one["score"]
        threshold = local.min_score
        if threshold is None and card.classify is not None:
            threshold = card.classify.min_score
        return Classification(scores, names, size_hw, 5 if local.top is None else local.top, threshold)
    raise ServeError(f"{card.name}: a result of the task {card.task}, which this release does not know")


def _detections(rows: Sequence[Mapping[str, Any]], names: Sequence[str], size_hw: tuple[int, int]) -> Detections:
    masks = [rle_of_text(one["mask"]["counts"], tuple(one["mask"]["size"])) for one in rows if "mask" in one]
    tracks = [one["track_id"] for one in rows if "track_id" in one]
    return Detections(
        np.array([[one["box"][side] for side in ("x1", "y1", "x2", "y2")] for one in rows], np.float32),
        np.array([one["score"] for one in rows], np.float32),
        np.array([one["label_id"] for one in rows], np.int64),
        names,
        size_hw,
        masks or None,
        np.array(tracks, np.int64) if tracks else None,
    )


def _segmentation(
    rows: Sequence[Mapping[str, Any]], card: ModelCard, names: Sequence[str], size_hw: tuple[int, int]
) -> Segmentation:
    background = card.semantic.background if card.semantic is not None else None
    class_map = np.full(size_hw, background or 0, np.uint8)
    for one in rows:
        if "mask" in one:
            class_map[rle_of_text(one["mask"]["counts"], tuple(one["mask"]["size"])).mask()] = one["label_id"]
    return Segmentation(class_map, names, background)


def _query(language: str, **options: Any) -> list[tuple[str, str]]:
    """Return the options as a query; what is None is left to the server."""
    told: dict[str, Any] = {"lang": None if language == "en" else language, **options}
    return [(name, _written(value)) for name, value in told.items() if value is not None]


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else ",".join(map(str, value)) if isinstance(value, Sequence) else str(value)
