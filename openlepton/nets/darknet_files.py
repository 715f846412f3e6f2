"""Darknet's `.weights`: a header, and the numbers of a network's layers in their order; read into networks, written from them.

The networks of `darknet.py`, `yolov3.py` and `yolov1.py` keep their modules in the order of the configuration file, so one list
of tensors serves both ways, and what was read is written to the bit.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from openlepton.errors import CheckpointMismatch, CheckpointRefused, UsageError
from openlepton.files import write_atomic


@dataclass(frozen=True)
class Header:
    """What a weights file begins with; releases of Darknet since 2017 write 0, 2, 0."""

    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0
    """Images that training has seen, of which old releases keep 32 bits."""

    @property
    def wide(self) -> bool:
        """Whether `seen` takes eight bytes, not four."""
        return self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000

    @property
    def transposed(self) -> bool:
        """Whether the matrices of connected layers stand with their columns as rows."""
        return self.major > 1000 or self.minor > 1000

    @property
    def data(self) -> bytes:
        """The bytes."""
        return struct.pack("<iii", self.major, self.minor, self.revision) + struct.pack(
            "<Q" if self.wide else "<I", self.seen
        )


def parse_header(data: bytes, where: str) -> Header:
    """Return the header that `data` begins with.

    Raises:
        CheckpointRefused: The data ends before the header does, or the version cannot be one.
    """
    if len(data) >= 12:
        header = Header(*struct.unpack_from("<iii", data))
        if min(header.major, header.minor, header.revision) < 0:
            raise CheckpointRefused(f"{where}: no weights of Darknet: version {header.major}.{header.minor}")
        size = 8 if header.wide else 4
        if len(data) >= 12 + size:
            return Header(header.major, header.minor, header.revision, int.from_bytes(data[12 : 12 + size], "little"))
    raise CheckpointRefused(f"{where}: no weights of Darknet: {len(data)} bytes, a header has 16 or 20")


def open_header(path: Path, weights: int) -> Header:
    """Return the header of a file that holds exactly so many `weights`; nothing but the header is read.

    Raises:
        CheckpointRefused: There is no such file, or it has no header.
        CheckpointMismatch: The file is shorter or longer than the network wants it.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = parse_header(file.read(20), str(path))
    except OSError as error:
        raise CheckpointRefused(f"{path}: {error.strerror or error}") from None
    expected = len(header.data) + 4 * weights
    if size != expected:
        raise CheckpointMismatch(
            f"{path}: expected {expected:,} bytes, found {size:,}: {'truncated' if size < expected else 'overlong'}, "
            "or the weights of another network"
        )
    return header


def read_weights(network: nn.Module, path: Path) -> Header:
    """Fill `network` from a weights file, and return the file's header.

    Raises:
        CheckpointRefused: There is no such file, or it has no header.
        CheckpointMismatch: The file is of another size than the network wants, or holds what is not a finite number.
    """
    stored = list(_stored(network))
    header = open_header(path, sum(tensor.numel() for tensor, _ in stored))
    with path.open("rb") as file, torch.no_grad():
        file.seek(len(header.data))
        for number, (tensor, matrix) in enumerate(stored):
            values = np.frombuffer(file.read(4 * tensor.numel()), "<f4")
            if len(values) != tensor.numel():
                raise CheckpointMismatch(f"{path}: ended while it was read")
            if not np.isfinite(values).all():
                raise CheckpointMismatch(
                    f"{path}: holds numbers that are not finite, in block {number} of {len(stored)}"
                )
            shape = tuple(tensor.shape)
            ordered = values.reshape(shape[::-1]).T if matrix and header.transposed else values.reshape(shape)
            tensor.copy_(torch.from_numpy(np.array(ordered, np.float32, order="C")))
    return header


def write_weights(network: nn.Module, path: Path, header: Header | None = None) -> None:
    """Write the weights of `network` as a file that Darknet reads.

    Args:
        network: One whose modules stand in the order of its configuration file, its batch norms not fused.
        path: The `.weights` to write.
        header: By default that of Darknet's newer releases; `read_weights` returns that of a file that was read.

    Raises:
        OutputError: The file cannot be written.
    """
    header = header or Header()
    parts = [header.data]
    for tensor, matrix in _stored(network):
        values = tensor.detach().cpu().float().numpy().astype("<f4", copy=False)
        parts.append((values.T if matrix and header.transposed else values).tobytes())
    write_atomic(path, b"".join(parts))


def weights_in(network: nn.Module) -> int:
    """Return how many numbers a weights file holds for `network`."""
    return sum(tensor.numel() for tensor, _ in _stored(network))


def _stored(network: nn.Module) -> Iterator[tuple[Tensor, bool]]:
    """Yield what a weights file holds, in its order: each tensor, and whether it is the matrix of a connected layer."""
    inside: set[nn.Module] = set()
    for block in network.modules():
        if block in inside:
            continue
        norm = getattr(block, "bn", None)
        kernel = getattr(block, "conv", None) or getattr(block, "linear", None)
        if isinstance(norm, nn.BatchNorm2d) and kernel is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            inside |= {norm, kernel}
            normal = [(tensor, False) for tensor in (norm.weight, norm.running_mean, norm.running_var)]
            yield norm.bias, False
            if isinstance(kernel, nn.Linear):  # Darknet has these the other way round
                yield kernel.weight, True
                yield from normal
            else:
                yield from normal
                yield kernel.weight, False
        elif isinstance(getattr(block, "weight", None), Tensor):
            if isinstance(block, nn.modules.batchnorm._BatchNorm) or not isinstance(block.bias, Tensor):
                raise UsageError(f"{type(block).__name__}: not a layer that weights files of Darknet hold")
            yield block.bias, False
            assert isinstance(block.weight, Tensor)
            yield block.weight, isinstance(block, nn.Linear)
