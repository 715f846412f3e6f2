"""Write TrackEval's numbers for the sequences in `tests/metrics/tracking`, which the tests compare ours with.

    python -m venv peer && peer/bin/pip install trackeval==1.3.0
    peer/bin/python tools/trackeval_reference.py

Each sequence is `NAME-truth.txt` and `NAME-found.txt`; NAME begins with the benchmark whose rules apply, MOT15 or MOT17.
"""

import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import trackeval

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "metrics" / "tracking"
QUIET = {
    "PRINT_RESULTS": False,
    "PRINT_CONFIG": False,
    "TIME_PROGRESS": False,
    "OUTPUT_SUMMARY": False,
    "OUTPUT_DETAILED": False,
    "PLOT_CURVES": False,
    "BREAK_ON_ERROR": True,
}


def numbers(truth: Path, found: Path, benchmark: str) -> dict[str, object]:
    """Return every number of TrackEval for one sequence."""
    frames = max(int(np.loadtxt(path, delimiter=",", ndmin=2)[:, 0].max()) for path in (truth, found))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        home = Path(folder)
        for path, place in (
            (truth, home / "truth" / f"{benchmark}-train" / "S" / "gt" / "gt.txt"),
            (found, home / "found" / f"{benchmark}-train" / "tracker" / "data" / "S.txt"),
        ):
            place.parent.mkdir(parents=True)
            shutil.copy(path, place)
        data = trackeval.datasets.MotChallenge2DBox(
            {
                "GT_FOLDER": str(home / "truth"),
                "TRACKERS_FOLDER": str(home / "found"),
                "BENCHMARK": benchmark,
                "SPLIT_TO_EVAL": "train",
                "SEQ_INFO": {"S": frames},
                "PRINT_CONFIG": False,
            }
        )
        metrics = [
            trackeval.metrics.HOTA(),
            trackeval.metrics.CLEAR({"PRINT_CONFIG": False}),
            trackeval.metrics.Identity({"PRINT_CONFIG": False}),
        ]
        results, _ = trackeval.Evaluator(QUIET).evaluate([data], metrics)
    parts = results["MotChallenge2DBox"]["tracker"]["S"]["pedestrian"].values()
    return {name: np.asarray(value).tolist() for part in parts for name, value in part.items()}


def main() -> None:
    """Write `trackeval.json`."""
    reference = {}
    for truth in sorted(FOLDER.glob("*-truth.txt")):
        name = truth.name.removesuffix("-truth.txt")
        reference[name] = numbers(truth, FOLDER / f"{name}-found.txt", name.split("-")[0])
    (FOLDER / "trackeval.json").write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
