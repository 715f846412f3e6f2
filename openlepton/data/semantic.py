"""Data sets that say a class for each pixel: from images of class ids, or from images of instance ids.

Of instances three classes are made: background, the object, and its boundary, so that a network which only tells classes apart
still tells objects apart that touch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from openlepton.arrays import UNKNOWN, Array, ClassMap
from openlepton.data import paths
from openlepton.data.folders import MaskSource, open_splits, read_ids
from openlepton.data.samples import Annotation, Dataset, Problem, Split, no_objects
from openlepton.errors import DataInvalid, DataNotFound, ImageError

MAX_CLASSES = 255

BACKGROUND, BOUNDARY = "background", "boundary"

BOUNDARY_SHARE = 1 / 128
"""Width of the boundary, inside the object, relative to the longer side of the image; at least one pixel."""


@dataclass(frozen=True, eq=False)
class ClassMapSource:
    """Images, each with a second image of the same size whose values are class ids; 255 is not known."""

    root: Path
    names: tuple[str, ...]
    """Images, relative to `root`."""
    maps: Mapping[str, str]
    """Where the class maps lie, relative to `root`, by the images' names without suffix."""
    split: str
    classes: int

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Path:
        """Return the path of one image."""
        return self.root / self.names[index]

    def annotation(self, index: int) -> Annotation:
        """Return the class map of one image; values that are no class's are taken as not known, and reported."""
        image, one = self.image(index), paths.stem(self.names[index])
        if one not in self.maps:
            return _unusable(image, one, Problem("label-unreadable", "no class map: left out", image, split=self.split))
        path = self.root / self.maps[one]
        try:
            ids = read_ids(path)
        except (DataInvalid, DataNotFound, ImageError) as error:
            return _unusable(image, one, Problem("label-unreadable", str(error), path, split=self.split))
        unknown = (ids >= self.classes) & (ids != UNKNOWN)
        problems: tuple[Problem, ...] = ()
        if unknown.any():
            values = ", ".join(str(value) for value in np.unique(ids[unknown])[:5])
            message = f"{int(unknown.sum()):,} pixels of class {values}, there are {self.classes} classes: not counted"
            problems = (Problem("class-unknown", message, path, split=self.split),)
        known = np.where(unknown, UNKNOWN, ids).astype(np.uint8)
        return Annotation(
            image, one, no_objects(), size_hw=(ids.shape[0], ids.shape[1]), class_map=known, problems=problems
        )


@dataclass(frozen=True, eq=False)
class BoundarySource:
    """The images of another source, their instances as background (0), object (1) and boundary (2)."""

    source: MaskSource

    def __len__(self) -> int:
        return len(self.source)

    def image(self, index: int) -> Path:
        """Return the path of one image."""
        return self.source.image(index)

    def annotation(self, index: int) -> Annotation:
        """Return the class map of one image."""
        image, one = self.image(index), paths.stem(self.source.names[index])
        path = self.source.mask(index)
        if path is None:
            return _unusable(
                image, one, Problem("label-unreadable", "no mask: left out", image, split=self.source.split)
            )
        try:
            ids = read_ids(path)
        except (DataInvalid, DataNotFound, ImageError) as error:
            return _unusable(image, one, Problem("label-unreadable", str(error), path, split=self.source.split))
        found = with_boundaries(ids)
        return Annotation(image, one, no_objects(), size_hw=(ids.shape[0], ids.shape[1]), class_map=found)


def open_class_maps(root: Path) -> Dataset:
    """Return the data set in `images` and `masks`, where `masks/a.png` holds the class ids of `images/a.jpg`.

    Classes are the lines of `classes.txt`: the first is 0. A PNG with a palette counts by its numbers, not its colours. Lists
    (`train.txt`, `val.txt`) make the splits, or folders of that name in `images`.

    Raises:
        DataNotFound: There is no `classes.txt`.
        DataInvalid: A folder is missing, or there are more than 255 classes.
    """
    classes = paths.read_classes(root / "classes.txt")
    if len(classes) > MAX_CLASSES:
        raise DataInvalid(f"{root / 'classes.txt'}: {len(classes)} classes, a class map tells at most {MAX_CLASSES}")
    splits, maps, problems = open_splits(root)
    made = {
        name: Split(name, classes, ClassMapSource(root, names, maps, name, len(classes)))
        for name, names in splits.items()
    }
    return Dataset(root.resolve().name, root, "semantic", classes, made, tuple(problems))


def as_semantic(dataset: Dataset) -> Dataset:
    """Return a data set whose samples have class maps: itself, or background, object and boundary of its instances.

    Raises:
        DataInvalid: It says nothing about single pixels.
    """
    if dataset.layout == "semantic":
        return dataset
    if dataset.layout != "masks":
        raise DataInvalid(
            f"{dataset.root}: a data set of the {dataset.layout} layout does not say a class for each pixel: "
            "expected images/ and masks/, and classes.txt where the masks hold class ids"
        )
    classes = (BACKGROUND, dataset.classes[0], BOUNDARY)
    splits = {}
    for name, split in dataset.splits.items():
        assert isinstance(split.source, MaskSource)
        splits[name] = Split(name, classes, BoundarySource(split.source))
    return replace(dataset, layout="semantic", classes=classes, splits=splits)


def with_boundaries(ids: Array) -> ClassMap:
    """Return the class map of an image of instance ids, `(H, W)`: 0 where there is none, 2 along the edge of one, else 1.

    The edge is the outermost pixels of each object, where another object or the background begins, but not the image's border.
    """
    width = max(1, round(max(ids.shape) * BOUNDARY_SHARE))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    values = np.unique(ids, return_inverse=True)[1].reshape(ids.shape).astype(np.float32)  # whatever type the ids have
    edge = cv2.erode(values, kernel) != cv2.dilate(values, kernel)
    inside = ids > 0
    classes: ClassMap = inside.astype(np.uint8)
    classes[inside & edge] = 2
    return classes


def _unusable(image: Path, image_id: str, problem: Problem) -> Annotation:
    return Annotation(image, image_id, no_objects(), problems=(problem,))
