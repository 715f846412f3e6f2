"""YOLO text: one file an image, one row an object, in fractions of the image: `class cx cy w h`, or `class x1 y1 x2 y2 ...`."""

import json
import math
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openlepton.data import paths
from openlepton.data.samples import Annotation, Dataset, Fault, Objects, Problem, ProblemKind, Sample, Split, no_objects
from openlepton.errors import DataInvalid, DataNotFound, missing_extra
from openlepton.ops.masks import Rle
from openlepton.ops.polygons import Doubles, Polygons, joined, polygon_area

CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt")
YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
YAML_MAX_BYTES = 4 * 1024**2

SLACK = 0.01
"""How far outside 0..1 a coordinate may lie before its row is refused: labelling tools overshoot a little."""

DECIMALS = 6


@dataclass(frozen=True, eq=False)
class YoloSource:
    """Images with a text file each: `images/a.jpg` and `labels/a.txt`, or both side by side."""

    root: Path
    names: tuple[str, ...]
    """Images relative to `root`, or absolute."""
    class_count: int
    split: str

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Path:
        """Return the path of one image."""
        return self.root / self.names[index]

    def annotation(self, index: int) -> Annotation:
        """Return the rows of one label file; no file, or an empty one, is a background image."""
        name = self.names[index]
        try:
            label, text = self._label(name)
            objects, problems = parse_rows(text, label, self.class_count, self.split)
        except (DataNotFound, DataInvalid) as error:
            missing = isinstance(error, DataNotFound)
            kind: ProblemKind = "label-missing" if missing else "label-unreadable"
            message = "no label file: taken as background" if missing else str(error)
            objects, problems = no_objects(), [Problem(kind, message, self.root / label_name(name), split=self.split)]
        return Annotation(self.root / name, paths.stem(name), objects, relative=True, problems=tuple(problems))

    def _label(self, name: str) -> tuple[Path, str]:
        path = self.root / label_name(name)
        try:
            return path, paths.read_text(path)
        except DataNotFound:
            path = self.root / (posixpath.splitext(name)[0] + ".txt")
            return path, paths.read_text(path)


def label_name(image: str) -> str:
    """Return where the label of an image lies: the last folder `images` becomes `labels`, the suffix `.txt`."""
    head, found, tail = f"/{image}".rpartition("/images/")
    return posixpath.splitext(f"{head}/labels/{tail}"[1:] if found else image)[0] + ".txt"


def parse_rows(text: str, label: Path, class_count: int, split: str | None = None) -> tuple[Objects, list[Problem]]:
    """Return the objects of a label file in fractions of the image, and what was wrong; a row that is wrong is left out.

    A row that says the same as one before it is left out too. A box that reaches outside the image is kept as it is.
    """
    rows: dict[tuple[float, ...], None] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        row, fault = _parse_row(words, class_count)
        if fault is None and row in rows:
            fault = ("row-duplicate", "the same as a row before it: left out")
        elif fault is None:
            rows[row] = None
            fault = _overshoot(row)
        if fault is not None:
            problems.append(Problem(*fault, label, number, split))
    return _objects_of(list(rows)), problems


def _parse_row(words: list[str], class_count: int) -> tuple[tuple[float, ...], Fault | None]:
    try:
        row = tuple(map(float, words))
    except ValueError:
        return (), ("row-malformed", "not numbers: left out")
    if not all(map(math.isfinite, row)):
        return (), ("row-malformed", "a number is not finite: left out")
    if len(row) != 5 and (len(row) < 7 or len(row) % 2 == 0):
        hint = " (a prediction with its score?)" if len(row) == 6 else ""
        return (), ("row-malformed", f"{len(row)} numbers{hint}: a box has 5, an outline 7, 9, 11...: left out")
    if not row[0].is_integer() or not 0 <= row[0] < class_count:
        return (), ("class-unknown", f"class {words[0]} is not one of 0 to {class_count - 1}: left out")
    if min(row[1:]) < -SLACK or max(row[1:]) > 1 + SLACK:
        worst = max(row[1:], key=lambda value: abs(value - 0.5))
        return (), ("row-malformed", f"{worst:g} is not a fraction 0 to 1 of the image: in pixels?: left out")
    x1, y1, x2, y2 = _extent(row)
    if x2 <= x1 or y2 <= y1:
        return (), ("box-degenerate", "no width or no height: left out")
    return row, None


