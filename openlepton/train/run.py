"""From a config to a model folder: `fit` trains, `resume` goes on, both leave `best/`, checkpoints, tables and pictures."""

import copy
import dataclasses
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from openlepton.card import Task
from openlepton.data.loader import training_batches
from openlepton.data.reader import Reader
from openlepton.data.samples import Dataset, Split
from openlepton.errors import CheckpointMismatch, OutputError, UsageError
from openlepton.files import write_atomic
from openlepton.interrupt import Interrupt
from openlepton.nets.restore import settle
from openlepton.runtimes.cores import usable_cores
from openlepton.train.checkpoint import BEST, LAST, Checkpoint, Progress, load_checkpoint, save_checkpoint
from openlepton.train.config import TrainConfig
from openlepton.train.fewshot import fit_head, head_alone
from openlepton.train.learner import Learners, TorchLearner
from openlepton.train.lesson import Lesson, Measured
from openlepton.train.lessons import lesson_of
from openlepton.train.loop import Training
from openlepton.train.memory import explained
from openlepton.train.precision import choose_precision
from openlepton.train.publish import publish
from openlepton.train.ranks import Ranks, choose_device, joined
from openlepton.train.report import Board, draw_curves, write_results
from openlepton.train.start import Taken, anchors_of, build, read_weights, take_over, task_of
from openlepton.train.watch import Epoch, Note, Watch, nobody

CONFIG = "config.json"
SAMPLED = 3
"""Batches of the first epoch that are drawn."""
SETTLED = 128
"""Training images that batch norms without statistics are settled on."""


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    folder: Path
    """Everything that was written."""
    best: Path | None
    """The model folder; None where nothing was evaluated before the training was interrupted."""
    report: Any
    """A `Report` of the graph in `best`, on the split that the best epoch was chosen on; None as above."""
    history: tuple[Mapping[str, float], ...]
    """The rows of `results.csv`."""
    interrupted: bool
    task: Task
    """What the network is for."""


def fit(config: TrainConfig, *, watch: Watch = nobody, learners: Learners = TorchLearner) -> Trained:
    """Train a network and return what came of it; everything is written to `config.out`.

    The folder gets `best/` (a model folder), `last.safetensors` (to go on from), `best.safetensors`, `config.json`,
    `results.csv` and pictures. Ctrl-C ends it after the present step, with all of these in place.

    Args:
        config: What to train on what, and how.
        watch: Told about every batch and epoch.
        learners: Makes what goes forward and back, in torch by default; `openlepton.tf.train.fit` passes another.

    Raises:
        DataError: The data set is missing, not readable, or has nothing to learn from.
        OutputError: The folder holds a run already, or the disk is full.
        TrainingDiverged: The loss is not finite any more.
        OutOfMemory: A batch does not fit into memory.
        UsageError: The config asks for what there is not.
    """
    out, lesson = Path(config.out), lesson_of(config.model)
    with joined(config.device) as ranks, _settled(config):
        if ranks.first and ((out / LAST).exists() or (out / BEST).exists()):
            raise OutputError(f"{out}: holds a run already: resume it, or choose another folder")
        ranks.wait()
        tell = watch if ranks.first else nobody
        dataset, train = lesson.data(config, tell)
        device = choose_device(config.device, ranks)
        config = replace(config, precision=choose_precision(config.precision, device))
        torch.manual_seed(config.seed)
        network = lesson.network(config, train, tell)
        source, taken = "trained from scratch", Taken("", 0, ())
        if config.pretrained:
            taken = take_over(network, *read_weights(config.pretrained))
            source = f"trained on from {taken.source}, {taken.taken} of its tensors"
            tell(Note(f"{source}; fresh: {len(taken.left)} tensors"))
        progress = Progress(anchors=anchors_of(network), classes=dataset.classes, source=source)
        with explained(config):
            network.to(device)
            reader = lesson.reader(config, train, tell)
            if taken.unsettled:
                settle(network, taken.unsettled, _looked_at(config, lesson, reader, device))
            if head_alone(config):
                return _fit_head(config, lesson, network, dataset, train, progress, ranks, tell)
            return _run(config, lesson, network, dataset, reader, progress, None, ranks, watch, learners)


