"""Where the time goes: decode, letterbox, infer, finish (threshold, NMS, undo) and draw, for a 720p JPEG."""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from measure import calmer_weights, converted, photograph_720p

import openlepton
from openlepton.images import read_scaled
from openlepton.ops.geometry import letterbox, to_tensor
from openlepton.runtimes.onnx import OnnxRuntime


def main(_: str = "", repeat: int = 100) -> None:
    """Print a table of medians for one and two threads."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo, model = photograph_720p(folder), converted(folder, calmer_weights(folder))
        columns = [measure(photo, model, threads, repeat) for threads in (1, 2)]
    print("one 720p JPEG, milliseconds      1 thread   2 threads")
    for stage in columns[0]:
        print(f"  {stage:<28}" + "".join(f"{column[stage]:>12.2f}" for column in columns))


def measure(photo: Path, model: Path, threads: int, repeat: int) -> dict[str, float]:
    """Return the median milliseconds of each stage."""
    predictor = openlepton.load(model, runtime=partial(OnnxRuntime, threads=threads))
    times: dict[str, list[float]] = {}

    def timed(stage, function):
        started = time.perf_counter()
        value = function()
        times.setdefault(stage, []).append(1000 * (time.perf_counter() - started))
        return value

    for _ in range(repeat):
        image, image_hw = timed("decode (at half size)", lambda: read_scaled(photo, long_side=640))
        seen, frame = timed("letterbox", lambda: letterbox(image, 640, image_hw=image_hw))  # noqa: B023
        tensor = timed("to tensor", lambda: to_tensor(seen))  # noqa: B023
        outputs = timed("infer", lambda: predictor.runtime({"images": tensor[None]}))  # noqa: B023
        rows = {key: value[0] for key, value in outputs.items()}
        found = timed("finish (threshold, NMS)", lambda: predictor.task.finish(rows, frame))  # noqa: B023
        timed("all of it, as one call", lambda: predictor(photo))
        whole = timed("decode whole, to draw on", lambda: openlepton.read_image(photo))
        timed(f"draw {len(found)} boxes", lambda: openlepton.draw(whole, found))  # noqa: B023
    return {stage: statistics.median(values) for stage, values in times.items()}


if __name__ == "__main__":
    main()
