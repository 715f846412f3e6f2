"""A tracker alone with the peer `trackers` (which took over supervision's): `trackers_tracking.py DETECTIONS [TRACKER]`.

Run by the peer's own Python.
"""

import json
import sys
import time

import numpy as np
import supervision
import trackers

CLASSES = {"bytetrack": "ByteTrackTracker", "sort": "SORTTracker", "ocsort": "OCSORTTracker"}


def main(path: str, name: str = "bytetrack") -> None:
    """Track the file twice, the first time to warm up; print JSON: microseconds of processor time for each update."""
    rows = np.loadtxt(path, delimiter=",")
    frames = []
    for number in range(1, int(rows[:, 0].max()) + 1):
        here = rows[rows[:, 0] == number]
        corners = np.concatenate((here[:, 2:4], here[:, 2:4] + here[:, 4:6]), axis=1)
        frames.append(supervision.Detections(xyxy=corners, confidence=here[:, 6], class_id=np.zeros(len(here), int)))
    for _ in range(2):
        tracker, tracks = getattr(trackers, CLASSES[name])(), 0
        started = time.process_time()
        for found in frames:
            tracks = max(tracks, 1 + int(tracker.update(found).tracker_id.max(initial=-1)))
        seconds = time.process_time() - started
    print(json.dumps({"us": 1e6 * seconds / len(frames), "tracks": tracks}))


if __name__ == "__main__":
    main(*sys.argv[1:])
