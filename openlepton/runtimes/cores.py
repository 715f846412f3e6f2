"""How many processor cores there are for this process, which in a container is fewer than the machine has."""

import os
from pathlib import Path


def usable_cores(system: Path = Path("/sys")) -> int:
    """Return how many physical cores this process may use, at least 1.

    On Linux: those of the processors it is bound to, each counted once however many threads it has, and no more than
    its container's quota of processor time. Elsewhere: the processors that Python reports.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    processors = os.sched_getaffinity(0)
    cores = {_siblings(system, processor) for processor in processors}
    return max(1, min(len(cores), _quota(system)))


def default_threads() -> int:
    """Return how many threads one computation should use: as many as there are cores, or as `OMP_NUM_THREADS` says."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isascii() and said.isdecimal() and int(said) else usable_cores()


def _siblings(system: Path, processor: int) -> str:
    """Return the list of processors that share a core with `processor`."""
    path = system / f"devices/system/cpu/cpu{processor}/topology/thread_siblings_list"
    return _read(path) or str(processor)


def _quota(system: Path) -> int:
    """Return how many whole processors' time the container may use, rounded up (cgroup v2, `cpu.max`: quota and period)."""
    quota, _, period = _read(system / "fs/cgroup/cpu.max").partition(" ")
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return os.cpu_count() or 1
    return -(-int(quota) // int(period))


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
