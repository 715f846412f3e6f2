"""Train what detects by default, `yolox-nano-voc20`.

    python recipes/voc20.py VOC20 yolox_nano.onnx runs/voc20

VOC20 is a data set of Pascal VOC's 20 classes, VOC and COCO photographs merged, 5,396 to train on; `yolox_nano.onnx` is
Megvii's YOLOX-Nano for COCO's 80 classes (Apache-2.0). RUNS/best is the model that ships. Needs the extra `train`.

5,400 images make a network forget what 118,000 taught it, so three things hold it back: the first stages stand still, the
published network goes on teaching (its answers are targets beside the annotations), and what is shipped lies between the
published weights and the trained ones (WiSE-FT, arXiv:2109.01903), an average of both trainings (arXiv:2203.05482).
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yolox_nano
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from train_detectors import SHORT, tell

from openlepton import __version__
from openlepton.card import CONTRACT, DetectFacts, ImageInput, Metric, ModelCard, file_facts
from openlepton.data.augment import PRESETS
from openlepton.data.datasets import open_dataset
from openlepton.hub.folder import GRAPH, write_card, write_model
from openlepton.interrupt import Interrupt
from openlepton.nets import yolox
from openlepton.nets.losses import LossConfig
from openlepton.nets.yolox_loss import YoloxLoss, cells, iou
from openlepton.predictor import Predictor, load
from openlepton.results import Detections
from openlepton.train.checkpoint import Progress
from openlepton.train.config import TrainConfig
from openlepton.train.detecting import Detecting
from openlepton.train.evaluate import evaluate
from openlepton.train.loop import Training
from openlepton.train.ranks import Ranks
from openlepton.train.watch import Note

State = Mapping[str, Tensor]
NAME = "yolox-nano-voc20"
CHINESE = {
    "aeroplane": "飞机",
    "bicycle": "自行车",
    "bird": "鸟",
    "boat": "船",
    "bottle": "瓶子",
    "bus": "公交车",
    "car": "汽车",
    "cat": "猫",
    "chair": "椅子",
    "cow": "牛",
    "diningtable": "餐桌",
    "dog": "狗",
    "horse": "马",
    "motorbike": "摩托车",
    "person": "人",
    "pottedplant": "盆栽",
    "sheep": "羊",
    "sofa": "沙发",
    "train": "火车",
    "tvmonitor": "显示器",
}
TUNED = "recipes/voc20.py VOC20 yolox_nano.onnx OUT"
TRIED = (
    (
        "YOLOX-Nano as published for COCO",
        0.5107,
        "recipes/yolox_nano.py yolox_nano.onnx VOC20",
        "416 px; its 80 classes cut to these 20, nothing trained; AP50-95 0.3183",
    ),
    (
        "the same, tuned on annotations alone",
        0.4942,
        TUNED,
        "416 px; 21,584 images seen: 5,396 images forget what 118,000 taught; AP50-95 0.2969",
    ),
    ("the same, backbone still, a sixth of the rate", 0.5115, TUNED, "416 px; 5,396 images seen; AP50-95 0.3133"),
    ("the same, the published network teaching along", 0.5105, TUNED, "416 px; 5,396 images seen; AP50-95 0.3142"),
    (
        "the same, class and objectness branches alone",
        0.5097,
        "",
        "416 px; 5,396 images seen; AP50-95 0.3170; tried once, not measured again",
    ),
    (
        "YOLOv5n from scratch",
        0.0456,
        "recipes/voc20_yolov5.py scratch VOC20 OUT",
        "256 px; 21,584 images seen; AP50-95 0.0184",
    ),
    (
        "neck and head of YOLOv5n on EfficientNet-Lite0",
        0.2229,
        "recipes/voc20_yolov5.py lite0 VOC20 OUT",
        "256 px; 10,792 images seen, the backbone as ImageNet taught it; AP50-95 0.0952",
    ),
    (
        "YOLOv5n after its backbone imitated EfficientNet-Lite0",
        0.0379,
        "recipes/voc20_yolov5.py distilled VOC20 OUT",
        "256 px; 5,396 images seen without boxes, 10,792 with; AP50-95 0.0150",
    ),
    (
        "YOLOv5n after each of its layers imitated one of YOLOX-Nano, its head alone learning",
        0.198,
        "",
        "320 px; 16,188 images seen; tried once, not measured again",
    ),
    (
        "the same, all but its first layers learning: yolov5n-voc20",
        0.3383,
        "recipes/train_detectors.py voc20-416 --data VOC20 --out OUT --pretrained RUN",
        "416 px, after voc20-320; 80,940 images seen without boxes, 172,672 with; AP50-95 0.1729",
    ),
    (
        "what ships with EfficientNet-Lite0 beside its backbone",
        0.531,
        "recipes/voc20_composite.py VOC20 OUT",
        "416 px; 10,792 images seen; 3.3 times the time of an image, so not shipped; AP50-95 0.3205",
    ),
)
"""What else was tried on the same data: what, AP50 on val, which script gives it, how."""


@dataclass(frozen=True)
class Run:
    """One training."""

    config: TrainConfig
    stop_after: int = 0
    """The epoch it ends with, if that is not its last: the schedule is the longer one's."""
    teaching: float = 0.0
    """How much the teacher's answers count beside the annotations."""


