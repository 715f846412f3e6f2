"""What `yolox-nano-voc20` was compared with: YOLOv5n from three beginnings, with images of 256 pixels and little time.

    python recipes/voc20_yolov5.py scratch VOC20 runs/voc20-scratch.safetensors
    python recipes/voc20_yolov5.py lite0 VOC20 runs/voc20-lite0.safetensors
    python recipes/voc20_yolov5.py distilled VOC20 runs/voc20-distilled.safetensors

`scratch` begins with fresh weights. `lite0` puts neck and head of YOLOv5n on EfficientNet-Lite0, trained on ImageNet, which
stands still. `distilled` begins with a backbone that has learned, from the same images without their boxes, to give what
EfficientNet-Lite0 gives. Each prints how good it is on the split val and writes its weights. Needs the extra `train`.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from train_detectors import SHORT, tell
from voc20 import train

from openlepton.data.augment import PRESETS
from openlepton.data.datasets import open_dataset
from openlepton.data.loader import training_batches
from openlepton.hub.folder import GRAPH
from openlepton.hub.index import find
from openlepton.nets import efficientnet, yolov5
from openlepton.nets.blocks import Conv
from openlepton.nets.restore import restore
from openlepton.train.config import TrainConfig
from openlepton.train.detecting import Detecting
from openlepton.train.evaluate import NetworkRuntime

BASE = replace(SHORT, name="yolov5n-voc20", size=256, epochs=4, closing_epochs=1, warmup_epochs=0.5, workers=2)
CONFIGS = {
    "scratch": BASE,
    "lite0": replace(BASE, epochs=2, freeze="backbone"),
    "distilled": replace(BASE, epochs=2),
}
IMITATION = replace(BASE, epochs=1, augment=replace(PRESETS["low"], mosaic=0.5))
TAPS = (4, 6, 9)
"""The layers of YOLOv5 whose maps the neck reads, at strides 8, 16 and 32."""
WIDTHS = (40, 112, 320)
"""Channels of EfficientNet-Lite0 at those strides."""


def imagenet() -> efficientnet.EfficientNetLite:
    """Return the classifier that ships, as it is."""
    network = efficientnet.build("lite0")
    weights = restore(find("efficientnet-lite0").read(GRAPH), network)
    network.load_state_dict({**network.state_dict(), **weights})
    return network.fused().requires_grad_(False)


class Trunk(nn.Sequential):
    """A part of EfficientNet-Lite0; the first takes images."""

    def __init__(self, *parts: nn.Module, first: bool = False) -> None:
        super().__init__(*parts)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """Return its map; images as the classifier wants them."""
        y: Tensor = super().forward(x * (255 / 128) - 127 / 128 if self.first else x)
        return y


def trunks() -> tuple[Trunk, Trunk, Trunk]:
    """Return EfficientNet-Lite0 in three parts, which end at strides 8, 16 and 32."""
    whole = imagenet()
    blocks = list(whole.blocks)
    return Trunk(whole.stem, *blocks[:5], first=True), Trunk(*blocks[5:11]), Trunk(*blocks[11:])


def on_imagenet(network: yolov5.Yolov5) -> yolov5.Yolov5:
    """Put neck and head of YOLOv5n on EfficientNet-Lite0."""
    layers = network.model
    for index in range(TAPS[-1]):
        layers[index] = nn.Identity()
    for tap, trunk in zip(TAPS, trunks(), strict=True):
        layers[tap] = trunk
    fine, middle, coarse = WIDTHS
    layers[10] = Conv(coarse, 128)
    layers[13] = yolov5.C3(128 + middle, 128, 1, shortcut=False)
    layers[17] = yolov5.C3(64 + fine, 64, 1, shortcut=False)
    return network


def imitate(network: yolov5.Yolov5, config: TrainConfig) -> None:
    """Teach the backbone to give EfficientNet-Lite0's maps, each channel standardised, through one 1x1 convolution a map."""
    torch.set_num_threads(config.threads)
    parts, backbone = trunks(), nn.Sequential(*list(network.model)[: TAPS[-1] + 1]).train()
    own = [
        layer.cv3.conv.out_channels if hasattr(layer, "cv3") else layer.cv2.conv.out_channels
        for layer in _taps(network)
    ]
    bridges = nn.ModuleList(nn.Conv2d(cin, cout, 1) for cin, cout in zip(own, WIDTHS, strict=True))
    norms = [nn.BatchNorm2d(width, affine=False) for width in WIDTHS]
    weights = [*backbone.parameters(), *bridges.parameters()]
    optimizer = torch.optim.AdamW(weights, config.lr, weight_decay=1e-2, fused=True)
    lesson = Detecting()
    reader = lesson.reader(config, open_dataset(config.data)[config.train_split], tell)
    steps, step = config.epochs * math.ceil(len(reader) / config.batch), 0
    for epoch in range(config.epochs):
        batches = training_batches(
            reader, epoch, batch_size=config.batch, config=config.augment, seed=config.seed, workers=config.workers
        )
        for batch in batches:
            images = torch.from_numpy(batch.images).float().div_(255).contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                wanted = [norm(found) for norm, found in zip(norms, _maps(parts, images, (0, 1, 2)), strict=True)]
            found = _maps(backbone, images, TAPS)
            loss = torch.stack(
                [functional.smooth_l1_loss(bridge(a), b) for bridge, a, b in zip(bridges, found, wanted, strict=True)]
            ).sum()
            rate = config.lr * min(1, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 60 == 0:
                print(f"  imitation {step} of {steps}: {loss.item():.4f}", flush=True)


def _taps(network: yolov5.Yolov5) -> list[nn.Module]:
    return [network.model[index] for index in TAPS]


def _maps(layers: Sequence[nn.Module] | nn.Sequential, x: Tensor, kept: Sequence[int]) -> list[Tensor]:
    """Return what the layers of these numbers give, one after the other."""
    maps = []
    for index, layer in enumerate(layers):
        x = layer(x)
        if index in kept:
            maps.append(x)
    return maps


def main() -> None:
    """Train one of them and say how good it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=sorted(CONFIGS))
    parser.add_argument("data", help="the data set VOC20")
    parser.add_argument("out", type=Path, help="file for the weights, .safetensors")
    options = parser.parse_args()
    config = replace(CONFIGS[options.which], data=options.data)
    lesson = Detecting()
    dataset, split = lesson.data(config, tell)
    torch.manual_seed(config.seed)
    network = lesson.network(config, split, tell)
    if options.which == "lite0":
        network = on_imagenet(network)
    if options.which == "distilled":
        imitate(network, replace(IMITATION, data=options.data))
    network.load_state_dict(train(network, config))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, options.out)
    measured = lesson.measure(config, network, NetworkRuntime(network.eval().fused()), dataset["val"])
    print({name: round(value, 4) for name, value in measured.metrics.items()})


if __name__ == "__main__":
    main()
