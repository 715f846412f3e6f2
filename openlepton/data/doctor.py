"""A look through a whole data set for what spoils training: every image is decoded, every label read, nothing is changed."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openlepton.arrays import Ints
from openlepton.data import paths
from openlepton.data.duplicates import Look, find_pairs, look_at_all
from openlepton.data.pictures import class_bars, pair_mosaic, sample_mosaic, size_map
from openlepton.data.samples import Annotation, Dataset, Problem, ProblemKind, Split
from openlepton.data.survey import Progress, count_kinds, survey
from openlepton.data.voc import SLACK_PX
from openlepton.data.yolo import label_name
from openlepton.errors import ImageError, ImageNotFound, OutputError, UsageError
from openlepton.files import write_atomic
from openlepton.images import write_image

SIDE_EDGES = (0, 8, 16, 32, 64, 96, 128, 256, 512)
"""Lower edges of the histogram of box sizes: the square root of the area, pixels of the original image."""

MAP_CELLS = 32
"""Cells of the map of box widths and heights, each way."""

MIN_IMAGE_SIDE = 10
MIN_BOX_SIDE = 1.0


@dataclass(frozen=True, eq=False)
class SplitFacts:
    """What one split holds."""

    name: str
    images: int
    usable: int
    """Images to train on."""
    backgrounds: int
    """Usable images without an object, those without a label file included."""
    unlabelled: int
    """Images without a label file, taken as background."""
    objects: int
    class_counts: Ints
    """`(C,)` objects of each class; images, in a data set of class folders."""
    side_counts: Ints
    """`(9,)` objects by size, see `SIDE_EDGES`."""
    size_counts: Ints
    """`(32, 32)` objects by height and width, in steps of 1/32 of the image's."""


