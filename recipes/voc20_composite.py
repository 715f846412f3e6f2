"""Does `yolox-nano-voc20` gain from a second backbone, of ImageNet (CBNet, arXiv:1909.03625)? Little, for three times the work.

    python recipes/voc20_composite.py VOC20 runs/voc20-composite.safetensors

EfficientNet-Lite0 has learned from 1.3 million images what 5,396 cannot teach. Both backbones stand still; 1x1 convolutions that
begin with zeros add the second one's maps to the first one's, and with them pyramid and head learn, while the detector as it
was goes on teaching. Prints how good what lies between the beginning and the end of that is (WiSE-FT, arXiv:2109.01903) on the
split val, and writes the weights. Needs the extra `train`.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yolox_nano
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from voc20 import BASE, NAME, Taught, between, train
from voc20_yolov5 import WIDTHS, trunks

from openlepton.data.augment import PRESETS
from openlepton.hub.folder import GRAPH
from openlepton.hub.index import find
from openlepton.nets import yolox
from openlepton.nets.restore import restore

CONFIG = replace(
    BASE,
    name="voc20-composite",
    size=352,
    freeze="5",
    lr=2.5e-4,
    warmup_bias_lr=0.0,
    warmup_epochs=0.3,
    epochs=8,
    closing_epochs=2,
    ema_decay=0.998,
    ema_ramp=200.0,
    precision="bfloat16",
    workers=1,
    augment=replace(PRESETS["low"], mosaic=0.4, hsv_s=0.5, hsv_v=0.3),
)
STOP_AFTER = 2
"""Epochs. After the second 0.531 lay half way, after the sixth 0.528: it forgets more than it learns."""
TEACHING = 0.25
GAIN = 4.0
"""How much faster the new convolutions learn than what they feed."""
SHARE = 0.5
"""How far what is measured lies from the beginning towards the end."""


class Joined(Taught):
    """The detector, which teaches itself as it was, with the other backbone's maps, standardised, added to its own."""

    def __init__(self, teacher: yolox.Yolox, teaching: float) -> None:
        super().__init__(teacher, teaching)
        self._trunks = tuple(trunk.eval() for trunk in trunks())  # in a tuple they are no part of the network
        own = [int(channels * teacher.config.width) for channels in (256, 512, 1024)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, affine=False) for width in WIDTHS)
        self.feeds = nn.ModuleList(nn.Conv2d(cin, cout, 1) for cin, cout in zip(WIDTHS, own, strict=True))
        for value in self.feeds.parameters():
            nn.init.zeros_(value)

    def others(self, x: Tensor) -> list[Tensor]:
        """Return the other backbone's maps of images, at strides 8, 16 and 32."""
        maps = []
        for trunk in self._trunks:
            x = trunk(x)
            maps.append(x)
        return maps

    def standardise(self, batches: list[Tensor]) -> None:
        """Take mean and variance of the other backbone's maps from images `(B, 3, H, W)`."""
        for norm in self.norms:
            norm.momentum = None  # the average over all of them
            nn.Module.train(norm)
        with torch.no_grad():
            for images in batches:
                for norm, x in zip(self.norms, self.others(images), strict=True):
                    norm(x)
        self.norms.eval()

    def forward(self, images: Tensor) -> Any:
        """Return raw maps; in training two lists of them, the network's and its teacher's."""
        teacher = self._teacher[0]
        with torch.no_grad():
            own, others = teacher.features(images), self.others(images)
        parts = zip(own, self.feeds, self.norms, others, strict=True)
        maps = self.levels(*(a + GAIN * feed(norm(b)) for a, feed, norm, b in parts))
        if not self.training:
            return maps
        with torch.no_grad():
            return maps, teacher.levels(*own)


def begin(data: str) -> Joined:
    """Return what training begins with: it detects as the detector that ships."""
    teacher = yolox.build("nano", len(yolox_nano.COCO_ROWS)).eval()
    teacher.load_state_dict({**teacher.state_dict(), **restore(find(NAME).read(GRAPH), teacher)})
    network = Joined(teacher, TEACHING)
    network.standardise(yolox_nano.statistics_images(data))
    return network


def main() -> None:
    """Train, average, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the data set VOC20")
    parser.add_argument("out", type=Path, help="file for the weights, .safetensors")
    options = parser.parse_args()
    torch.set_num_threads(CONFIG.threads)
    torch.manual_seed(CONFIG.seed)
    network = begin(options.data)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    if not options.out.exists():
        options.out.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(train(network, replace(CONFIG, data=options.data), STOP_AFTER)), options.out)
    network.load_state_dict(between(start, [load_file(options.out)], SHARE))
    print(yolox_nano.measure(network.eval(), options.data))


if __name__ == "__main__":
    main()
