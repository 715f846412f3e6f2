"""A tracker alone with OpenLepton: `openlepton_tracking.py DETECTIONS [TRACKER]`.

Prints JSON: microseconds of processor time for each update over the whole file, and how many tracks came out.
"""

import json
import sys
import time

import numpy as np

from openlepton.data.mot import read_mot
from openlepton.results import Detections
from openlepton.video.tracker import make_tracker


def main(path: str, name: str = "bytetrack") -> None:
    """Track the file twice, the first time to warm up."""
    rows = read_mot(path)
    corners = np.concatenate((rows.boxes_ltwh[:, :2], rows.boxes_ltwh[:, :2] + rows.boxes_ltwh[:, 2:]), axis=1)
    frames = [
        Detections(corners[here], rows.scores[here], np.zeros(len(here), int), ("person",), (1080, 1920))
        for here in rows.by_frame()
    ]
    for _ in range(2):
        tracker, tracks = make_tracker(name), 0
        started = time.process_time()
        for found in frames:
            ids = tracker.update(found).track_ids
            tracks = max(tracks, 0 if ids is None else int(ids.max(initial=0)))
        seconds = time.process_time() - started
    print(json.dumps({"us": 1e6 * seconds / len(frames), "tracks": tracks}))


if __name__ == "__main__":
    main(*sys.argv[1:])