@dataclass(frozen=True, eq=False)
class CheckReport:
    """What was found in a data set."""

    root: Path
    layout: str
    classes: tuple[str, ...]
    splits: tuple[SplitFacts, ...]
    problems: tuple[Problem, ...]
    pairs: tuple[tuple[Path, Path], ...]
    """Images that are the same, those of different splits first."""

    @property
    def kinds(self) -> dict[str, int]:
        """How often each kind of problem occurs, most often first."""
        return count_kinds(self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, as `report.json` holds them."""
        return {
            "root": str(self.root),
            "layout": self.layout,
            "classes": list(self.classes),
            "splits": [_plain(split, self.classes) for split in self.splits],
            "problem_counts": self.kinds,
            "problems": [
                {"kind": p.kind, "file": str(p.file), "line": p.line, "split": p.split, "message": p.message}
                for p in self.problems
            ],
        }


def check(dataset: Dataset, *, workers: int | None = None, progress: Progress | None = None) -> CheckReport:
    """Return what is in a data set and what is wrong with it.

    Args:
        dataset: What `open_dataset` returned.
        workers: Threads that decode images; as many as there are processors when not given.
        progress: Called after each image.
    """
    files = [split.image(index) for split in dataset.splits.values() for index in range(len(split))]
    looks = look_at_all(files, workers or os.cpu_count() or 1, progress)
    problems = list(dataset.problems)
    facts, start = [], 0
    for split in dataset.splits.values():
        facts.append(_split_facts(split, looks[start : start + len(split)], problems))
        start += len(split)
    problems += _unused_classes(dataset, facts)
    problems += _orphans(dataset)
    same = _same_images(dataset, files, looks)
    problems += [problem for problem, _ in same]
    leaks_first = sorted(same, key=lambda found: not found[0].kind.startswith("leak"))
    pairs = tuple(pair for _, pair in leaks_first)
    return CheckReport(dataset.root, dataset.layout, dataset.classes, tuple(facts), tuple(problems), pairs)


def _split_facts(split: Split, looks: Sequence[Look | ImageError], problems: list[Problem]) -> SplitFacts:
    counted = survey(split)
    problems += [
        problem for problem in counted.problems if problem.kind != "image-missing"
    ]  # said with the image, below
    sides, sizes = np.zeros(len(SIDE_EDGES), np.int64), np.zeros((MAP_CELLS, MAP_CELLS), np.int64)
    readable = np.zeros(len(split), np.bool_)
    for index, seen in enumerate(looks):
        if isinstance(seen, ImageError):
            kind: ProblemKind = "image-missing" if isinstance(seen, ImageNotFound) else "image-unreadable"
            problems.append(
                Problem(kind, str(seen).removeprefix(f"{split.image(index)}: "), split.image(index), split=split.name)
            )
            continue
        readable[index] = True
        found = split.annotation(index)
        problems += _image_problems(found, seen.size_hw, split.name)
        boxes = found.located(seen.size_hw).objects.boxes
        width, height = (np.maximum(boxes[:, 2:] - boxes[:, :2], 0)).T
        np.add.at(sides, np.searchsorted(SIDE_EDGES, np.sqrt(width * height), side="right") - 1, 1)
        cells = [
            np.minimum(one / side * MAP_CELLS, MAP_CELLS - 1).astype(int)
            for one, side in zip((height, width), seen.size_hw, strict=True)
        ]
        np.add.at(sizes, tuple(cells), 1)
    usable = int(readable[counted.usable].sum())
    objects = int(counted.class_counts.sum())
    return SplitFacts(
        split.name,
        len(split),
        usable,
        counted.backgrounds,
        counted.unlabelled,
        objects,
        counted.class_counts,
        sides,
        sizes,
    )


def _image_problems(found: Annotation, size_hw: tuple[int, int], split: str) -> Iterator[Problem]:
    """Yield what shows only when the true size of the image is known."""
    height, width = size_hw
    if min(size_hw) < MIN_IMAGE_SIDE:
        yield Problem("image-tiny", f"{width}x{height} pixels", found.image, split=split)
    said = found.size_hw
    if said is not None and said != size_hw:
        turned = ": turned by 90 degrees?" if said == size_hw[::-1] else ""
        message = f"the label says {said[1]}x{said[0]}, the image has {width}x{height}{turned}"
        yield Problem("size-differs", message, found.image, split=split)
    boxes = found.located(size_hw).objects.boxes
    tiny = int(((boxes[:, 2:] - boxes[:, :2]) < MIN_BOX_SIDE).any(1).sum())
    if tiny:
        yield Problem(
            "box-tiny", f"{tiny} of {len(boxes)} boxes are narrower or lower than a pixel", found.image, split=split
        )
    over = np.maximum(-boxes[:, :2], boxes[:, 2:] - (width, height)).max(1, initial=-np.inf) > SLACK_PX
    if over.any() and not found.relative and not any(problem.kind == "box-outside" for problem in found.problems):
        yield Problem(
            "box-outside", f"{over.sum()} of {len(boxes)} boxes reach outside the image", found.image, split=split
        )


def _unused_classes(dataset: Dataset, facts: Iterable[SplitFacts]) -> Iterator[Problem]:
    for split in facts:
        for name in np.array(dataset.classes, object)[split.class_counts == 0]:
            yield Problem(
                "class-unused", f"nothing is labelled {name!r} in split {split.name}", dataset.root, split=split.name
            )


def _orphans(dataset: Dataset) -> Iterator[Problem]:
    """Yield labels whose image does not exist, often because it is called otherwise."""
    images: dict[Path, set[str]] = {}
    folders = {split.image(index).parent for split in dataset.splits.values() for index in range(len(split))}
    for folder in folders:
        labels = _label_folder(dataset, folder)
        if labels is not None and labels.is_dir() and folder.is_dir():
            images.setdefault(labels, set()).update(map(paths.stem, paths.list_images(folder, deep=False)))
    suffix = ".xml" if dataset.layout == "voc" else ".txt"
    for labels, stems in sorted(images.items()):
        for name in paths.list_files(labels, deep=False):
            if name.endswith(suffix) and paths.stem(name) not in stems and name != "classes.txt":
                yield Problem("label-orphan", "a label without an image of that name", labels / name)


def _label_folder(dataset: Dataset, images: Path) -> Path | None:
    """Return where the labels of a folder of images lie; None where they do not lie apart."""
    if dataset.layout == "voc":
        name = paths.subfolder(dataset.root, "annotations")
        return None if name is None else dataset.root / name
    labels = Path(label_name((images / "a.jpg").as_posix())).parent
    return labels if dataset.layout == "yolo" and labels != images else None


def _same_images(
    dataset: Dataset, files: Sequence[Path], looks: Sequence[Look | ImageError]
) -> list[tuple[Problem, tuple[Path, Path]]]:
    owners = [split.name for split in dataset.splits.values() for _ in range(len(split))]
    readable = [index for index, seen in enumerate(looks) if isinstance(seen, Look)]
    found = []
    for pair in find_pairs([seen for seen in looks if isinstance(seen, Look)]):
        first, second = readable[pair.first], readable[pair.second]
        apart = owners[first] != owners[second]
        kind: ProblemKind
        if pair.exact:
            kind, how = ("leak" if apart else "image-duplicate"), "the same file as"
        else:
            kind, how = (
                ("leak-similar" if apart else "image-similar"),
                f"to the eye the same ({pair.correlation:.2f}) as",
            )
        message = f"{how} {_short(files[second], dataset.root)} in {owners[second]}"
        found.append((Problem(kind, message, files[first], split=owners[first]), (files[first], files[second])))
    return found


def _short(file: Path, root: Path) -> Path:
    return file.relative_to(root) if file.is_relative_to(root) else file


def write_report(report: CheckReport, dataset: Dataset, out: str | Path) -> list[Path]:
    """Write `report.json` and pictures to the folder `out`, and return the paths of what was written.

    `classes.png` shows how much there is of each class, `sizes.png` how wide and high boxes are, `samples.png` some images
    with their boxes, `same.png` pairs of images that are the same, where there are any.

    Raises:
        UsageError: The folder lies in the data set, where pictures would become part of it.
        OutputError: It cannot be written.
    """
    out = Path(out)
    if out.resolve().is_relative_to(dataset.root.resolve()):
        raise UsageError(f"{out}: lies in the data set, which is not touched: name a folder outside")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}") from error
    text = json.dumps(report.to_dict(), ensure_ascii=False, indent=1)
    write_atomic(out / "report.json", text.encode("utf-8", "backslashreplace"))
    counts = {split.name: split.class_counts for split in report.splits}
    pictures = {"classes.png": class_bars(report.classes, counts), "samples.png": sample_mosaic(dataset)}
    if dataset.layout != "classes":
        sizes = np.sum([split.size_counts for split in report.splits], axis=0)
        pictures["sizes.png"] = size_map(sizes)
    if report.pairs:
        pictures["same.png"] = pair_mosaic(report.pairs, report.root)
    for name, picture in pictures.items():
        write_image(out / name, picture)
    return [out / "report.json", *(out / name for name in pictures)]


def _plain(split: SplitFacts, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "name": split.name,
        "images": split.images,
        "usable": split.usable,
        "backgrounds": split.backgrounds,
        "unlabelled": split.unlabelled,
        "objects": split.objects,
        "class_counts": dict(zip(classes, split.class_counts.tolist(), strict=True)),
        "side_counts": {f"{edge}+": count for edge, count in zip(SIDE_EDGES, split.side_counts.tolist(), strict=True)},
    }
