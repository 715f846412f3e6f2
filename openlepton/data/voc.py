"""Pascal VOC: one XML file an image, boxes in pixels counted from 1, both ends included.

`xmin` 1 is the first column, and a box from `xmin` 1 to `xmax` 10 is ten pixels wide: x1 = xmin - 1, x2 = xmax. Many tools
write such files but count from 0; `first_pixel=0` reads and writes those.
"""

import html
import math
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple
from xml.parsers import expat

import numpy as np

from openlepton.data import paths
from openlepton.data.samples import Annotation, Dataset, Fault, Objects, Problem, ProblemKind, Sample, Split, no_objects
from openlepton.errors import DataInvalid, DataNotFound

FirstPixel = Literal[0, 1]

MAX_DEPTH = 32

SLACK_PX = 1.0
"""How far outside the image a box may reach before that is reported."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_IMAGE_FOLDERS = ("jpegimages", "images", "imgs")


@dataclass(frozen=True)
class VocObject:
    """One `<object>` as it is written."""

    line: int
    texts: Mapping[str, str]
    """By the path within the object, such as `bndbox/xmin`."""


@dataclass(frozen=True)
class VocFile:
    """One XML file as it is written."""

    filename: str
    size: Mapping[str, str]
    objects: tuple[VocObject, ...]


class _Row(NamedTuple):
    box: tuple[float, float, float, float]
    class_id: int
    difficult: bool
    truncated: bool


@dataclass(eq=False)
class _Reader:
    """Collects what `<annotation>` holds; nothing in the file can make it read another."""

    parser: expat.XMLParserType
    open_tags: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    head: dict[str, str] = field(default_factory=dict)
    found: list[tuple[int, dict[str, str]]] = field(default_factory=list)

    def _start(self, tag: str, _: dict[str, str]) -> None:
        self.open_tags.append(tag)
        self.text.clear()
        if len(self.open_tags) > MAX_DEPTH:
            raise DataInvalid(f"elements are nested more than {MAX_DEPTH} deep")
        if self.open_tags == ["annotation", "object"]:
            self.found.append((self.parser.CurrentLineNumber, {}))

    def _end(self, _: str) -> None:
        path = self.open_tags[1:]
        if path and self.open_tags[0] == "annotation":
            into, path = (self.found[-1][1], path[1:]) if path[0] == "object" else (self.head, path)
            if path:
                into.setdefault("/".join(path), "".join(self.text).strip())
        self.open_tags.pop()
        self.text.clear()

    def _doctype(self, *_: object) -> None:
        raise DataInvalid("has a DOCTYPE, which annotations do not need and attacks do: refused")


def parse_xml(data: bytes) -> VocFile:
    """Return what an annotation says; a document type, and with it every entity, is refused.

    Raises:
        DataInvalid: It is not XML, or not an annotation.
    """
    parser = expat.ParserCreate()
    reader = _Reader(parser)
    parser.buffer_text = True
    parser.StartElementHandler = reader._start
    parser.EndElementHandler = reader._end
    parser.CharacterDataHandler = reader.text.append
    parser.StartDoctypeDeclHandler = reader._doctype
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise DataInvalid(f"not XML: {error}") from None
    if not reader.head and not reader.found:
        raise DataInvalid("not a Pascal VOC <annotation>")
    size = {key.removeprefix("size/"): text for key, text in reader.head.items() if key.startswith("size/")}
    return VocFile(reader.head.get("filename", ""), size, tuple(VocObject(*each) for each in reader.found))


@dataclass(frozen=True, eq=False)
class VocSource:
    """Images with an XML file each."""

    root: Path
    names: tuple[str, ...]
    """Images, relative to `root`."""
    labels: tuple[str, ...]
    """Annotations, relative to `root`, one for each image; they need not exist."""
    class_ids: Mapping[str, int]
    split: str
    first_pixel: FirstPixel

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Path:
        """Return the path of one image."""
        return self.root / self.names[index]

    def annotation(self, index: int) -> Annotation:
        """Return the objects of one file; no file is a background image."""
        label, name = self.root / self.labels[index], self.names[index]
        size_hw = None
        try:
            found = parse_xml(paths.read_bytes(label, paths.MAX_LABEL_BYTES))
            size_hw = _size(found.size)
            objects, problems = self._objects(found, label, size_hw)
        except (DataNotFound, DataInvalid) as error:
            missing = isinstance(error, DataNotFound)
            kind: ProblemKind = "label-missing" if missing else "label-unreadable"
            message = "no label file: taken as background" if missing else str(error)
            objects, problems = no_objects(), [Problem(kind, message, label, split=self.split)]
        return Annotation(self.root / name, paths.stem(name), objects, size_hw=size_hw, problems=tuple(problems))

    def _objects(self, found: VocFile, label: Path, size_hw: tuple[int, int] | None) -> tuple[Objects, list[Problem]]:
        rows, problems = [], []
        for each in found.objects:
            row = self._row(each)
            if not isinstance(row, _Row):
                problems.append(Problem(*row, label, each.line, self.split))
                continue
            if size_hw is not None and overshoot(row.box, size_hw) > SLACK_PX:
                message = "reaches outside the image: kept as it is"
                problems.append(Problem("box-outside", message, label, each.line, self.split))
            rows.append(row)
        if not rows:
            return no_objects(), problems
        boxes, ids, difficult, truncated = zip(*rows, strict=True)
        return Objects(
            np.array(boxes), np.array(ids), difficult=np.array(difficult), truncated=np.array(truncated)
        ), problems

    def _row(self, each: VocObject) -> _Row | Fault:
        name = " ".join(each.texts.get("name", "").split())
        if name not in self.class_ids:
            return ("class-unknown", f"class {name!r} is not among the data set's: left out")
        try:
            x1, y1, x2, y2 = (float(each.texts[f"bndbox/{corner}"]) for corner in _CORNERS)
        except (KeyError, ValueError):
            return ("row-malformed", "<bndbox>: expected the numbers xmin, ymin, xmax, ymax: left out")
        box = (x1 - self.first_pixel, y1 - self.first_pixel, x2, y2)
        if not all(map(math.isfinite, box)):
            return ("row-malformed", "<bndbox>: a number is not finite: left out")
        if box[2] <= box[0] or box[3] <= box[1]:
            return ("box-degenerate", "no width or no height: left out")
        return _Row(box, self.class_ids[name], _flag(each.texts.get("difficult")), _flag(each.texts.get("truncated")))


def overshoot(box: tuple[float, float, float, float], size_hw: tuple[int, int]) -> float:
    """Return how many pixels a box reaches outside its image; negative where it stays away from the edges."""
    return max(-box[0], -box[1], box[2] - size_hw[1], box[3] - size_hw[0])


def _size(texts: Mapping[str, str]) -> tuple[int, int] | None:
    try:
        height, width = int(float(texts["height"])), int(float(texts["width"]))
    except (KeyError, ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _flag(text: str | None) -> bool:
    return (text or "0").strip().lower() not in {"", "0", "false", "unspecified"}


def open_voc(root: Path, first_pixel: FirstPixel = 1) -> Dataset:
    """Return the VOC data set in a folder: `Annotations`, `JPEGImages` and `ImageSets/Main`, or XML files beside their images.

    Classes come from `classes.txt` or `labels.txt`; without, every file is read once, and they are sorted by name.

    Raises:
        DataInvalid: No annotation names a class.
        DataNotFound: A folder cannot be read.
    """
    labels = paths.subfolder(root, "annotations")
    images = paths.subfolder(root, *_IMAGE_FOLDERS) or ""
    problems: list[Problem] = []
    if labels is not None:
        splits = _listed_splits(root, labels, images, problems)
    else:
        folders = paths.split_entries(paths.subfolders(root)) or {"all": ""}
        splits = {split: _beside(paths.list_files(root, folder)) for split, folder in folders.items()}
    listed = next((root / name for name in ("classes.txt", "labels.txt") if (root / name).is_file()), None)
    classes = paths.read_classes(listed) if listed else _classes_of(root, splits)
    ids = {name: index for index, name in enumerate(classes)}
    made = {
        split: Split(split, classes, VocSource(root, tuple(pairs), tuple(pairs.values()), ids, split, first_pixel))
        for split, pairs in splits.items()
    }
    return Dataset(root.resolve().name, root, "voc", classes, made, tuple(problems))


def _listed_splits(root: Path, labels: str, images: str, problems: list[Problem]) -> dict[str, dict[str, str]]:
    """Return image and annotation names of each split that a list makes, or of all images."""
    by_stem = {paths.stem(name): name for name in paths.list_images(root, images, deep=False)}
    by_stem |= {paths.stem(name): name for name in paths.list_images(root, images)} if not by_stem else {}
    folder = posixpath.join("ImageSets", "Main") if (root / "ImageSets" / "Main").is_dir() else ""
    listed = [posixpath.basename(name) for name in paths.list_files(root, folder, deep=False) if name.endswith(".txt")]
    splits = {}
    for split, name in paths.split_entries(listed).items():
        entries, found = paths.read_list(root, posixpath.join(folder, name), split)
        problems += found
        splits[split] = {
            by_stem.get(one, posixpath.join(images, f"{one}.jpg")): posixpath.join(labels, f"{one}.xml")
            for one in map(_entry_stem, entries)
        }
    return splits or {"all": {name: posixpath.join(labels, f"{one}.xml") for one, name in by_stem.items()}}


def _entry_stem(entry: str) -> str:
    """Return the stem of a line of a list, which may be a stem already (`2007_000027`, `v1.2`), or a path."""
    base = posixpath.basename(entry)
    return paths.stem(base) if paths.is_image(base) or base.lower().endswith(".xml") else base


def _beside(names: list[str]) -> dict[str, str]:
    return {name: posixpath.splitext(name)[0] + ".xml" for name in names if paths.is_image(name)}


def _classes_of(root: Path, splits: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    names = set()
    for label in dict.fromkeys(label for pairs in splits.values() for label in pairs.values()):
        try:
            found = parse_xml(paths.read_bytes(root / label, paths.MAX_LABEL_BYTES))
        except (DataInvalid, DataNotFound):
            continue  # reported when the sample is read
        names |= {" ".join(each.texts.get("name", "").split()) for each in found.objects}
    return paths.checked_classes(sorted(names - {""}), root)


@dataclass(frozen=True, eq=False)
class VocWriter:
    """Writes `JPEGImages/`, `Annotations/`, `ImageSets/Main/SPLIT.txt` and `classes.txt`."""

    root: Path
    classes: tuple[str, ...]
    first_pixel: FirstPixel = 1

    def image_folder(self, split: str) -> str:
        """Return where the images of a split go: all to one folder."""
        return "JPEGImages"

    def add(self, split: str, name: str, sample: Sample) -> None:
        """Write the annotation of one image that was put to `name`."""
        folder = self.root / "Annotations"
        folder.mkdir(parents=True, exist_ok=True)
        height, width = sample.size_hw
        lines = [
            "<annotation>",
            f"  <folder>{self.image_folder(split)}</folder>",
            f"  <filename>{html.escape(name)}</filename>",
            f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
            *(self._object(sample.objects, row) for row in range(len(sample.objects))),
            "</annotation>",
        ]
        (folder / f"{paths.stem(name)}.xml").write_text("\n".join(lines) + "\n", "utf-8", newline="\n")

    def finish(self, images: dict[str, list[str]]) -> None:
        """Write the lists of the images of each split, and of the classes."""
        folder = self.root / "ImageSets" / "Main"
        folder.mkdir(parents=True, exist_ok=True)
        for split, names in images.items():
            (folder / f"{split}.txt").write_text(
                "".join(f"{paths.stem(name)}\n" for name in names), "utf-8", newline="\n"
            )
        (self.root / "classes.txt").write_text("".join(f"{name}\n" for name in self.classes), "utf-8", newline="\n")

    def _object(self, objects: Objects, row: int) -> str:
        x1, y1, x2, y2 = objects.boxes[row].tolist()
        corners = (x1 + self.first_pixel, y1 + self.first_pixel, x2, y2)
        box = "".join(f"<{tag}>{_number(value)}</{tag}>" for tag, value in zip(_CORNERS, corners, strict=True))
        name = html.escape(self.classes[objects.class_ids[row]])
        flags = f"<truncated>{objects.truncated[row]:d}</truncated><difficult>{objects.ignored[row]:d}</difficult>"
        return f"  <object><name>{name}</name>{flags}<bndbox>{box}</bndbox></object>"


def _number(value: float) -> str:
    """Return a coordinate to a thousandth of a pixel; whole numbers as such, for readers that want integers."""
    return f"{value:.3f}".rstrip("0").rstrip(".")