def _overshoot(row: tuple[float, ...]) -> Fault | None:
    x1, y1, x2, y2 = _extent(row)
    if min(x1, y1) < -SLACK or max(x2, y2) > 1 + SLACK:
        return ("box-outside", "reaches outside the image by more than 1 %: kept as it is")
    return None


def _extent(row: tuple[float, ...]) -> tuple[float, float, float, float]:
    if len(row) > 5:
        return min(row[1::2]), min(row[2::2]), max(row[1::2]), max(row[2::2])
    _, cx, cy, width, height = row
    return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2


def _objects_of(rows: list[tuple[float, ...]]) -> Objects:
    if not rows:
        return no_objects()
    boxes, class_ids = np.array([_extent(row) for row in rows]), np.array([row[0] for row in rows], np.int64)
    if all(len(row) == 5 for row in rows):
        return Objects(boxes, class_ids)
    shapes = tuple((np.array(row[1:]).reshape(-1, 2),) if len(row) > 5 else () for row in rows)
    areas = [polygon_area(shape[0]) if shape else row[3] * row[4] for shape, row in zip(shapes, rows, strict=True)]
    return Objects(boxes, class_ids, shapes, areas=np.array(areas))


def open_yolo(root: Path) -> Dataset:
    """Return the YOLO data set in a folder: `classes.txt` and lists (`train.txt`, `val.txt`) or folders of images.

    Raises:
        DataInvalid: There is no list of class names.
        DataNotFound: No `data.yaml` either.
        MissingExtra: There is only a `data.yaml`, and PyYAML is not installed.
    """
    listed = next((name for name in CLASS_FILES if (root / name).is_file()), None)
    if listed is None:
        found = next((name for name in YAML_FILES if (root / name).is_file()), None)
        if found is None:
            raise DataInvalid(f"{root}: no class names: write them to classes.txt, one a line")
        return open_yaml(root / found)
    classes = paths.read_classes(root / listed)
    lists = paths.split_entries(name for name in paths.list_files(root, deep=False) if name.endswith(".txt"))
    return _dataset(root, classes, {split: [name] for split, name in (lists or _image_folders(root)).items()})


def open_yaml(file: Path) -> Dataset:
    """Return the YOLO data set that a `data.yaml` describes; nothing it names is downloaded or run.

    Raises:
        DataInvalid: It is not YAML, or lacks names or splits.
        DataNotFound: A folder or list that it names does not exist.
        MissingExtra: PyYAML is not installed.
    """
    facts = _load_yaml(file)
    classes = _yaml_classes(facts.get("names"), file)
    root = file.parent / str(facts.get("path") or "").replace("\\", "/")
    root = root if root.is_dir() else file.parent
    entries = {split: facts[split] for split in ("train", "val", "test") if facts.get(split)}
    if not entries:
        raise DataInvalid(f"{file}: expected train, val or test: a folder or a list of images")
    places = {
        split: [_place(root, str(one), file) for one in (entry if isinstance(entry, list) else [entry])]
        for split, entry in entries.items()
    }
    return _dataset(root, classes, places)


