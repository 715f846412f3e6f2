"""The main job: many sources through one predictor, results and files out, one bad source never stopping the rest."""

import glob
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openlepton.drawing import draw
from openlepton.errors import ImageNotFound, OpenLeptonError, OutputError, UsageError
from openlepton.files import write_atomic
from openlepton.images import LIMITS, Limits, read_bytes, read_image, write_grey, write_image
from openlepton.ops.polygons import joined
from openlepton.predictor import ordered_map
from openlepton.results import Classification, Detections, Segmentation

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
"""What counts as an image when a folder is named; a file that is named itself is tried whatever its suffix."""

STDIN = "-"

Result = Detections | Classification | Segmentation

_KEPT_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".webp"))


@dataclass(frozen=True)
class Item:
    """One image to work on."""

    name: str
    """What the user calls it: shown in tables, errors and JSON."""
    source: Path | bytes
    home: PurePath
    """Where its outputs go, relative to the output folder, without suffix."""
    suffix: str


@dataclass(frozen=True)
class Outputs:
    """What is written, and where; nothing that exists is replaced unless `overwrite`, and an input never is."""

    folder: Path
    images: bool = True
    """Annotated pictures."""
    txt: bool = False
    """`labels/NAME.txt`: class, centre and size relative to the image for each detection, or class and the corners of its outline
    where it has a mask; score and name for each class, or its share of the pixels and name."""
    confidence: bool = False
    """Whether those rows of detections end with the score."""
    crops: bool = False
    """`crops/CLASS/NAME-k.jpg`, each detection cut out."""
    masks: bool = False
    """`masks/NAME.png`, in which each pixel's value is the id of its class, or the number of the object that is there: 1 for the
    best, 0 for none; of objects that overlap the better one counts."""
    overwrite: bool = False

    def any(self) -> bool:
        """Return whether anything is to be written."""
        return self.images or self.txt or self.crops or self.masks


@dataclass(frozen=True)
class Done:
    """What became of one item: a result and the files written, or the error it ended in (or both, if writing failed)."""

    name: str
    result: Result | None = None
    error: OpenLeptonError | None = None
    written: tuple[Path, ...] = field(default=())


def expand(sources: Sequence[str], *, limits: Limits = LIMITS) -> Iterator[Item | Done]:
    """Yield an item for each image that `sources` name, and a `Done` with the error for each source that names none.

    Args:
        sources: Files, folders (searched through, in order of name), globs (`**` included), or `-` for one image on
            standard input.
        limits: The most bytes that are read from standard input.
    """
    for source in sources:
        path = Path(source)
        if source == STDIN:
            yield _from_stdin(limits)
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            yield from (_item(file, file.relative_to(path)) for file in files)
            if not files:
                yield Done(source, error=ImageNotFound(f"{source}: no images in this folder"))
        elif glob.has_magic(source) and not path.exists():
            names = sorted(name for name in glob.iglob(source, recursive=True) if not Path(name).is_dir())  # noqa: PTH207 - absolute globs too
            yield from (_item(Path(name), PurePath(Path(name).name)) for name in names)
            if not names:
                yield Done(source, error=ImageNotFound(f"{source}: nothing matches"))
        else:
            yield _item(path, PurePath(path.name))


def run(
    predictor: Callable[[Any], Result],
    items: Iterable[Item],
    outputs: Outputs,
    *,
    limits: Limits = LIMITS,
    workers: int | None = None,
) -> Iterator[Done]:
    """Yield what became of each item, in order; reading, the graph, drawing and writing overlap in `workers` threads."""
    planned = _plan(items, outputs)
    return ordered_map(lambda pair: _work(predictor, pair[0], pair[1], outputs, limits), planned, workers=workers)


