"""COCO JSON: one file a split, boxes `x, y, width, height` in pixels, outlines as polygons or run lengths.

Ids of images, annotations and categories are kept, crowds too, so an evaluation sees exactly what the file says.
"""

import json
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from openlepton.arrays import Ints
from openlepton.data import paths
from openlepton.data.samples import Annotation, Dataset, Fault, Objects, Problem, ProblemKind, Sample, Split, no_objects
from openlepton.data.voc import SLACK_PX, overshoot
from openlepton.errors import DataInvalid
from openlepton.ops.masks import Rle, rle_of_text
from openlepton.ops.polygons import Doubles, Polygons

MAX_JSON_BYTES = 2 * 1024**3
"""Largest file: about four times that of COCO's 118,000 training images."""

MAX_COORDINATE = 1e9
"""What is beyond is no number of pixels; neither is what is not finite."""

DECIMALS = 4

Json = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class PackedShapes:
    """The outlines of many objects in few arrays, so that they pickle fast."""

    points: Doubles
    """`(P, 2)` the points of all polygons, one after the other."""
    part_ends: Ints
    """`(Q,)` where in `points` each polygon ends."""
    object_ends: Ints
    """`(N,)` where in `part_ends` the polygons of each object end."""
    runs: Mapping[int, Rle]
    """Masks given as runs, by object."""

    def of(self, row: int) -> Polygons | Rle:
        """Return the outline of one object; `()` where it has none."""
        if row in self.runs:
            return self.runs[row]
        first = int(self.object_ends[row - 1]) if row else 0
        ends = self.part_ends[first : self.object_ends[row]].tolist()
        begin = int(self.part_ends[first - 1]) if first else 0
        return tuple(self.points[a:b] for a, b in zip([begin, *ends], ends, strict=False))


@dataclass(frozen=True, eq=False)
class CocoSource:
    """What one JSON file says: the objects of all images in a few arrays, in the order of the images."""

    root: Path
    names: tuple[str, ...]
    """Images, relative to `root`."""
    image_ids: tuple[int | str, ...]
    sizes_hw: Ints
    """`(I, 2)` as the file says, 0 where it says nothing."""
    ends: Ints
    """`(I,)` where in `objects` those of each image end."""
    objects: Objects
    shapes: PackedShapes | None
    problems: Mapping[int, Sequence[Problem]]
    """By image."""

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Path:
        """Return the path of one image."""
        return self.root / self.names[index]

    def annotation(self, index: int) -> Annotation:
        """Return the objects of one image."""
        rows = range(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))
        objects = self.objects[rows.start : rows.stop]
        if self.shapes is not None:
            objects = replace(objects, shapes=tuple(self.shapes.of(row) for row in rows))
        height, width = self.sizes_hw[index].tolist()
        return Annotation(
            self.image(index),
            self.image_ids[index],
            objects,
            size_hw=(height, width) if height and width else None,
            problems=tuple(self.problems.get(index, ())),
        )


def open_coco(root: Path, files: Sequence[str], *, shapes: bool = True) -> Dataset:
    """Return the data set of some COCO files in `root`, one a split.

    Classes are in the order of their category ids. Without `shapes` only the boxes are kept, which saves much memory.

    Raises:
        DataInvalid: A file is not COCO JSON, or two files disagree about a category.
        DataNotFound: There is no such file.
    """
    facts = {name: _load(root / name) for name in files}
    categories = _categories({root / name: each for name, each in facts.items()})
    classes = paths.checked_classes(categories.values(), root / files[0])
    class_ids = {category: index for index, category in enumerate(categories)}
    raw = {_raw_split(name): name for name in files}
    splits, problems = {}, []
    for key, split in paths.short_split_names(list(raw)).items():
        notes = _Notes(root / raw[key], split)
        images = _images(root, raw[key], (key, split), facts[raw[key]]["images"], notes)
        source = _packed(root, images, facts.pop(raw[key]).get("annotations", []), class_ids, notes, shapes=shapes)
        splits[split] = Split(split, classes, source)
        problems += notes.loose
    return Dataset(root.resolve().name, root, "coco", classes, splits, tuple(problems), tuple(categories))


