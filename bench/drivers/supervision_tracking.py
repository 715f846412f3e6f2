"""ByteTrack alone with the peer `supervision` 0.26: `supervision_tracking.py DETECTIONS bytetrack`.

Run by the peer's own Python.
"""

import json
import sys
import time

import numpy as np
import supervision


def main(path: str, name: str = "bytetrack") -> None:
    """Track the file twice, the first time to warm up; print JSON: microseconds of processor time for each update."""
    if name != "bytetrack":
        raise SystemExit(f"supervision has no {name}")
    rows = np.loadtxt(path, delimiter=",")
    frames = []
    for number in range(1, int(rows[:, 0].max()) + 1):
        here = rows[rows[:, 0] == number]
        corners = np.concatenate((here[:, 2:4], here[:, 2:4] + here[:, 4:6]), axis=1)
        frames.append(supervision.Detections(xyxy=corners, confidence=here[:, 6], class_id=np.zeros(len(here), int)))
    for _ in range(2):
        tracker = supervision.ByteTrack()
        started = time.process_time()
        tracks = [tracker.update_with_detections(found) for found in frames]
        seconds = time.process_time() - started
    count = max(int(found.tracker_id.max(initial=0)) for found in tracks)
    print(json.dumps({"us": 1e6 * seconds / len(frames), "tracks": count}))


if __name__ == "__main__":
    main(*sys.argv[1:])
