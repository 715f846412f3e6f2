"""One epoch after the other: batches into a learner, losses out of it; the state that a training has."""

import contextlib
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

import torch

from openlepton.data.loader import Batch, training_batches
from openlepton.data.reader import Reader
from openlepton.errors import TrainingDiverged
from openlepton.interrupt import Interrupt
from openlepton.train.checkpoint import Checkpoint, Progress
from openlepton.train.config import TrainConfig
from openlepton.train.learner import Learners, State, TorchLearner
from openlepton.train.lesson import Lesson
from openlepton.train.ranks import Ranks
from openlepton.train.schedule import pace
from openlepton.train.watch import Step, Watch


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
        learners: Makes what goes forward and back, in torch by default.
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
        learners: Learners = TorchLearner,
    ) -> None:
        self.config, self.reader, self.progress, self.ranks = config, reader, progress, ranks
        self.lesson = lesson
        self.network = network
        self.learner = learners(config, lesson, network, ranks)
        self._watch = watch

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
        state = self.learner.state()
        progress = replace(self.progress, steps=state.steps, scale=state.scale)
        return Checkpoint(self.config, progress, state.network, state.averaged, state.optimizer)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the state of `checkpoint`."""
        progress = checkpoint.progress
        self.learner.restore(
            State(checkpoint.network, checkpoint.averaged, checkpoint.optimizer, progress.steps, progress.scale)
        )
        torch.set_rng_state(checkpoint.random)
        self.progress = progress

    def run_epoch(self, interrupt: Interrupt) -> dict[str, float] | None:
        """Train to the end of the epoch and return its mean losses; None if it was interrupted between two steps.

        Raises:
            TrainingDiverged: A loss or a weight is not a finite number any more.
        """
        epoch, first = self.progress.epoch, self.progress.batch
        self.learner.begin(self.progress.sums)
        started, pending, look = time.perf_counter(), 0, self.learner.look
        with contextlib.closing(self._load(epoch, first)) as batches:
            for number, batch in enumerate(batches, first):
                now = pace(self.config, epoch, number, self.batches)
                last = number + 1 == self.batches
                pending += 1
                stepping = pending >= now.accumulate or last
                self.learner.learn(batch, now, epoch, number, stepping=stepping)
                if stepping:
                    pending = 0
                if (number + 1) % look and not last:
                    continue
                losses = self._means(number + 1)
                self._tell(losses, number + 1, first, started)
                if not last and not pending and self.ranks.any(interrupt.asked):
                    self.progress = replace(self.progress, batch=number + 1, sums=tuple(self.learner.sums))
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

    def _means(self, count: int) -> dict[str, float]:
        values = [value / self.ranks.count / count for value in self.ranks.total(list(self.learner.sums))]
        if not all(map(math.isfinite, values)):
            raise TrainingDiverged(
                f"epoch {self.progress.epoch + 1}, batch {count}: the loss is not finite any more; "
                f"a lower learning rate helps (lr is {self.config.lr:g}); the last checkpoint is intact"
            )
        return dict(zip(self.learner.parts, values, strict=True))

    def _tell(self, losses: Mapping[str, float], done: int, first: int, started: float) -> None:
        speed = (done - first) / max(time.perf_counter() - started, 1e-9)  # batches a second
        left = (self.config.epochs - self.progress.epoch) * self.batches - done
        images = speed * self._share * self.ranks.count
        self._watch(
            Step(self.progress.epoch, self.config.epochs, done, self.batches, losses, images, left / max(speed, 1e-9))
        )

    def _check_weights(self) -> None:
        if not self.learner.finite():
            raise TrainingDiverged(
                f"epoch {self.progress.epoch + 1}: a weight is not finite any more; a lower learning rate helps "
                f"(lr is {self.config.lr:g}); the last checkpoint is intact"
            )