class _Image(NamedTuple):
    id: int | str
    name: str
    height: int
    width: int


class _Row(NamedTuple):
    box: tuple[float, float, float, float]
    class_id: int
    crowd: bool
    difficult: bool
    area: float
    id: int
    shape: Polygons | Rle


@dataclass(frozen=True)
class _Notes:
    """What is wrong with one file."""

    file: Path
    split: str
    loose: list[Problem] = field(default_factory=list)
    """What cannot be said of one image."""
    of_image: dict[int, list[Problem]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: ProblemKind, message: str, image: int | None = None) -> None:
        """Note one problem, of an image where it is known which."""
        into = self.loose if image is None else self.of_image[image]
        into.append(Problem(kind, message, self.file, split=self.split))


def _load(file: Path) -> Json:
    try:
        facts = json.loads(paths.read_bytes(file, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise DataInvalid(f"{file}: not JSON: {error}") from None
    if not isinstance(facts, dict) or not all(isinstance(facts.get(key), list) for key in ("images", "categories")):
        raise DataInvalid(f"{file}: not COCO: expected lists of images, annotations and categories")
    if not isinstance(facts.get("annotations", []), list):
        raise DataInvalid(f"{file}: annotations: expected a list")
    return facts


def _categories(files: Mapping[Path, Json]) -> dict[int, str]:
    """Return names by category id, ascending; of two that are called the same, one that no annotation uses is left out."""
    names: dict[int, str] = {}
    used: set[Any] = set()
    for file, facts in files.items():
        used |= {each["category_id"] for each in facts.get("annotations", []) if _has_id(each, "category_id")}
        for each in facts["categories"]:
            if not _has_id(each, "id") or not isinstance(each["id"], int) or not isinstance(each.get("name"), str):
                raise DataInvalid(f"{file}: categories: expected id and name, got {str(each)[:80]}")
            if names.setdefault(each["id"], each["name"]) != each["name"]:
                raise DataInvalid(
                    f"{file}: category {each['id']} is {each['name']!r} here, elsewhere {names[each['id']]!r}"
                )
    called = list(names.values())
    return {key: names[key] for key in sorted(names) if key in used or called.count(names[key]) == 1}


def _has_id(each: Any, key: str) -> bool:
    return isinstance(each, dict) and isinstance(each.get(key), int | str)


def _raw_split(name: str) -> str:
    """Return `val2017` for `annotations/instances_val2017.json`, and `train` for `train/_annotations.coco.json`."""
    folder = posixpath.basename(posixpath.dirname(name))
    last = paths.stem(name).rpartition("_")[2]
    called = next((each for each in (last, folder) if paths.SPLIT_PATTERN.fullmatch(each.lower())), None)
    bare = folder or "all" if name.endswith("_annotations.coco.json") else paths.stem(name).removeprefix("instances_")
    return called or bare


def _images(root: Path, file: str, split: tuple[str, str], records: Sequence[Any], notes: _Notes) -> list[_Image]:
    good: dict[int | str, _Image] = {}
    folder: str | None = None
    for each in records:
        if not _has_id(each, "id") or not isinstance(each.get("file_name"), str):
            notes.add("row-malformed", f"image {str(each)[:80]}: expected id and file_name: left out")
            continue
        folder = _image_folder(root, file, split, each["file_name"]) if folder is None else folder
        name = paths.inside(folder, each["file_name"])
        if name is None:
            notes.add(
                "path-outside", f"image {each['id']}: {each['file_name']!r} leaves the data set's folder: left out"
            )
        elif each["id"] in good:
            notes.add("image-listed-twice", f"image {each['id']} is listed before: left out")
        else:
            good[each["id"]] = _Image(each["id"], name, *(_whole(each.get(key)) for key in ("height", "width")))
    return list(good.values())


def _image_folder(root: Path, file: str, split: tuple[str, str], first: str) -> str:
    """Return the folder in `root` that the names of images start from: the first one in which the first image lies."""
    beside, images = posixpath.dirname(file), "images" if (root / "images").is_dir() else ""
    tried = (beside, *split, *(f"images/{each}" for each in split), "images", "", "JPEGImages", f"{beside}/images")
    found = (each for each in tried if (name := paths.inside(each, first)) is not None and (root / name).is_file())
    return next(found, images)


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < 1 << 31 else 0


def _packed(
    root: Path, images: list[_Image], records: list[Any], class_ids: Mapping[int, int], notes: _Notes, *, shapes: bool
) -> CocoSource:
    row_of = {image.id: row for row, image in enumerate(images)}
    by_image: list[list[_Row]] = [[] for _ in images]
    for each in records:
        image = row_of.get(each["image_id"]) if _has_id(each, "image_id") else None
        if image is None:
            notes.add("row-malformed", f"annotation {_id(each)} belongs to no image that is listed: left out")
            continue
        row, faults = _row(each, class_ids, images[image], shapes=shapes)
        for kind, message in faults:
            notes.add(kind, f"annotation {_id(each)}: {message}", image)
        by_image[image] += [row] if row is not None else []
    rows = [row for of_one in by_image for row in of_one]
    return CocoSource(
        root,
        tuple(image.name for image in images),
        tuple(image.id for image in images),
        np.array([(image.height, image.width) for image in images], np.int64).reshape(-1, 2),
        np.cumsum([len(of_one) for of_one in by_image], dtype=np.int64),
        _objects(rows),
        _pack_shapes([row.shape for row in rows]) if shapes else None,
        dict(notes.of_image),
    )


def _row(each: Json, class_ids: Mapping[int, int], image: _Image, *, shapes: bool) -> tuple[_Row | None, list[Fault]]:
    faults: list[Fault] = []
    if not _has_id(each, "category_id") or each["category_id"] not in class_ids:
        return None, [("class-unknown", f"category {each.get('category_id')!r} is not listed: left out")]
    bbox = each.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        return None, [("row-malformed", "bbox: expected four numbers x, y, width, height: left out")]
    x, y, width, height = map(float, bbox)
    if width <= 0 or height <= 0:
        return None, [("box-degenerate", "no width or no height: left out")]
    box = (x, y, x + width, y + height)
    if image.height and image.width and overshoot(box, (image.height, image.width)) > SLACK_PX:
        faults.append(("box-outside", "reaches outside the image: kept as it is"))
    shape: Polygons | Rle = ()
    if shapes:
        try:
            shape = _shape(each.get("segmentation"))
        except (DataInvalid, ValueError, TypeError, OverflowError) as error:
            faults.append(("outline-malformed", f"segmentation: {error}: only the box is kept"))
    area = float(each["area"]) if _is_number(each.get("area")) else width * height
    ignore = bool(each.get("ignore", 0))
    return _Row(
        box, class_ids[each["category_id"]], bool(each.get("iscrowd", 0)), ignore, area, _id(each), shape
    ), faults


def _shape(raw: Any) -> Polygons | Rle:
    match raw:
        case None | []:
            return ()
        case list():
            parts = tuple(np.array(part, np.float64).reshape(-1, 2) for part in raw)
            if not all(len(part) >= 3 and np.isfinite(part).all() for part in parts):
                raise DataInvalid("a polygon has fewer than 3 points, or one that is not finite")
            return parts
        case {"counts": str() as text, "size": [int() as height, int() as width]}:
            return rle_of_text(text, (height, width))
        case {"counts": list() as counts, "size": [int() as height, int() as width]}:
            return Rle((height, width), np.array(counts, np.int64).reshape(-1))
    raise DataInvalid("expected polygons, or runs with counts and size")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_COORDINATE


def _id(each: Any) -> int:
    found = each.get("id") if isinstance(each, dict) else None
    return found if isinstance(found, int) and abs(found) < 1 << 63 else 0


def _objects(rows: Sequence[_Row]) -> Objects:
    if not rows:
        return no_objects()
    boxes, class_ids, crowd, difficult, areas, ids, _ = zip(*rows, strict=True)
    return Objects(
        np.array(boxes),
        np.array(class_ids, np.int64),
        crowd=np.array(crowd),
        difficult=np.array(difficult),
        areas=np.array(areas),
        ids=np.array(ids, np.int64),
    )


def _pack_shapes(shapes: Sequence[Polygons | Rle]) -> PackedShapes | None:
    if not any(shapes):
        return None
    polygons = [() if isinstance(shape, Rle) else shape for shape in shapes]
    parts = [part for shape in polygons for part in shape]
    return PackedShapes(
        np.concatenate([np.zeros((0, 2)), *parts]),
        np.cumsum([len(part) for part in parts], dtype=np.int64),
        np.cumsum([len(shape) for shape in polygons], dtype=np.int64),
        {row: shape for row, shape in enumerate(shapes) if isinstance(shape, Rle)},
    )


@dataclass(frozen=True, eq=False)
class CocoWriter:
    """Writes `SPLIT/` with the images, and `annotations/instances_SPLIT.json`; ids that came from COCO are kept."""

    root: Path
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    keep_ids: bool
    images: dict[str, list[Json]] = field(default_factory=dict)
    annotations: dict[str, list[Json]] = field(default_factory=dict)

    def image_folder(self, split: str) -> str:
        """Return where the images of a split go."""
        return split

    def add(self, split: str, name: str, sample: Sample) -> None:
        """Note one image that was put to `name` in the split's folder."""
        images, annotations = self.images.setdefault(split, []), self.annotations.setdefault(split, [])
        height, width = sample.size_hw
        image_id = sample.image_id if self.keep_ids else sum(map(len, self.images.values())) + 1
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for row in range(len(sample.objects)):
            own = int(sample.objects.ids[row]) if self.keep_ids else sum(map(len, self.annotations.values())) + 1
            annotations.append({"id": own, "image_id": image_id, **self._facts(sample.objects, row)})

    def finish(self, images: Mapping[str, Iterable[str]]) -> None:
        """Write the JSON file of each split."""
        folder = self.root / "annotations"
        folder.mkdir()
        categories = [{"id": key, "name": name} for key, name in zip(self.category_ids, self.classes, strict=True)]
        for split in images:
            facts = {
                "images": self.images.get(split, []),
                "annotations": self.annotations.get(split, []),
                "categories": categories,
            }
            with (folder / f"instances_{split}.json").open("w", encoding="utf-8", newline="\n") as file:
                json.dump(facts, file, ensure_ascii=False, separators=(",", ":"))

    def _facts(self, objects: Objects, row: int) -> Json:
        x1, y1, x2, y2 = objects.boxes[row].tolist()
        shape = objects.shapes[row] if objects.shapes is not None else ()
        segmentation: Any = (
            [np.round(part, DECIMALS).reshape(-1).tolist() for part in shape]
            if not isinstance(shape, Rle)
            else {
                "size": list(shape.size_hw),
                "counts": shape.text(),
            }
        )
        return {
            "category_id": self.category_ids[objects.class_ids[row]],
            "bbox": [round(value, DECIMALS) for value in (x1, y1, x2 - x1, y2 - y1)],
            "area": round(float(objects.areas[row]), DECIMALS),
            "iscrowd": int(objects.crowd[row]),
            **({"ignore": 1} if objects.difficult[row] else {}),
            "segmentation": segmentation,
        }
