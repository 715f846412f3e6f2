"""Trackers alone: processor time of an update against the peers `trackers` and, before ByteTrack left it, `supervision`.

`tracking.py PEER_PYTHON [DETECTIONS [SUPERVISION_PYTHON]]`: DETECTIONS is a file of MOTChallenge (or .gz of one), a made crowd of
27 boxes by default; SUPERVISION_PYTHON has `supervision` 0.26.
"""

import gzip
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import OURS, driver, ratio_table

from openlepton.data.mot import MotRows, write_mot
from openlepton.video.tracker import TRACKERS

TARGET = 5.0


def crowd(path: Path, frames: int = 600, count: int = 30) -> Path:
    """Write detections of a crowd that walks about, a tenth of them missing."""
    rng = np.random.default_rng(0)
    places, speeds = rng.uniform(100, 1700, (count, 2)), rng.normal(0, 3, (count, 2))
    parts = []
    for number in range(1, frames + 1):
        places = np.abs(places + speeds) % 1800
        seen = rng.random(count) < 0.9
        boxes = np.concatenate([places, places + np.array([50, 120])], axis=1)[seen] + rng.normal(0, 1, (seen.sum(), 4))
        parts.append((np.full(len(boxes), number), np.full(len(boxes), -1), boxes, rng.uniform(0.3, 1, len(boxes))))
    write_mot(path, MotRows.of(*(np.concatenate(column) for column in zip(*parts, strict=True))))
    return path


def unpacked(source: str, folder: Path) -> Path:
    """Return the file of detections, unpacked where it is compressed."""
    if not source:
        return crowd(folder / "crowd.txt")
    if not source.endswith(".gz"):
        return Path(source)
    path = folder / "det.txt"
    path.write_bytes(gzip.decompress(Path(source).read_bytes()))
    return path


def main(peer_python: str = "", detections: str = "", supervision_python: str = "", rounds: int = 5) -> None:
    """Print the ratios, ours and the peers' in turn."""
    with tempfile.TemporaryDirectory() as name:
        path = unpacked(detections, Path(name))
        contests = [("trackers", peer_python, tracker) for tracker in TRACKERS]
        for peer_name, python, tracker in (*contests, ("supervision", supervision_python, "bytetrack")):
            has_peer = Path(python).is_file()
            if not has_peer and peer_name == "supervision":
                continue
            ours, peer = [], []
            for _ in range(rounds):
                ours.append(driver(OURS, "openlepton_tracking.py", str(path), tracker, threads=1)["us"])
                if has_peer:
                    peer.append(driver([python], f"{peer_name}_tracking.py", str(path), tracker, threads=1)["us"])
            title = f"{tracker}: one update, {detections or 'a made crowd'}"
            if peer:
                print(ratio_table(title, ours, peer, "us", TARGET if tracker == "bytetrack" else 1.0, peer_name))
            else:
                print(f"{title}: {min(ours):.0f} to {max(ours):.0f} us")


if __name__ == "__main__":
    main(*sys.argv[1:])
