"""How well the trackers follow public detections, each at its defaults: HOTA, MOTA, IDF1, and the peer `trackers` beside them.

    python bench/tracking_quality.py TUD-Campus [PEER_PYTHON]

The folder is one of MOTChallenge's: `det/det.txt` and `gt/gt.txt`, or the two files themselves.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from measure import OURS, driver

from openlepton.data.mot import read_mot
from openlepton.metrics.tracking import evaluate_tracking
from openlepton.video.tracker import TRACKERS

SHARES = ("HOTA", "DetA", "AssA", "MOTA", "IDF1")
COUNTS = ("IDSW", "IDs", "GT_IDs")


def main(sequence: str, peer_python: str = "") -> None:
    """Print a row for each tracker, ours as the command line writes it."""
    detections, truth = (_file(Path(sequence), name) for name in ("det", "gt"))
    print(f"| tracker | {' | '.join((*SHARES, *COUNTS))} |\n|{'---|' * (1 + len(SHARES) + len(COUNTS))}")
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "tracks.txt")
        for name in TRACKERS:
            command = [*OURS, "-m", "openlepton", "track", "--detections", detections, "--tracker", name]
            subprocess.run([*command, "--out", out, "--overwrite"], check=True, stdout=subprocess.DEVNULL)
            print(_row(f"`{name}`", truth, out))
        for name in TRACKERS if peer_python else ():
            driver([peer_python], "trackers_tracking.py", detections, name, out)
            print(_row(f"`trackers`: {name}", truth, out))


def _file(folder: Path, name: str) -> str:
    nested = folder / name / f"{name}.txt"
    return str(nested if nested.exists() else folder / f"{name}.txt")


def _row(title: str, truth: str, tracks: str) -> str:
    numbers = evaluate_tracking(read_mot(truth), read_mot(tracks)).numbers
    cells = [f"{numbers[name]:.3f}" for name in SHARES] + [str(numbers[name]) for name in COUNTS]
    return f"| {' | '.join((title, *cells))} |"


if __name__ == "__main__":
    main(*sys.argv[1:])
