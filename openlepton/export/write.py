"""`export`: a model folder gains a form for another engine or precision, and its card says how near that comes."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from openlepton.card import CARD_NAME, Form, ModelCard, ModelFolder, file_facts, open_folder
from openlepton.errors import DataEmpty, OutputError, ParityFailed, UsageError
from openlepton.export.compare import TOLERANCES, compared
from openlepton.export.forms import Source, files_of
from openlepton.files import write_atomic
from openlepton.hub.folder import GRAPH, write_card
from openlepton.hub.index import find
from openlepton.predictor import load
from openlepton.runtimes.forms import name_of
from openlepton.runtimes.onnx import OnnxRuntime

PHOTOS = Path(__file__).parent.parent / "assets" / "photos"
"""What a form is compared on where no data set is given."""

SIMULATED = "simulated"
"""Folder of a graph that computes what the form would compute on another processor."""

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"))


def export(
    model: str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str],
    *,
    precision: str = "float32",
    data: str | os.PathLike[str] | None = None,
    split: str = "val",
    images: int = 64,
    calibration: int = 100,
    size: int | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ModelCard:
    """Write a form of `model` into the model folder `out`, and return its card, which compares the form with the original.

    The folder is a copy of the model, or one that `export` made of the same model before: then it gains one more form. All that
    is in it stays as it is unless the form is written again.

    Args:
        model: A name, or a model folder with an ONNX graph.
        to: The engine: `onnx`, `openvino`, `litert`, `savedmodel` or `torchscript`.
        out: The folder.
        precision: `float32`, `float16`, `bfloat16` or `int8`, as far as the engine has it.
        data: A data set for which the model's metric is measured in both forms, or a folder of images; the photographs that ship
            with the package by default.
        split: Of the data set, to compare on; int8 takes its ranges from the split `train` where there is one.
        images: At most so many are compared one by one.
        calibration: At most so many give int8 its ranges.
        size: Side of the images for engines that take one size alone, pixels; the card's by default.
        force: Whether a form that is further away than its precision's tolerance is written all the same.
        progress: Called with how many images of the data set are done, and how many there are.

    Raises:
        UsageError: There is no such engine or precision, the model takes text, or `out` holds another model.
        MissingExtra: Something that makes or runs the form is not installed.
        ModelFailed: What makes the form gave up on this network.
        ParityFailed: The form is too far from the original; nothing was written.
        DataEmpty: There is no image.
        OutputError: The folder cannot be written.
    """
    folder, target = find(model), Path(out)
    if folder.card.input is None:
        raise UsageError(f"{folder.card.name}: its task is {folder.card.task}; export is for models that take images")
    if GRAPH not in folder.card.files:
        raise UsageError(f"{folder.card.name}: has no {GRAPH} that other forms could be made of")
    before = _standing(target, folder)
    source = Source(folder, _size(folder.card, size), ())
    chosen, calibrated, told = _images(data, split, images, calibration)
    if precision == "int8":
        prepare = _held(load(folder.path).task, source.size_hw).prepare
        source = Source(folder, source.size_hw, [_batch(prepare(image)[0]) for image in calibrated])
    files = files_of(source, to, precision)
    form = Form(
        engine=to,  # type: ignore[arg-type]  # one of them: files_of would have said so
        precision=precision,  # type: ignore[arg-type]
        files=tuple(files),
        calibrated=f"{len(calibrated)} images of {told[1]}" if precision == "int8" else "",
    )
    others = tuple(one for one in before.forms if (one.engine, one.precision) != (to, precision))
    with tempfile.TemporaryDirectory() as name:
        staged = Path(name)
        (staged / GRAPH).write_bytes(folder.read(GRAPH))
        for file, content in files.items():
            (staged / file).write_bytes(content)
        facts = {GRAPH: folder.card.files[GRAPH]} | {file: file_facts(content) for file, content in files.items()}
        draft = folder.card.model_copy(update={"files": facts, "forms": (form,)})
        write_card(staged, draft)
        original, other = load(folder.path, runtime=OnnxRuntime), _loaded(staged, form, source)
        measured = None if data is None else _measured(original, other, Path(data), split, progress)
        what = f"{told[0]}, {precision} simulated" if (staged / SIMULATED).exists() else told[0]
        result = compared(original, other, chosen, TOLERANCES[form.precision], what=what, measured=measured)
    if not result.keeps and not force:
        raise ParityFailed(f"{folder.card.name}: {name_of(form)} is too far from the original: {report(form, result)}")
    form = form.model_copy(update={"compared": result})
    used = {file for one in others for file in one.files}
    stale = {file for one in before.forms if one not in others for file in one.files} - used
    left = {file: facts for file, facts in before.files.items() if file not in stale}
    card = before.model_copy(
        update={
            "files": left | {file: file_facts(content) for file, content in files.items()},
            "forms": (*others, form),
        }
    )
    _write(target, folder, files, card)
    return card


def report(form: Form, found: Any) -> str:
    """Return a comparison in words."""
    boxes = "" if found.boxes_px is None else f"boxes {found.boxes_px:.3g} px, "
    metric = "" if found.original is None else f", {found.metric} {found.value:.4f} after {found.original:.4f}"
    return (
        f"largest differences: {boxes}scores {found.scores:.2g}; {found.matched:.1%} of results in common{metric} "
        f"({found.images})"
    )


def _loaded(staged: Path, form: Form, source: Source) -> Any:
    """Return the form as it computes where a processor has its precision: this one may compute in float32 instead."""
    from openlepton.export.bfloat16 import computed_here, simulated

    predictor = load(staged, runtime=name_of(form))
    if form.precision != "bfloat16" or computed_here():
        return predictor
    graph, folder = simulated(source.graph()), staged / SIMULATED
    folder.mkdir()
    (folder / GRAPH).write_bytes(graph)
    card = source.folder.card.model_copy(update={"files": {GRAPH: file_facts(graph)}, "forms": ()})
    write_card(folder, card)
    return replace(predictor, runtime=load(folder, runtime=OnnxRuntime).runtime)


def _standing(target: Path, folder: ModelFolder) -> ModelCard:
    """Return the card that the form is added to: that of the folder that stands there already, or the model's."""
    if not (target / CARD_NAME).exists():
        if target.is_dir() and any(target.iterdir()):
            raise UsageError(f"{target}: is not empty and holds no model; nothing in it is touched")
        return folder.card
    card = open_folder(target).card
    if (card.name, card.files.get(GRAPH)) != (folder.card.name, folder.card.files[GRAPH]):
        raise UsageError(f"{target}: holds another model, {card.name}; nothing in it is touched")
    return card