BASE = replace(
    SHORT,
    name=NAME,
    model="yolox-nano",
    freeze="3",
    final_lr=0.05,
    warmup_epochs=0.2,
    ema_decay=0.999,
    ema_ramp=300.0,
    workers=2,
)
RUNS = {
    "annotations": Run(
        replace(
            BASE,
            size=352,
            lr=3e-4,
            warmup_bias_lr=3e-4,
            epochs=4,
            closing_epochs=1,
            augment=replace(PRESETS["low"], mosaic=0.5, hsv_s=0.5, hsv_v=0.3),
        )
    ),
    "neck and head": Run(
        replace(
            BASE,
            size=416,
            freeze="backbone",
            lr=5e-5,
            warmup_bias_lr=5e-5,
            epochs=2,
            closing_epochs=1,
            augment=replace(PRESETS["low"], mosaic=0.3, hsv_s=0.5, hsv_v=0.3),
        ),
        stop_after=1,
    ),
    "taught": Run(
        replace(
            BASE,
            size=384,
            lr=2e-4,
            warmup_bias_lr=0.0,
            warmup_epochs=0.1,
            weight_decay=0.0,
            ema_ramp=100.0,
            epochs=4,
            augment=replace(PRESETS["low"], mosaic=0.4, hsv_s=0.4, hsv_v=0.3),
        ),
        stop_after=1,
        teaching=0.5,
    ),
}
SHARE = 0.25
"""How far what ships lies from the published weights towards each training's."""


class Taught(yolox.Yolox):
    """A YOLOX that shares its frozen stages with its teacher, and in training gives the teacher's maps beside its own.

    Its batch norms keep the statistics they have, as the teacher's do.
    """

    def __init__(self, teacher: yolox.Yolox, teaching: float) -> None:
        super().__init__(teacher.config)
        self.load_state_dict(teacher.state_dict())
        self.teaching = teaching
        self._teacher = (teacher.fused().requires_grad_(False),)  # in a tuple it is no part of the network

    def train(self, mode: bool = True) -> "Taught":
        """Set the mode, but for batch norms."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: Tensor) -> Any:
        """Return raw maps; in training two lists of them, the network's and its teacher's."""
        maps = super().forward(images)
        if not self.training:
            return maps
        with torch.no_grad():
            return maps, self._teacher[0](images)

    def criterion(self, weights: LossConfig, size: int) -> Any:
        """Return the loss against the annotations and the teacher."""
        return TaughtLoss(super().criterion(weights, size), self.teaching)


class TaughtLoss:
    """YOLOX's loss and three terms like its own, in which the teacher's answers, weighted by how sure they are, are the truth."""

    parts = ("box", "obj", "cls", "teacher box", "teacher obj", "teacher cls")

    def __init__(self, annotated: YoloxLoss, teaching: float) -> None:
        self.annotated, self.teaching = annotated, teaching

    def __call__(self, raw: tuple[Sequence[Tensor], Sequence[Tensor]], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss times the batch's images, and its parts."""
        maps, theirs = raw
        total, parts = self.annotated(maps, targets)
        more = self.against(maps, theirs)
        return total + self.teaching * more.sum() * len(maps[0]), torch.cat((parts.detach(), more.detach()))

    def against(self, maps: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
        """Return `(3,)` box, objectness and classes; zero where both agree."""
        corners, sides = cells(maps)
        ours, wanted = (torch.cat([level.flatten(2) for level in one], 2).transpose(1, 2) for one in (maps, theirs))
        sure = wanted[..., 4:].sigmoid()  # (B, N, 1 + C)
        weights = sure[..., 0] * sure[..., 1:].amax(-1)  # (B, N)
        count, kept = weights.sum().clamp(min=1), weights > 0.01

        def boxes(raw: Tensor) -> Tensor:
            return torch.cat(((raw[..., :2] + corners) * sides, raw[..., 2:4].exp() * sides), -1)[kept]

        def beyond(logits: Tensor, best: Tensor, truth: Tensor) -> Tensor:
            own = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
            return own - functional.binary_cross_entropy_with_logits(best, truth, reduction="none")

        box = 5 * ((1 - iou(boxes(ours), boxes(wanted)) ** 2) * weights[kept]).sum()
        objectness = beyond(ours[..., 4], wanted[..., 4], sure[..., 0]).sum()
        classes = beyond(ours[..., 5:][kept], wanted[..., 5:][kept], sure[..., 1:][kept]).sum(-1) * weights[kept]
        return torch.stack((box, objectness, classes.sum())) / count


def learn(run: Run, start: yolox.Yolox, data: str) -> State:
    """Return the averaged weights after a training that begins with `start`."""
    torch.manual_seed(run.config.seed)
    network: yolox.Yolox = Taught(start, run.teaching) if run.teaching else yolox.Yolox(start.config)
    network.load_state_dict(start.state_dict())
    return train(network, replace(run.config, data=data), run.stop_after)


def train(network: Any, config: TrainConfig, stop_after: int = 0) -> State:
    """Return the averaged weights of `network` after its last epoch, or an earlier one."""
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)
    lesson = Detecting()
    dataset, split = lesson.data(config, tell)
    reader = lesson.reader(config, split, tell)
    training = Training(config, lesson, network, reader, Progress(classes=dataset.classes), Ranks(), tell)
    with Interrupt() as interrupt:
        for epoch in range(stop_after or config.epochs):
            if training.run_epoch(interrupt) is None:
                raise SystemExit("interrupted")
            training.progress = replace(training.progress, epoch=epoch + 1, batch=0, sums=())
    return {name: value.clone().contiguous() for name, value in training.learner.state().averaged.items()}


