"""Training in TensorFlow: the loop, data, schedule, tables and cards are those of `openlepton.train`; what learns is here."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openlepton.data.loader import Batch
from openlepton.errors import UsageError
from openlepton.predictor import Runtime
from openlepton.tf.blocks import Tensor
from openlepton.tf.imports import tf
from openlepton.tf.networks import KINDS, of_config
from openlepton.tf.optimizer import Optimizer
from openlepton.tf.runtime import ModelRuntime, set_threads
from openlepton.tf.weights import set_weights, to_keras, to_torch, variables
from openlepton.train import run
from openlepton.train.config import TrainConfig
from openlepton.train.learner import State, resized
from openlepton.train.lesson import Lesson
from openlepton.train.ranks import Ranks
from openlepton.train.run import Trained
from openlepton.train.schedule import Pace
from openlepton.train.start import freeze
from openlepton.train.watch import Watch, nobody

_IMAGES = tf.TensorSpec((None, 3, None, None), tf.float32)
_BOXES = tf.TensorSpec((None, 6), tf.float32)
_TARGETS: Mapping[str, Any] = {
    "detect": _BOXES,
    "segment": (_BOXES, tf.TensorSpec((None, None, None), tf.int32)),
    "classify": (
        tf.TensorSpec((None,), tf.int64),
        tf.TensorSpec((None,), tf.int64),
        tf.TensorSpec((None,), tf.float32),
    ),
}
"""What the losses compare with, by task, of any size: so one graph does for all batches."""


def fit(config: TrainConfig, *, watch: Watch = nobody) -> Trained:
    """Train a network in TensorFlow and return what came of it; everything is written as `openlepton.train.fit` writes it.

    Raises:
        UsageError: The network has no twin in TensorFlow, or the config asks for what only torch does.
        OpenLeptonError: As `openlepton.train.fit`.
    """
    if config.model not in KINDS:
        raise UsageError(f"{config.model}: has no twin in TensorFlow; those that have: {', '.join(KINDS)}")
    if config.device not in ("auto", "cpu") or config.precision not in ("auto", "float32") or config.compile:
        raise UsageError(
            "TensorFlow: chooses the device itself and computes in float32: leave out device, precision, compile"
        )
    config = replace(config, framework="tensorflow", device="cpu", precision="float32")
    return run.fit(config, watch=watch, learners=TfLearner)


def resume(folder: str | Path, *, changes: Mapping[str, object] | None = None, watch: Watch = nobody) -> Trained:
    """Go on with a training in TensorFlow as `openlepton.train.resume` does with one in torch."""
    return run.resume(folder, changes=changes, watch=watch, learners=TfLearner)


class TfLearner:
    """A network that TensorFlow trains; see `openlepton.train.learner.Learner`.

    Args:
        config: What was asked for.
        lesson: Of the network's task.
        network: A `Trainable` of torch, which says what is trained, and whose weights are the first ones.
        ranks: Which process this is; there is one.

    Raises:
        UsageError: The training is one of torch, or of several processes.
    """

    look = 1

    def __init__(self, config: TrainConfig, lesson: Lesson, network: Any, ranks: Ranks) -> None:
        if config.framework != "tensorflow":
            raise UsageError(f"framework: this is a training in {config.framework}: leave out --framework tensorflow")
        if ranks.count > 1:
            raise UsageError("framework: TensorFlow trains in one process")
        set_threads(config.threads)
        self.config, self.lesson, self.network = config, lesson, network
        self.twin = of_config(config.model, network.config)
        set_weights(self.twin.raw, _arrays(network.state_dict()))
        self._freeze(freeze(network, config.freeze))
        self.loss = self.twin.criterion(config.loss, config.size)
        self.weights = [(name, variable.value, order) for name, variable, order in variables(self.twin.raw)]
        trained = {id(variable.value) for variable in self.twin.raw.trainable_variables}
        self.optimizer = Optimizer([weight for weight in self.weights if id(weight[1]) in trained], config)
        self.averaged = [tf.Variable(variable, trainable=False) for _, variable, _ in self.weights]
        self._sums = np.zeros(len(self.parts))
        self._noise = [layer.seed_generator for layer in self.twin.raw.layers if hasattr(layer, "seed_generator")]
        self._learn = tf.function(self._gradients, input_signature=[_IMAGES, _TARGETS[KINDS[config.model].task]])
        self._average = tf.function(self._averages)
        self._evaluated: Any = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the losses."""
        return self.loss.parts

    @property
    def sums(self) -> Sequence[float]:
        """Losses of the epoch so far."""
        return [float(value) for value in self._sums]

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return self.optimizer.lr

    def begin(self, sums: Sequence[float]) -> None:
        """Prepare for batches of an epoch, whose losses so far are `sums`, or nothing."""
        self._sums = np.array(sums, np.float64) if sums else np.zeros(len(self.parts))

    def learn(self, batch: Batch, now: Pace, epoch: int, number: int, *, stepping: bool) -> None:
        """Go forward and back with one batch, and step if asked to.

        Raises:
            MemoryError: The batch does not fit into memory.
        """
        device, multiple = torch.device("cpu"), self.twin.multiple
        images, targets = resized(self.config, self.lesson, multiple, device, batch, epoch, number)
        for index, generator in enumerate(self._noise):
            seed = np.random.SeedSequence(self.config.seed, spawn_key=(epoch, 1, number, index))
            generator.state.assign(seed.generate_state(2))
        try:
            parts = self._learn(tf.constant(images.numpy()), self._targets(targets))
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(error.message) from None
        if stepping:
            self.optimizer.step(now)
            decay = self.config.ema_decay * (1 - exp(-self.optimizer.steps / self.config.ema_ramp))
            self._average(tf.constant(1 - decay, tf.float32))
        self._sums += parts.numpy()

    def state(self) -> State:
        """Return the whole state, under torch's names and in torch's order of axes."""
        plain = dict(self.network.state_dict())
        network = plain | {name: _tensor(variable, order) for name, variable, order in self.weights}
        averages = zip(self.weights, self.averaged, strict=True)
        averaged = {name: value.clone() for name, value in plain.items()}  # what is stored shares no memory
        averaged |= {name: _tensor(average, order) for (name, _, order), average in averages}
        optimizer = {name: torch.from_numpy(value) for name, value in self.optimizer.state().items()}
        return State(network, averaged, optimizer, self.optimizer.steps)

    def restore(self, state: State) -> None:
        """Go back to `state`."""
        set_weights(self.twin.raw, _arrays(state.network))
        for (name, _, order), average in zip(self.weights, self.averaged, strict=True):
            average.assign(to_keras(state.averaged[name].numpy(), order))
        self.optimizer.restore(_arrays(state.optimizer), state.steps)

    def finite(self) -> bool:
        """Return whether every weight is a finite number."""
        return all(bool(np.isfinite(variable.numpy().sum())) for _, variable, _ in self.weights)

    def runtime(self) -> Runtime:
        """Return what runs the averaged weights as they are now, until it is asked for again."""
        if self._evaluated is None:
            twin = of_config(self.config.model, self.network.config)
            self._evaluated = twin.raw, ModelRuntime(twin.model)
        raw, runtime = self._evaluated
        for (_, variable, _), average in zip(variables(raw), self.averaged, strict=True):
            variable.assign(average)
        found: Runtime = runtime
        return found

    def _freeze(self, modules: Sequence[Any]) -> None:
        """Let the layers of some modules of torch stand still, their statistics too."""
        frozen = {id(module) for module in modules}
        paths = tuple(f"{name}." for name, module in self.network.named_modules() if id(module) in frozen)
        for layer in self.twin.raw.layers:
            if paths and f"{layer.name}.".startswith(paths):
                layer.trainable = False

    def _targets(self, given: Any) -> Any:
        """Return what the loss compares with, as TensorFlow's tensors."""
        specs = _TARGETS[KINDS[self.config.model].task]
        if not isinstance(specs, tuple):
            return tf.constant(given.numpy(), specs.dtype)
        return tuple(tf.constant(value.numpy(), spec.dtype) for value, spec in zip(given, specs, strict=True))

    def _gradients(self, images: Tensor, targets: Any) -> Tensor:
        """Add the gradients of a batch; return its losses for one image."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            trained = [weight.variable for weight in self.optimizer.weights]
            tape.watch(trained)
            total, parts = self.loss(self.twin.raw(images, training=True), targets)
        self.optimizer.add(tape.gradient(total, trained, unconnected_gradients=tf.UnconnectedGradients.ZERO))
        return parts

    def _averages(self, share: Tensor) -> None:
        """Move the averages towards the weights."""
        for (_, variable, _), average in zip(self.weights, self.averaged, strict=True):
            average.assign_add((variable - average) * share)


def _arrays(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.detach().cpu().numpy() for name, value in tensors.items()}


def _tensor(variable: Any, order: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(to_torch(variable.numpy(), order))
