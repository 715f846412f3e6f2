"""Writing a data set in another layout: images are copied byte for byte, labels say the same as far as the layout can."""

import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from openlepton.data import paths
from openlepton.data.coco import CocoWriter
from openlepton.data.samples import Annotation, Dataset, Objects, Problem, ProblemKind, Sample
from openlepton.data.survey import Progress, is_usable
from openlepton.data.voc import FirstPixel, VocWriter
from openlepton.data.yolo import DECIMALS, YoloWriter
from openlepton.errors import DataEmpty, ImageError, ImageNotFound, OutputError, UsageError
from openlepton.images import read_header

Target = Literal["yolo", "coco", "voc"]


CLIPPED_PX = 0.01
"""What is cut off less than this is rounding."""


@dataclass(frozen=True)
class ConvertReport:
    """What was written, and what the layout could not hold."""

    out: Path
    layout: Target
    images: dict[str, int]
    """Written images by split."""
    images_left_out: int
    """Images that are missing or unreadable, or of whose label nothing could be used."""
    problems: tuple[Problem, ...]
    objects: int = 0
    """Written objects."""
    flagged_left_out: int = 0
    """Crowds and difficult objects, for which YOLO text has no flag."""
    outlines_left_out: int = 0
    """Objects written with their box alone."""
    boxes_clipped: int = 0
    """Boxes cut at the edge of the image, as YOLO text demands."""
    boxes_left_out: int = 0
    """Boxes with nothing left inside the image."""
    images_renamed: int = 0
    """Images whose name another one had already in the new layout."""


_COUNTS = ("objects", "flagged_left_out", "outlines_left_out", "boxes_clipped", "boxes_left_out", "images_renamed")


class Writer(Protocol):
    """Writes one layout; images have been put in place before."""

    def image_folder(self, split: str) -> str:
        """Return where the images of a split go, relative to the new data set."""
        ...

    def add(self, split: str, name: str, sample: Sample) -> None:
        """Write the label of the image `name` in the split's folder."""
        ...

    def finish(self, images: dict[str, list[str]]) -> None:
        """Write what belongs to the whole: lists, classes; `images` are the names in each split."""
        ...


def convert_dataset(
    dataset: Dataset,
    out: str | Path,
    to: Target,
    *,
    images: Literal["copy", "link"] = "copy",
    outlines: bool = False,
    keep_flagged: bool = False,
    voc_first_pixel: FirstPixel = 1,
    progress: Progress | None = None,
) -> ConvertReport:
    """Return what was written of `dataset` to the new folder `out`; on failure nothing is left there.

    Args:
        dataset: What to write.
        out: A folder that does not exist yet, or is empty.
        to: The layout.
        images: Copy them, or make hard links to them where the file system can (then both are one file).
        outlines: In YOLO text, write objects that have an outline as such, not as boxes.
        keep_flagged: In YOLO text, write crowds and difficult objects like any others.
        voc_first_pixel: What Pascal VOC files are to call the first column and row.
        progress: Called after each image.

    Raises:
        UsageError: The data set has no boxes, only classes of whole images, or the layout is not one that is written.
        OutputError: There is something in `out`, or it cannot be written.
        DataEmpty: No image of the data set can be used.
    """
    if dataset.layout == "classes":
        raise UsageError(f"{dataset.root}: class folders have no boxes to write")
    if images not in {"copy", "link"}:
        raise UsageError(f"images: expected copy or link, got {images!r}")
    out = Path(out)
    total = sum(map(len, dataset.splits.values()))
    with _new_folder(out) as folder:
        writer = _writer(to, folder, dataset, outlines=outlines, voc_first_pixel=voc_first_pixel)
        job = _Conversion(folder, to, writer, images == "link", outlines, keep_flagged)
        done = 0
        for split in dataset.splits.values():
            (folder / writer.image_folder(split.name)).mkdir(parents=True, exist_ok=True)
            for index in range(len(split)):
                job.convert(split.name, split.annotation(index))
                done += 1
                if progress is not None:
                    progress(done, total)
        if not any(job.names.values()):
            raise DataEmpty(f"{dataset.root}: no image can be used{f': {job.problems[0]}' if job.problems else ''}")
        writer.finish({split: job.names[split] for split in dataset.splits})
    problems = (*dataset.problems, *job.problems)
    written = {split: len(job.names[split]) for split in dataset.splits}
    return ConvertReport(
        out, to, written, images_left_out=total - sum(written.values()), problems=problems, **job.counts
    )


