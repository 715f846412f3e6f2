"""`bench`: how fast each form of a model is on this machine, in a few seconds, each in a process of its own."""

import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from openlepton.card import Form
from openlepton.errors import OpenLeptonError, UsageError
from openlepton.export.accuracy import Judge, Measured
from openlepton.export.compare import TOLERANCES
from openlepton.hub.index import find
from openlepton.runtimes import installed
from openlepton.runtimes.cores import usable_cores
from openlepton.runtimes.forms import exact, forms_of, name_of

WAIT_S = 120.0
"""How long a form may take to load and be measured before it is given up."""


@dataclass(frozen=True)
class Timed:
    """What was measured of one form."""

    form: str
    """Such as `onnx-float32`."""
    latency_ms: float | None
    """Median of one call of the network with one image, on all cores; None where it could not be run."""
    images_per_s: float | None
    """Of as many callers as there are cores, one thread each."""
    memory_mb: float | None
    """The most that its process used, megabytes; None where the system does not tell."""
    keeps: bool
    """Whether the card says that it keeps the accuracy, or it computes the same graph in float32; and what was measured, if
    anything was, does not say otherwise."""
    accuracy: str
    """What the card says of its accuracy."""
    problem: str = ""
    """Why it was not measured."""
    measured: Measured | None = None
    """How good it is on the data set, where one is given and it could be run."""


def bench(
    model: str | os.PathLike[str],
    *,
    size: int | None = None,
    seconds: float = 1.5,
    data: str | os.PathLike[str] | None = None,
    split: str = "val",
    limit: int | None = 100,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Timed]:
    """Yield what each form of `model` takes on this machine, and how good it is on `data`, one after the other.

    Args:
        model: A name, or a model folder.
        size: Height and width of the image, pixels, for forms that take any; the card's by default.
        seconds: How long each figure is measured.
        data: A data set on which each form is measured, at the size of the card.
        split: Of the data set.
        limit: Only the first so many images of it; None for all.
        progress: Called with how many images of a pass are done, and how many there are.

    Raises:
        UsageError: The model takes no images, or a value is out of range.
        DataError: The data set cannot be read, or has no such split.
    """
    folder = find(model)
    if folder.card.input is None:
        raise UsageError(f"{folder.card.name}: its task is {folder.card.task}; bench is for models that take images")
    facts = folder.card.image_input
    if not 0 < seconds <= 60:
        raise UsageError(f"seconds: expected more than 0 and at most 60, got {seconds}")
    if size is not None and (size < 1 or size % facts.multiple):
        raise UsageError(f"size: expected a multiple of {facts.multiple}, got {size}")
    size_hw = facts.size_hw or ((size, size) if size else (facts.size, facts.size))
    judge = None if data is None else Judge(folder.path, data, split, limit, progress)
    for form in forms_of(folder.card):
        row = _timed(folder.path, form, size_hw, seconds)
        yield row if judge is None or row.latency_ms is None else _judged(row, form, judge)


def fastest(rows: list[Timed]) -> Timed | None:
    """Return the form with the least latency of those that keep the accuracy."""
    ready = [row for row in rows if row.latency_ms is not None and row.keeps]
    return min(ready, key=lambda row: row.latency_ms or 0.0, default=None)


def _timed(path: Path, form: Form, size_hw: tuple[int, int], seconds: float) -> Timed:
    name, keeps = name_of(form), exact(form)
    accuracy = _told(form)
    if not installed(form.engine):
        return Timed(name, None, None, None, keeps, accuracy, f"not installed: pip install 'openlepton[{form.engine}]'")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(theirs, str(path), name, size_hw, seconds), daemon=True)
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(WAIT_S + 2 * seconds) else "took too long"
    except EOFError:
        found = "its process died"
    finally:
        process.kill()
        process.join()
    if isinstance(found, str):
        return Timed(name, None, None, None, keeps, accuracy, found)
    latency, throughput, memory = found
    return Timed(name, latency, throughput, memory, keeps, accuracy)


def _judged(row: Timed, form: Form, judge: Judge) -> Timed:
    """Return the row with what the form reaches, which may only say that accuracy is not kept, never that it is."""
    try:
        measured = judge(row.form)
    except OpenLeptonError as error:
        return replace(row, problem=str(error), keeps=False)
    return replace(row, measured=measured, keeps=row.keeps and measured.lost <= TOLERANCES[form.precision].lost)


def _told(form: Form) -> str:
    found = form.compared
    if found is None:
        return "the graph itself" if form.precision == "float32" else "not compared"
    if found.original is not None and found.value is not None:
        return f"{found.metric} {found.value - found.original:+.4f} ({found.data})"
    return f"{found.matched:.1%} in common ({found.images})"


def _measure(pipe: Any, path: str, name: str, size_hw: tuple[int, int], seconds: float) -> None:
    """Measure a form in a process of its own, and send latency, throughput and memory, or what went wrong."""
    from openlepton.predictor import load

    try:
        runtime = load(Path(path), runtime=name).runtime
        sides = getattr(runtime, "inputs", {}).get("images", ())[2:]
        fixed = tuple(side for side in sides if isinstance(side, int))
        image = np.random.default_rng(0).random((1, 3, *(fixed if len(fixed) == 2 else size_hw)), dtype=np.float32)
        latency = _median_ms(runtime, image, seconds)
        try:
            single = load(Path(path), runtime=name, threads=1).runtime
        except UsageError:  # its threads are those of the process, and were chosen by the first
            single = runtime
        pipe.send((latency, _throughput(single, image, seconds), _peak_mb()))
    except OpenLeptonError as error:
        pipe.send(str(error))


def _median_ms(runtime: Any, image: Any, seconds: float) -> float:
    for _ in range(3):
        runtime({"images": image})
    times, end = list[float](), time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        runtime({"images": image})
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def _throughput(runtime: Any, image: Any, seconds: float) -> float:
    cores, stop = usable_cores(), threading.Event()

    def work(_: int) -> int:
        count = 0
        while not stop.is_set():
            runtime({"images": image})
            count += 1
        return count

    runtime({"images": image})
    began = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        jobs = [pool.submit(work, index) for index in range(cores)]
        time.sleep(seconds)
        stop.set()
        done = sum(job.result() for job in jobs)
    return done / (time.perf_counter() - began)


def _peak_mb() -> float | None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
