"""`openlepton models`, `convert` and `inspect`: what is at hand, and what comes from elsewhere."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from openlepton.cli.tell import table
from openlepton.errors import UsageError

Precision = Literal["float32", "float16", "int8"]
Epsilon = Literal["variance", "deviation"]
Resize = Literal["letterbox", "stretch", "crop"]


def models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check size and sha256 of every file.")] = False,
) -> None:
    """List the models that are at hand, with licence and numbers."""
    from openlepton.hub.index import models as listed

    folders = listed()
    if verify:
        for folder in folders:
            for name in folder.card.files:
                folder.read(name)
            print(f"{folder.card.name}: {len(folder.card.files)} file(s) as the card says")
        return
    rows = []
    for folder in folders:
        card = folder.card
        megabytes = sum(facts.size for facts in card.files.values()) / 1e6
        if as_json:
            print(json.dumps(card.model_dump(mode="json", exclude={"labels", "labels_zh"}), ensure_ascii=False))
        numbers = "; ".join(f"{metric.name} {metric.value:g}" for metric in card.metrics)
        rows.append([card.name, card.task, f"{len(card.labels)}", f"{megabytes:.1f} MB", card.licence, numbers])
    if not as_json:
        table(["model", "task", "classes", "size", "licence", "numbers"], rows)


def convert(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="What to read, and the model folder to make: net.pt OUT (YOLOv5, v5.0 to v7.0), net.cfg net.weights OUT "
            "(Darknet), or hf:OWNER/NAME OUT (a Marian translator; its folder will do too). "
            "FOLDER net.cfg net.weights writes a YOLOv3 or YOLOv1 for Darknet.",
            metavar="FILE... OUT",
        ),
    ],
    licence: Annotated[str | None, typer.Option(help="SPDX licence of the weights, as their author states it.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model (default: from the file's name).")] = None,
    names: Annotated[Path | None, typer.Option(help="A file of class names, one a line, such as coco.names.")] = None,
    epsilon: Annotated[
        Epsilon,
        typer.Option(help="Darknet: what batch norm adds 1e-5 or 1e-6 to; deviation is the original on processors."),
    ] = "variance",
    resize: Annotated[
        Resize | None,
        typer.Option(
            help="Darknet: how images get the network's size (default: letterbox, YOLOv1 stretch, classifiers crop)."
        ),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="How weights are stored (default: float32, a translator's int8).")
    ] = None,
    source: Annotated[str | None, typer.Option("--from", help="Translators: the language read, such as en.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="Translators: the language written, such as zh.")] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Translators of several languages: the piece that asks for one, >>cmn_Hans<<.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model folder that exists.")] = False,
) -> None:
    """Turn a foreign checkpoint into a model folder, running nothing that is in it; or a model into Darknet's files."""
    from openlepton.hub.convert import convert as from_yolov5
    from openlepton.hub.darknet import convert_darknet, read_names, save_darknet

    *given, out = paths
    if len(paths) == 3 and out.suffix == ".weights":
        save_darknet(given[0], given[1], out)
        print(f"{given[1]} and {out} written")
        return
    if len(paths) not in (2, 3) or (given[0].suffix == ".cfg") != (len(given) == 2):
        raise UsageError(
            "convert: expected net.pt OUT, net.cfg net.weights OUT, hf:OWNER/NAME OUT, or FOLDER net.cfg net.weights"
        )
    if licence is None:
        raise UsageError("convert: --licence: the files do not say what licence the weights are under; give it as SPDX")
    if len(given) == 1 and (given[0].is_dir() or str(given[0]).startswith("hf:")):
        _convert_translator(
            given[0],
            out,
            licence=licence,
            languages=_pair(source, target),
            prefix=prefix,
            name=name,
            quantization=precision or "int8",
            overwrite=overwrite,
        )
        return
    if source is not None or target is not None or prefix is not None or precision == "int8":
        raise UsageError("convert: --from, --to, --prefix and --precision int8 are for translators")
    labels = None if names is None else read_names(names)
    if len(given) == 1:
        if epsilon != "variance" or resize is not None:
            raise UsageError("convert: --epsilon and --resize are for Darknet's files")
        card = from_yolov5(
            given[0],
            out,
            licence=licence,
            name=name,
            labels=labels,
            weights_type=precision or "float32",
            overwrite=overwrite,
        )
    else:
        card = convert_darknet(
            given[0],
            given[1],
            out,
            licence=licence,
            name=name,
            labels=labels,
            epsilon=epsilon,
            resize=resize,
            weights_type=precision or "float32",
            overwrite=overwrite,
        )
    difference = card.parity
    print(f"{out}: {card.architecture}, {len(card.labels)} classes, licence {card.licence}")
    if difference is not None:
        boxes = "" if difference.boxes_px is None else f"{difference.boxes_px:.2g} px, "
        print(f"graph and network differ by at most {boxes}{difference.scores:.2g} in scores ({difference.inputs})")
    print(f"use it: openlepton {card.task} PHOTO --model {out}")


def _pair(source: str | None, target: str | None) -> tuple[str, str] | None:
    if source is None and target is None:
        return None
    if source is None or target is None:
        raise UsageError("convert: --from and --to are given both or not at all")
    return source, target


def _convert_translator(given: Path, out: Path, **options: Any) -> None:
    from openlepton.hub.marian import convert_marian

    card = convert_marian(str(given).replace("\\", "/"), out, **options)
    assert card.translate is not None
    pair = f"--from {card.translate.source} --to {card.translate.target}"
    megabytes = sum(facts.size for facts in card.files.values()) / 1e6
    print(f"{out}: {card.architecture}, {megabytes:.1f} MB, licence {card.licence}")
    print(f'use it: openlepton translate "..." {pair} --model {out}')


def inspect(
    weights: Annotated[Path, typer.Argument(help="A checkpoint (.pt).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List what is inside a checkpoint, the code it names included, without running any of it."""
    from openlepton.hub.checkpoint import inspect_checkpoint

    found = inspect_checkpoint(weights)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=False, default=dict))
    else:
        print(f"{weights}: {found.size:,} bytes")
        table(["what", "value"], _flat(found.details))
        print()
        rows = [[use.name, str(use.count), "a network's" if use.known else "UNKNOWN"] for use in found.globals]
        table(["code it names (none of it was run)", "times", "it is"], rows)
        print()
        tensors = [[use.name, "x".join(map(str, use.shape)), use.dtype, f"{use.size:,}"] for use in found.tensors]
        table(["tensor", "shape", "type", "bytes"], tensors)
    if found.problem is not None:
        print(f"openlepton: {weights}: `openlepton convert` would refuse it: {found.problem}", file=sys.stderr)


def _flat(details: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Return rows of dotted names and short values; `--json` has them whole."""
    rows = []
    for key, value in details.items():
        if isinstance(value, Mapping) and len(value) <= 12:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            text = str(value)
            rows.append([f"{prefix}{key}", text if len(text) <= 80 else f"{text[:77]}..."])
    return rows
