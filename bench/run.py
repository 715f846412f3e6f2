"""All benchmarks in turn: `python bench/run.py --peer-python bench/.peer/bin/python`; without a peer, our own figures alone."""

import argparse
import importlib
from pathlib import Path

ALONE = ("darknet_cpu", "segmentation", "classification", "nms", "stages", "loading")
WITH_PEER = (
    "pipeline",
    "cold_start",
    "evaluation",
    "training",
    "tracking",
    "video_track",
    "serving",
    "translate",
    "text",
)


def main() -> None:
    """Run what can be run here, and say what was left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default="bench/.peer/bin/python")
    parser.add_argument("only", nargs="*", help=f"some of {', '.join(ALONE + WITH_PEER)}")
    options = parser.parse_args()
    peer = options.peer_python if Path(options.peer_python).exists() else ""
    for name in options.only or ALONE + WITH_PEER:
        if name in WITH_PEER and not peer and name != "cold_start":
            print(f"{name}: left out, no peers at {options.peer_python} (bench/README.md says how to install them)\n")
            continue
        importlib.import_module(name).main(peer)
        print()


if __name__ == "__main__":
    main()