def resume(
    folder: str | Path,
    *,
    changes: Mapping[str, object] | None = None,
    watch: Watch = nobody,
    learners: Learners = TorchLearner,
) -> Trained:
    """Go on with the training in `folder`, exactly as if it had never stopped, and return what came of it.

    Args:
        folder: What `fit` wrote.
        changes: Fields of the config that are different from now on, such as `device`, `threads` or `epochs`; with other
            values for what decides the numbers the result is another one.
        watch: Told about every batch and epoch.
        learners: As in `fit`.

    Raises:
        DataNotFound: There is no checkpoint.
        CheckpointRefused: The checkpoint is damaged.
        CheckpointMismatch: The data set has other classes than the checkpoint.
        UsageError: The training is finished already.
    """
    checkpoint = load_checkpoint(Path(folder))
    known = {one.name for one in dataclasses.fields(TrainConfig)}
    if unknown := set(changes or ()) - known:
        raise UsageError(f"resume: no such setting: {', '.join(sorted(unknown))}")
    config = replace(checkpoint.config, out=str(folder), **(changes or {}))  # type: ignore[arg-type]
    progress = checkpoint.progress
    if progress.epoch >= config.epochs:
        raise UsageError(f"{folder}: all of its {config.epochs} epochs are done; ask for more epochs to train on")
    with joined(config.device) as ranks, _settled(config):
        lesson = lesson_of(config.model)
        dataset, train = lesson.data(config, watch if ranks.first else nobody)
        if dataset.classes != progress.classes:
            raise CheckpointMismatch(f"{folder}: its classes are not those of {config.data}")
        device = choose_device(config.device, ranks)
        config = replace(config, precision=choose_precision(config.precision, device))
        network = build(
            config.model,
            len(dataset.classes),
            progress.anchors,
            size=config.size,
            multi_label=config.multi_label,
        ).to(device)
        reader = lesson.reader(config, train, watch if ranks.first else nobody)
        with explained(config):
            return _run(config, lesson, network, dataset, reader, progress, checkpoint, ranks, watch, learners)


def _run(
    config: TrainConfig,
    lesson: Lesson,
    network: Any,
    dataset: Dataset,
    reader: Reader,
    progress: Progress,
    checkpoint: Checkpoint | None,
    ranks: Ranks,
    watch: Watch,
    learners: Learners,
) -> Trained:
    out = Path(config.out)
    tell = watch if ranks.first else nobody
    val = dataset[_val_split(config, dataset, tell)]
    training = Training(config, lesson, network, reader, progress, ranks, tell, learners)
    if checkpoint is None:
        _begin(out, config, training, ranks)
    else:
        training.restore(checkpoint)
    board = Board(out) if ranks.first else None
    with Interrupt() as interrupt:
        interrupted = _epochs(training, val, interrupt, board, tell)
    ranks.wait()
    if board is not None:
        board.close()
    if not ranks.first or training.progress.best_epoch < 0:
        return Trained(out, None, None, training.progress.history, interrupted, task_of(config.model))
    return _published(
        config, lesson, _best(out, network), dataset, val, training.progress, tell, interrupted=interrupted
    )


def _fit_head(
    config: TrainConfig,
    lesson: Lesson,
    network: Any,
    dataset: Dataset,
    train: Split,
    progress: Progress,
    ranks: Ranks,
    tell: Watch,
) -> Trained:
    """Train the last layer of a classifier, which takes one process."""
    if ranks.count > 1:
        raise UsageError("freeze: to train the head on cached features takes one process, not several")
    val = dataset[_val_split(config, dataset, tell)]
    progress = fit_head(config, network, train, val, progress, tell)
    return _published(config, lesson, network.cpu().eval(), dataset, val, progress, tell, interrupted=False)


def _published(
    config: TrainConfig,
    lesson: Lesson,
    best: Any,
    dataset: Dataset,
    val: Split,
    progress: Progress,
    tell: Watch,
    *,
    interrupted: bool,
) -> Trained:
    """Write the model folder and pictures of a network that is trained."""
    out = Path(config.out)
    tell(Note("writing the best epoch's model and measuring it"))
    how = f"in its last layer alone, at {config.size} px" if head_alone(config) else ""
    measured = publish(out / "best", lesson, best, config, dataset, val, progress, how=how)
    if config.plots:
        draw_curves(out, progress.history)
        lesson.draw(out, measured)
    return Trained(out, out / "best", measured.report, progress.history, interrupted, task_of(config.model))


