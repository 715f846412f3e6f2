"""Train a small Transformer to translate: sentences of like length together, label smoothing, averaged weights.

The state of a training is one safetensors file, replaced in one step; `fit` goes on from it as if it had never stopped, but for the
order of the sentences of the epoch that was cut short.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from openlepton.errors import CheckpointRefused, DataError, UsageError
from openlepton.nets.transformer import BOS, PAD, Config, Transformer
from openlepton.train.config import Precision
from openlepton.train.muon import Muon
from openlepton.train.precision import autocast, choose_precision
from openlepton.train.schedule import optimizer_state, set_optimizer_state
from openlepton.train.states import read_state, write_state

FORMAT = "openlepton-translator-1"
STATE = "translator.safetensors"
_LONGEST_STEP_S = 60.0  # what took longer was a pause of the process, which the time of a training leaves out

Encoded = tuple[Sequence[int], Sequence[int]]
"""Pieces of a source and of its target, without begin; the source ends with EOS, the target too."""
Draw = Callable[[int], Sequence[Encoded]]
"""What an epoch learns from, by its number."""


@dataclass(frozen=True)
class TranslateConfig:
    """How a translator learns.

    Attributes:
        network: What is built.
        batch_tokens: Pieces of a batch, padding included, the longer of source and target counted.
        optimizer: AdamW for everything, or Muon (Jordan et al. 2024) for the matrices of the layers and AdamW for the rest.
        lr: Highest learning rate of AdamW.
        muon_lr: Highest learning rate of Muon.
        warmup: Steps until the learning rate is highest; it falls with the inverse square root of the step after that.
        cooldown: The last share of the training, in which the learning rate falls to 0 besides, 0..1.
        smoothing: Share of the probability that the loss spreads over all pieces, 0..1.
        average: How much of the averaged weights stays in each step.
        max_length: Pairs with more pieces on either side are left out.
        epochs: How many times `draw` is asked.
        minutes: When to stop before that; counted over all that the training ran.
        precision: Of the matrix products.
        seed: Of everything random.
    """

    network: Config
    batch_tokens: int = 4096
    optimizer: Literal["adamw", "muon"] = "muon"
    lr: float = 2e-3
    muon_lr: float = 0.02
    warmup: int = 200
    cooldown: float = 0.3
    smoothing: float = 0.1
    average: float = 0.995
    max_length: int = 128
    epochs: int = 30
    minutes: float = math.inf
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        choose_precision(self.precision)  # raises
        if self.batch_tokens < self.max_length:
            raise UsageError(f"batch_tokens: expected at least max_length ({self.max_length}), got {self.batch_tokens}")
        if not (self.lr > 0 and self.muon_lr > 0 and self.warmup >= 1 and self.epochs >= 1 and self.minutes > 0):
            raise UsageError("lr, muon_lr and minutes must be above 0, warmup and epochs at least 1")
        if not (0 <= self.cooldown <= 1 and 0 <= self.smoothing < 1 and 0 <= self.average < 1):
            raise UsageError("cooldown, smoothing and average must lie between 0 and 1")


def pace(config: TranslateConfig, step: int, done: float) -> float:
    """Return the share of the learning rate for step `step`, from 1, when the share `done` of the training is over."""
    share = min(step / config.warmup, math.sqrt(config.warmup / step))
    return share * min(1.0, max(1.0 - done, 0.0) / config.cooldown) if config.cooldown else share


def batches(pairs: Sequence[Encoded], config: TranslateConfig, random: np.random.Generator) -> list[list[int]]:
    """Return rows of `pairs` in batches of at most `batch_tokens`, pairs of like length together, batches in random order."""
    sizes = np.array([max(len(source), len(target)) for source, target in pairs])
    order = np.argsort(sizes + random.random(len(sizes)), kind="stable")
    found, batch, longest = list[list[int]](), list[int](), 0
    for row in order[sizes[order] <= config.max_length].tolist():
        longest = max(longest, int(sizes[row]))
        if batch and longest * (len(batch) + 1) > config.batch_tokens:
            found.append(batch)
            batch, longest = [], int(sizes[row])
        batch.append(row)
    if batch:
        found.append(batch)
    return [found[index] for index in random.permutation(len(found))]


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return rows of pieces as `(B, T)`, padded with PAD."""
    table = np.full((len(rows), max(map(len, rows))), PAD, np.int64)
    for row, pieces in zip(table, rows, strict=True):
        row[: len(pieces)] = pieces
    return torch.from_numpy(table)


def loss_of(network: Transformer, pairs: Sequence[Encoded], smoothing: float = 0.0) -> tuple[Tensor, int]:
    """Return the cross-entropy of all target pieces of a batch together, in nats, and how many there are."""
    target = padded([pair[1] for pair in pairs])
    given = functional.pad(target[:, :-1], (1, 0), value=BOS)
    states = network(padded([pair[0] for pair in pairs]), given)  # (B, T, D)
    real = target != PAD
    loss = functional.cross_entropy(
        network.logits(states[real]).float(), target[real], label_smoothing=smoothing, reduction="sum"
    )
    return loss, int(real.sum())


@torch.no_grad()
def perplexity(network: Transformer, pairs: Sequence[Encoded], config: TranslateConfig) -> float:
    """Return the perplexity of the targets of `pairs`, by piece."""
    network.eval()
    total, count = 0.0, 0
    for rows in batches(pairs, config, np.random.default_rng(0)):
        loss, pieces = loss_of(network, [pairs[row] for row in rows])
        total, count = total + float(loss), count + pieces
    network.train()
    return math.exp(min(total / max(count, 1), 50.0))


