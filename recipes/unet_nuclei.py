"""Train `unet-lite0-nuclei`, which tells background, nuclei and their boundaries apart, and compare decoders for it.

    python recipes/unet_nuclei.py decoders --data NUCLEI --out runs/decoders
    python recipes/unet_nuclei.py unet-lite0 --data NUCLEI --out runs/unet-lite0-nuclei
    python recipes/ship_detector.py runs/unet-lite0-nuclei/best

NUCLEI is stage 1 of the Data Science Bowl 2018 (BBBC038v1, CC0): `images` and `masks` of instance ids, `train.txt`, `val.txt`.
Every decoder stands on the same encoder, EfficientNet-Lite0 as ImageNet taught it without its last stage, which does not
learn along, and learns from the same batches. On one core of a 2023 server an epoch takes about a minute. Needs the extra
`train`.
"""

import argparse
import csv
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from train_detectors import SHORT, tell

from openlepton.card import open_folder
from openlepton.nets import NETS, Net, unet
from openlepton.nets.efficientnet import Block, ConvNorm, normalize
from openlepton.runtimes.onnx import OnnxRuntime
from openlepton.train import fit
from openlepton.train.semantic import AUGMENTATIONS

NAME = "unet-lite0-nuclei"
SIDE = 256
NUCLEI = replace(
    SHORT,
    model="unet-lite0",
    name=NAME,
    pretrained="efficientnet-lite0",
    size=SIDE,
    freeze="4",  # what sees edges stands still: it costs most to train, and edges are edges
    batch=4,
    nominal_batch=4,
    epochs=8,
    lr=1.2e-3,
    warmup_bias_lr=1.2e-3,
    warmup_epochs=0.2,
    evaluate_every=1,
    weight_decay=0.01,
    augment=replace(AUGMENTATIONS["high"], hsv_h=0.1, hsv_s=0.5, mosaic=0.0),
)


class Depthwise(unet.UNet):
    """The U-Net that convolves depthwise and then 1x1 in each step, wider for the same cost."""

    def __init__(self, config: unet.Config) -> None:
        super().__init__(config)
        for step in self.steps:
            wide, narrow = step.conv.conv.in_channels, step.conv.conv.out_channels
            step.conv = nn.Sequential(ConvNorm(wide, wide, 3, groups=wide), ConvNorm(wide, narrow))


class Quarter(Depthwise):
    """The same without its last step: logits at a quarter of the image's height and width."""

    def __init__(self, config: unet.Config) -> None:
        super().__init__(config)
        self.steps = self.steps[:-1]
        self.classifier = nn.Conv2d(config.widths[-2], config.classes, 1)


