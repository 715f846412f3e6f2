"""`openlepton detect`, `openlepton segment` and `openlepton classify`: the main job."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openlepton.cli.tell import complain, progress, table
from openlepton.errors import UsageError

if TYPE_CHECKING:
    from openlepton.combine import Combined
    from openlepton.job import Done, Item, Outputs
    from openlepton.predictor import Predictor

Sources = Annotated[list[str], typer.Argument(help="Files, folders, globs, or - for one image on standard input.")]
Model = Annotated[str | None, typer.Option(help="A name that `openlepton models` lists, or a model folder.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="A name that `openlepton models` lists, or a model folder; several look together."),
]
Tile = Annotated[int | None, typer.Option(help="Look at square tiles of so many pixels too, for small objects.")]
Overlap = Annotated[float, typer.Option(help="How much neighbouring tiles overlap, 0 to less than 1.")]
Augment = Annotated[bool, typer.Option("--augment", help="Look at the image mirrored and at other sizes too.")]
Merge = Annotated[
    Literal["nms", "wbf"], typer.Option(help="Of what several looks find: the best (nms) or the mean (wbf).")
]
MinScore = Annotated[float | None, typer.Option(help="Report what scores more than this, 0..1.")]
MaxIou = Annotated[float | None, typer.Option(help="Of boxes that overlap by more than this the best stays, 0..1.")]
MaxDetections = Annotated[int | None, typer.Option(help="The most detections in one image.")]
Classes = Annotated[list[str] | None, typer.Option(help="Names or ids to report, separated by commas.")]
Agnostic = Annotated[bool, typer.Option("--agnostic", help="Boxes of different classes suppress each other too.")]
Size = Annotated[int | None, typer.Option(help="Longest side that the model sees, pixels.")]
Out = Annotated[Path | None, typer.Option(help="Where pictures and texts go (default: a new folder in runs/).")]
NoImages = Annotated[bool, typer.Option("--no-images", help="Write no annotated pictures.")]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object a line on standard output; pictures only with --out.")
]
SaveTxt = Annotated[bool, typer.Option("--save-txt", help="Write labels/NAME.txt for each image.")]
SavePolygons = Annotated[bool, typer.Option("--save-txt", help="Write outlines as labels/NAME.txt for each image.")]
SaveMasks = Annotated[
    bool, typer.Option("--save-masks", help="Write masks/NAME.png: the object, or the class, that each pixel shows.")
]
SaveConf = Annotated[bool, typer.Option("--save-conf", help="End the rows of --save-txt with the score.")]
SaveCrops = Annotated[bool, typer.Option("--save-crops", help="Write each detection as crops/CLASS/NAME-k.jpg.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist (an input never is).")]
Lang = Annotated[Literal["en", "zh"], typer.Option(help="Language of the class names.")]
Top = Annotated[int, typer.Option(min=1, help="How many classes are listed.")]
Runtime = Annotated[
    str | None,
    typer.Option(help="What runs the model: an engine (openvino), a form (onnx-int8), or auto for the fastest."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Images worked on at the same time (default: processors).")]


def detect(
    sources: Sources,
    model: Models = None,
    min_score: MinScore = None,
    max_iou: MaxIou = None,
    max_detections: MaxDetections = None,
    classes: Classes = None,
    agnostic: Agnostic = False,
    size: Size = None,
    out: Out = None,
    no_images: NoImages = False,
    as_json: Json = False,
    save_txt: SaveTxt = False,
    save_conf: SaveConf = False,
    save_crops: SaveCrops = False,
    overwrite: Overwrite = False,
    lang: Lang = "en",
    tile: Tile = None,
    overlap: Overlap = 0.2,
    augment: Augment = False,
    merge: Merge = "nms",
    runtime: Runtime = None,
    workers: Workers = None,
) -> None:
    """Find objects in images: print a table or JSON, write annotated pictures."""
    options: dict[str, Any] = {"min_score": min_score, "max_iou": max_iou, "max_detections": max_detections}
    options |= {"classes": _split(classes), "agnostic": agnostic, "size": size, "language": lang, "runtime": runtime}
    files = {"txt": save_txt, "confidence": save_conf, "crops": save_crops, "overwrite": overwrite}
    looks = {"tile": tile, "overlap": overlap, "augment": augment, "merge": merge}
    _main_job("detect", sources, model, options, out, no_images, as_json, files, workers, looks)


def segment(
    sources: Sources,
    model: Models = None,
    min_score: MinScore = None,
    max_iou: MaxIou = None,
    max_detections: MaxDetections = None,
    classes: Classes = None,
    agnostic: Agnostic = False,
    size: Size = None,
    out: Out = None,
    no_images: NoImages = False,
    as_json: Json = False,
    save_txt: SavePolygons = False,
    save_conf: SaveConf = False,
    save_crops: SaveCrops = False,
    save_masks: SaveMasks = False,
    overwrite: Overwrite = False,
    lang: Lang = "en",
    tile: Tile = None,
    overlap: Overlap = 0.2,
    augment: Augment = False,
    merge: Merge = "nms",
    runtime: Runtime = None,
    workers: Workers = None,
) -> None:
    """Find objects and their outlines, or the class of each pixel: print a table or JSON with masks, write annotated pictures."""
    options: dict[str, Any] = {"min_score": min_score, "max_iou": max_iou, "max_detections": max_detections}
    options |= {"classes": _split(classes), "agnostic": agnostic, "size": size, "language": lang, "runtime": runtime}
    files = {"txt": save_txt, "confidence": save_conf, "crops": save_crops, "masks": save_masks, "overwrite": overwrite}
    looks = {"tile": tile, "overlap": overlap, "augment": augment, "merge": merge}
    _main_job("segment", sources, model, options, out, no_images, as_json, files, workers, looks)


def classify(
    sources: Sources,
    model: Model = None,
    top: Top = 5,
    out: Out = None,
    no_images: NoImages = False,
    as_json: Json = False,
    save_txt: SaveTxt = False,
    overwrite: Overwrite = False,
    lang: Lang = "en",
    runtime: Runtime = None,
    workers: Workers = None,
) -> None:
    """Say what images show: print a table or JSON, write annotated pictures."""
    options = {"top": top, "language": lang, "runtime": runtime}
    files = {"txt": save_txt, "overwrite": overwrite}
    _main_job("classify", sources, None if model is None else [model], options, out, no_images, as_json, files, workers)


def _split(classes: list[str] | None) -> list[str] | None:
    """Return the names in texts that separate them by commas."""
    return None if classes is None else [part.strip() for text in classes for part in text.split(",") if part.strip()]


def _main_job(
    task: str,
    sources: Sequence[str],
    models: Sequence[str] | None,
    options: dict[str, Any],
    out: Path | None,
    no_images: bool,
    as_json: bool,
    files: dict[str, bool],
    workers: int | None,
    looks: dict[str, Any] | None = None,
) -> None:
    import cv2

    from openlepton import job

    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # a damaged file is told in one line of ours, not in OpenCV's as well
    pictures = not no_images and (out is not None or not as_json)
    items = list(job.expand(sources))
    many = sum(1 for item in items if isinstance(item, job.Item)) > 1
    predictor = _together(task, models, many, options, looks or {})
    outputs = job.Outputs(out or job.numbered(Path("runs") / task), images=pictures, **files)
    started = time.perf_counter()
    rows, failures = [], 0
    for done in progress(_each(predictor, items, outputs, workers), len(items)):
        if done.error is not None:
            failures += 1
            complain(done.error)
        if done.result is not None and as_json:
            card = {"name": predictor.card.name, "version": predictor.card.version}
            head, *rest = done.result.to_dict().items()
            print(
                json.dumps(dict([("source", done.name), head, ("model", card), *rest]), ensure_ascii=False), flush=True
            )
        elif done.result is not None:
            rows.append(_row(done))
    if not as_json and rows:
        seconds = time.perf_counter() - started
        table(["image", "size", "found" if predictor.card.task in ("detect", "segment") else "shows"], rows)
        where = f"; see {outputs.folder}" if outputs.any() else ""
        each = f" ({1000 * seconds / len(rows):.0f} ms each)" if len(rows) > 1 else ""
        print(f"{len(rows)} image{'s' * (len(rows) > 1)} in {seconds:.2f} s{each} with {predictor.card.name}{where}")
    if failures:
        raise typer.Exit(1)


def _together(
    task: str, models: Sequence[str] | None, many: bool, options: dict[str, Any], looks: dict[str, Any]
) -> "Predictor[Any] | Combined":
    """Return the model, or all of them looking together in all the ways that were asked for."""
    names: Sequence[str | None] = models or (None,)
    loaded = [_load(task, name, many, options) for name in names]
    if len(loaded) == 1 and looks.get("tile") is None and not looks.get("augment"):
        return loaded[0]
    from openlepton.combine import combine

    return combine(*loaded, max_iou=options.get("max_iou"), **looks)


def _each(
    predictor: "Predictor[Any] | Combined", items: "list[Item | Done]", outputs: "Outputs", workers: int | None
) -> "Iterator[Done]":
    """Yield what became of each item, failures in their places."""
    from openlepton import job

    done = job.run(predictor, (item for item in items if isinstance(item, job.Item)), outputs, workers=workers)
    for item in items:
        yield next(done) if isinstance(item, job.Item) else item


def _load(task: str, model: str | None, many: bool, options: dict[str, Any]) -> "Predictor[Any]":
    from openlepton.hub.index import default, find
    from openlepton.predictor import load

    chosen = default(task) if model is None else model
    card = find(chosen).card
    command = "segment" if card.task == "semantic" else card.task
    if command != task:
        raise UsageError(f"--model: {card.name} is a model to {command} with: openlepton {command} ...")
    # Many images: each processor has a graph of its own, which is faster than all processors sharing one image.
    return load(chosen, threads=1 if many else 0, **options)


def _row(done: "Done") -> list[str]:
    from openlepton.results import Classification, Segmentation

    result = done.result
    if result is None or result.image_hw is None:
        return [done.name, "", ""]
    size = f"{result.image_hw[1]}x{result.image_hw[0]}"
    if isinstance(result, Classification):
        return [done.name, size, ", ".join(f"{label} {score:.0%}" for label, score in result.best(result.top))]
    if isinstance(result, Segmentation):
        shares = result.areas / (result.image_hw[0] * result.image_hw[1])
        return [done.name, size, ", ".join(f"{shares[index]:.0%} {result.names[index]}" for index in result.present())]
    counts: dict[str, int] = {}
    for label in result.labels:
        counts[label] = counts.get(label, 0) + 1
    return [done.name, size, ", ".join(f"{count} {label}" for label, count in counts.items()) or "nothing"]
