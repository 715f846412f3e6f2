"""Darknet's configuration and weights to a model folder, and a network trained here back to them.

The configuration is planned before anything is allocated, and the weights must have exactly the size that the plan says. A
YOLOv3 or YOLOv1 as published becomes the network of that name in `nets/`, so that training can go on from it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from openlepton.card import CONTRACT, DetectFacts, ImageInput, ModelCard, file_facts, open_folder
from openlepton.errors import CheckpointMismatch, CheckpointRefused, UsageError, missing_extra
from openlepton.hub.convert import check_ready, draft_card, model_name
from openlepton.hub.folder import GRAPH, WEIGHTS, WeightsType, write_model

if TYPE_CHECKING:
    from openlepton.nets.darknet_blocks import Epsilon
    from openlepton.nets.darknet_plan import Plan

Resize = Literal["letterbox", "crop", "stretch"]

GREY = 128
"""Of Darknet's letterbox: its 0.5 in bytes."""

MAX_NAMES = 1 << 20
"""Bytes of a file of names."""


def convert_darknet(
    cfg: Path,
    weights: Path,
    out: Path,
    *,
    licence: str,
    name: str | None = None,
    version: str = "1",
    labels: Sequence[str] | None = None,
    epsilon: "Epsilon" = "variance",
    resize: Resize | None = None,
    weights_type: WeightsType = "float32",
    overwrite: bool = False,
) -> ModelCard:
    """Convert a configuration and weights of Darknet to a model folder and return its card.

    Two things that the files do not say differ between Darknet's branches, and are options here: what keeps batch norm from
    dividing by zero, and how an image is brought to the network's size.

    Args:
        cfg: The configuration, `.cfg`.
        weights: The weights, `.weights`.
        out: The folder to write; made if missing.
        licence: SPDX expression of the licence that the weights are under; the files do not say.
        name: Name of the model; by default that of the weights, in lower case and without odd characters.
        version: Version of the model.
        labels: Class names, such as `read_names` returns; by default classes are called by their numbers.
        epsilon: "variance" for 1e-5 added to the variance (GPUs, and AlexeyAB's branch), "deviation" for 1e-6 added to its
            root (the original on processors).
        resize: "letterbox" pads with grey (the original), "stretch" changes the aspect ratio (AlexeyAB's branch, YOLOv1),
            "crop" takes the centre (classifiers). By default letterbox; stretch for YOLOv1, crop for a classifier.
        weights_type: How the graph stores weights.
        overwrite: Whether a folder that is not empty may be written to; other files in it stay.

    Raises:
        CheckpointRefused: The configuration is malformed, or asks for what is not supported; section and line are named.
        CheckpointMismatch: The weights are not of the size that the configuration asks for, or not finite; or there are more
            or fewer names than classes.
        ParityFailed: The graph computes something else than the network; nothing was written.
        OutputError: The folder is not empty, or cannot be written.
        UsageError: `resize` makes no sense for the network.
        MissingExtra: torch, onnx or safetensors is not installed.
    """
    check_ready(out, overwrite=overwrite)
    from openlepton.nets import darknet_files
    from openlepton.nets.darknet_cfg import MAX_BYTES
    from openlepton.nets.darknet_plan import plan

    found = plan(_read(cfg, MAX_BYTES), str(cfg))
    header = darknet_files.open_header(weights, found.weights)
    names = tuple(labels) if labels is not None else tuple(f"class{index}" for index in range(found.classes))
    if len(names) != found.classes:
        raise CheckpointMismatch(f"{cfg}: {len(names)} class names given, but the network has {found.classes} classes")
    architecture, network = _network(found, epsilon, cfg.stem)
    draft = draft_card(
        contract=CONTRACT,
        name=model_name(weights.stem) if name is None else name,
        version=version,
        task=found.task,
        architecture=architecture,
        description=f"Darknet {'detector' if found.task == 'detect' else 'classifier'} of {len(names)} classes",
        licence=licence,
        source=_source(cfg, weights, header.seen, epsilon),
        labels=names,
        input=_input(found, resize, str(cfg)),
        files={GRAPH: file_facts(b"?")},
        **({"detect": _facts(found, network)} if found.task == "detect" else {}),
    )
    darknet_files.read_weights(network, weights)
    tensors = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    return write_model(out, network, draft, tensors, weights_type=weights_type, any_size=found.any_size)


def read_names(path: Path) -> tuple[str, ...]:
    """Return class names from a file with one a line, such as `coco.names`.

    Raises:
        CheckpointRefused: There is no such file, it is not text, or a name in the middle is empty.
    """
    names = [line.strip() for line in _read(path, MAX_NAMES).rstrip().split("\n")]
    for number, name in enumerate(names, 1):
        if not name:
            raise CheckpointRefused(f"{path}: line {number}: a name is empty")
    return tuple(names)


def save_darknet(folder: Path, cfg: Path, weights: Path) -> None:
    """Write the network of a model folder, a YOLOv3 or YOLOv1, as a configuration and weights that Darknet reads.

    Raises:
        ModelNotFound: There is no such folder.
        ModelCorrupt: A file differs from its card.
        UsageError: The model is no YOLOv3 or YOLOv1 of this package.
        OutputError: A file cannot be written.
        MissingExtra: torch or safetensors is not installed.
    """
    try:
        import safetensors.torch

        from openlepton.nets import NETS
        from openlepton.nets.darknet_write import write_darknet
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "train") from None
    model = open_folder(folder)
    card = model.card
    if not card.architecture.startswith(("yolov3", "yolov1")) or card.architecture not in NETS:
        raise UsageError(
            f"{folder}: its architecture is {card.architecture}; YOLOv3 and YOLOv1 are written for Darknet"
        )
    state = safetensors.torch.load(model.read(WEIGHTS))
    size_hw = card.image_input.size_hw or (card.image_input.size, card.image_input.size)
    changes: dict[str, Any] = (
        {"size": card.image_input.size, "boxes": _boxes(state, card)} if NETS[card.architecture].fixed_size else {}
    )
    if card.detect is not None and card.detect.anchors:
        changes["anchors"] = card.detect.anchors
    network: Any = NETS[card.architecture].build(classes=len(card.labels), **changes).eval()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise CheckpointMismatch(f"{folder}: {WEIGHTS} is not a {card.architecture}: {first}") from None
    write_darknet(network, cfg, weights, size_hw)