def make_optimizers(network: Transformer, config: TranslateConfig) -> list[torch.optim.Optimizer]:
    """Return what moves the weights: each group carries its highest learning rate as `peak`."""
    hidden = [p for name, p in network.named_parameters() if p.ndim == 2 and not name.startswith("embedding")]
    matrices = hidden if config.optimizer == "muon" else []
    chosen = {id(p) for p in matrices}
    rest = [p for p in network.parameters() if id(p) not in chosen]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=config.lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    ]
    if matrices:
        found.append(Muon(matrices, lr=config.muon_lr))
    for optimizer in found:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return found


@dataclass
class State:
    """All that a training needs to go on."""

    network: Transformer
    averaged: Transformer
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def fresh(config: TranslateConfig, start: Transformer | None = None) -> State:
    """Return a training that has not begun, from the weights of `start` where it is given."""
    torch.manual_seed(config.seed)
    network, averaged = Transformer(config.network), Transformer(config.network)
    if start is not None:
        network.load_state_dict(start.state_dict())
    averaged.load_state_dict(network.state_dict())
    averaged.requires_grad_(False)
    return State(network, averaged, make_optimizers(network, config))


def save_state(path: Path, state: State, config: TranslateConfig) -> None:
    """Write `state` to `path` in one step."""
    parts = {"network": state.network.state_dict(), "averaged": state.averaged.state_dict()}
    for number, optimizer in enumerate(state.optimizers):
        parts[f"optimizer/{number}"] = optimizer_state(state.network, optimizer)
    progress = {name: getattr(state, name) for name in ("step", "epoch", "seconds", "history")}
    write_state(path, FORMAT, parts, asdict(config.network), progress)


def load_network(path: Path) -> Transformer:
    """Return the network with averaged weights from the state `path` of a training."""
    stored = read_state(path, FORMAT)
    network = Transformer(Config(**stored.network))
    network.load_state_dict(stored.part("averaged"))
    return network.eval()


def load_state(path: Path, config: TranslateConfig) -> State:
    """Return the training whose state is in `path`."""
    stored = read_state(path, FORMAT)
    if Config(**stored.network) != config.network:
        raise CheckpointRefused(f"{path}: holds another network than the one asked for")
    state = fresh(config)
    state.network.load_state_dict(stored.part("network"))
    state.averaged.load_state_dict(stored.part("averaged"))
    for number, optimizer in enumerate(state.optimizers):
        set_optimizer_state(state.network, optimizer, stored.part(f"optimizer/{number}"))
    return replace(state, **stored.progress)


def _step(state: State, pairs: Sequence[Encoded], config: TranslateConfig, share: float) -> tuple[float, int]:
    with autocast(config.precision):
        loss, pieces = loss_of(state.network, pairs, config.smoothing)
    (loss / pieces).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    keep = min(config.average, state.step / (state.step + 10))
    averaged, network = (
        [p.detach() for p in state.averaged.parameters()],
        [p.detach() for p in state.network.parameters()],
    )
    torch._foreach_lerp_(averaged, network, 1 - keep)
    return float(loss.detach()), pieces


def fit(
    draw: Draw,
    dev: Sequence[Encoded],
    config: TranslateConfig,
    out: Path,
    *,
    start: Transformer | None = None,
    every_s: float = 240.0,
) -> Iterator[dict[str, float]]:
    """Train, and yield a row of figures at each checkpoint, which is in `out` by then; goes on from the one that is there.

    Raises:
        DataError: An epoch has no pair that is short enough.
        CheckpointRefused: The state in `out` is damaged, or of another network.
    """
    path = out / STATE
    state = load_state(path, config) if path.exists() else fresh(config, start)
    last = before = time.monotonic()
    total, count = 0.0, 0
    out.mkdir(parents=True, exist_ok=True)
    while state.epoch < config.epochs and state.seconds < config.minutes * 60:
        random = np.random.default_rng((config.seed, state.epoch, state.step))
        pairs = draw(state.epoch)
        found = batches(pairs, config, random)
        if not found:
            raise DataError(f"no pair of sentences has at most {config.max_length} pieces on both sides")
        for number, rows in enumerate(found):
            state.step += 1
            now = time.monotonic()
            state.seconds += min(now - before, _LONGEST_STEP_S)
            before = now
            done = max((state.epoch + number / len(found)) / config.epochs, state.seconds / (config.minutes * 60))
            loss, pieces = _step(state, [pairs[row] for row in rows], config, pace(config, state.step, done))
            total, count = total + loss, count + pieces
            over = done >= 1
            if over or time.monotonic() - last > every_s:
                yield _checkpoint(state, dev, config, path, total / count)
                last, total, count = time.monotonic(), 0.0, 0
            if over:
                return
        state.epoch += 1
    yield _checkpoint(state, dev, config, path, total / max(count, 1))


def _checkpoint(
    state: State, dev: Sequence[Encoded], config: TranslateConfig, path: Path, loss: float
) -> dict[str, float]:
    row = {
        "step": state.step,
        "epoch": state.epoch,
        "minutes": round(state.seconds / 60, 2),
        "loss": loss,
        "perplexity": perplexity(state.averaged, dev, config),
    }
    state.history.append(row)
    save_state(path, state, config)
    return row


def pairs_of(lines: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return what is text on both sides, once each."""
    return list(dict.fromkeys((s.strip(), t.strip()) for s, t in lines if s.strip() and t.strip()))