@dataclass(eq=False)
class _Conversion:
    """Writes one image after the other, and counts what was lost."""

    folder: Path
    to: Target
    writer: Writer
    link: bool
    outlines: bool
    keep_flagged: bool
    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(_COUNTS, 0)))
    problems: list[Problem] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    taken: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def convert(self, split: str, found: Annotation) -> None:
        """Write one image and its label, or note why not."""
        self.problems += found.problems
        try:
            size_hw = read_header(found.image).size_hw
        except ImageError as error:
            kind: ProblemKind = "image-missing" if isinstance(error, ImageNotFound) else "image-unreadable"
            self.problems.append(Problem(kind, str(error), found.image, split=split))
            return
        if not is_usable(found):
            return
        sample = found.located(size_hw)
        sample = replace(sample, objects=self._fitting(sample.objects, size_hw))
        into = self.writer.image_folder(split)
        name = self._free_name(found.image.name, self.taken[into])
        _put(found.image, self.folder / into / name, link=self.link)
        self.writer.add(split, name, sample)
        self.names[split].append(name)
        self.counts["objects"] += len(sample.objects)

    def _fitting(self, objects: Objects, size_hw: tuple[int, int]) -> Objects:
        """Return what the layout can hold."""
        if self.to == "yolo":
            if not self.keep_flagged:
                self.counts["flagged_left_out"] += int(objects.ignored.sum())
                objects = objects[~objects.ignored]
            boxes = np.clip(objects.boxes, 0, np.tile(size_hw[::-1], 2))
            # What has nothing inside the image, or rounds to nothing, would be refused by every reader.
            inside = (boxes[:, 2:] - boxes[:, :2] >= np.array(size_hw[::-1]) * 10.0**-DECIMALS).all(1)
            self.counts["boxes_left_out"] += int((~inside).sum())
            self.counts["boxes_clipped"] += int(
                (np.abs(boxes - objects.boxes).max(1, initial=0) > CLIPPED_PX)[inside].sum()
            )
            objects = replace(objects, boxes=boxes)[inside]
        if objects.shapes is not None and (self.to == "voc" or (self.to == "yolo" and not self.outlines)):
            self.counts["outlines_left_out"] += sum(1 for shape in objects.shapes if shape)
        return objects

    def _free_name(self, name: str, taken: set[str]) -> str:
        """Return a name whose stem no other image in the folder has, on a file system that ignores case too."""
        name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        stem, suffix = paths.stem(name), Path(name).suffix
        numbers = (f"{stem}_{number}" for number in count(2))
        free = next(each for each in chain([stem], numbers) if each.casefold() not in taken)
        taken.add(free.casefold())
        self.counts["images_renamed"] += free != stem
        return free + suffix


def _writer(to: Target, root: Path, dataset: Dataset, *, outlines: bool, voc_first_pixel: FirstPixel) -> Writer:
    match to:
        case "yolo":
            return YoloWriter(root, dataset.classes, outlines)
        case "coco":
            keys = dataset.category_ids or tuple(range(1, len(dataset.classes) + 1))
            return CocoWriter(root, dataset.classes, keys, keep_ids=dataset.layout == "coco")
        case "voc":
            return VocWriter(root, dataset.classes, voc_first_pixel)
    raise UsageError(f"layout: expected yolo, coco or voc, got {to!r}")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Make a folder beside `out` that becomes `out` when all went well."""
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError(f"{out}: there is something already: name a new folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-", ignore_cleanup_errors=True) as name:
            made = Path(name) / "made"
            made.mkdir()
            yield made
            if out.exists():
                out.rmdir()
            made.replace(out)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}") from error


def _put(image: Path, to: Path, *, link: bool) -> None:
    if link:
        try:
            os.link(image, to)
            return
        except OSError:
            pass  # another file system, or one without links
    shutil.copyfile(image, to)
