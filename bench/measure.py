"""How the benchmarks measure: whole processes in turn, ours and the peer's, and the ratio pair by pair."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import psutil

from openlepton.hub.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parent.parent
DRIVERS = Path(__file__).resolve().parent / "drivers"
WEIGHTS = ROOT / "tests" / "fixtures" / "yolov5" / "yolov5n.pt"
SEGMENTER = WEIGHTS.with_name("yolov5n-seg-nc5.pt")
OBJECTNESS_SHIFT = 62
OURS = [sys.executable]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Run:
    """What one whole process took."""

    seconds: float
    peak_mb: float
    output: str


def whole_process(command: Sequence[str], cwd: Path, interval_s: float = 0.005) -> Run:
    """Return wall time and peak resident memory, children included, of a command from start to end."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as text:
        process = psutil.Popen(command, cwd=cwd, stdout=text, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident(process))
            time.sleep(interval_s)
        seconds = time.perf_counter() - started
        text.seek(0)
        output = text.read()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{output[-2000:]}")
    return Run(seconds, peak / 1e6, output)


def _resident(process: psutil.Popen) -> int:
    try:
        return process.memory_info().rss + sum(child.memory_info().rss for child in process.children(recursive=True))
    except psutil.Error:
        return 0


def driver(python: Sequence[str], name: str, *arguments: str, threads: int | None = None) -> dict[str, float]:
    """Return the numbers that a script of `drivers/` prints as JSON in its last line, run by `python` in a process of its own."""
    env = dict(os.environ)
    if threads is not None:
        env |= dict.fromkeys(THREADS, str(threads))
    command = [*python, str(DRIVERS / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ratio_table(
    title: str,
    ours: Sequence[float],
    peer: Sequence[float],
    unit: str,
    target: float,
    peer_name: str,
    name: str = "openlepton",
) -> str:
    """Return three lines: ours, the peer's, and the median of the ratios of neighbouring runs against the target.

    The ratio is the second's figure by the first's: for seconds the first is ours, for images a second the peer.
    """
    ratios = [b / a for a, b in zip(ours, peer, strict=True)]
    ratio = statistics.median(ratios)
    verdict = "reached" if ratio >= target else "MISSED"
    return (
        f"{title}\n"
        f"  {name:<11} {_spread(ours)} {unit}\n"
        f"  {peer_name:<11} {_spread(peer)} {unit}\n"
        f"  ratio       {ratio:.2f} (min {min(ratios):.2f}, max {max(ratios):.2f}); target {target:g}: {verdict}"
    )


def _spread(values: Sequence[float]) -> str:
    return f"median {statistics.median(values):.3g} (min {min(values):.3g}, max {max(values):.3g})"


def photographs() -> list[Path]:
    """Return the bundled photographs."""
    return sorted((ROOT / "openlepton" / "assets" / "photos").glob("*.jpg"))


def photograph_720p(folder: Path) -> Path:
    """Return a 1280x720 JPEG made of a bundled photograph: its middle, enlarged."""
    path = folder / "photo-720p.jpg"
    image = cv2.imread(str(photographs()[0]))
    height, width = image.shape[:2]
    rows = min(height, width * 9 // 16)
    middle = image[(height - rows) // 2 : (height - rows) // 2 + rows, : rows * 16 // 9]
    cv2.imwrite(
        str(path), cv2.resize(middle, (1280, 720), interpolation=cv2.INTER_CUBIC), [cv2.IMWRITE_JPEG_QUALITY, 90]
    )
    return path


def many_720p(folder: Path, count: int) -> Path:
    """Return a folder of `count` different 1280x720 JPEGs."""
    out = folder / "photos"
    out.mkdir()
    image = cv2.imread(str(photograph_720p(folder)))
    rng = np.random.default_rng(0)
    for number in range(count):
        shifted = np.roll(image, rng.integers(0, 1280), axis=1)
        cv2.imwrite(str(out / f"{number:04d}.jpg"), shifted, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return out


def calmer_weights(folder: Path, weights: Path = WEIGHTS, shift: float = OBJECTNESS_SHIFT) -> Path:
    """Return a copy of a checkpoint of the fixtures with its objectness lowered.

    Its weights are random and see hundreds of objects in every photograph, which would measure suppression more than
    anything else; lowered, they see about as many as a trained network does.
    """
    state = read_checkpoint(weights).state
    calmer = {}
    for level in range(3):
        bias = state[f"model.24.m.{level}.bias"]
        lowered = bias.reshape(3, -1).copy()
        lowered[:, 4] -= shift
        calmer[bias.tobytes()] = lowered.tobytes()
    path = folder / weights.name
    with zipfile.ZipFile(weights) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            data = source.read(entry)
            target.writestr(entry.filename, calmer.pop(data, data))
    if calmer:
        raise SystemExit("the fixture's biases were not found where they should be")
    return path


def converted(folder: Path, weights: Path) -> Path:
    """Return a model folder made of the checkpoint, the same that the peer runs."""
    out = folder / "model"
    command = [sys.executable, "-m", "openlepton", "convert", str(weights), str(out), "--licence", "Apache-2.0"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out
