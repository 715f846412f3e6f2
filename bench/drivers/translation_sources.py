"""What both sides translate: rows of made-up pieces, and how it is measured."""

import random

import psutil

VOCABULARY, LENGTH, WRITTEN, SECONDS = 65_000, 24, 32, 6.0
SPECIAL = 2  # </s> and <unk> come first


def sources(batch: int) -> list[list[str]]:
    """Return `batch` rows of pieces, the end of the sentence after each."""
    chance = random.Random(0)
    return [[f"w{chance.randrange(VOCABULARY)}" for _ in range(LENGTH - 1)] + ["</s>"] for _ in range(batch)]


def peak_mb() -> float:
    """Return the most resident memory that this process had, megabytes."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    except ModuleNotFoundError:  # Windows
        return psutil.Process().memory_info().peak_wset / 1e6
