"""What goes forward and back: a network, its optimiser and its averaged weights, behind what the loop wants of any framework."""

import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from openlepton.data.loader import Batch
from openlepton.errors import UsageError
from openlepton.predictor import Runtime
from openlepton.train.config import TrainConfig
from openlepton.train.evaluate import NetworkRuntime
from openlepton.train.lesson import Lesson
from openlepton.train.precision import autocast
from openlepton.train.ranks import Ranks
from openlepton.train.schedule import Averaged, Pace, make_optimizer, optimizer_state, set_optimizer_state, set_pace
from openlepton.train.start import freeze


@dataclass(frozen=True)
class State:
    """What a learner needs to go on; tensors by their names in torch, and with its order of axes, in every framework."""

    network: Mapping[str, Tensor]
    averaged: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    steps: int = 0
    """Of the optimiser."""
    scale: float = 0.0
    """Of the loss, where the arithmetic is float16."""


class Learner(Protocol):
    """A network that learns from batches."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the losses."""

    @property
    def look(self) -> int:
        """After how many batches the losses are looked at; on a GPU that costs time."""

    @property
    def sums(self) -> Sequence[float]:
        """Losses of the epoch so far, as `parts`."""

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""

    def begin(self, sums: Sequence[float]) -> None:
        """Prepare for batches of an epoch, whose losses so far are `sums`, or nothing."""

    def learn(self, batch: Batch, now: Pace, epoch: int, number: int, *, stepping: bool) -> None:
        """Add the gradients of a batch, which is number `number` of the epoch; with `stepping`, move the weights by their sum."""

    def state(self) -> State:
        """Return the whole state; its tensors may be the learner's own."""

    def restore(self, state: State) -> None:
        """Go back to `state`."""

    def finite(self) -> bool:
        """Return whether every weight is a finite number."""

    def runtime(self) -> Runtime:
        """Return what runs the averaged weights as they are now."""


class Learners(Protocol):
    """Makes a learner: `TorchLearner`."""

    def __call__(self, config: TrainConfig, lesson: Lesson, network: Any, ranks: Ranks, /) -> Learner:
        """Return a learner of the torch network's weights."""


class TorchLearner:
    """A network that torch trains; see `Learner`.

    Args:
        config: What was asked for; its precision is not `auto` any more.
        lesson: Of the network's task.
        network: A `Trainable` on its device.
        ranks: Which process this is.

    Raises:
        UsageError: The training is one of another framework.
    """

    def __init__(self, config: TrainConfig, lesson: Lesson, network: Any, ranks: Ranks) -> None:
        if config.framework != "torch":
            raise UsageError(f"framework: this is a training in {config.framework}: add --framework {config.framework}")
        self.config, self.lesson, self.ranks = config, lesson, ranks
        self.network = network.to(memory_format=torch.channels_last)
        self.device = next(network.parameters()).device
        self.frozen = freeze(network, config.freeze)
        self.loss = network.criterion(config.loss, config.size)
        self.averaged = Averaged(network, config.ema_decay, config.ema_ramp)
        self.optimizer = make_optimizer(network, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self._sums = torch.zeros(len(self.loss.parts), dtype=torch.float64, device=self.device)
        self._run: Any = network
        if config.compile:
            self._run = torch.compile(network)
        if ranks.count > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self._run = nn.parallel.DistributedDataParallel(self._run, device_ids=ids)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the losses."""
        parts: tuple[str, ...] = self.loss.parts
        return parts

    @property
    def look(self) -> int:
        """After how many batches the losses are looked at."""
        return 1 if self.device.type == "cpu" else 20

    @property
    def sums(self) -> Sequence[float]:
        """Losses of the epoch so far."""
        sums: list[float] = self._sums.tolist()
        return sums

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[-1]["lr"])

    def begin(self, sums: Sequence[float]) -> None:
        """Set the network to training, but for what is frozen."""
        self.network.train()
        for module in self.frozen:
            module.eval()
        self._sums.zero_()
        if sums:
            self._sums += torch.tensor(sums, dtype=torch.float64, device=self.device)

    def learn(self, batch: Batch, now: Pace, epoch: int, number: int, *, stepping: bool) -> None:
        """Go forward and back with one batch, and step if asked to."""
        images, targets = resized(self.config, self.lesson, self.network.multiple, self.device, batch, epoch, number)
        images = images.to(memory_format=torch.channels_last)
        alone = isinstance(self._run, nn.parallel.DistributedDataParallel) and not stepping
        with self._run.no_sync() if alone else contextlib.nullcontext():
            with autocast(self.config.precision, self.device):
                maps = self._run(images)
            total, parts = self.loss(maps, targets)
            self.scaler.scale(total * self.ranks.count).backward()
        if stepping:
            self._step(now)
        self._sums += parts.detach().double()

    def _step(self, now: Pace) -> None:
        set_pace(self.optimizer, now)
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.averaged.update(self.network)

    def state(self) -> State:
        """Return the whole state; its tensors are the learner's own, so save it before going on."""
        return State(
            self.network.state_dict(),
            self.averaged.state,
            optimizer_state(self.network, self.optimizer),
            self.averaged.steps,
            self.scaler.get_scale(),
        )

    def restore(self, state: State) -> None:
        """Go back to `state`."""
        self.network.load_state_dict(state.network)
        for name, value in self.averaged.state.items():
            value.copy_(state.averaged[name])
        self.averaged.steps = state.steps
        set_optimizer_state(self.network, self.optimizer, state.optimizer)
        if self.scaler.is_enabled() and state.scale:
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": state.scale})

    def finite(self) -> bool:
        """Return whether every weight is a finite number."""
        sums = torch.stack([value.detach().sum() for value in self.network.state_dict().values() if value.ndim])
        return bool(torch.isfinite(sums).all())

    def runtime(self) -> Runtime:
        """Return what runs the averaged weights as they are now."""
        network = copy.deepcopy(self.network).eval()
        network.load_state_dict(self.averaged.state)
        return NetworkRuntime(network.fused(), self.device)


def resized(
    config: TrainConfig, lesson: Lesson, multiple: int, device: torch.device, batch: Batch, epoch: int, number: int
) -> tuple[Tensor, Any]:
    """Return images `(B, 3, H, W)` 0 to 1, of another size where the config says so, and what the loss compares with."""
    images = torch.from_numpy(batch.images).to(device, non_blocking=True).to(torch.float32).div_(255)
    scale = 1.0
    if config.multi_scale:
        reach = config.multi_scale
        rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(epoch, 0, number)))
        side = max(round(config.size * rng.uniform(1 - reach, 1 + reach) / multiple), 1) * multiple
        scale = side / images.shape[-1]
        images = functional.interpolate(images, (side, side), mode="bilinear", align_corners=False)
    return images, lesson.targets(batch, device, scale)
