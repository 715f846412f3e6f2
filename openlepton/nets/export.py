"""Networks to ONNX graphs that keep the contract of `openlepton.card`, and the proof that both compute the same.

The graph is traced (`torch.onnx.export(dynamo=False)`): for these networks it takes a second where the newer exporter
takes ten and more, and runs at the same speed.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from openlepton.arrays import Array
from openlepton.errors import ModelFailed, ParityFailed, UsageError
from openlepton.nets.blocks import Summed
from openlepton.offline import import_onnxruntime

OPSET = 17
IR_VERSION = 8
Weights = Literal["float32", "float16"]

_OPEN: dict[int, dict[int, str]] = {2: {}, 3: {1: "N"}, 4: {2: "h", 3: "w"}}
"""Which axes of an output depend on the size of the images, by how many it has: `(B,C)`, `(B,N,C)`, `(B,C,h,w)`."""


class Exportable(Protocol):
    """A network with the two steps of inference, and what the second one gives."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what `decode` returns."""

    @property
    def training(self) -> bool:
        """Whether batch norms learn; graphs are made and compared with it off."""

    def forward(self, images: Tensor) -> Any:
        """Return what training wants."""

    def decode(self, raw: Any) -> Tensor | tuple[Tensor, ...]:
        """Return what the contract wants."""

    def fused(self) -> "Exportable":
        """Return an equal network for inference."""


class Inference(nn.Module):
    """Both steps in one call, as the exporter needs it."""

    def __init__(self, network: Exportable) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what the contract wants, in the order of the network's `outputs`."""
        results = self.network.decode(self.network.forward(images))
        return (results,) if isinstance(results, Tensor) else results


def export_onnx(
    network: Exportable,
    size_hw: tuple[int, int] = (640, 640),
    *,
    any_size: bool = True,
    channels: int = 3,
    weights: Weights = "float32",
) -> bytes:
    """Return `network` as an ONNX graph of any batch size, and of any height and width if `any_size`.

    Args:
        network: What to export; it is fused on the way and not changed.
        size_hw: Height and width that the graph is traced with.
        any_size: Whether height and width may vary.
        channels: Channels of the image.
        weights: How weights are stored. "float16" halves the file; the arithmetic is float32 either way, because the
            runtime widens the weights once, when it loads the graph. They are rounded as they were before batch norms
            were fused in, so weights that come from half precision lose nothing.
    """
    if weights not in ("float32", "float16"):
        raise UsageError(f"weights: expected float32 or float16, got {weights!r}")
    module = Inference(network.fused()).eval().requires_grad_(False)
    images, buffer = torch.zeros(1, channels, *size_hw), io.BytesIO()
    results = module(images)
    axes = {"images": {0: "B"} | ({2: "H", 3: "W"} if any_size else {})}
    for name, result in zip(network.outputs, results, strict=True):
        axes[name] = {0: "B"} | (_OPEN[result.ndim] if any_size else {})
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # that tracing is the older way, and that shapes become constants where they are
        torch.onnx.export(
            module,
            (images,),
            buffer,  # type: ignore[arg-type]  # tracing takes open files as well
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(network.outputs),
            dynamic_axes=axes,
        )
    model = onnx.load_from_string(buffer.getvalue())
    model.ir_version = IR_VERSION
    for value, result in zip(model.graph.output, results, strict=True):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis not in axes[value.name]:
                dim.dim_value = result.shape[axis]  # tracing calls it by a made-up name
    model.producer_name, model.producer_version = "openlepton", ""
    if weights == "float16":
        store_half(model.graph, _scales(module), _summed(module))
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _scales(module: nn.Module) -> dict[str, Array]:
    """Return what each convolution's weights were multiplied with when its batch norm was fused in, by their name."""
    scales = ((f"{path}.weight", getattr(part, "scale", None)) for path, part in module.named_modules())
    return {name: scale.numpy() for name, scale in scales if scale is not None}