def _looked_at(config: TrainConfig, lesson: Lesson, reader: Reader, device: torch.device) -> Iterator[Tensor]:
    """Yield the first batches of training images."""
    augmentation = lesson.augmentation(config, closing=False)
    batches = training_batches(reader, 0, batch_size=config.batch, config=augmentation, seed=config.seed, workers=0)
    for batch in islice(batches, -(-SETTLED // config.batch)):
        yield (torch.from_numpy(batch.images).to(device).float() / 255).contiguous(memory_format=torch.channels_last)


def _begin(out: Path, config: TrainConfig, training: Training, ranks: Ranks) -> None:
    """Write what there is before the first batch, so that a disk that takes nothing is known early."""
    if not ranks.first:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}") from None
    write_atomic(out / CONFIG, config.to_json().encode())
    save_checkpoint(out / LAST, training.checkpoint())
    if config.plots:
        reader = training.reader
        batches = training_batches(
            reader,
            0,
            batch_size=config.batch,
            config=training.lesson.augmentation(config, closing=False),
            seed=config.seed,
            workers=0,
        )
        for number, batch in zip(range(SAMPLED), batches, strict=False):
            training.lesson.draw_batch(out / f"batch{number}.png", batch, reader.split.classes)


def _epochs(training: Training, val: Split, interrupt: Interrupt, board: Board | None, tell: Watch) -> bool:
    """Train to the last epoch, or to where it is enough; return whether it was interrupted."""
    config, out = training.config, Path(training.config.out)
    while training.progress.epoch < config.epochs:
        started = time.perf_counter()
        losses = training.run_epoch(interrupt)
        first = training.ranks.first
        if losses is None:
            if first:
                save_checkpoint(out / LAST, training.checkpoint())
                tell(Note(f"interrupted; go on with: openlepton train --resume {out}"))
            return True
        epoch = training.progress.epoch
        row = {"epoch": float(epoch + 1)} | {f"train/{name}": value for name, value in losses.items()}
        row |= {"lr": training.learner.lr}
        last = epoch + 1 == config.epochs
        best = False
        if first and (last or (epoch + 1) % config.evaluate_every == 0):
            measured = training.lesson.measure(config, training.network, training.learner.runtime(), val)
            row |= {f"val/{name}": value for name, value in measured.row.items()}
            best = measured.fitness > training.progress.best_fitness
            if best:
                _keep(training, measured)
        row["seconds"] = time.perf_counter() - started
        history = (*training.progress.history, row)
        training.progress = replace(training.progress, epoch=epoch + 1, batch=0, sums=(), history=history)
        if first:
            save_checkpoint(out / LAST, training.checkpoint())
            write_results(out / "results.csv", history)
            tell(Epoch(epoch, config.epochs, row, best))
            if board is not None:
                board.add(row)
        waited = epoch - training.progress.best_epoch
        enough = first and config.patience and training.progress.best_epoch >= 0 and waited >= config.patience
        if training.ranks.any(bool(enough)):
            tell(Note(f"no better epoch in the last {config.patience}: enough"))
            return False
        if training.ranks.any(interrupt.asked):
            tell(Note(f"interrupted; go on with: openlepton train --resume {out}"))
            return not last
    return False


def _keep(training: Training, measured: Measured) -> None:
    """Remember the averaged weights as the best."""
    progress = training.progress
    training.progress = replace(progress, best_epoch=progress.epoch, best_fitness=measured.fitness)
    state = {name: value.cpu().contiguous() for name, value in training.learner.state().averaged.items()}
    write_atomic(Path(training.config.out) / BEST, safetensors.torch.save(state))


def _best(out: Path, network: Any) -> Any:
    best = copy.deepcopy(network).cpu().eval()
    state: Mapping[str, Tensor] = safetensors.torch.load((out / BEST).read_bytes())
    best.load_state_dict(state)
    return best


def _val_split(config: TrainConfig, dataset: Dataset, tell: Watch) -> str:
    for name in (config.val_split, "test"):
        if name in dataset.splits and len(dataset[name]):
            return name
    tell(Note(f"no split {config.val_split}: measured on the training images, which flatters"))
    return config.train_split


@contextmanager
def _settled(config: TrainConfig) -> Iterator[None]:
    """Set torch's threads, and let numbers too small to matter be zero, which is faster; put both back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads or usable_cores())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
