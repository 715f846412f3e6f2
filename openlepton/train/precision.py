"""The arithmetic of a training: what `auto` means on a device. Weights are float32 in all of them."""

import torch

from openlepton.errors import UsageError
from openlepton.train.config import Precision

TORCH = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_precision(wanted: Precision, device: torch.device | str = "cpu") -> Precision:
    """Return the precision that `wanted` means on `device`: the same on every run of one machine.

    `auto` is float16 on CUDA, bfloat16 on processors with instructions for it (YOLOv5n at 320 pixels, forth and back: 1.5
    times as many images a second, MiniLM 1.7 times as many texts), else float32, which they compute faster.

    Raises:
        UsageError: There is no such arithmetic on the device.
    """
    kind = torch.device(device).type
    if wanted not in ("auto", *TORCH):
        raise UsageError(f"precision: expected auto, float32, bfloat16 or float16, got {wanted}")
    if wanted == "float16" and kind != "cuda":
        raise UsageError("precision: float16 needs CUDA; on a processor take bfloat16 or float32")
    if wanted != "auto":
        return wanted
    if kind == "cuda":
        return "float16"
    return "bfloat16" if kind == "cpu" and _has_bfloat16() else "float32"


def _has_bfloat16() -> bool:
    # Torch has no public name for either. Without the instructions 16 images a second of a core where float32 makes 19.
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))


def autocast(wanted: Precision, device: torch.device | str = "cpu") -> torch.autocast:
    """Return the context in which a network computes in what `wanted` means on `device`; raises as `choose_precision` does."""
    precision = choose_precision(wanted, device)
    return torch.autocast(torch.device(device).type, TORCH[precision], enabled=precision != "float32")