class Narrowing(nn.Module):
    """A step that narrows both maps to the width that goes out and adds them, before it convolves."""

    def __init__(self, cin: int, skip: int, cout: int) -> None:
        super().__init__()
        self.below, self.beside = ConvNorm(cin, cout, linear=True), ConvNorm(skip, cout, linear=True)
        self.depthwise, self.project = ConvNorm(cout, cout, 3, groups=cout), ConvNorm(cout, cout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return `(B, out, 2 * H, 2 * W)`."""
        x = functional.interpolate(self.below(x), scale_factor=2.0, mode="nearest") + self.beside(skip)
        y: Tensor = self.project(self.depthwise(functional.relu6(x)))
        return y


class Added(unet.UNet):
    """The U-Net whose steps add what the usual ones join, which is cheaper."""

    def __init__(self, config: unet.Config) -> None:
        super().__init__(config)
        channels = self._channels()
        below = (channels[-1], *config.widths)
        self.steps = nn.ModuleList(Narrowing(*row) for row in zip(below, channels[-2::-1], config.widths, strict=False))


class Dilated(ConvNorm):
    """A depthwise convolution whose taps lie `rate` apart."""

    rate = 1

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, C, H, W)`."""
        pad = self.rate * (self.kernel // 2)
        y = functional.conv2d(x, self.conv.weight, self.conv.bias, 1, pad, self.rate, self.groups)
        return functional.relu6(self.bn(y))


def dilated(channels: int, kernel: int, rate: int) -> Dilated:
    """Return a depthwise convolution of `rate`."""
    made = Dilated(channels, channels, kernel, groups=channels)
    made.rate = rate
    return made


class DeepLab(unet.UNet):
    """DeepLabV3+ (Chen et al. 2018): the last stage at 1/16, dilated; five looks at it; one join at a quarter of the image.

    The paper's rates are for images of twice the side, so these are half of them.
    """

    def __init__(self, config: unet.Config, width: int = 96) -> None:
        super().__init__(config)
        last = max(index for index, block in enumerate(self.blocks) if block.depthwise.stride == 2)
        for index in range(last, len(self.blocks)):
            block = self.blocks[index]
            assert isinstance(block, Block)
            inner, kernel = block.depthwise.groups, block.depthwise.kernel
            block.depthwise = dilated(inner, kernel, 1 if index == last else 2)
        deep, shallow = self.blocks[-1].project.conv.out_channels, self.blocks[2].project.conv.out_channels
        del self.steps
        self.looks = nn.ModuleList(nn.Sequential(dilated(deep, 3, rate), ConvNorm(deep, width)) for rate in (3, 6, 9))
        self.alone, self.whole = ConvNorm(deep, width), ConvNorm(deep, width)
        self.join, self.low = ConvNorm(5 * width, width), ConvNorm(shallow, 32)
        wide = width + 32
        self.last = nn.Sequential(
            ConvNorm(wide, wide, 3, groups=wide), ConvNorm(wide, width), ConvNorm(width, width, 3, groups=width)
        )
        self.classifier = nn.Conv2d(width, config.classes, 1)

    @property
    def stages(self) -> tuple[list[nn.Module], int]:
        """Its parts from the image on, and how many of them are the encoder."""
        rest = [*self.looks, self.alone, self.whole, self.join, self.low, self.last, self.classifier]
        return [self.stem, *self.blocks, *rest], 1 + len(self.blocks)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(B, C, H / 4, W / 4)`."""
        low = self.blocks[:3](self.stem(normalize(images)))  # (B, 24, H / 4, W / 4)
        x = self.blocks[3:](low)  # (B, 192, H / 16, W / 16)
        whole = self.whole(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        x = self.join(torch.cat((self.alone(x), *(look(x) for look in self.looks), whole), 1))
        x = functional.interpolate(x, scale_factor=4.0, mode="bilinear")
        logits: Tensor = self.classifier(self.last(torch.cat((x, self.low(low)), 1)))
        return logits


WIDE = (128, 64, 48, 32)
DECODERS: Mapping[str, tuple[type[unet.UNet], tuple[int, ...]]] = {
    "unet-lite0": (unet.UNet, unet.Config("lite0").widths),
    "unet-lite0 depthwise": (Depthwise, WIDE),
    "unet-lite0 added": (Added, (96, 64, 48, 32)),
    "unet-lite0 depthwise quarter": (Quarter, WIDE),
    "deeplab-lite0": (DeepLab, unet.Config("lite0").widths),
}
"""What was compared: the network, and the widths of its steps."""


def build(name: str, *, classes: int) -> unet.UNet:
    """Return a fresh network of `DECODERS`."""
    kind, widths = DECODERS[name]
    network = kind(unet.Config("lite0", classes, widths))
    stages, encoder = network.stages
    for stage in stages[encoder:]:
        unet.follow(stage)
    return network


def compare(data: str, out: Path, names: list[str], epochs: int) -> None:
    """Train each decoder for a few epochs and write how good, large and slow it is to `decoders.csv`."""
    NETS.update({name: Net("semantic", partial(build, name)) for name in DECODERS})
    config = replace(NUCLEI, data=data, freeze="backbone", epochs=epochs, plots=False)
    rows = []
    for name in names:
        folder, started = out / name.replace(" ", "-"), time.process_time()
        trained = fit(replace(config, model=name, name="", out=str(folder)), watch=tell)
        seconds = time.process_time() - started
        assert trained.report is not None
        runtime, images = OnnxRuntime(open_folder(folder / "best"), threads=1), np.zeros((1, 3, SIDE, SIDE), np.float32)
        times = []
        for _ in range(60):
            begun = time.process_time()
            runtime({"images": images})
            times.append(1000 * (time.process_time() - begun))
        graph = next(iter(open_folder(folder / "best").card.files.values()))
        report = trained.report
        row = {"decoder": name, "mIoU": round(report.miou, 4)}
        row |= {f"IoU {one}": round(float(iou), 4) for one, iou in zip(report.names, report.iou, strict=True)}
        row |= {"MB": round(graph.size / 1e6, 2), "ms": round(float(np.median(times)), 2), "training s": round(seconds)}
        rows.append(row)
        print(row, flush=True)
    with (out / "decoders.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    """Train one network, or compare all decoders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["decoders", *DECODERS])
    parser.add_argument("--data", required=True, help="the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; its best/ is the model")
    parser.add_argument("--epochs", type=int, help="another number of epochs")
    options = parser.parse_args()
    if options.which == "decoders":
        compare(options.data, options.out, list(DECODERS), options.epochs or 3)
        return
    if options.which != "unet-lite0":
        compare(options.data, options.out, [options.which], options.epochs or 3)
        return
    command = f"python recipes/unet_nuclei.py unet-lite0 --data {Path(options.data).name} --out runs/{NAME}"
    command += f" --epochs {options.epochs}" if options.epochs else ""
    changes = {"data": options.data, "out": str(options.out), "command": command}
    trained = fit(replace(NUCLEI, epochs=options.epochs or NUCLEI.epochs, **changes), watch=tell)
    if trained.report is not None:
        print({name: round(value, 4) for name, value in trained.report.summary().items()})


if __name__ == "__main__":
    main()
