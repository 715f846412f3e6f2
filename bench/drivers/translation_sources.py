"""What both sides translate: rows of made-up pieces, and how it is measured."""

import random
from pathlib import Path

import psutil

VOCABULARY, LENGTH, WRITTEN, SECONDS = 65_000, 24, 32, 6.0
SPECIAL = 2  # </s> and <unk> come first


def sources(batch: int) -> list[list[str]]:
    """Return `batch` rows of pieces, the end of the sentence after each."""
    chance = random.Random(0)
    return [[f"w{chance.randrange(VOCABULARY)}" for _ in range(LENGTH - 1)] + ["</s>"] for _ in range(batch)]


def peak_mb() -> float:
    """Return the most resident memory that this process had, megabytes: its own, where `ru_maxrss` would count its parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1e3
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss) / 1e6
