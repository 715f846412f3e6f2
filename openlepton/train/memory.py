"""What torch, NumPy and OpenCV raise when memory runs out or a network cannot be compiled, as errors that say what helps."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch

from openlepton.errors import OutOfMemory, UsageError
from openlepton.train.config import TrainConfig


@contextmanager
def explained(config: TrainConfig) -> Iterator[None]:
    """Raise our own errors in place of the many that mean the same.

    Raises:
        OutOfMemory: A batch does not fit into memory.
        UsageError: The network was to be compiled and cannot be, here.
    """
    try:
        yield
    except (RuntimeError, MemoryError, cv2.error) as error:
        if config.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise UsageError(
                f"compile: torch cannot compile the network here ({type(error).__name__}); it needs a recent C++ compiler "
                "(or CXX set to one): train without it, which gives the same numbers"
            ) from error
        if not _is_memory(error):
            raise
        raise OutOfMemory(
            f"a batch of {config.batch} images at {config.size} px does not fit into memory: take a smaller batch "
            "(gradients are accumulated all the same) or a smaller size; the last checkpoint is intact"
        ) from error


def _is_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, cv2.error):
        return error.code == cv2.Error.StsNoMem
    return "DefaultCPUAllocator" in str(error)
