"""Teach YOLOv5n what YOLOX-Nano learned from COCO, layer by layer: the beginning of `yolov5n-voc20`.

    python recipes/imitate_yolox.py VOC20 yolox_nano.onnx runs/imitated.safetensors
    python recipes/train_detectors.py voc20-320 --data VOC20 --out runs/voc20-320 --pretrained runs/imitated.safetensors

Backbone and pyramid of both are the same drawing with maps of the same shapes; only, where YOLOX-Nano has a depthwise and a
1x1 convolution, YOLOv5n has a full one. So every layer of YOLOv5n has one of YOLOX-Nano to imitate: its 1x1 convolutions are
taken over, its 3x3 ones begin with the product of the two they replace. Then each learns, from images without boxes, to give
what its example gives: in the first epoch from what the example saw, afterwards from what the layers before it give
(FitNets, arXiv:1412.6550). After three epochs the first layers, which are large and near enough, stand still, and the others
go on alone, twice as fast. The head, which has no example, stays fresh. `--go-on` begins there, with the weights in the file.
Needs the extra `train`.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import yolox_nano
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from train_detectors import SHORT, tell

from openlepton.data.augment import PRESETS
from openlepton.data.datasets import open_dataset
from openlepton.data.loader import training_batches
from openlepton.nets import yolov5, yolox
from openlepton.nets.blocks import Conv
from openlepton.train.config import TrainConfig
from openlepton.train.detecting import Detecting

CONFIG = replace(
    SHORT, name="imitation", size=320, lr=2e-3, epochs=3, workers=1, augment=replace(PRESETS["low"], mosaic=0.5)
)
LONG = replace(CONFIG, epochs=12)
STILL = 3
"""Layers that stand still in the longer training."""
NEAR = (0, 1, 2, 3, 5)
"""Layers whose likeness no longer counts in it."""
PAIRS = {
    0: "stem",
    1: "dark2.0",
    2: "dark2.1",
    3: "dark3.0",
    4: "dark3.1",
    5: "dark4.0",
    6: "dark4.1",
    7: "dark5.0",
    9: "dark5",
    10: "lateral5",
    13: "down4",
    14: "lateral4",
    17: "down3",
    18: "stride3",
    20: "up4",
    21: "stride4",
    23: "up5",
}
"""Layers of YOLOv5 and what of YOLOX they imitate. Layers 8 and 9, a C3 and the pools, stand for the pools and a CSP."""


def take_over(student: nn.Module, example: nn.Module) -> None:
    """Give a layer the weights of its example, as far as there are the same."""
    match student, example:
        case Conv(), Conv():
            student.load_state_dict(example.state_dict())
        case Conv(), nn.Sequential():
            deep, wide = example
            scale = deep.bn.weight / torch.sqrt(deep.bn.running_var + deep.bn.eps)
            kernel = wide.conv.weight * (scale[:, None, None] * deep.conv.weight[:, 0])  # (out, in, 3, 3)
            student.conv.weight.data.copy_(kernel)
            student.bn.load_state_dict(wide.bn.state_dict())
        case yolov5.C3(), yolox.Csp():
            for own, theirs in (
                (student.cv1, example.conv1),
                (student.cv2, example.conv2),
                (student.cv3, example.conv3),
            ):
                take_over(own, theirs)
            for own, theirs in zip(student.m, example.m, strict=False):
                take_over(own.cv1, theirs.conv1)
                take_over(own.cv2, theirs.conv2)


def start(teacher: yolox.Yolox, classes: int) -> yolov5.Yolov5:
    """Return a YOLOv5n with what it can take from `teacher`."""
    network = yolov5.build("n", classes)
    for index, name in PAIRS.items():
        take_over(network.model[index], teacher.get_submodule(name))
    pools, last = teacher.dark5[1], teacher.dark5[2]
    take_over(network.model[8], last)
    take_over(network.model[9].cv1, pools.conv1)
    take_over(network.model[9].cv2, pools.conv2)
    return network


def given(teacher: yolox.Yolox, images: Tensor) -> dict[int, Tensor]:
    """Return what every example gives for the images, by the number of its layer."""
    maps: dict[int, Tensor] = {}
    hooks = [
        teacher.get_submodule(name).register_forward_hook(lambda _, __, y, index=index: maps.__setitem__(index, y))
        for index, name in PAIRS.items()
    ]
    with torch.no_grad():
        teacher(images)
    for hook in hooks:
        hook.remove()
    return maps


def apart(network: yolov5.Yolov5, images: Tensor, maps: dict[int, Tensor]) -> dict[int, Tensor]:
    """Return what every layer gives for what its example saw."""
    return _through(network, images, maps, theirs=True)


def together(network: yolov5.Yolov5, images: Tensor, maps: dict[int, Tensor]) -> dict[int, Tensor]:
    """Return what every layer gives for what the layers before it give."""
    return _through(network, images, maps, theirs=False)


def _through(network: yolov5.Yolov5, images: Tensor, maps: dict[int, Tensor], *, theirs: bool) -> dict[int, Tensor]:
    kept: list[Tensor] = []
    found: dict[int, Tensor] = {}
    x = images
    for index, (module, reads) in enumerate(zip(network.model, network.reads, strict=True)):
        if module is network.detect:
            break
        seen = [x if source == -1 else kept[source] for source in reads]
        x = module(seen if len(seen) > 1 else seen[0])
        if index in PAIRS:
            found[index] = x
            x = maps[index] if theirs else x
        kept.append(x)
    return found


def distance(found: dict[int, Tensor], wanted: dict[int, Tensor]) -> dict[int, Tensor]:
    """Return, for each layer, the mean squared difference over the variance of the wanted channels, weighted alike."""
    distances = {}
    for index, map_ in found.items():
        x, y = map_.float(), wanted[index].float()
        spread = y.var((0, 2, 3))
        distances[index] = ((x - y).square().mean((0, 2, 3)) / (spread + spread.mean() * 0.1)).mean()
    return distances


def imitate(network: yolov5.Yolov5, teacher: yolox.Yolox, config: TrainConfig, *, still: int = 0) -> Iterator[None]:
    """Teach `network` to give the maps of `teacher`; yields after every epoch.

    Args:
        network: What learns.
        teacher: Fused, its weights fixed.
        config: Size, epochs, rate and what else a training has.
        still: Layers that keep their weights. If there are some, no layer learns from what its example saw.
    """
    teacher.to(memory_format=torch.channels_last)
    network.train().to(memory_format=torch.channels_last)
    for layer in list(network.model)[:still]:
        layer.eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [weight for weight in network.parameters() if weight.requires_grad], config.lr, weight_decay=1e-3
    )
    lesson = Detecting()
    _, split = lesson.data(config, tell)
    reader = lesson.reader(config, split, tell)
    steps, step = config.epochs * math.ceil(len(reader) / config.batch), 0
    for epoch in range(config.epochs):
        run = together if epoch or still else apart
        for batch in training_batches(
            reader, epoch, batch_size=config.batch, config=config.augment, seed=config.seed, workers=config.workers
        ):
            images = torch.from_numpy(batch.images).float().div_(255).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                wanted = given(teacher, images)
                found = run(network, images, wanted)
            if still:
                found = {index: x for index, x in found.items() if index not in NEAR}
            losses = distance(found, wanted)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * min(1, (step + 1) / 50) * (1.02 + math.cos(math.pi * step / steps)) / 2
            optimizer.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            nn.utils.clip_grad_norm_(network.parameters(), 10)
            optimizer.step()
            step += 1
            if step % 20 == 0:
                print(f"step {step} of {steps}: {_told(losses)}", flush=True)
        yield


def _told(losses: dict[int, Tensor]) -> str:
    return " ".join(f"{index}:{loss.item():.3f}" for index, loss in losses.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Imitate, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the data set VOC20")
    parser.add_argument("published", type=Path, help="yolox_nano.onnx")
    parser.add_argument("out", type=Path, help="file for the weights, .safetensors")
    parser.add_argument("--go-on", action="store_true", help="begin the longer training with the weights in OUT")
    options = parser.parse_args(arguments)
    torch.set_num_threads(CONFIG.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(CONFIG.seed)
    teacher = yolox_nano.read(options.published, yolox_nano.statistics_images(options.data))
    network = start(teacher, len(open_dataset(options.data).classes))
    teacher = teacher.eval().fused().requires_grad_(False)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.go_on:
        network.load_state_dict(load_file(options.out), strict=False)
    else:
        for _ in imitate(network, teacher, replace(CONFIG, data=options.data)):
            save(network, options.out)
    for _ in imitate(network, teacher, replace(LONG, data=options.data), still=STILL):
        save(network, options.out)


def save(network: yolov5.Yolov5, out: Path) -> None:
    """Write all weights but the head's."""
    state = network.state_dict().items()
    save_file({name: value.contiguous() for name, value in state if not name.startswith("model.24")}, out)


if __name__ == "__main__":
    main()
