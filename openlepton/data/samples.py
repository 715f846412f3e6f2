"""What a data set is made of: labelled objects, samples, splits, and what is wrong with them.

Splits are read lazily: opening one lists its images, an index parses one label. Everything here is a plain value that
pickles in little space, so a split can be handed to worker processes as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike

from openlepton.arrays import Array, Bools, ClassMap, Ints
from openlepton.errors import DataNotFound, ShapeError
from openlepton.images import read_header
from openlepton.ops.masks import Rle, rle_of_polygons
from openlepton.ops.polygons import Doubles, Polygons

Layout = Literal["yolo", "coco", "voc", "masks", "semantic", "classes", "tags"]
"""How a data set lies on the disk."""

ProblemKind = Literal[
    "image-missing",
    "image-unreadable",
    "image-tiny",
    "image-listed-twice",
    "path-outside",
    "label-missing",
    "label-unreadable",
    "label-orphan",
    "row-malformed",
    "row-duplicate",
    "class-unknown",
    "class-unused",
    "box-degenerate",
    "box-outside",
    "box-tiny",
    "outline-malformed",
    "size-differs",
    "image-duplicate",
    "image-similar",
    "leak",
    "leak-similar",
]


LEFT_OUT: frozenset[ProblemKind] = frozenset(
    {"path-outside", "label-unreadable", "row-malformed", "row-duplicate", "class-unknown", "box-degenerate"}
)
"""What these concern is not in the samples; the rest is, and is only worth knowing."""

Fault = tuple[ProblemKind, str]
"""What is wrong, before it is known where."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where."""

    kind: ProblemKind
    message: str
    file: Path
    line: int | None = None
    """The line of `file`, from 1; None where the whole file is meant."""
    split: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else f"{self.file}"
        return f"{place}: {self.message} [{self.kind}]"


@dataclass(frozen=True, eq=False)
class Objects:
    """The labelled objects of one image as parallel arrays; index it by mask or integers to get fewer of them.

    Raises:
        ShapeError: The arrays do not have the same number of rows.
    """

    boxes: Doubles
    """`(N, 4)` float64 x1, y1, x2, y2 in pixels of the image, as the file says them: they may reach outside."""
    class_ids: Ints
    """`(N,)` int64, indices into the data set's classes."""
    shapes: tuple[Polygons | Rle, ...] | None = None
    """`(N,)` outline of each object, `()` for one that has only a box; None where no object has any."""
    crowd: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    """`(N,)` COCO's `iscrowd`: a region of many objects."""
    difficult: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    """`(N,)` Pascal VOC's `difficult`: not counted in evaluation."""
    truncated: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    """`(N,)` Pascal VOC's `truncated`: the object goes on outside the box."""
    areas: Doubles = field(default_factory=lambda: np.zeros(0))
    """`(N,)` float64 area in square pixels: COCO's own figure where it gives one, else that of the box."""
    ids: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """`(N,)` int64 COCO's annotation ids; in other layouts 0."""

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float64).reshape(-1, 4)
        count = len(boxes)
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "class_ids", np.asarray(self.class_ids, np.int64))
        for name, dtype in (("crowd", np.bool_), ("difficult", np.bool_), ("truncated", np.bool_), ("ids", np.int64)):
            object.__setattr__(self, name, _column(getattr(self, name), count, dtype))
        if len(self.areas) == 0:
            object.__setattr__(self, "areas", (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and len(value) != count:
                raise ShapeError(f"{each.name}: expected {count} rows, got {len(value)}")

    def __len__(self) -> int:
        return len(self.class_ids)

    def __getitem__(self, rows: slice | ArrayLike) -> Objects:
        """Return the objects of `rows`: a slice, a boolean mask `(N,)`, or integers in any order."""
        index = rows if isinstance(rows, slice) or np.size(rows) else np.zeros(0, np.int64)
        chosen = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)].reshape(-1)
        picked: dict[str, Array] = {
            each.name: getattr(self, each.name)[chosen] for each in fields(self) if each.name != "shapes"
        }
        shapes = None if self.shapes is None else tuple(self.shapes[row] for row in chosen)
        return Objects(shapes=shapes, **picked)

    @property
    def ignored(self) -> Bools:
        """`(N,)` objects that evaluation neither rewards nor punishes: crowds and difficult ones."""
        return self.crowd | self.difficult

    def masks(self, size_hw: tuple[int, int]) -> tuple[Rle, ...]:
        """Return `(N,)` the pixels of each object in an image of `size_hw` pixels: those in its box where it has no outline."""
        found = []
        for (x1, y1, x2, y2), shape in zip(self.boxes.tolist(), self.shapes or ((),) * len(self), strict=True):
            if isinstance(shape, Rle):
                if shape.size_hw == size_hw:
                    found.append(shape)
                    continue
                shape = tuple(part * (np.array(size_hw[::-1]) / shape.size_hw[::-1]) for part in shape.polygons())
            box = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
            found.append(rle_of_polygons(shape or (box,), size_hw))
        return tuple(found)

    def scaled(self, width: float, height: float) -> Objects:
        """Return the objects with every x times `width` and every y times `height`."""
        by = np.array([width, height])
        shapes = self.shapes
        if shapes is not None:
            shapes = tuple(s if isinstance(s, Rle) else tuple(part * by for part in s) for s in shapes)
        return replace(self, boxes=self.boxes * np.tile(by, 2), shapes=shapes, areas=self.areas * (width * height))


