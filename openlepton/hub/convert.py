"""YOLOv5 checkpoints of any task to model folders: `model.onnx`, `model.safetensors`, the card; nothing run from them.

Which network a checkpoint holds is read off the shapes of its tensors. That network is then built here, and every tensor
name, every shape and every setting that the checkpoint records about its modules must agree with it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from openlepton.arrays import Array
from openlepton.card import CONTRACT, DetectFacts, ImageInput, ModelCard, file_facts
from openlepton.errors import CheckpointMismatch, OutputError, UsageError, missing_extra
from openlepton.hub.checkpoint import Checkpoint, Module, read_checkpoint
from openlepton.hub.folder import GRAPH, WeightsType, write_model

if TYPE_CHECKING:
    from openlepton.nets.yolov5 import Config, Yolov5
    from openlepton.nets.yolov5_cls import Config as ClassifierConfig
    from openlepton.nets.yolov5_cls import Yolov5Cls

    Network = Yolov5 | Yolov5Cls

_HEADS = {24: "", 33: "6"}  # number of the last layer, and what it appends to the size
_KINDS = {"": ("detect", "detector"), "-seg": ("segment", "segmenter"), "-cls": ("classify", "classifier")}
"""By how the architecture's name ends, the task and what the network is called."""
_ACTIVATIONS = {"SiLU": "silu", "ReLU": "relu", "LeakyReLU": "leaky_relu", "Hardswish": "hardswish"}
_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "Conv2d": ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
    "BatchNorm2d": ("eps",),
    "LeakyReLU": ("negative_slope",),
    "Upsample": ("scale_factor", "mode"),
}
"""What torch's modules record that shapes do not show and that changes results."""


def convert(
    weights: Path,
    out: Path,
    *,
    licence: str,
    name: str | None = None,
    version: str = "1",
    labels: Sequence[str] | None = None,
    weights_type: WeightsType = "float32",
    overwrite: bool = False,
) -> ModelCard:
    """Convert a YOLOv5 checkpoint to a model folder and return its card.

    The graph computes in float32. `model.safetensors` holds the checkpoint's tensors under their names and in their own
    precision, so nothing is lost for training further. The checkpoint itself is only read.

    Args:
        weights: The checkpoint, `.pt`.
        out: The folder to write; made if missing.
        licence: SPDX expression of the licence that the weights are under; checkpoints do not say.
        name: Name of the model; by default that of the file, in lower case and without odd characters.
        version: Version of the model.
        labels: Class names; by default those in the checkpoint.
        weights_type: How the graph stores weights; "float16" halves it, and loses nothing where the checkpoint
            is in half precision itself.
        overwrite: Whether a folder that is not empty may be written to; other files in it stay.

    Raises:
        CheckpointRefused: The file is not such a checkpoint, or names what no network needs.
        CheckpointMismatch: Its tensors or modules differ from the network that they come closest to.
        ParityFailed: The graph computes something else than the network; nothing was written.
        OutputError: The folder is not empty, or cannot be written.
        MissingExtra: torch, onnx or safetensors is not installed.
    """
    check_ready(out, overwrite=overwrite)
    checkpoint = read_checkpoint(weights)
    architecture, network = _within(weights, checkpoint)
    task, kind = _KINDS[architecture[len("yolov5n") :].lstrip("6")]
    names = _labels(weights, checkpoint, network.config.classes, labels)
    draft = draft_card(
        contract=CONTRACT,
        name=model_name(weights.stem) if name is None else name,
        version=version,
        task=task,
        architecture=architecture,
        description=f"YOLOv5 {kind} of {len(names)} {'class' if len(names) == 1 else 'classes'}",
        licence=licence,
        source=_source(weights, checkpoint),
        labels=names,
        files={GRAPH: file_facts(b"?")},
        **_facts(task, network),
    )
    return write_model(out, network, draft, checkpoint.state, weights_type=weights_type)


def _facts(task: str, network: Any) -> dict[str, Any]:
    """Return the fields of the card that say how images come to the network, and what only its task has."""
    config = network.config
    if task == "classify":  # the central square, whole
        return {"input": ImageInput(size=config.size, resize="crop", multiple=1)}
    size = 1280 if len(config.anchors) == 4 else 640
    return {
        "input": ImageInput(size=size, resize="letterbox", multiple=network.multiple),
        "detect": DetectFacts(strides=config.strides, anchors=config.anchors),
    }


def check_ready(out: Path, *, overwrite: bool) -> None:
    """Raise unless what conversion needs is installed, and `out` is a folder that may be written to.

    Raises:
        OutputError: The folder is a file, or not empty while `overwrite` is not given.
        MissingExtra: torch, onnx or safetensors is not installed.
    """
    for module in ("torch", "onnx", "safetensors"):
        if find_spec(module) is None:
            raise missing_extra(module, "train")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file, not a folder")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out}: the folder is not empty; choose another, or ask to overwrite")


