"""Make tests/fixtures/darknet: weights at random for each configuration there, and what other programs compute with them.

    python tools/darknet_references.py --opencv-python bench/.opencv4/bin/python

The original C program comes with Debian's package `darknet`; what is younger than it is left to OpenCV 4.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from openlepton.nets.darknet import Convolution, Darknet
from openlepton.nets.darknet_files import Header, write_weights
from openlepton.nets.darknet_plan import plan

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "fixtures" / "darknet"
DRIVERS = ROOT / "bench" / "drivers"
ORIGINAL = ("classifier", "yolov1-kind", "yolov1-softmax", "yolov2-kind", "yolov3-kind")
OPENCV = ("yolov4-kind",)
OLD = Header(0, 1, 0, 12345)
"""With 32 bits of images seen."""


def main() -> None:
    """Write weights and references."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--opencv-python", default="bench/.opencv4/bin/python")
    options = parser.parse_args()
    for cfg in sorted(FOLDER.glob("*.cfg")):
        if cfg.stem in ORIGINAL + OPENCV:
            refer(cfg, options.opencv_python)


def refer(cfg: Path, opencv_python: str) -> None:
    """Write weights for a configuration, and what they give."""
    network = Darknet(plan(cfg.read_text()))
    torch.manual_seed(0)
    numbers = torch.Generator().manual_seed(0)
    height, width = network.config.size_hw
    with torch.no_grad():
        for block in network.modules():
            if isinstance(block, Convolution):
                block.conv.weight.normal_(0, 2 * block.conv.weight[0].numel() ** -0.5, generator=numbers)
            if isinstance(block, torch.nn.BatchNorm2d):
                block.momentum = 0.9
                block.weight.uniform_(0.7, 1.3, generator=numbers)
                block.bias.normal_(0, 0.3, generator=numbers)
        for _ in range(4):  # the norms learn what their maps look like
            network.train()(torch.rand(4, 3, height, width, generator=numbers))
    weights = cfg.with_suffix(".weights")
    write_weights(network, weights, OLD if cfg.stem == "yolov1-kind" else None)
    image = np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)
    found = {"input": image}
    with tempfile.TemporaryDirectory() as name:
        tensor, out = Path(name) / "input.npy", Path(name) / "out.npz"
        np.save(tensor, image.astype(np.float32) / 255)
        run = [str(cfg), str(weights), str(tensor), "1"]
        if cfg.stem in ORIGINAL:
            driver = [sys.executable, str(DRIVERS / "darknet_original.py")]
            what = [network.config.task, str(network.config.classes)]
            subprocess.run([*driver, *run, str(out), *what], check=True, stderr=subprocess.DEVNULL)
            with np.load(out) as arrays:
                found |= dict(arrays)
        if cfg.stem in OPENCV:
            subprocess.run([opencv_python, str(DRIVERS / "darknet_opencv.py"), *run, "1", str(out)], check=True)
            with np.load(out) as arrays:
                found |= {
                    f"opencv{index}": arrays[key].reshape(len(arrays[key]), -1)
                    for index, key in enumerate(arrays.files)
                }
    np.savez_compressed(cfg.with_suffix(".npz"), **found)
    print(cfg.stem, {key: value.shape for key, value in found.items()})


if __name__ == "__main__":
    main()
