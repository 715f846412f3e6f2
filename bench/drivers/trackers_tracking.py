"""A tracker alone with the peer `trackers` (which took over supervision's): `trackers_tracking.py DETECTIONS [TRACKER [OUT]]`.

Run by the peer's own Python. Writes the tracks to OUT, if it is given, in MOTChallenge's format.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import supervision
import trackers

CLASSES = {"bytetrack": "ByteTrackTracker", "sort": "SORTTracker", "ocsort": "OCSORTTracker"}


def main(path: str, name: str = "bytetrack", out: str = "") -> None:
    """Track the file twice, the first time to warm up; print JSON: microseconds of processor time for each update."""
    rows = np.loadtxt(path, delimiter=",")
    frames = []
    for number in range(1, int(rows[:, 0].max()) + 1):
        here = rows[rows[:, 0] == number]
        corners = np.concatenate((here[:, 2:4], here[:, 2:4] + here[:, 4:6]), axis=1)
        frames.append(supervision.Detections(xyxy=corners, confidence=here[:, 6], class_id=np.zeros(len(here), int)))
    for _ in range(2):
        tracker = getattr(trackers, CLASSES[name])()
        started = time.process_time()
        tracks = [tracker.update(found) for found in frames]
        seconds = time.process_time() - started
    if out:
        write(out, tracks)
    tracks = max(1 + int(found.tracker_id.max(initial=-1)) for found in tracks)
    print(json.dumps({"us": 1e6 * seconds / len(frames), "tracks": tracks}))


def write(out, tracks):
    """Write the boxes that have an identity."""
    with Path(out).open("w", encoding="utf-8") as file:
        for number, found in enumerate(tracks, 1):
            for box, identity, score in zip(found.xyxy, found.tracker_id, found.confidence, strict=True):
                if identity >= 0:
                    left, top, right, bottom = box
                    print(number, identity + 1, left, top, right - left, bottom - top, score, sep=",", file=file)


if __name__ == "__main__":
    main(*sys.argv[1:])