def _summed(module: nn.Module) -> set[str]:
    """Return the names of weights that are sums of what was trained: rounded, they would lose what the others keep."""
    return {f"{path}.weight" for path, part in module.named_modules() if isinstance(part, Summed)}


def store_half(graph: onnx.GraphProto, scales: dict[str, Array], wide: set[str]) -> None:
    """Store the matrices of `graph` as float16, then a Cast and, where known, a Mul with the scale; runtimes fold both at load.

    Those named `wide` stay as they are.

    Depthwise kernels stay: in EfficientNet-Lite0 they are 4 % of the weights, and most of what rounding does to the scores.
    """
    nodes, scalars = [], []
    for weight in graph.initializer:
        few = len(weight.dims) < 2 or weight.dims[1] == 1 or np.prod(weight.dims) < 64  # biases, depthwise kernels
        if weight.data_type != onnx.TensorProto.FLOAT or few or weight.name in wide:
            continue
        name, value = weight.name, numpy_helper.to_array(weight)
        scale = scales.get(name)
        if scale is not None:
            scale = np.where(scale == 0, 1, scale).reshape(-1, *[1] * (value.ndim - 1)).astype(np.float32)
            value = value / scale
            scalars.append(numpy_helper.from_array(scale, f"{name}.scale"))
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if not np.isfinite(half).all():
            raise UsageError(f"weights: {name} does not fit float16; export it as float32")
        widened = name if scale is None else f"{name}.wide"
        nodes.append(helper.make_node("Cast", [f"{name}.half"], [widened], f"{name}.cast", to=onnx.TensorProto.FLOAT))
        if scale is not None:
            nodes.append(helper.make_node("Mul", [widened, f"{name}.scale"], [name], f"{name}.mul"))
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
    graph.initializer.extend(scalars)
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)


@dataclass(frozen=True)
class Difference:
    """The largest differences between a graph and the network it came from, over all inputs that were tried."""

    largest: dict[str, float]
    """By name of the output; boxes in pixels (beyond 1000 px, in each 1000), scores as such."""
    inputs: str
    """What was fed to both."""


def open_graph(graph: bytes, *, threads: int = 0) -> Any:
    """Return a CPU session (`onnxruntime.InferenceSession`) of `graph`; `threads` 0 means all cores."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no useful base
        raise ModelFailed(f"the exported graph does not load: {error}") from error


def parity(
    network: Exportable,
    graph: bytes,
    shapes: Sequence[tuple[int, int, int, int]],
    *,
    tolerance: dict[str, float],
    seed: int = 0,
) -> Difference:
    """Return how far `graph` and `network` differ on random images of the given shapes `(B, C, H, W)`.

    Raises:
        ParityFailed: Some output differs by more than its `tolerance`, in shape, or is not finite.
    """
    if network.training:
        raise UsageError("parity: expected a network in evaluation mode (network.eval())")
    session, module = open_graph(graph), Inference(network).eval()
    numbers = np.random.default_rng(seed)
    largest = dict.fromkeys(network.outputs, 0.0)
    for shape in shapes:
        images = numbers.random(shape, dtype=np.float32)
        with torch.no_grad():
            wanted = [value.numpy() for value in module(torch.from_numpy(images))]
        got = session.run(list(network.outputs), {"images": images})
        for name, a, b in zip(network.outputs, wanted, got, strict=True):
            if a.shape != b.shape:
                raise ParityFailed(f"{name}: the network gives {a.shape}, the graph {b.shape} for images {shape}")
            thousands = np.maximum(np.abs(a) / 1000, 1)  # of a box that is wider, float32 has no more digits
            difference = float((np.abs(a - b) / thousands).max(initial=0))
            if not difference <= tolerance[name]:  # also true for NaN
                raise ParityFailed(
                    f"{name}: differs by {difference:.3g} for images {shape}, at most {tolerance[name]:g} allowed"
                )
            largest[name] = max(largest[name], difference)
    return Difference(largest, f"random images {', '.join('x'.join(map(str, shape)) for shape in shapes)}")