def no_objects() -> Objects:
    """Return the objects of a background image: none."""
    return Objects(np.zeros((0, 4)), np.zeros(0, np.int64))


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and what is labelled in it; the image itself is not read."""

    image: Path
    image_id: int | str
    """COCO's image id; in other layouts the image's name without suffix."""
    size_hw: tuple[int, int]
    """Height and width in pixels, upright."""
    objects: Objects
    class_id: int | None = None
    """The class of the whole image, in a data set of class folders."""
    tags: tuple[int, ...] | None = None
    """All classes of the whole image, in a data set where one may have several."""
    class_map: ClassMap | None = None
    """`(H, W)` class of each pixel, 255 where it is not known, in a data set that says so."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """What a file says about one image, before the image itself is looked at."""

    image: Path
    image_id: int | str
    objects: Objects
    relative: bool = False
    """Coordinates are fractions of the image's width and height."""
    size_hw: tuple[int, int] | None = None
    class_id: int | None = None
    tags: tuple[int, ...] | None = None
    class_map: ClassMap | None = None
    problems: tuple[Problem, ...] = ()

    def located(self, size_hw: tuple[int, int] | None = None) -> Sample:
        """Return the sample in pixels; the size is `size_hw`, else what the file says, else what the image's header says.

        Raises:
            ImageError: The header had to be read and could not be.
        """
        size_hw = size_hw or self.size_hw or read_header(self.image).size_hw
        objects = self.objects.scaled(size_hw[1], size_hw[0]) if self.relative else self.objects
        return Sample(self.image, self.image_id, size_hw, objects, self.class_id, self.tags, self.class_map)


class Source(Protocol):
    """Where the samples of a split come from; there is one implementation for each layout."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def image(self, index: int) -> Path:
        """Return the path of one image."""
        ...

    def annotation(self, index: int) -> Annotation:
        """Return what is labelled in one image, with what was wrong and left out."""
        ...


@dataclass(frozen=True, eq=False)
class _Some:
    """Some of the images of a source."""

    source: Source
    indices: Ints

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> Path:
        """Return the path of one image."""
        return self.source.image(int(self.indices[index]))

    def annotation(self, index: int) -> Annotation:
        """Return what is labelled in one image."""
        return self.source.annotation(int(self.indices[index]))


@dataclass(frozen=True, eq=False)
class Split(Sequence[Sample]):
    """One part of a data set, such as `train`: a sequence of samples, each read when it is asked for."""

    name: str
    classes: tuple[str, ...]
    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Return one sample; rows of its label that cannot be used are left out.

        Raises:
            ImageError: The label is in fractions, and the size could not be read from the image.
        """
        return self.annotation(index).located()

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def image(self, index: int) -> Path:
        """Return the path of one image without reading its label."""
        return self.source.image(self._row(index))

    def annotation(self, index: int) -> Annotation:
        """Return what the label says, with its problems, without looking at the image."""
        return self.source.annotation(self._row(index))

    def take(self, indices: ArrayLike) -> Split:
        """Return the split of some of the images, in the order of `indices` `(U,)`, such as the usable ones of a survey."""
        return replace(self, source=_Some(self.source, np.asarray(indices, np.int64)))

    def __repr__(self) -> str:
        return f"<Split {self.name}: {len(self):,} images, {len(self.classes)} classes>"

    def _row(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"split {self.name} has {len(self)} images, there is no {index}")
        return index % len(self)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: its classes, and its splits by name."""

    name: str
    root: Path
    layout: Layout
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    problems: tuple[Problem, ...] = ()
    """What was wrong with the lists of images; problems of labels come with each annotation."""
    category_ids: tuple[int, ...] = ()
    """COCO's category id of each class; in other layouts empty."""

    def __getitem__(self, split: str) -> Split:
        """Return the split of that name.

        Raises:
            DataNotFound: There is none; the message names those there are.
        """
        if split not in self.splits:
            raise DataNotFound(f"{self.root}: no split {split!r}: there is {', '.join(self.splits)}")
        return self.splits[split]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items())
        return f"<Dataset {self.name} ({self.layout}): {sizes}; {len(self.classes)} classes>"


def _column(values: ArrayLike, count: int, dtype: type[np.generic]) -> Array:
    column = np.asarray(values, dtype)
    return np.zeros(count, dtype) if len(column) == 0 else column
