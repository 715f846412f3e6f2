"""Data sets whose folders say everything: one folder a class, or one image of instance ids for each image."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from openlepton.arrays import Array
from openlepton.data import paths
from openlepton.data.samples import Annotation, Dataset, Objects, Problem, Split, no_objects
from openlepton.errors import DataEmpty, DataInvalid, DataNotFound, ImageError
from openlepton.headers import open_header
from openlepton.images import LIMITS
from openlepton.ops.masks import rles_of_ids

MAX_MASK_BYTES = 64 * 1024**2

UNNAMED = ("object",)
"""The classes of a data set that does not say what its one class is called."""


@dataclass(frozen=True, eq=False)
class ClassSource:
    """Images, each of one class: that of the folder it lies in."""

    root: Path
    names: tuple[str, ...]
    """Images, relative to `root`."""
    class_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Path:
        """Return the path of one image."""
        return self.root / self.names[index]

    def annotation(self, index: int) -> Annotation:
        """Return the class of one image."""
        name = self.names[index]
        return Annotation(self.root / name, paths.stem(name), no_objects(), class_id=self.class_ids[index])


def open_classes(root: Path) -> Dataset:
    """Return the data set in `SPLIT/CLASS/`, or in `CLASS/` where there are no splits; classes are sorted by name.

    Raises:
        DataEmpty: There is no image in any of the folders.
    """
    folders = paths.split_entries(paths.subfolders(root)) or {"all": ""}
    names = {split: paths.list_images(root, folder) for split, folder in folders.items()}
    # Of a/b/c.jpg in split a the class is b; what lies beside the class folders has none.
    found = {
        split: [
            (name, parts[0])
            for name in each
            if len(parts := posixpath.relpath(name, folders[split] or ".").split("/")) > 1
        ]
        for split, each in names.items()
    }
    classes = tuple(sorted({label for pairs in found.values() for _, label in pairs}))
    if not classes:
        raise DataEmpty(f"{root}: no images in folders named after classes")
    ids = {label: index for index, label in enumerate(classes)}
    splits = {
        split: Split(
            split, classes, ClassSource(root, tuple(name for name, _ in pairs), tuple(ids[label] for _, label in pairs))
        )
        for split, pairs in found.items()
    }
    return Dataset(root.resolve().name, root, "classes", classes, splits)


@dataclass(frozen=True, eq=False)
class MaskSource:
    """Images, each with a second image of the same size that says which pixel belongs to which object; 0 is background."""

    root: Path
    names: tuple[str, ...]
    """Images, relative to `root`."""
    masks: Mapping[str, str]
    """Where the masks lie, relative to `root`, by the images' names without suffix."""
    split: str

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Path:
        """Return the path of one image."""
        return self.root / self.names[index]

    def mask(self, index: int) -> Path | None:
        """Return the path of one image's mask, None where it has none."""
        one = paths.stem(self.names[index])
        return self.root / self.masks[one] if one in self.masks else None

    def annotation(self, index: int) -> Annotation:
        """Return one object for each value above 0 of the mask, all of the same class."""
        image, one, mask = self.image(index), paths.stem(self.names[index]), self.mask(index)
        if mask is None:
            problem = Problem("label-missing", "no mask: taken as background", image, split=self.split)
            return Annotation(image, one, no_objects(), problems=(problem,))
        try:
            ids = read_ids(mask)
        except (DataInvalid, DataNotFound, ImageError) as error:
            problem = Problem("label-unreadable", str(error), mask, split=self.split)
            return Annotation(image, one, no_objects(), problems=(problem,))
        size_hw = (ids.shape[0], ids.shape[1])
        shapes = rles_of_ids(ids)
        if not shapes:
            return Annotation(image, one, no_objects(), size_hw=size_hw)
        objects = Objects(
            np.array([shape.box() for shape in shapes.values()]),
            np.zeros(len(shapes), np.int64),
            tuple(shapes.values()),
            areas=np.array([shape.area for shape in shapes.values()], np.float64),
            ids=np.array(list(shapes), np.int64),
        )
        return Annotation(image, one, objects, size_hw=size_hw)


def read_ids(path: Path) -> Array:
    """Return an image of instance or class ids, `(H, W)` of the integer type it has; of a palette, the numbers.

    Raises:
        ImageError: It is not an image, or too large.
        DataInvalid: It has colours, or cannot be decoded.
    """
    data = paths.read_bytes(path, MAX_MASK_BYTES)
    # Refuses what is too large before it is decoded.
    _, opened, _ = open_header(data, str(path), formats=LIMITS.formats, max_pixels=LIMITS.max_pixels)
    if opened is not None and opened.mode in ("1", "P"):  # OpenCV gives the colours
        try:
            return np.asarray(opened).astype(np.uint8)
        except (OSError, SyntaxError) as error:
            raise DataInvalid(f"{path}: cannot be decoded ({error})") from None
    ids = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if ids is None:
        raise DataInvalid(f"{path}: cannot be decoded")
    if ids.ndim != 2 or ids.dtype.kind not in "ui":
        raise DataInvalid(f"{path}: expected one channel of whole numbers, got shape {ids.shape} of {ids.dtype}")
    return ids


def open_masks(root: Path) -> Dataset:
    """Return the data set in `images` and `masks`, where `masks/a.png` belongs to `images/a.jpg`; it has one class.

    The class is called as `classes.txt` says, `object` without. Lists (`train.txt`, `val.txt`) make the splits.

    Raises:
        DataInvalid: `classes.txt` names more than one class, which ids of instances cannot tell apart.
    """
    classes = paths.read_classes(root / "classes.txt") if (root / "classes.txt").is_file() else UNNAMED
    if len(classes) != 1:
        raise DataInvalid(f"{root / 'classes.txt'}: ids of instances tell one class, not {len(classes)}")
    splits, masks, problems = open_splits(root)
    made = {name: Split(name, classes, MaskSource(root, names, masks, name)) for name, names in splits.items()}
    return Dataset(root.resolve().name, root, "masks", classes, made, tuple(problems))


def open_splits(root: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, str], list[Problem]]:
    """Return the images of each split, the masks by the images' names without suffix, and what was wrong with the lists.

    Lists make the splits, or else folders in `images` that are called as splits are.

    Raises:
        DataInvalid: There is no folder `images` or `masks`.
    """
    images, masks = paths.subfolder(root, "images"), paths.subfolder(root, "masks")
    if images is None or masks is None:
        raise DataInvalid(f"{root}: expected the folders images and masks")
    by_stem = {paths.stem(name): name for name in paths.list_images(root, masks)}
    splits, problems = dict[str, tuple[str, ...]](), list[Problem]()
    lists = paths.split_entries(name for name in paths.list_files(root, deep=False) if name.endswith(".txt"))
    for split, listed in lists.items():
        names, found = paths.read_list(root, listed, split)
        splits[split] = tuple(names)
        problems += found
    if not splits:
        folders = paths.split_entries(paths.subfolders(root, images)) or {"all": ""}
        splits = {name: tuple(paths.list_images(root, posixpath.join(images, each))) for name, each in folders.items()}
    return splits, by_stem, problems
