"""The weights of a network back out of the graph that was exported from it, for training on from a model that ships as a graph.

Where each number of a graph comes from is not written down for every architecture but found out: a copy of the network whose
weights are numbered is fused, and shows where each went. What a graph does not hold are the statistics of its batch norms, which
were folded into the convolutions; the norms then do nothing but scale and shift until `settle` has measured new ones.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from openlepton.arrays import Array, Ints
from openlepton.errors import CheckpointMismatch
from openlepton.nets.blocks import Summed
from openlepton.nets.yolov5_heads import Prototypes, whole_kernel

PREFIX = "network."
"""What the exporter puts before the names of parameters."""

_FIRST = 2  # 1 is what is not followed
_NORMS = nn.modules.batchnorm._BatchNorm


def restore(graph: bytes, network: Any) -> dict[str, Tensor]:
    """Return the weights with which `network` computes what `graph` does, by name, without statistics of batch norms.

    Those of a fresh network (mean 0, variance 1) belong to them. Where a graph stores a convolution's weights as they were before
    its norm was fused in, and the scale beside them, both come back; else the scale is in the weights and the norm's is 1.

    Args:
        graph: What `export_onnx` made of a network of the same architecture and number of classes.
        network: Of which only the structure counts.

    Raises:
        CheckpointMismatch: The graph does not hold exactly the weights of such a network.
    """
    stored = _initializers(onnx.load_from_string(graph).graph)
    offsets, end = _offsets(network)
    numbers, known = np.zeros(end, np.float32), np.zeros(end, np.bool_)
    scales = _where(network, norms=True)
    for name, place in _where(network, norms=False).items():
        value, scale = _stored(stored, name)
        if value.shape != place.shape:
            raise CheckpointMismatch(f"graph: {name} is {value.shape}, expected {place.shape}")
        numbers[place], known[place] = value, True
        if name in scales:
            rows = scales[name].reshape(len(value), -1)[:, 0]
            numbers[rows], known[rows] = 1.0 if scale is None else scale.reshape(-1), True
    for conv, norm, kernel in _taken_apart(stored, network):
        start = offsets[conv]
        numbers[start : start + kernel.size], known[start : start + kernel.size] = kernel.reshape(-1), True
        start = offsets[norm]
        numbers[start : start + len(kernel)], known[start : start + len(kernel)] = 1.0, True
    state = {}
    for name, parameter in network.named_parameters():
        part = slice(offsets[name], offsets[name] + parameter.numel())
        if not known[part].all():
            raise CheckpointMismatch(f"graph: {name} of the network is not in it")
        state[name] = torch.from_numpy(numbers[part].copy()).reshape(parameter.shape)
    for path, norm in _norms(network):  # what fusing divides by, where the variance is 1
        state[f"{path}.weight"] *= float(np.sqrt(1 + norm.eps))
    return state


def settle(network: nn.Module, norms: Sequence[str], images: Iterable[Tensor]) -> None:
    """Give batch norms the statistics of what comes to them, and change scale and shift so that the network computes the same.

    Args:
        network: Changed in place; it is left in the mode it was in.
        norms: Paths of the norms that have no statistics yet.
        images: Batches `(B, 3, H, W)`, of which all are looked at.
    """
    modules = dict(network.named_modules())
    chosen = [modules[path] for path in norms]
    sums: dict[nn.Module, list[Tensor]] = {}

    def note(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        x = given[0]
        variance, mean = (one.double() for one in torch.var_mean(x.float(), (0, 2, 3), correction=0))
        count = x.numel() / len(mean)
        mine = [torch.tensor(count), count * mean, count * (variance + mean**2)]
        sums[norm] = [a + b for a, b in zip(sums[norm], mine, strict=True)] if norm in sums else mine

    hooks = [norm.register_forward_pre_hook(note) for norm in chosen]
    training = network.training
    network.eval()
    with torch.no_grad():
        for batch in images:
            network(batch)
        for norm, (count, total, squares) in sums.items():
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean = total / count
            variance = (squares / count - mean**2).clamp(min=0)
            slope = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
            norm.bias.copy_(norm.bias.double() + (mean - norm.running_mean.double()) * slope)
            norm.weight.copy_(slope * torch.sqrt(variance + norm.eps))
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
    for hook in hooks:
        hook.remove()
    network.train(training)


def _taken_apart(stored: Mapping[str, Array], network: nn.Module) -> Iterator[tuple[str, str, Array]]:
    """Yield kernels of which a graph holds sums alone, with the names of the kernel and of the scale that is in it."""
    for path, module in network.named_modules():
        if isinstance(module, Prototypes):
            quarters = [_stored(stored, f"{path}.quarters.{index}.weight")[0] for index in range(4)]
            wanted = (*module.cv2.conv.weight.shape[:2], 2, 2)
            if any(one.shape != wanted for one in quarters):
                raise CheckpointMismatch(f"graph: {path}.quarters are {quarters[0].shape}, expected {wanted}")
            kernel: Array = whole_kernel(torch.from_numpy(np.stack(quarters))).numpy()
            yield f"{path}.cv2.conv.weight", f"{path}.cv2.bn.weight", kernel


def _where(network: Any, *, norms: bool) -> dict[str, Ints]:
    """Return where the numbers of each parameter of the fused network come from, in its shape, counted as `_offsets` does.

    Args:
        network: Of which a copy is numbered and fused, in double precision, in which every number is exact.
        norms: Whether the scales of norms are followed, or everything else.
    """
    numbered = copy.deepcopy(network).double().eval()
    scales = {f"{path}.weight" for path, _ in _norms(network)}
    offsets, end = _offsets(network)
    with torch.no_grad():
        for name, parameter in numbered.named_parameters():
            values = torch.arange(offsets[name], offsets[name] + parameter.numel()).reshape(parameter.shape)
            parameter.copy_(values if (name in scales) == norms else torch.ones_like(values))
        for _, norm in _norms(numbered):
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
    fused, places = numbered.fused(), {}
    sums = {f"{path}.weight" for path, module in fused.named_modules() if isinstance(module, Summed)}
    for name, parameter in fused.named_parameters():
        value = parameter.detach().numpy()
        if name in sums:
            continue  # `_taken_apart` knows where these numbers come from
        if norms and not (parameter.ndim > 1 and value.flat[0] > 1):
            continue  # biases, and what no norm was fused into: ones
        places[name] = np.rint(value).astype(np.int64)
        if np.abs(value - places[name]).max() > 0.01 or places[name].min() < _FIRST or places[name].max() >= end:
            raise CheckpointMismatch(f"{name}: cannot be followed through the fusion of norms")
    return places


def _offsets(network: nn.Module) -> tuple[dict[str, int], int]:
    """Return the number of the first value of each parameter, and one more than the last of all."""
    offsets, at = {}, _FIRST
    for name, parameter in network.named_parameters():
        offsets[name], at = at, at + parameter.numel()
    return offsets, at


def _norms(network: nn.Module) -> list[tuple[str, Any]]:
    return [(path, module) for path, module in network.named_modules() if isinstance(module, _NORMS)]


def _initializers(graph: onnx.GraphProto) -> Mapping[str, Array]:
    """Return the stored arrays of a graph by name; equal ones are stored once and passed on."""
    found = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _stored(stored: Mapping[str, Array], name: str) -> tuple[Array, Array | None]:
    """Return a parameter as it is stored, in single precision, and the scale that it is to be multiplied with."""
    full, half = stored.get(f"{PREFIX}{name}"), stored.get(f"{PREFIX}{name}.half")
    value = full if half is None else half
    if value is None:
        raise CheckpointMismatch(f"graph: there is no {name} in it")
    scale = stored.get(f"{PREFIX}{name}.scale") if half is not None else None
    return value.astype(np.float32), scale