def _read(path: Path, most: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise CheckpointRefused(f"{path}: {error.strerror or error}") from None
    if len(data) > most:
        raise CheckpointRefused(f"{path}: at most {most:,} bytes are read")
    return data.decode("utf-8", errors="replace")  # comments may be in any encoding


def _network(found: "Plan", epsilon: "Epsilon", stem: str) -> tuple[str, Any]:
    """Return the name of an architecture, and the network in evaluation mode."""
    from openlepton.nets import NETS
    from openlepton.nets.darknet import Darknet

    if epsilon == "variance":  # what the networks in the table have
        names, changes = _candidates(found)
        for architecture in names:
            if _same(found, architecture, changes):
                return architecture, NETS[architecture].build(**changes).eval()
    return f"darknet-{stem}", Darknet(found, epsilon).eval()


def _candidates(found: "Plan") -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the networks in the table that a plan may be, and what they would have to be built with."""
    from openlepton.nets.darknet_layers import Detection, Yolo

    heads = [found.layers[index] for index in found.heads]
    if all(isinstance(head, Yolo) for head in heads):
        finest_first = reversed(heads)
        anchors = tuple(head.anchors for head in finest_first if isinstance(head, Yolo))
        names = ("yolov3-tiny",) if len(heads) == 2 else ("yolov3", "yolov3-spp")
        return names, {"classes": found.classes, "anchors": anchors}
    if len(heads) == 1 and isinstance(heads[0], Detection) and found.size_hw[0] == found.size_hw[1]:
        changes = {"classes": found.classes, "size": found.size_hw[0], "boxes": heads[0].boxes}
        return ("yolov1", "yolov1-local", "yolov1-tiny"), changes
    return (), {}


def _same(found: "Plan", architecture: str, changes: Mapping[str, Any]) -> bool:
    """Return whether the network of that name has the very layers of the plan; it is built without storage."""
    import torch

    from openlepton.nets import NETS
    from openlepton.nets.darknet_plan import plan
    from openlepton.nets.darknet_write import configuration

    try:
        with torch.device("meta"):
            network: Any = NETS[architecture].build(**changes)
        ours = plan(configuration(network, found.size_hw))
    except (UsageError, CheckpointRefused):  # not so many anchors, or not such a size
        return False
    return [replace(layer, line=0) for layer in ours.layers] == [replace(layer, line=0) for layer in found.layers]


def _input(found: "Plan", resize: Resize | None, where: str) -> ImageInput:
    from openlepton.nets.darknet_layers import Detection

    size_hw = found.size_hw
    square = size_hw[0] == size_hw[1]
    if found.task == "classify":
        if resize == "letterbox":
            raise UsageError(f"{where}: resize: a classifier takes crop or stretch, got letterbox")
        if not square:
            raise CheckpointRefused(f"{where}: a classifier of {size_hw[0]}x{size_hw[1]} pixels; squares are supported")
        return ImageInput(size=size_hw[0], resize=resize or "crop", multiple=1)
    if resize == "crop":
        raise UsageError(f"{where}: resize: a detector takes letterbox or stretch, got crop")
    v1 = any(isinstance(layer, Detection) for layer in found.layers) and not found.letterboxed
    return ImageInput(
        size=max(size_hw),
        resize=resize or ("stretch" if v1 else "letterbox"),
        multiple=found.multiple,
        fill=GREY,
        size_hw=size_hw,
    )


def _facts(found: "Plan", network: Any) -> DetectFacts:
    """Return strides and anchors in pixels, in the order of the network's rows."""
    from openlepton.nets.darknet_layers import Head, Region, Yolo

    heads = [layer for layer in found.layers if isinstance(layer, Head)]
    if not found.any_size:
        return DetectFacts()
    strides = [found.size_hw[0] // head.shape[1] for head in heads]
    anchors = [
        tuple((w * scale, h * scale) for w, h in head.anchors)
        for head, scale in (
            (head, stride if isinstance(head, Region) else 1) for head, stride in zip(heads, strides, strict=True)
        )
        if isinstance(head, Yolo | Region)
    ]
    finest_first = -1 if hasattr(network.config, "anchors") else 1
    return DetectFacts(strides=tuple(strides[::finest_first]), anchors=tuple(anchors[::finest_first]))


def _source(cfg: Path, weights: Path, seen: int, epsilon: str) -> str:
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return (
        f"converted from Darknet's {cfg.name} and {weights.name}, sha256 {digest}, trained on {seen:,} images; epsilon of "
        f"batch norm in the {epsilon}; the files do not record the data they were trained on"
    )


def _boxes(state: Mapping[str, Any], card: ModelCard) -> int:
    """Return how many boxes a cell of a YOLOv1 has, which its last layer shows."""
    last = max((name for name in state if name.startswith("head.")), key=lambda name: int(name.split(".")[1]))
    return int((state[last].shape[0] // (card.image_input.size // 64) ** 2 - len(card.labels)) // 5)
