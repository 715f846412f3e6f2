"""A 720p clip from file to tracks and a line of JSON for each frame, two cores, against `ultralytics` with ByteTrack as well.

`video_track.py PEER_PYTHON [FRAMES]`. Three comparisons: the default detector at its 416; a network of the same class and size at
640 on both sides; and, of ours alone, what drawing and writing the video add.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import cv2
from measure import OURS, ROOT, calmer_weights, converted, driver, ratio_table

from openlepton.hub.index import default
from openlepton.video.stream import VideoWriter, frames

TARGET, MOST_OUTSIDE, THREADS = 2.5, 0.2, 2


def clip_720p(folder: Path, count: int) -> Path:
    """Return a clip of 1280 x 720 made of one that ships, repeated."""
    path = folder / "clip.mp4"
    source = [
        cv2.resize(frame.image, (1280, 720)) for frame in frames(ROOT / "openlepton" / "assets" / "clips" / "yard.mp4")
    ]
    with VideoWriter(path, fps=25) as writer:
        for number in range(count):
            writer.write(source[number % len(source)])
    return path


def main(peer_python: str = "", count: int = 500, rounds: int = 5) -> None:
    """Print the ratios, ours and the peer's in turn, and the share of time outside the network."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip, out = str(clip_720p(folder, count)), str(folder / "out")
        same_class = str(converted(folder, calmer_weights(folder)))
        peer_weights = folder / "peer.pt"
        has_peer = Path(peer_python).is_file()
        if has_peer:
            driver([peer_python], "ultralytics_weights.py", "yolo11n.yaml", str(peer_weights))
        for model, size, title in (
            (default("detect"), "416", "the default detector at 416, and its smallest network there"),
            (same_class, "640", "networks of the same class (YOLOv5n, YOLO11n) at 640"),
        ):
            ours, peer = [], []
            for _ in range(rounds):
                ours.append(driver(OURS, "openlepton_video_track.py", model, size, clip, out))
                if has_peer:
                    peer.append(
                        driver([peer_python], "ultralytics_video_track.py", str(peer_weights), size, clip, str(THREADS))
                    )
            mine, theirs = [run["ms"] for run in ours], [run["ms"] for run in peer]
            if has_peer:
                print(ratio_table(f"a 720p frame, file to tracks: {title}", mine, theirs, "ms", TARGET, "ultralytics"))
            else:
                print(f"a 720p frame, file to tracks: {title}: {min(mine):.1f} to {max(mine):.1f} ms")
            outside, around = (statistics.median(run[share] for run in ours) for share in ("outside", "around"))
            verdict = "reached" if around < MOST_OUTSIDE else "MISSED"
            print(f"  processor time outside the detector {around:.0%}; target below {MOST_OUTSIDE:.0%}: {verdict}")
            print(f"  outside the network itself {outside:.0%}")
        written = driver(OURS, "openlepton_video_track.py", default("detect"), "416", clip, out, "video")
        print(
            f"the default detector, drawn and written as mp4 too: {written['ms']:.1f} ms, outside {written['outside']:.0%}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