def between(start: State, ends: Sequence[State], share: float) -> State:
    """Return `start`, moved towards every one of `ends` by `share`."""
    mixed = {name: value.clone() for name, value in start.items()}
    for end in ends:
        for name, value in mixed.items():
            if value.dtype.is_floating_point:
                value += share * (end[name] - start[name])
    return mixed


def publish(network: yolox.Yolox, data: str, out: Path) -> None:
    """Write the model folder `out`, its graph measured on the split val."""
    dataset = open_dataset(data)
    names = tuple(dataset.classes)
    draft = ModelCard(
        contract=CONTRACT,
        name=NAME,
        version="1",
        task="detect",
        architecture="yolox-nano",
        description=(
            "YOLOX-Nano that finds the 20 classes of Pascal VOC: persons, six animals, seven vehicles, six things of a home."
        ),
        licence="Apache-2.0",
        source=(
            "started from and taught by YOLOX-Nano for COCO (Megvii, Apache-2.0), trained on voc20 (split train, 5,396 "
            f"images of Pascal VOC and COCO) by OpenLepton {__version__}; made by: python recipes/voc20.py VOC20 "
            "yolox_nano.onnx runs/voc20"
        ),
        labels=names,
        labels_zh=tuple(CHINESE[name] for name in names),
        input=ImageInput(size=yolox_nano.SIZE, resize="letterbox", multiple=network.multiple),
        detect=DetectFacts(strides=network.config.strides),
        files={GRAPH: file_facts(b"?")},
    )
    tensors = {name: value.numpy() for name, value in network.state_dict().items()}
    card = write_model(out, network, draft, tensors, weights_type="float16")
    predictor: Predictor[Detections] = load(out)
    report = evaluate(predictor, dataset["val"], batch=8, workers=1).report
    where = f"voc20 val, {report.images:,} images"
    command = f"openlepton evaluate {NAME} VOC20 --split val"
    note = "what is averaged, and how far, was chosen on these same images"
    own = (("AP50-95", report.ap), ("AP50", report.ap50), ("AP75", report.ap75))
    metrics = [Metric(name=name, value=round(value, 4), data=where, command=command, note=note) for name, value in own]
    metrics += [
        Metric(name=f"AP50 of {what}", value=value, data=where, command=f"python {script}" if script else "", note=note)
        for what, value, script, note in TRIED
    ]
    write_card(out, card.model_copy(update={"metrics": tuple(metrics)}))
    tell(Note(f"{out}: AP50-95 {report.ap:.4f}, AP50 {report.ap50:.4f}"))


def main() -> None:
    """Train, average, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the data set VOC20")
    parser.add_argument("published", type=Path, help="yolox_nano.onnx")
    parser.add_argument("out", type=Path, help="folder of the runs; its best/ is the model")
    options = parser.parse_args()
    torch.set_num_threads(SHORT.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    start = yolox_nano.to_voc(yolox_nano.read(options.published, yolox_nano.statistics_images(options.data)))
    network, ends = yolox.Yolox(start.config).eval(), []
    for name, run in RUNS.items():
        file = options.out / f"{name}.safetensors"
        if not file.exists():  # half an hour and more: what is done is done
            save_file(dict(learn(run, start, options.data)), file)
        ends.append(load_file(file))
        network.load_state_dict(ends[-1])
        print(f"{name}: {yolox_nano.measure(network, options.data)}", flush=True)
    network.load_state_dict(between(start.state_dict(), ends, SHARE))
    publish(network, options.data, options.out / "best")


if __name__ == "__main__":
    main()