def model_name(stem: str) -> str:
    """Return `stem` as the name of a model: lower case, and dashes for what names do not admit."""
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).lstrip("._-")[:64].rstrip("-")
    return name or "model"


def build_network(state: Mapping[str, Array], modules: Mapping[str, Module] | None = None) -> tuple[str, "Network"]:
    """Return the name and the network that named tensors belong to, loaded and in evaluation mode, all in float32.

    Args:
        state: Tensors by name, in any precision.
        modules: What a checkpoint records about the modules; where given, it must agree with the network.

    Raises:
        CheckpointMismatch: No YOLOv5 has tensors of these names and shapes, or modules of these settings.
    """
    import torch

    from openlepton.nets.yolov5 import Yolov5
    from openlepton.nets.yolov5_cls import Yolov5Cls
    from openlepton.nets.yolov5_seg import Yolov5Seg

    modules = modules or {}
    network: Network
    if "model.9.linear.weight" in state:
        size, described = _classifier_config(state, modules)
        network = Yolov5Cls(described).eval()
    else:
        size, config = _config(state, modules)
        network = (Yolov5Seg if size.endswith("-seg") else Yolov5)(config).eval()
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    # v5.0 keeps its anchors in pixels as well, as `anchor_grid`
    given = {key: array.shape for key, array in state.items() if not key.endswith(".anchor_grid")}
    wrong = [*_tensor_differences(expected, given), *_module_differences(network, modules)]
    if wrong:
        lines = "".join(f"\n  {line}" for line in wrong)
        raise CheckpointMismatch(f"closest to yolov5{size}, but {len(wrong)} differences:{lines}")
    for key, array in state.items():
        if not np.isfinite(array).all():
            raise CheckpointMismatch(f"{key}: holds numbers that are not finite")
    tensors = {key: torch.from_numpy(np.array(state[key], order="C")) for key in expected}
    network.load_state_dict(tensors)  # copies into float32
    return f"yolov5{size}", network


def _config(state: Mapping[str, Array], modules: Mapping[str, Module]) -> tuple[str, "Config"]:
    """Return the size (n ... x6, n-seg ... x-seg) and the config that the shapes tell."""
    from openlepton.nets.yolov5 import Config

    stem = next((state[key] for key in ("model.0.conv.weight", "model.0.conv.conv.weight") if key in state), None)
    last = next((int(found[1]) for key in state if (found := re.fullmatch(r"model\.(\d+)\.anchors", key))), None)
    if stem is None or last not in _HEADS or stem.ndim != 4:
        raise CheckpointMismatch(
            "its tensors are not named as in a YOLOv5 of v5.0 to v7.0 (detector, P5 or P6, or segmenter)"
        )
    masks = (
        32 if any(key.startswith(f"model.{last}.proto.") for key in state) else 0
    )  # what an object takes of prototypes
    if masks and _HEADS[last]:
        raise CheckpointMismatch("a segmenter with four levels (P6), which was never published")
    if any(re.fullmatch(r"model\.0\.conv(\.conv)?\.bias", key) for key in state):
        raise CheckpointMismatch("its batch norms are fused into the convolutions already: convert it before fusing")
    v5 = "model.0.conv.conv.weight" in state
    cells, head = state[f"model.{last}.anchors"].astype(np.float32), state.get(f"model.{last}.m.0.weight")
    strides = np.array([8 << level for level in range(len(cells))], np.float32)
    if (
        cells.ndim != 3
        or cells.shape[2] != 2
        or head is None
        or head.shape[0] % cells.shape[1]
        or head.shape[0] < (6 + masks) * cells.shape[1]
    ):
        raise CheckpointMismatch("its head has no anchors of a width and a height, or too few outputs for them")
    channels = stem.shape[1] // 4 if v5 else stem.shape[1]
    if channels != 3:
        raise CheckpointMismatch(f"it takes images of {channels} channels; models here take 3 (RGB)")
    size, depth, width = _size(stem, state)
    return size + ("-seg" if masks else _HEADS[last]), Config(
        depth,
        width,
        classes=head.shape[0] // cells.shape[1] - 5 - masks,
        anchors=tuple(tuple(map(tuple, level)) for level in (cells * strides[:, None, None]).tolist()),
        layout="v5" if v5 else "v6",
        activation=_activation(modules),
        pools=_pools(modules, p6=last == 33) if v5 else (5, 9, 13),
    )


def _classifier_config(state: Mapping[str, Array], modules: Mapping[str, Module]) -> tuple[str, "ClassifierConfig"]:
    """Return the size (n-cls ... x-cls) and the config that the shapes of a classifier tell."""
    from openlepton.nets.yolov5_cls import Config

    stem = state.get("model.0.conv.weight")
    if stem is None or stem.ndim != 4:
        raise CheckpointMismatch("its tensors are not named as in a YOLOv5 classifier of v6.2 to v7.0")
    size, depth, width = _size(stem, state)
    classes = state["model.9.linear.weight"].shape[0]
    return f"{size}-cls", Config(depth, width, classes=classes, activation=_activation(modules))


