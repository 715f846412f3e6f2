"""YOLOv3-tiny at 416 from one configuration and weights: OpenLepton, OpenCV 4's DNN module and the original C program in turn.

Every one of them decodes boxes; how far their scores are apart is printed as well. Weights are random, norms are not.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from drivers.darknet_original import LIBRARY
from measure import OURS, driver, ratio_table

from openlepton.hub.darknet import convert_darknet
from openlepton.nets import yolov3
from openlepton.nets.darknet_write import write_darknet

THREADS = 2
SIZE = 416


def main(peer_python: str = "", rounds: int = 5, repeat: int = 40, size: int = SIZE) -> None:
    """Print milliseconds for each image and the ratios, ours and the peers' in turn."""
    opencv = peer_python or "bench/.opencv4/bin/python"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cfg, weights, tensor = files(folder, size)
        given = [str(cfg), str(weights), str(tensor)]
        model = folder / "model"
        convert_darknet(cfg, weights, model, licence="Apache-2.0")
        peers = {}
        if Path(opencv).exists():
            peers["OpenCV 4", 1.0] = [[opencv], "darknet_opencv.py", *given, str(repeat), str(THREADS)], None
        else:
            print(f"OpenCV 4 left out: there is none at {opencv} (bench/README.md says how to install it)")
        if Path(LIBRARY).exists():
            original = [[sys.executable], "darknet_original.py", *given, "2"]
            peers["Darknet", 20.0] = original, None  # Debian builds it with OpenMP
            peers["Darknet, as its Makefile has it, with one thread", 20.0] = original, 1
        else:
            print(f"the original left out: there is no {LIBRARY} (Debian: apt-get install darknet)")
        ours, theirs = list[float](), {peer: list[float]() for peer in peers}
        for _ in range(rounds):
            ours.append(driver(OURS, "openlepton_graph.py", str(model), str(tensor), str(repeat), str(THREADS))["ms"])
            for peer, (command, threads) in peers.items():
                theirs[peer].append(driver(*command, threads=threads)["ms"])
        what = f"yolov3-tiny at {size}, one image, tensor to boxes, {THREADS} threads"
        for (peer, target), times in theirs.items():
            print(ratio_table(f"{what} (Darknet: as it comes)", ours, times, "ms", target, peer))
        if ("OpenCV 4", 1.0) in peers:
            print(f"  scores differ from OpenCV's by at most {difference(folder, model, given, opencv):.1g}")


def files(folder: Path, size: int) -> tuple[Path, Path, Path]:
    """Return configuration, weights and a random image of a yolov3-tiny whose norms know their maps."""
    torch.manual_seed(0)
    network = yolov3.build("tiny")
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        network.train()(torch.rand(2, 3, size, size))
        for level in network.levels:  # scores of every size, so that comparing them says something
            level.head[1].weight.normal_(0, 0.05)
            level.head[1].bias.zero_()
    cfg, weights, tensor = (folder / name for name in ("net.cfg", "net.weights", "image.npy"))
    write_darknet(network, cfg, weights, (size, size))
    np.save(tensor, np.random.default_rng(0).random((3, size, size), np.float32))
    return cfg, weights, tensor


def difference(folder: Path, model: Path, given: list[str], opencv: str) -> float:
    """Return how far the highest score of any class and row of ours is from OpenCV's."""
    driver(OURS, "openlepton_graph.py", str(model), given[2], "1", "1", str(folder / "a.npz"))
    driver([opencv], "darknet_opencv.py", *given, "1", "1", str(folder / "b.npz"))
    with np.load(folder / "a.npz") as ours, np.load(folder / "b.npz") as theirs:
        a, b = ours["scores"][0], np.concatenate([theirs[key] for key in theirs.files])[:, 5:]
    a = np.where(a > 0.2, a, 0)  # OpenCV leaves out what is below
    assert (a > 0).mean() > 0.01
    return float(np.abs(np.sort(a.max(1)) - np.sort(b.max(1))).max())


if __name__ == "__main__":
    main(*sys.argv[1:2])
