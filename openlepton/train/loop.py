"""One epoch after the other: batches forward and back, steps of the optimiser, averaged weights; the state that it all has."""

import contextlib
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from openlepton.data.loader import Batch, training_batches
from openlepton.data.reader import Reader
from openlepton.errors import TrainingDiverged
from openlepton.interrupt import Interrupt
from openlepton.train.checkpoint import Checkpoint, Progress
from openlepton.train.config import TrainConfig
from openlepton.train.lesson import Lesson
from openlepton.train.ranks import Ranks
from openlepton.train.schedule import (
    Averaged,
    Pace,
    make_optimizer,
    optimizer_state,
    pace,
    set_optimizer_state,
    set_pace,
)
from openlepton.train.start import freeze
from openlepton.train.watch import Step, Watch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Training:
    """A network in training: `run_epoch` goes on to the end of the epoch, `checkpoint` is the state as a value.

    Args:
        config: What was asked for; its precision is not `auto` any more.
        lesson: Of the network's task.
        network: A `Trainable` on its device.
        reader: The images.
        progress: How far it is.
        ranks: Which process this is.
        watch: Told about every batch.
    """

    def __init__(
        self,
        config: TrainConfig,
        lesson: Lesson,
        network: Any,
        reader: Reader,
        progress: Progress,
        ranks: Ranks,
        watch: Watch,
    ) -> None:
        self.config, self.reader, self.progress, self.ranks = config, reader, progress, ranks
        self.lesson = lesson
        self.network = network.to(memory_format=torch.channels_last)
        self.device = next(network.parameters()).device
        self.frozen = freeze(network, config.freeze)
        self.loss = network.criterion(config.loss, config.size)
        self.averaged = Averaged(network, config.ema_decay, config.ema_ramp)
        self.optimizer = make_optimizer(network, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self._watch = watch
        self._run: Any = network
        if config.compile:
            self._run = torch.compile(network)
        if ranks.count > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self._run = nn.parallel.DistributedDataParallel(self._run, device_ids=ids)

    @property
    def batches(self) -> int:
        """Batches of an epoch, in this process as in every other."""
        images = -(-len(self.reader) // self.ranks.count)
        return -(-images // self._share)

    @property
    def _share(self) -> int:
        return max(self.config.batch // self.ranks.count, 1)

    def checkpoint(self) -> Checkpoint:
        """Return the whole state; its tensors are the training's own, so save it before going on."""
        progress = replace(self.progress, steps=self.averaged.steps, scale=self.scaler.get_scale())
        return Checkpoint(
            self.config,
            progress,
            self.network.state_dict(),
            self.averaged.state,
            optimizer_state(self.network, self.optimizer),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the state of `checkpoint`."""
        self.network.load_state_dict(checkpoint.network)
        for name, value in self.averaged.state.items():
            value.copy_(checkpoint.averaged[name])
        self.averaged.steps = checkpoint.progress.steps
        set_optimizer_state(self.network, self.optimizer, checkpoint.optimizer)
        if self.scaler.is_enabled() and checkpoint.progress.scale:
            self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": checkpoint.progress.scale})
        torch.set_rng_state(checkpoint.random)
        self.progress = checkpoint.progress

    def run_epoch(self, interrupt: Interrupt) -> dict[str, float] | None:
        """Train to the end of the epoch and return its mean losses; None if it was interrupted between two steps.

        Raises:
            TrainingDiverged: A loss or a weight is not a finite number any more.
        """
        self.network.train()
        for module in self.frozen:
            module.eval()
        epoch, first = self.progress.epoch, self.progress.batch
        sums = torch.zeros(len(self.loss.parts), dtype=torch.float64, device=self.device)
        if self.progress.sums:
            sums += torch.tensor(self.progress.sums, dtype=torch.float64, device=self.device)
        started, pending, look = time.perf_counter(), 0, 1 if self.device.type == "cpu" else 20
        with contextlib.closing(self._load(epoch, first)) as batches:
            for number, batch in enumerate(batches, first):
                now = pace(self.config, epoch, number, self.batches)
                last = number + 1 == self.batches
                pending += 1
                stepping = pending >= now.accumulate or last
                sums += self._batch(batch, now, epoch, number, stepping)
                if stepping:
                    pending = 0
                if (number + 1) % look and not last:
                    continue
                losses = self._means(sums, number + 1)
                self._tell(losses, number + 1, first, started)
                if not last and not pending and self.ranks.any(interrupt.asked):
                    self.progress = replace(self.progress, batch=number + 1, sums=tuple(sums.tolist()))
                    return None
        self._check_weights()
        return losses

    def _load(self, epoch: int, first: int) -> Generator[Batch, None, None]:
        config = self.config
        closing = epoch >= config.epochs - config.closing_epochs
        yield from training_batches(
            self.reader,
            epoch,
            batch_size=self._share,
            config=self.lesson.augmentation(config, closing=closing),
            seed=config.seed,
            first=first,
            share=(self.ranks.rank, self.ranks.count),
            workers=config.workers,
        )

    def _batch(self, batch: Batch, now: Pace, epoch: int, number: int, stepping: bool) -> Tensor:
        """Go forward and back with one batch, step if asked to, and return its losses."""
        images, targets = self._on_device(batch, epoch, number)
        precision = PRECISIONS[self.config.precision]
        alone = isinstance(self._run, nn.parallel.DistributedDataParallel) and not stepping
        with self._run.no_sync() if alone else contextlib.nullcontext():
            with torch.autocast(self.device.type, precision, enabled=precision != torch.float32):
                maps = self._run(images)
            total, parts = self.loss(maps, targets)
            self.scaler.scale(total * self.ranks.count).backward()
        if stepping:
            self._step(now)
        losses: Tensor = parts.detach().double()
        return losses

    def _step(self, now: Pace) -> None:
        set_pace(self.optimizer, now)
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.averaged.update(self.network)

    def _on_device(self, batch: Batch, epoch: int, number: int) -> tuple[Tensor, Any]:
        """Return images `(B, 3, H, W)` 0 to 1, and what the loss compares with."""
        images = torch.from_numpy(batch.images).to(self.device, non_blocking=True)
        images = images.to(torch.float32, memory_format=torch.channels_last).div_(255)
        scale = 1.0
        if self.config.multi_scale:
            reach, multiple = self.config.multi_scale, self.network.multiple
            rng = np.random.default_rng(np.random.SeedSequence(self.config.seed, spawn_key=(epoch, 0, number)))
            side = max(round(self.config.size * rng.uniform(1 - reach, 1 + reach) / multiple), 1) * multiple
            scale = side / images.shape[-1]
            images = functional.interpolate(images, (side, side), mode="bilinear", align_corners=False)
        return images, self.lesson.targets(batch, self.device, scale)

    def _means(self, sums: Tensor, count: int) -> dict[str, float]:
        values = [value / self.ranks.count / count for value in self.ranks.total(sums.tolist())]
        if not all(map(math.isfinite, values)):
            raise TrainingDiverged(
                f"epoch {self.progress.epoch + 1}, batch {count}: the loss is not finite any more; "
                f"a lower learning rate helps (lr is {self.config.lr:g}); the last checkpoint is intact"
            )
        return dict(zip(self.loss.parts, values, strict=True))

    def _tell(self, losses: Mapping[str, float], done: int, first: int, started: float) -> None:
        speed = (done - first) / max(time.perf_counter() - started, 1e-9)  # batches a second
        left = (self.config.epochs - self.progress.epoch) * self.batches - done
        images = speed * self._share * self.ranks.count
        self._watch(
            Step(self.progress.epoch, self.config.epochs, done, self.batches, losses, images, left / max(speed, 1e-9))
        )

    def _check_weights(self) -> None:
        sums = torch.stack([value.detach().sum() for value in self.network.state_dict().values() if value.ndim])
        if not torch.isfinite(sums).all():
            raise TrainingDiverged(
                f"epoch {self.progress.epoch + 1}: a weight is not finite any more; a lower learning rate helps "
                f"(lr is {self.config.lr:g}); the last checkpoint is intact"
            )