def _size(stem: Array, state: Mapping[str, Array]) -> tuple[str, float, float]:
    """Return the size (n, s, m, l, x) whose first channels and repeats are the given ones, its depth and width."""
    from openlepton.nets.yolov5 import SIZES

    repeats = len({key.split(".")[3] for key in state if key.startswith("model.2.m.")})
    for size, (depth, width) in SIZES.items():
        if (stem.shape[0], repeats) == (ceil(64 * width / 8) * 8, max(round(3 * depth), 1)):
            return size, depth, width
    raise CheckpointMismatch(
        f"none of the sizes {', '.join(SIZES)} begins with {stem.shape[0]} channels and {repeats} repeats in its first C3"
    )


def _activation(modules: Mapping[str, Module]) -> Any:
    kinds = {module.kind for module in modules.values() if module.kind.startswith("torch.nn.modules.activation.")}
    names = {kind.rpartition(".")[2] for kind in kinds}
    if len(names) > 1 or not names <= _ACTIVATIONS.keys():
        raise CheckpointMismatch(f"activations {', '.join(sorted(names))}: expected one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[names.pop()] if names else "silu"


def _pools(modules: Mapping[str, Module], *, p6: bool) -> tuple[int, ...]:
    """Return the kernels of SPP, which no tensor shows."""
    where = "model.10.m." if p6 else "model.8.m."
    recorded = [
        module.settings.get("kernel_size") for path, module in sorted(modules.items()) if path.startswith(where)
    ]
    pools = [pool for pool in recorded if isinstance(pool, int) and 1 <= pool <= 31 and pool % 2]
    if len(pools) < len(recorded) or (p6 and not pools):
        raise CheckpointMismatch(f"the kernels of its SPP are not known: {recorded}")
    return tuple(pools) or (5, 9, 13)


def _tensor_differences(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    for key in expected.keys() - given.keys():
        yield f"missing: {key} {expected[key]}"
    for key in given.keys() - expected.keys():
        yield f"unexpected: {key} {given[key]}"
    for key in expected.keys() & given.keys():
        if expected[key] != given[key]:
            yield f"shape: {key} is {given[key]}, expected {expected[key]}"


def _module_differences(network: "Network", modules: Mapping[str, Module]) -> Iterator[str]:
    """Return how what a checkpoint records about its modules differs from the network; shapes do not show it."""
    ours = dict(network.named_modules())
    for path, module in modules.items():
        kind = module.kind.rpartition(".")[2]
        wanted = {key: getattr(ours.get(path), key, None) for key in _SETTINGS.get(kind, ())} if path in ours else {}
        if kind == "Bottleneck" and path in ours:
            wanted = {"add": ours[path].shortcut}
        elif kind == "MaxPool2d" and getattr(network.config, "layout", "v6") == "v6":
            wanted = {"kernel_size": 5, "stride": 1}
        for key, value in wanted.items():
            got = module.settings.get(key, value)
            if got != (list(value) if isinstance(value, tuple) else value) and got != value:
                yield f"setting: {path}.{key} is {got}, expected {value}"
    for index, reads in enumerate(network.reads):
        layer = modules.get(f"model.{index}")
        got = layer.settings.get("f") if layer else None
        if got is not None and (got if isinstance(got, list) else [got]) != list(reads):
            yield f"wiring: layer {index} reads {got}, expected {list(reads)}"


def _within(weights: Path, checkpoint: Checkpoint) -> tuple[str, "Network"]:
    try:
        return build_network(checkpoint.state, checkpoint.modules)
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"{weights}: {error}") from None


def _labels(weights: Path, checkpoint: Checkpoint, classes: int, labels: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(labels) if labels is not None else checkpoint.names
    if not names:
        raise UsageError(f"{weights}: the checkpoint has no class names; give {classes} as labels")
    if len(names) != classes:
        whose = "given" if labels is not None else "in the checkpoint"
        raise CheckpointMismatch(f"{weights}: {len(names)} class names {whose}, but the network has {classes} classes")
    return names


def _source(weights: Path, checkpoint: Checkpoint) -> str:
    date = checkpoint.details.get("date")
    when = f" of {date[:40]}" if isinstance(date, str) else ""
    what = checkpoint.kind or "named tensors"
    return (
        f"converted from the checkpoint {weights.name}{when} ({what}, {checkpoint.part}), sha256 {checkpoint.sha256}; "
        "the checkpoint does not record the data it was trained on"
    )


def draft_card(**fields: Any) -> ModelCard:
    """Return a card of these fields.

    Raises:
        UsageError: One of them is not what cards admit.
    """
    try:
        return ModelCard(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}") from None