def _yaml_classes(names: Any, file: Path) -> tuple[str, ...]:
    if isinstance(names, dict):
        names = [names.get(str(index)) for index in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataInvalid(f"{file}: names: expected a list, or names by the ids 0, 1, 2 and so on")
    return paths.checked_classes(names, file)


def _load_yaml(file: Path) -> dict[str, Any]:
    text = paths.read_text(file, YAML_MAX_BYTES)
    try:
        import yaml
    except ImportError as error:
        raise missing_extra("PyYAML", "train") from error
    try:
        # The base loader makes strings, lists and dicts, and nothing else: a class may be called `no`.
        facts = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - safer than the safe loader
    except (yaml.YAMLError, RecursionError) as error:
        raise DataInvalid(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(facts, dict):
        raise DataInvalid(f"{file}: expected `names:`, `train:`, `val:`")
    return facts


def _place(root: Path, entry: str, file: Path) -> str:
    """Return what an entry of data.yaml means, relative to `root` where it lies within; it is the user's word and may leave it."""
    entry = entry.replace("\\", "/")
    # A common exporter writes ../train/images where it means train/images beside data.yaml.
    for candidate in (entry, entry.removeprefix("../")):
        inner = paths.inside("", candidate)
        path = root / (candidate if inner is None else inner)
        if path.is_file() or (path.is_dir() and paths.list_images(path)):
            return path.resolve().as_posix() if inner is None else inner
    raise DataNotFound(f"{file}: {entry}: no such list, or no images in such a folder, in {root}")


def _image_folders(root: Path) -> dict[str, str]:
    """Return the folder of images of each split: `images/train`, `train/images`, `train`, or one called `all`."""
    base = "images" if (root / "images").is_dir() else ""
    split = {
        name: posixpath.join(base, folder) for name, folder in paths.split_entries(paths.subfolders(root, base)).items()
    }
    return split or {"all": base}


def _dataset(root: Path, classes: tuple[str, ...], places: dict[str, list[str]]) -> Dataset:
    splits, problems = {}, []
    for split, entries in places.items():
        names: list[str] = []
        for entry in entries:
            if (root / entry).is_dir():
                names += paths.list_images(root, entry)
            else:
                listed, found = paths.read_list(root, entry, split)
                names += listed
                problems += found
        source = YoloSource(root, tuple(dict.fromkeys(names)), len(classes), split)
        splits[split] = Split(split, classes, source)
    return Dataset(root.resolve().name, root, "yolo", classes, splits, tuple(problems))


@dataclass(frozen=True, eq=False)
class YoloWriter:
    """Writes `images/SPLIT/`, `labels/SPLIT/`, `SPLIT.txt`, `classes.txt` and `data.yaml`."""

    root: Path
    classes: tuple[str, ...]
    outlines: bool = False
    """Objects that have an outline are written as such."""

    def image_folder(self, split: str) -> str:
        """Return where the images of a split go."""
        return f"images/{split}"

    def add(self, split: str, name: str, sample: Sample) -> None:
        """Write the label of one image that was put to `name` in the split's folder."""
        label = self.root / label_name(f"images/{split}/{name}")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("".join(self._rows(sample)), "utf-8", newline="\n")

    def finish(self, images: dict[str, list[str]]) -> None:
        """Write the lists of the images of each split, and of the classes."""
        for split, names in images.items():
            text = "".join(f"images/{split}/{name}\n" for name in names)
            (self.root / f"{split}.txt").write_text(text, "utf-8", newline="\n")
        (self.root / "classes.txt").write_text("".join(f"{name}\n" for name in self.classes), "utf-8", newline="\n")
        # JSON is YAML too, and quotes every name.
        facts = [f"{split}: images/{split}" for split in images]
        facts.append(f"names: {json.dumps(self.classes, ensure_ascii=False)}")
        (self.root / "data.yaml").write_text("\n".join(facts) + "\n", "utf-8", newline="\n")

    def _rows(self, sample: Sample) -> list[str]:
        height, width = sample.size_hw
        objects = sample.objects.scaled(1 / width, 1 / height)
        boxes = np.clip(objects.boxes, 0, 1)
        shapes = objects.shapes if self.outlines and objects.shapes is not None else ((),) * len(objects)
        rows = []
        for (x1, y1, x2, y2), class_id, shape in zip(boxes.tolist(), objects.class_ids.tolist(), shapes, strict=True):
            polygon = _polygon(shape)
            numbers = polygon.reshape(-1).tolist() if len(polygon) else [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
            rows.append(f"{class_id} {' '.join(f'{number:.{DECIMALS}f}' for number in numbers)}\n")
        return rows


def _polygon(shape: Polygons | Rle) -> Doubles:
    """Return one outline in fractions of the image, `(K, 2)`; `(0, 2)` where there is none."""
    parts = tuple(part / shape.size_hw[::-1] for part in shape.polygons()) if isinstance(shape, Rle) else shape
    return np.clip(joined(parts), 0, 1) if parts else np.zeros((0, 2))