def numbered(folder: Path) -> Path:
    """Return `folder`, or the first of `folder-2`, `folder-3`, ... that does not exist yet."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _item(path: Path, relative: PurePath) -> Item:
    return Item(str(path), path, relative.with_suffix("") if relative.suffix else relative, path.suffix.lower())


def _from_stdin(limits: Limits) -> Item | Done:
    try:
        return Item(STDIN, read_bytes(sys.stdin.buffer, limits=limits), PurePath("stdin"), ".jpg")
    except OpenLeptonError as error:
        return Done(STDIN, error=error)


def _plan(items: Iterable[Item], outputs: Outputs) -> Iterator[tuple[Item, PurePath]]:
    """Yield each item with a home of its own: no two items share one, nothing that exists is in the way."""
    taken: set[str] = set()
    for item in items:
        number, home = 1, item.home
        while str(home).casefold() in taken or _in_the_way(item, home, outputs):
            number += 1
            home = item.home.with_name(f"{item.home.name}-{number}")
        taken.add(str(home).casefold())
        yield item, home


def _in_the_way(item: Item, home: PurePath, outputs: Outputs) -> bool:
    picture, label = _picture(item, home, outputs), _label(home, outputs)
    if outputs.images and isinstance(item.source, Path) and picture.exists() and picture.samefile(item.source):
        return True
    if outputs.overwrite:
        return False
    crop = glob.escape(f"{home}-1.jpg")
    return (
        (outputs.images and picture.exists())
        or (outputs.txt and label.exists())
        or (outputs.masks and _mask(home, outputs).exists())
        or (outputs.crops and any((outputs.folder / "crops").glob(f"*/{crop}")))
    )


def _picture(item: Item, home: PurePath, outputs: Outputs) -> Path:
    return outputs.folder / home.with_name(home.name + (item.suffix if item.suffix in _KEPT_SUFFIXES else ".png"))


def _label(home: PurePath, outputs: Outputs) -> Path:
    return outputs.folder / "labels" / home.with_name(home.name + ".txt")


def _mask(home: PurePath, outputs: Outputs) -> Path:
    return outputs.folder / "masks" / home.with_name(home.name + ".png")


def _work(predictor: Callable[[Any], Result], item: Item, home: PurePath, outputs: Outputs, limits: Limits) -> Done:
    try:
        data = item.source if isinstance(item.source, bytes) else read_bytes(item.source, limits=limits)
        result = predictor(data)
    except OpenLeptonError as error:
        return Done(item.name, error=_named(error, item.name))
    written: list[Path] = []
    try:
        for path, write in _files(item, home, data, result, outputs, limits):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
            written.append(path)
    except OpenLeptonError as error:
        return Done(item.name, result, error, tuple(written))
    except OSError as error:
        failure = OutputError(f"{outputs.folder}: {error.strerror or error}")
        return Done(item.name, result, failure, tuple(written))
    return Done(item.name, result, None, tuple(written))


def _files(
    item: Item, home: PurePath, data: bytes, result: Result, outputs: Outputs, limits: Limits
) -> Iterator[tuple[Path, Any]]:
    """Yield each file to write with the function that writes it."""
    if outputs.txt:
        text = _rows(result, confidence=outputs.confidence)
        yield _label(home, outputs), lambda path: write_atomic(path, text.encode())
    if outputs.masks:
        yield _mask(home, outputs), lambda path: write_grey(path, _ids(result))
    if not (outputs.images or outputs.crops):
        return
    image = read_image(data, limits=limits)
    if outputs.images:
        yield _picture(item, home, outputs), lambda path: write_image(path, draw(image, result))
    if outputs.crops and isinstance(result, Detections):
        for number, one in enumerate(result, 1):
            x1, y1, x2, y2 = (round(float(value)) for value in one.box)
            crop = image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
            if crop.size:
                folder = outputs.folder / "crops" / plain_name(one.label)
                name = home.with_name(f"{home.name}-{number}.jpg")
                yield folder / name, lambda path, crop=crop: write_image(path, crop)


def _ids(result: Result) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return what each pixel shows, `(H, W)`: the id of a class, or the number of an object."""
    if isinstance(result, Segmentation):
        return result.class_map
    if not isinstance(result, Detections):
        raise UsageError("masks: a model that classifies whole images gives none")
    ids = np.zeros(result.image_hw, np.uint16)
    for row in reversed(range(len(result))):
        ids[result.mask(row)] = row + 1
    return ids


def _rows(result: Result, *, confidence: bool) -> str:
    if isinstance(result, Classification):
        return "".join(f"{score:.5f} {label}\n" for label, score in result.best(result.top))
    height, width = result.image_hw
    if isinstance(result, Segmentation):
        areas = result.areas / (height * width)
        return "".join(f"{areas[index]:.5f} {result.names[index]}\n" for index in result.present())
    rows = []
    for one in result:
        x1, y1, x2, y2 = (float(value) for value in one.box)
        numbers = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        if one.mask is not None:
            parts = one.mask.polygons()
            if not parts:
                continue  # nothing of the object is left in the image: there is no outline to write
            numbers = (joined(parts) / (width, height)).reshape(-1).tolist()
        numbers += [one.score] * confidence
        rows.append(f"{one.class_id} " + " ".join(f"{number:.6f}" for number in numbers) + "\n")
    return "".join(rows)


def plain_name(label: str) -> str:
    """Return `label` as a file name that is safe everywhere: letters of any script, digits, `.`, `_`, `-` and blanks."""
    return re.sub(r"[^\w. -]", "_", label).strip(". ") or "_"


def _named(error: OpenLeptonError, name: str) -> OpenLeptonError:
    """Return the error with the item's name in front, where the bytes that failed were nameless."""
    text = re.sub(r"^image data", lambda _: name, str(error))
    return type(error)(text if text.startswith(name) else f"{name}: {text}")
