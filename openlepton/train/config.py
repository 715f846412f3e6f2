"""Everything that decides what a training does, as one frozen value that goes into its checkpoints as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from openlepton.data.augment import PRESETS, AugmentConfig
from openlepton.data.crops import CropConfig
from openlepton.errors import CheckpointMismatch, UsageError
from openlepton.hub.folder import WeightsType
from openlepton.nets.losses import LossConfig

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Schedule = Literal["linear", "cosine"]
Framework = Literal["torch", "tensorflow"]

__all__ = ["Framework", "LossConfig", "Precision", "Schedule", "TrainConfig"]


@dataclass(frozen=True)
class TrainConfig:
    """What to train on what, and how; the published defaults of YOLOv5 6.0 to 7.0 where they exist.

    Raises:
        UsageError: A value is out of range.
    """

    data: str
    """A data set: its folder, `data.yaml` or COCO `.json`."""
    out: str
    """The folder that the run is written to."""
    model: str = "yolov5n"
    """The architecture."""
    epochs: int = 100
    batch: int = 16
    """Images in a batch, of all processes together."""
    size: int = 640
    """Longest side of an image, pixels."""
    framework: Framework = "torch"
    """What computes; `openlepton.tf.train.fit` sets it."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes CUDA where there is one."""
    precision: Precision = "auto"
    """Of the arithmetic; weights are float32. `auto`: float16 on CUDA, bfloat16 on processors that compute in it, else float32."""
    threads: int = 0
    """Processor threads of torch; 0 for one on each core."""
    workers: int = 1
    """Threads that prepare images."""
    cache_mb: int = 1024
    """The most memory for decoded images, megabytes."""
    compile: bool = False
    """Whether the network is compiled by torch first; needs a C++ compiler."""
    seed: int = 0

    train_split: str = "train"
    val_split: str = "val"
    """What the best epoch is chosen on; without such a split `test`, and without that `train`."""
    multi_label: bool = False
    """For classifiers: whether an image may have any number of classes."""
    allow_empty_classes: bool = False
    """Whether classes without a single box are accepted."""

    pretrained: str = ""
    """A model, by name or folder, or a `.safetensors` whose tensors are taken where name and shape fit."""
    freeze: str = ""
    """What is not trained: nothing, `backbone`, or the first so many layers, as a number."""
    anchors: Literal["auto", "default"] = "auto"
    """Whether anchors are fitted to the boxes where the published ones miss too many."""

    augment: AugmentConfig | CropConfig = field(default_factory=lambda: PRESETS["low"])
    """A `CropConfig` for classifiers (its size is that of the training), an `AugmentConfig` for all others."""
    closing_epochs: int = 0
    """The last epochs, without mosaic and mixup."""
    multi_scale: float = 0.0
    """Batches are resized by 1 ± up to this."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """AdamW gets further in few epochs, with a learning rate about a tenth of SGD's."""
    lr: float = 0.01
    """Learning rate after warm-up."""
    final_lr: float = 0.01
    """Learning rate at the end, as a share of `lr`."""
    schedule: Schedule = "linear"
    momentum: float = 0.937
    weight_decay: float = 5e-4
    """For kernels alone, at `nominal_batch` images a step; scaled to what a step has."""
    nominal_batch: int = 64
    """Gradients of smaller batches are accumulated to about this many images."""
    warmup_epochs: float = 3.0
    warmup_steps: int = 100
    """Warm-up lasts at least so many batches."""
    warmup_bias_lr: float = 0.1
    warmup_momentum: float = 0.8
    clip_norm: float = 10.0
    ema_decay: float = 0.9999
    ema_ramp: float = 2000.0
    """Steps over which the decay of the averaged weights rises to 63 % of its value."""
    loss: LossConfig = field(default_factory=LossConfig)

    evaluate_every: int = 1
    """Epochs between evaluations; the last is always evaluated."""
    patience: int = 100
    """Stop after so many epochs without a better one; 0 never stops."""
    plots: bool = True
    store: WeightsType = "float32"
    """How the graph of `best/` stores weights; float16 halves it."""
    name: str = ""
    """Name of the model; by default that of the folder of the run."""
    licence: str = "NOASSERTION"
    """SPDX expression for the trained weights, which their owner states."""
    command: str = ""
    """The command that reproduces the run, for the card."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("size", 32), ("evaluate_every", 1), ("nominal_batch", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}: expected {least} or more, got {getattr(self, name)}")
        for name in ("threads", "workers", "cache_mb", "seed", "closing_epochs", "warmup_steps", "patience"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        for name in ("lr", "clip_norm", "ema_ramp"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}: expected more than 0, got {getattr(self, name)}")
        for name in ("final_lr", "momentum", "warmup_momentum", "ema_decay", "weight_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}: expected 0 to 1, got {getattr(self, name)}")
        if not 0 <= self.multi_scale < 1:
            raise UsageError(f"multi_scale: expected 0 to less than 1, got {self.multi_scale}")
        for name, choices in (
            ("precision", get_args(Precision)),
            ("schedule", get_args(Schedule)),
            ("framework", get_args(Framework)),
        ):
            if getattr(self, name) not in choices:
                raise UsageError(f"{name}: expected {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.optimizer not in ("sgd", "adamw"):
            raise UsageError(f"optimizer: expected sgd or adamw, got {self.optimizer!r}")
        if self.anchors not in ("auto", "default"):
            raise UsageError(f"anchors: expected auto or default, got {self.anchors!r}")
        if self.freeze not in ("", "backbone") and not self.freeze.isdecimal():
            raise UsageError(f"freeze: expected backbone or a number of layers, got {self.freeze!r}")

    def to_json(self) -> str:
        """Return the config as a JSON object that `from_json` reads back to an equal config."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """Return the config that `text` states.

        Raises:
            CheckpointMismatch: It is not a config of this release.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            kind = CropConfig if "min_area" in values["augment"] else AugmentConfig
            values["augment"] = kind(**values["augment"])
            values["loss"] = LossConfig(**values["loss"])
            return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointMismatch(f"the checkpoint's config is not one of this release: {error}") from None

    def differences(self, other: "TrainConfig") -> Mapping[str, tuple[Any, Any]]:
        """Return the fields that differ, with both values."""
        pairs = ((one.name, getattr(self, one.name), getattr(other, one.name)) for one in fields(self))
        return {name: (a, b) for name, a, b in pairs if a != b}
