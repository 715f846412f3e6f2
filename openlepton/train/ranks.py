"""Processes that train together, as `torchrun` starts them; a single process is the same with one rank."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from openlepton.errors import UsageError


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many."""

    rank: int = 0
    count: int = 1
    local: int = 0
    """Which process of this machine, and so which of its GPUs."""

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set in any process."""
        return self.total([float(flag)])[0] > 0

    def total(self, values: list[float]) -> list[float]:
        """Return the sums over all processes."""
        if self.count == 1:
            return values
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        sums = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(sums)
        return [float(value) for value in sums]

    def wait(self) -> None:
        """Return when every process is here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started, if it did, for as long as the context lasts."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Ranks()
        return
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"]))
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield ranks
    finally:
        distributed.destroy_process_group()


def choose_device(wanted: str, ranks: Ranks) -> torch.device:
    """Return the device that `wanted` means in this process.

    Raises:
        UsageError: There is no such device.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device("cuda", ranks.local) if wanted == "cuda" else torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        brief = str(error).splitlines()[0]
        raise UsageError(f"device: {wanted!r} cannot be used here: {brief}") from None
    return device
