"""What torch, NumPy and OpenCV raise when memory runs out, as one error that says what helps."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch

from openlepton.errors import OutOfMemory
from openlepton.train.config import TrainConfig


@contextmanager
def explained(config: TrainConfig) -> Iterator[None]:
    """Raise `OutOfMemory` in place of the many ways in which memory runs out.

    Raises:
        OutOfMemory: A batch does not fit into memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError, cv2.error) as error:
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