def _size(card: ModelCard, size: int | None) -> tuple[int, int]:
    facts = card.image_input
    if size is None:
        return facts.size_hw or (facts.size, facts.size)
    if size < 1 or size % facts.multiple:
        raise UsageError(f"size: expected a multiple of {facts.multiple}, got {size}")
    return size, size


def _held(task: Any, size_hw: tuple[int, int]) -> Any:
    """Return `task` so that every image becomes one of that height and width."""
    if task.input.resize == "crop":
        return task
    return replace(task, input=task.input.model_copy(update={"size": max(size_hw), "size_hw": size_hw}))


def _batch(inputs: Any) -> dict[str, Any]:
    return {name: value[None] for name, value in inputs.items()}


def _images(
    data: str | os.PathLike[str] | None, split: str, images: int, calibration: int
) -> tuple[Sequence[Path], Sequence[Path], tuple[str, str]]:
    """Return what to compare on, what gives ranges, and both in words."""
    if data is None:
        found = sorted(path for path in PHOTOS.iterdir() if path.suffix in SUFFIXES)
        told = f"{len(found)} photographs that ship with OpenLepton"
        return found, found, (told, "photographs that ship with OpenLepton")
    place = Path(data)
    plain = _pictures(place)
    if plain:
        return plain[:images], plain[:calibration], (f"{min(images, len(plain))} images of {place.name}", place.name)
    from openlepton.data.datasets import open_dataset

    dataset = open_dataset(place)
    if split not in dataset.splits:
        raise UsageError(f"split: expected one of {', '.join(dataset.splits)}, got {split!r}")
    other = "train" if "train" in dataset.splits else split
    lists = [
        [dataset[name].image(index) for index in range(min(count, len(dataset[name])))]
        for name, count in ((split, images), (other, calibration))
    ]
    if not lists[0] or not lists[1]:
        raise DataEmpty(f"{place}: split {split} has no image")
    return lists[0], lists[1], (f"{len(lists[0])} images of {place.name} {split}", f"{place.name} {other}")


def _pictures(place: Path) -> list[Path]:
    """Return the images that lie in a folder; none where it is a data set's folder or file."""
    return sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES) if place.is_dir() else []


def _measured(
    original: Any, other: Any, data: Path, split: str, progress: Callable[[int, int], None] | None
) -> tuple[str, float, float, str] | None:
    """Return a detector's AP in both forms on a data set; nothing for folders of images and other tasks."""
    from openlepton.data.datasets import open_dataset
    from openlepton.vision.detect import Detect

    if _pictures(data) or not isinstance(original.task, Detect):
        return None
    from openlepton.train.evaluate import Pair, evaluate

    part = open_dataset(data)[split]
    # Both see what the form sees: where that has one size alone, the original gets it too.
    pairs = (Pair(other.task, original.runtime), Pair(other.task, other.runtime))
    before, after = (evaluate(pair, part, progress=progress).report.ap for pair in pairs)
    return "AP50-95", round(before, 4), round(after, 4), f"{data.name} {split}, {len(part)} images"


def _write(target: Path, folder: ModelFolder, files: Any, card: ModelCard) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in card.files:
            if file not in files and not (target / file).exists():
                shutil.copyfile(folder.path / file, target / file)
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror or error}") from None
    for file, content in files.items():
        write_atomic(target / file, content)
    write_card(target, card)
