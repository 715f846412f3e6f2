"""Training the head alone, in seconds: what a frozen backbone sees of an image that never changes is computed once."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from openlepton.arrays import Bools, Floats, Ints, Tensors
from openlepton.data.crops import CropConfig
from openlepton.data.samples import Split
from openlepton.errors import OutputError, TrainingDiverged
from openlepton.files import write_atomic
from openlepton.nets import NETS
from openlepton.nets.classifier_loss import ClassTargets
from openlepton.ops.geometry import Frame
from openlepton.train.checkpoint import BEST, Progress
from openlepton.train.classifying import answered, measured_of, task_of, truth_of
from openlepton.train.config import TrainConfig
from openlepton.train.passes import run_over
from openlepton.train.report import write_results
from openlepton.train.watch import Epoch, Note, Watch
from openlepton.vision.classify import Classify

DECAYS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Of the weights, beside the mean loss of an image; each fit starts from the one before."""


def head_alone(config: TrainConfig) -> bool:
    """Return whether a training is of a classifier's head on images that look the same every time."""
    crops = config.augment
    fixed = isinstance(crops, CropConfig) and replace(crops, size=config.size).fixed
    classifier = NETS[config.model].task == "classify" and config.framework == "torch"
    return fixed and config.freeze == "backbone" and classifier


def fit_head(config: TrainConfig, network: Any, train: Split, val: Split, progress: Progress, tell: Watch) -> Progress:
    """Fit the last layer of `network` to its features, leave the best weights in it and in `best.safetensors`.

    That is logistic regression: a convex problem, solved to its end by L-BFGS (Liu and Nocedal 1989) without a learning rate, once
    for each of some weight decays on features of mean 0 and deviation 1. The decay is chosen on `val`.

    Args:
        config: Of which the data, the size, the loss and the threads count.
        network: On its device; everything but the last layer stands still.
        train: Images to learn from.
        val: Images to choose by.
        progress: What it began with; what comes back has a row for each decay.
        tell: Told about each of them.

    Raises:
        TrainingDiverged: The loss is not finite.
        OutputError: The folder cannot be written.
    """
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}") from None
    write_atomic(out / "config.json", config.to_json().encode())
    task, device = task_of(config, train.classes), next(network.parameters()).device
    network.eval()
    tell(Note(f"computing what the backbone sees of {len(train):,} and {len(val):,} images, once"))
    known, seen = _features(config, network, task, train)
    known_val, seen_val = _features(config, network, task, val)
    learned, truth = truth_of(known, task.min_score), truth_of(known_val, task.min_score)
    mean, deviation = seen.mean(0), seen.std(0).clip(min=1e-6)
    inputs, inputs_val = (torch.from_numpy((one - mean) / deviation).to(device) for one in (seen, seen_val))
    loss, targets, targets_val = (
        network.criterion(config.loss, config.size),
        _targets(learned, device),
        _targets(truth, device),
    )
    last, best = nn.Linear(inputs.shape[1], len(train.classes)).to(device), (-1.0, 0.0)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    for number, decay in enumerate(DECAYS):
        fitted = _solve(last, inputs, targets, loss, decay)
        with torch.no_grad():
            logits = last(inputs_val)
            measured = measured_of(
                answered(known_val, truth, network.decode(logits).cpu().numpy(), min_score=task.min_score)
            )
            found = (measured.fitness, -float(loss(logits, targets_val)[1]))
        row = {"epoch": float(number + 1), "train/cls": fitted, "decay": decay}
        row |= {f"val/{name}": value for name, value in measured.row.items()}
        if found > best:
            best = found
            progress = replace(progress, best_epoch=number, best_fitness=measured.fitness)
            _adopt(network, last, mean, deviation)
        progress = replace(progress, epoch=number + 1, history=(*progress.history, row))
        tell(Epoch(number, len(DECAYS), row, progress.best_epoch == number))
    write_results(out / "results.csv", progress.history)
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_atomic(out / BEST, safetensors.torch.save(state))
    return progress


def _solve(last: nn.Linear, inputs: Tensor, targets: ClassTargets, loss: Any, decay: float) -> float:
    """Fit `last` from where it is, in place, and return the mean loss without the decay."""
    solver = torch.optim.LBFGS(last.parameters(), max_iter=200, history_size=20, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        solver.zero_grad()
        total, _ = loss(last(inputs), targets)
        whole: Tensor = total / len(inputs) + decay / 2 * last.weight.square().sum()
        whole.backward()  # type: ignore[no-untyped-call]
        return whole

    solver.step(step)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        fitted = float(loss(last(inputs), targets)[1])
    if not np.isfinite(fitted):
        raise TrainingDiverged(f"weight decay {decay:g}: the loss is not finite")
    return fitted


def _adopt(network: Any, last: nn.Linear, mean: Floats, deviation: Floats) -> None:
    """Give `network` the last layer that does with its features what `last` does with features of mean 0 and deviation 1."""
    own = network.stages[0][-1]
    with torch.no_grad():
        weight = last.weight / torch.from_numpy(deviation).to(last.weight)
        own.weight.copy_(weight)
        own.bias.copy_(last.bias - weight @ torch.from_numpy(mean).to(weight))


def _targets(learned: Ints | Bools, device: torch.device) -> ClassTargets:
    """Return what the loss wants of class ids `(B,)` or labels `(B, C)`."""
    rows, ids = np.nonzero(learned) if learned.ndim > 1 else (np.arange(len(learned)), learned)
    columns = (rows, ids, np.ones(len(rows), np.float32))
    return ClassTargets(*(torch.from_numpy(column).to(device) for column in columns))


@dataclass(frozen=True)
class _Look:
    """Prepares images as evaluation does, and passes on what the backbone sees."""

    classify: Classify

    def prepare(self, source: Any) -> tuple[Tensors, Frame]:
        return self.classify.prepare(source)

    def finish(self, outputs: Tensors, frame: Frame) -> Floats:
        return outputs["features"]


def _features(config: TrainConfig, network: Any, task: Classify, split: Split) -> tuple[Split, Floats]:
    """Return the images that can be read, and what the backbone sees of them, `(I, F)`."""
    fused = network.fused().to(memory_format=torch.channels_last)  # a third faster on processors
    device = next(network.parameters()).device

    def runtime(inputs: Any) -> Tensors:
        with torch.inference_mode():
            images = torch.from_numpy(inputs["images"]).to(device, memory_format=torch.channels_last)
            seen = fused.features(images)
        return {"features": seen.float().cpu().numpy()}

    seen, _ = run_over(_Look(task), runtime, split, batch=32, workers=config.workers)
    return split.take([one.index for one in seen]), np.stack([one.result for one in seen])
