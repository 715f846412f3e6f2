"""Networks as TorchScript: written by tracing, read as if from a stranger, run by torch without this package's networks.

TorchScript is a program: torch's operations can read and write files. So before torch loads one, every operation that its code
names must be one that networks are made of.
"""

import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

from openlepton.arrays import Array, Tensors
from openlepton.card import ModelFolder
from openlepton.errors import ModelFailed, ModelFormatRefused, UsageError
from openlepton.nets.export import Exportable, Inference
from openlepton.runtimes.contract import Dims, agree, line, open_ports
from openlepton.runtimes.cores import default_threads
from openlepton.runtimes.forms import form_of

FILE_NAME = "model.torchscript"

MAX_CODE = 16_000_000
"""Bytes of code that are read; a network has some hundred thousand."""

_NAMES = """
_convolution adaptive_avg_pool2d add add_ arange avg_pool2d batch_norm cat chunk clamp clamp_min contiguous conv2d
device div div_ dropout exp expand expand_as flatten floor_divide full full_like hardsigmoid hardswish hardswish_
hardtanh hardtanh_ leaky_relu leaky_relu_ len linear matmul max_pool2d mean meshgrid mul mul_ neg ones ones_like pad
permute pow relu relu6 relu_ reshape rsub select sigmoid sigmoid_ silu silu_ size slice softmax split split_with_sizes
sqrt squeeze stack sub sub_ sum tanh tensor to transpose type_as unbind unsqueeze unsqueeze_ upsample_bilinear2d
upsample_nearest2d view warn zeros zeros_like
"""
OPERATIONS = frozenset(_NAMES.split())
"""What a program may call: arithmetic and shapes. None reads, writes or keeps anything."""

_PRIM = frozenset(("NumToTensor", "Int", "Float", "data", "unchecked_cast", "unchecked_unwrap_optional", "device"))
_CALL = re.compile(r"\b(torch|ops)\.([A-Za-z0-9_.]+)")
_MODULES = frozenset(("Tensor", "nn.Module", "device"))


def export_script(network: Exportable, size_hw: tuple[int, int]) -> bytes:
    """Return `network` as a TorchScript program from `images` to the outputs in their order, traced with such images."""
    module = Inference(network.fused()).eval().requires_grad_(False)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that shapes become constants where they are, and that there are newer ways
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            module, (torch.zeros(1, 3, *size_hw),), check_trace=False
        )
        torch.jit.save(torch.jit.freeze(traced), buffer)
    return buffer.getvalue()


def check_script(data: bytes, name: str = FILE_NAME) -> None:
    """Refuse a TorchScript program unless all that its code calls is what networks are made of.

    Raises:
        ModelFormatRefused: It is no such program, or calls something else; the message says what.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            code = [entry for entry in archive.infolist() if "/code/" in entry.filename]
            sources = [entry for entry in code if entry.filename.endswith(".py")]
            if not sources or sum(entry.file_size for entry in code) > MAX_CODE:
                raise ModelFormatRefused(f"{name}: not a TorchScript program of a network")
            texts = [archive.read(entry).decode() for entry in sources]
    except (zipfile.BadZipFile, UnicodeDecodeError, RuntimeError, EOFError, NotImplementedError) as error:
        raise ModelFormatRefused(f"{name}: not a TorchScript program: {line(str(error))}") from None
    for text in texts:
        for space, called in _CALL.findall(text):
            known = called in (OPERATIONS | _MODULES) if space == "torch" else called.removeprefix("prim.") in _PRIM
            if not known:
                raise ModelFormatRefused(f"{name}: calls {line(f'{space}.{called}')}, which no network needs")


class ScriptRuntime:
    """A network that torch runs from TorchScript: arrays in, arrays out, from any number of threads at once.

    Args:
        folder: The model; its `model.torchscript` is verified, checked and then loaded.
        threads: How many threads one call uses; 0 for what torch has. It is a number of the whole process.

    Raises:
        ModelCorrupt: The file differs from its card.
        ModelFormatRefused: The program calls what no network needs.
        ModelFailed: torch cannot load it.
        UsageError: `threads` is negative, or the model has no TorchScript.
    """

    def __init__(self, folder: ModelFolder, *, threads: int = 0) -> None:
        if threads < 0:
            raise UsageError(f"threads: expected 0 (as torch has it) or more, got {threads}")
        form = form_of(folder.card, "torchscript")
        where = str(folder.path / form.files[0])
        data = folder.read(form.files[0])
        check_script(data, where)
        torch.set_num_threads(threads or default_threads())
        self._ports = agree(*open_ports(folder.card), folder.card, where)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ModelFailed(f"{where}: torch {torch.__version__} cannot load it: {line(str(error))}") from None

    @property
    def name(self) -> str:
        """What runs the graph."""
        return "torchscript"

    @property
    def threads(self) -> int:
        """How many threads one call uses."""
        return torch.get_num_threads()

    @property
    def inputs(self) -> Mapping[str, Dims]:
        """What the graph takes: sizes by name, a letter where any size will do."""
        return self._ports.inputs

    @property
    def outputs(self) -> Mapping[str, Dims]:
        """What the graph gives, likewise."""
        return self._ports.outputs

    def __call__(self, inputs: Mapping[str, Array]) -> Tensors:
        """Return the outputs by name, for `images (B,3,H,W)` float32 0..1 RGB.

        Raises:
            ShapeError: An input is missing, unknown, or of another type or shape than networks take.
            ModelFailed: torch cannot run the program on these inputs, or it gives other shapes than the contract's.
        """
        letters = self._ports.check_inputs(inputs)
        try:
            with torch.inference_mode():
                values: Any = self._module(torch.from_numpy(inputs["images"]))
        except RuntimeError as error:
            raise self._ports.failed(inputs, str(error).strip().splitlines()[-1]) from None
        return self._ports.check_outputs([value.numpy() for value in values], letters)

    def __repr__(self) -> str:
        return f"<ScriptRuntime: {self._ports.where}>"
