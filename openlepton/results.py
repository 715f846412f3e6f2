"""What comes out of a model: frozen values, parallel arrays that are filtered like arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from openlepton.arrays import Array, Bools, Boxes, ClassMap, Floats, Ints
from openlepton.errors import MissingExtra, ShapeError, UsageError
from openlepton.ops.masks import Rle, rle_of_mask

if TYPE_CHECKING:
    import pandas as pd


class Detection(NamedTuple):
    """One found object."""

    box: Floats
    """`(4,)` x1, y1, x2, y2 in pixels of the original image."""
    score: float
    class_id: int
    label: str
    track_id: int | None = None
    mask: Rle | None = None
    """At the size of the original image; `mask.mask()` is `(H, W)`, `mask.polygons()` its outline."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one image, best first; index it by slice, by mask or by integers to get fewer of them.

    Raises:
        ShapeError: The arrays do not have the same number of rows, or a class id has no name.
    """

    boxes: Boxes
    """`(N, 4)` float32 x1, y1, x2, y2 in pixels of the original image."""
    scores: Floats
    """`(N,)` float32 in 0..1."""
    class_ids: Ints
    """`(N,)` int64, indices into `names`."""
    names: Sequence[str]
    """The model's class names, all of them, by class id."""
    image_hw: tuple[int, int]
    """Height and width of the original image, pixels."""
    masks: Sequence[Rle] | None = None
    """`(N,)` masks at the size of the original image as runs, for models that segment."""
    track_ids: Ints | None = None
    """`(N,)` identities over time, for trackers."""

    def __post_init__(self) -> None:
        boxes = _frozen(self.boxes, np.float32)
        object.__setattr__(self, "boxes", boxes.reshape(0, 4) if boxes.size == 0 else boxes)
        object.__setattr__(self, "scores", _frozen(self.scores, np.float32))
        object.__setattr__(self, "class_ids", _frozen(self.class_ids, np.int64))
        if self.masks is not None:
            object.__setattr__(self, "masks", tuple(self.masks))
        if self.track_ids is not None:
            object.__setattr__(self, "track_ids", _frozen(self.track_ids, np.int64))
        self._check()

    def _check(self) -> None:
        count = len(self.scores)
        if self.boxes.shape != (count, 4):
            raise ShapeError(f"boxes: expected ({count}, 4), got {self.boxes.shape}")
        if self.class_ids.shape != (count,) or self.scores.shape != (count,):
            raise ShapeError(f"class_ids: expected ({count},), got {self.class_ids.shape}")
        if count and self.class_ids.view(np.uint64).max() >= len(self.names):  # a negative one is huge
            raise ShapeError(f"class_ids: expected 0..{len(self.names) - 1}, got up to {self.class_ids.max()}")
        if self.masks is not None:
            if len(self.masks) != count:
                raise ShapeError(f"masks: expected {count}, got {len(self.masks)}")
            for mask in self.masks:
                if tuple(mask.size_hw) != tuple(self.image_hw):
                    raise ShapeError(
                        f"masks: expected each of {tuple(self.image_hw)} pixels, got one of {mask.size_hw}"
                    )
        if self.track_ids is not None and self.track_ids.shape != (count,):
            raise ShapeError(f"track_ids: expected ({count},), got {self.track_ids.shape}")

    @classmethod
    def empty(cls, names: Sequence[str], image_hw: tuple[int, int]) -> Detections:
        """Return no detections in an image of `image_hw` pixels."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), names, image_hw)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self._one(row) for row in range(len(self)))

    def __getitem__(self, rows: SupportsIndex | slice | ArrayLike) -> Detections:
        """Return the detections of `rows`: an index, a slice, a boolean mask `(N,)`, or integers in any order."""
        if isinstance(rows, slice):
            chosen: Any = rows
        else:
            chosen = np.atleast_1d(np.asarray(rows))
            if chosen.size == 0 and chosen.dtype != np.bool_:
                chosen = chosen.astype(np.int64)
            if chosen.dtype.kind not in "biu" or chosen.ndim != 1:
                raise UsageError(
                    f"index detections by int, slice, mask or integers, not by {chosen.dtype} of shape {chosen.shape}"
                )
        return replace(
            self,
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            class_ids=self.class_ids[chosen],
            masks=None if self.masks is None else [self.masks[row] for row in np.arange(len(self))[chosen]],
            track_ids=None if self.track_ids is None else self.track_ids[chosen],
        )

    def __repr__(self) -> str:
        ids, counts = np.unique(self.class_ids, return_counts=True)
        found = ", ".join(f"{count} {self.names[index]}" for index, count in zip(ids, counts, strict=True))
        return f"<Detections: {found or 'none'} in {self.image_hw[1]}x{self.image_hw[0]}>"

    @property
    def labels(self) -> list[str]:
        """`(N,)` the class name of each detection."""
        return [self.names[index] for index in self.class_ids]

    def mask(self, row: int) -> Bools:
        """Return the mask of one detection, `(H, W)` at the size of the original image.

        Raises:
            UsageError: The model that found it knows no masks.
        """
        if self.masks is None:
            raise UsageError("mask: these detections have boxes alone; a model that segments gives masks")
        return self.masks[row].mask()

    def named(self, *labels: str) -> Detections:
        """Return the detections whose class name is one of `labels`.

        Raises:
            UsageError: The model has no class of that name.
        """
        return self[np.isin(self.class_ids, class_ids_of(labels, self.names))]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, as the command line and the server print them in JSON."""
        height, width = self.image_hw
        return {"image": {"width": width, "height": height}, "detections": [self._row(row) for row in range(len(self))]}

    def to_pandas(self) -> pd.DataFrame:
        """Return a data frame with the columns xmin, ymin, xmax, ymax, confidence, class, name (and track_id).

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtra("pandas is not installed: pip install pandas") from None
        columns: dict[str, Any] = dict(zip(("xmin", "ymin", "xmax", "ymax"), self.boxes.T, strict=True))
        columns |= {"confidence": self.scores, "class": self.class_ids, "name": self.labels}
        if self.track_ids is not None:
            columns["track_id"] = self.track_ids
        return pd.DataFrame(columns)

    def _one(self, row: int) -> Detection:
        index = int(self.class_ids[row])
        track = None if self.track_ids is None else int(self.track_ids[row])
        mask = None if self.masks is None else self.masks[row]
        return Detection(self.boxes[row], float(self.scores[row]), index, self.names[index], track, mask)

    def _row(self, row: int) -> dict[str, Any]:
        index = int(self.class_ids[row])
        x1, y1, x2, y2 = (round(float(value), 2) for value in self.boxes[row])
        entry: dict[str, Any] = {
            "label": self.names[index],
            "label_id": index,
            "score": round(float(self.scores[row]), 5),
            "box": {"x1": x1, "y1": y1, "x2": x2, "y2": y2},
        }
        if self.masks is not None:
            entry["mask"] = self.masks[row].to_dict()
        if self.track_ids is not None:
            entry["track_id"] = int(self.track_ids[row])
        return entry


@dataclass(frozen=True, eq=False)
class Classification:
    """How probable each class is, for one image or text.

    Raises:
        ShapeError: There is not one score for each name.
    """

    scores: Floats
    """`(C,)` float32 in 0..1, by class id."""
    names: Sequence[str]
    """`(C,)` class names, by class id."""
    image_hw: tuple[int, int] | None = None
    """Height and width of the original image, pixels; None for text."""
    top: int = 5
    """How many classes `to_dict` lists."""
    min_score: float | None = None
    """What classes that are there score more than, where any number may be; None where exactly one is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", _frozen(self.scores, np.float32))
        if self.scores.shape != (len(self.names),):
            raise ShapeError(f"scores: expected ({len(self.names)},), got {self.scores.shape}")

    @property
    def class_id(self) -> int:
        """The most probable class."""
        return int(self.scores.argmax())

    @property
    def label(self) -> str:
        """The name of the most probable class."""
        return self.names[self.class_id]

    @property
    def score(self) -> float:
        """The probability of the most probable class, 0..1."""
        return float(self.scores[self.class_id])

    @property
    def labels(self) -> list[str]:
        """The names of the classes that are there, most probable first: one, unless classes do not exclude each other."""
        if self.min_score is None:
            return [self.label]
        return [self.names[index] for index in self._order() if self.scores[index] > self.min_score]

    def best(self, count: int) -> list[tuple[str, float]]:
        """Return up to `count` names and scores, most probable first; equal scores by class id."""
        return [(self.names[index], float(self.scores[index])) for index in self._order()[:count]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings: the `top` most probable classes."""
        rows = [
            {"label": self.names[index], "label_id": int(index), "score": round(float(self.scores[index]), 5)}
            for index in self._order()[: self.top]
        ]
        if self.image_hw is None:
            return {"classes": rows}
        return {"image": {"width": self.image_hw[1], "height": self.image_hw[0]}, "classes": rows}

    def __repr__(self) -> str:
        return f"<Classification: {self.label} {self.score:.3f}>"

    def _order(self) -> Ints:
        return np.argsort(-self.scores, kind="stable")


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Which class each pixel of one image shows.

    Raises:
        ShapeError: The class map has no pixels, or holds an id that has no name.
    """

    class_map: ClassMap
    """`(H, W)` uint8 class id of each pixel of the original image."""
    names: Sequence[str]
    """`(C,)` class names, by class id."""
    background: int | None = None
    """The class of pixels that show nothing, which is not drawn; None where there is none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_map", _frozen(self.class_map, np.uint8))
        if self.class_map.ndim != 2 or not self.class_map.size:
            raise ShapeError(f"class_map: expected (H, W), each at least 1, got {self.class_map.shape}")
        if int(self.class_map.max()) >= len(self.names):
            raise ShapeError(f"class_map: expected ids 0..{len(self.names) - 1}, got up to {self.class_map.max()}")

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the original image, pixels."""
        return self.class_map.shape[0], self.class_map.shape[1]

    @property
    def areas(self) -> Ints:
        """`(C,)` how many pixels show each class."""
        return np.bincount(self.class_map.ravel(), minlength=len(self.names)).astype(np.int64)

    def mask(self, label: str | int) -> Bools:
        """Return `(H, W)` which pixels show a class, by its name or id.

        Raises:
            UsageError: The model has no such class.
        """
        found: Bools = self.class_map == class_ids_of([label], self.names)[0]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings: the classes that are there, the largest first, with COCO's compressed masks.

        The background has no mask: it is what the others leave.
        """
        height, width = self.image_hw
        areas, classes = self.areas, []
        for index in self.present():
            row = {"label": self.names[index], "label_id": index, "area": int(areas[index])}
            row["share"] = round(float(areas[index] / (height * width)), 5)
            if index != self.background:
                row["mask"] = rle_of_mask(self.class_map == index).to_dict()
            classes.append(row)
        return {"image": {"width": width, "height": height}, "classes": classes}

    def present(self) -> list[int]:
        """Return the ids of the classes that some pixel shows, the largest first."""
        areas = self.areas
        return [int(index) for index in np.argsort(-areas, kind="stable") if areas[index]]

    def __repr__(self) -> str:
        areas = self.areas / self.class_map.size
        shown = ", ".join(f"{self.names[index]} {areas[index]:.1%}" for index in self.present())
        return f"<Segmentation: {shown} of {self.image_hw[1]}x{self.image_hw[0]}>"


@dataclass(frozen=True)
class Translation:
    """One text in another language."""

    text: str
    score: float
    """How sure the model is of each piece, the geometric mean of their probabilities, 0..1; 1 where nothing was to translate."""
    source: str
    """The language that it came from, as cards say it, such as `en`."""
    target: str
    """The language that it is in."""
    complete: bool = True
    """Whether each sentence came to its end; otherwise one went on until the guard against endless output cut it."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings."""
        return {
            "text": self.text,
            "score": round(self.score, 6),
            "source": self.source,
            "target": self.target,
            "complete": self.complete,
        }


def class_ids_of(labels: Sequence[str | int], names: Sequence[str], *aliases: Sequence[str]) -> Ints:
    """Return the class ids of `labels` (names in `names` or `aliases`, or ids), in ascending order without repeats.

    Raises:
        UsageError: A label is neither a class name nor an id; the message lists close names.
    """
    ids: Mapping[str, int] = {name: index for table in (*reversed(aliases), names) for index, name in enumerate(table)}
    found = set()
    for label in labels:
        if label in ids:
            found.add(ids[str(label)])
        elif str(label).isascii() and str(label).isdigit() and int(label) < len(names):
            found.add(int(label))
        else:
            import difflib

            close = difflib.get_close_matches(str(label), list(ids), 3) or list(names[:8])
            raise UsageError(f"no class {label!r} among the model's {len(names)}: did you mean {', '.join(close)}?")
    return np.array(sorted(found), np.int64)


def _frozen(values: ArrayLike, dtype: Any) -> Array:
    array = np.ascontiguousarray(values, dtype).view()
    array.flags.writeable = False
    return array
