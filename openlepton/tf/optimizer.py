"""Steps of an optimiser as torch takes them, to the same numbers: Nesterov SGD and AdamW over biases, scales and kernels."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openlepton.arrays import Array
from openlepton.tf.blocks import Tensor
from openlepton.tf.imports import tf
from openlepton.tf.weights import Order, to_keras, to_torch
from openlepton.train.config import TrainConfig
from openlepton.train.schedule import Pace

SLOTS: Mapping[str, Sequence[str]] = {"sgd": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq")}
"""What each optimiser remembers of a weight, as torch calls it."""

BETA2, EPSILON = 0.999, 1e-8
"""Of AdamW."""


class Weight:
    """A weight in training, and what its steps need.

    Args:
        name: In torch.
        variable: In TensorFlow.
        order: Of its axes in torch.
        slots: What the optimiser remembers of it.
        decay: Of the weight, in a step.
    """

    def __init__(self, name: str, variable: Any, order: Order, slots: Sequence[str], decay: float) -> None:
        self.name, self.variable, self.order, self.decay = name, variable, order, decay
        self.bias = name.endswith(".bias")
        self.gradient = tf.Variable(tf.zeros_like(variable), trainable=False)
        self.slots = {slot: tf.Variable(tf.zeros_like(variable), trainable=False) for slot in slots}


class Optimizer:
    """Nesterov SGD, or AdamW, over weights whose gradients add up between steps.

    Args:
        weights: Name in torch, variable and order of axes of what is trained.
        config: Which optimiser, and how much weights decay.
    """

    def __init__(self, weights: Sequence[tuple[str, Any, Order]], config: TrainConfig) -> None:
        accumulated = max(round(config.nominal_batch / config.batch), 1) * config.batch
        decay = config.weight_decay * accumulated / config.nominal_batch
        self.kind, self.clip, self.lr, self.steps = config.optimizer, config.clip_norm, config.lr, 0
        self.weights = [
            Weight(name, variable, order, SLOTS[self.kind], decay if len(variable.shape) > 1 else 0.0)
            for name, variable, order in weights
        ]
        self._apply = tf.function(self._moved)

    def add(self, gradients: Sequence[Tensor]) -> None:
        """Add to what the next step follows; part of a graph."""
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.gradient.assign_add(tf.convert_to_tensor(gradient))

    def step(self, now: Pace) -> None:
        """Move the weights, and forget the gradients."""
        self.steps += 1
        self.lr = now.lr
        # Corrections of Adam's averages, which begin at 0; SGD has none.
        first, second = 1 - now.momentum**self.steps, math.sqrt(1 - BETA2**self.steps)
        self._apply(*(tf.constant(value, tf.float32) for value in (now.lr_bias, now.lr, now.momentum, first, second)))

    def _moved(self, lr_bias: Tensor, lr: Tensor, momentum: Tensor, first: Tensor, second: Tensor) -> None:
        norm = tf.linalg.global_norm([weight.gradient for weight in self.weights])
        share = tf.minimum(self.clip / (norm + 1e-6), 1.0)
        for weight in self.weights:
            rate, gradient, variable = lr_bias if weight.bias else lr, weight.gradient * share, weight.variable
            if self.kind == "sgd":
                gradient += weight.decay * variable
                kept = weight.slots["momentum_buffer"]
                kept.assign(kept * momentum + gradient)
                variable.assign_sub(rate * (gradient + momentum * kept))
            else:
                variable.assign(variable * (1 - rate * weight.decay))
                mean, square = weight.slots["exp_avg"], weight.slots["exp_avg_sq"]
                mean.assign(mean + (gradient - mean) * (1 - momentum))
                square.assign(square * BETA2 + gradient * gradient * (1 - BETA2))
                variable.assign_sub(rate / first * mean / (tf.sqrt(square) / second + EPSILON))
            weight.gradient.assign(tf.zeros_like(weight.gradient))

    def state(self) -> dict[str, Array]:
        """Return what is remembered of each weight, by its name and then torch's own: `NAME/momentum_buffer`."""
        if not self.steps:
            return {}
        found = {
            f"{weight.name}/{slot}": to_torch(value.numpy(), weight.order)
            for weight in self.weights
            for slot, value in weight.slots.items()
        }
        if self.kind == "adamw":
            found |= {f"{weight.name}/step": np.array(self.steps, np.float32) for weight in self.weights}
        return found

    def restore(self, tensors: Mapping[str, Array], steps: int) -> None:
        """Remember what `state` returned after so many steps."""
        self.steps = steps
        for weight in self.weights:
            for slot, value in weight.slots.items():
                if (given := tensors.get(f"{weight.name}/{slot}")) is not None:
                    value.assign(to_keras(given, weight.order))
