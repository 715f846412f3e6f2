"""Train an encoder to classify texts: from an encoder folder, texts of like length together, AdamW, a rate that rises and falls.

The state of a training is one safetensors file, replaced in one step; `fit` goes on from it as if it had never stopped.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from openlepton.arrays import Array, Floats
from openlepton.errors import CheckpointRefused, TrainingDiverged, UsageError
from openlepton.nets.bert import Bert, BertConfig
from openlepton.text.labelled import Labelled
from openlepton.text.tokens import Tokens
from openlepton.train.config import Precision
from openlepton.train.precision import autocast, choose_precision
from openlepton.train.schedule import optimizer_state, set_optimizer_state
from openlepton.train.states import read_state, write_state

FORMAT = "openlepton-encoder-1"
STATE = "encoder.safetensors"


@dataclass(frozen=True)
class EncoderConfig:
    """How an encoder learns to classify.

    Attributes:
        batch: Texts of a step.
        epochs: How often every text is seen.
        minutes: When to stop before that, counted over all that the training ran; the learning rate falls in time.
        freeze: How much of the network is not trained: 0 nothing, 1 the embeddings, 2 the first layer too, and so on.
        lr: Highest learning rate; that of the classifier, which starts afresh, is `head_lr`.
        warmup: The first share of the steps, in which the learning rate rises; it falls to 0 along a line after that.
        weight_decay: For matrices alone.
        layer_decay: Each layer learns at so much of the rate of the layer above it; the embeddings, below all, least.
        dropout: In the encoder and before its classifier, 0..1.
        smoothing: Share of the probability that the loss spreads over all classes, 0..1.
        clip_norm: The longest gradient.
        precision: Of the arithmetic of training.
        seed: Of everything random.
    """

    batch: int = 32
    epochs: int = 3
    minutes: float = math.inf
    freeze: int = 0
    lr: float = 5e-5
    head_lr: float = 5e-4
    warmup: float = 0.06
    weight_decay: float = 0.01
    layer_decay: float = 0.95
    dropout: float = 0.1
    smoothing: float = 0.0
    clip_norm: float = 1.0
    precision: Precision = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        choose_precision(self.precision)  # raises
        for name in ("batch", "epochs"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if self.freeze < 0:
            raise UsageError(f"freeze: expected 0 or more, got {self.freeze}")
        for name in ("lr", "head_lr", "clip_norm", "layer_decay", "minutes"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}: expected more than 0, got {getattr(self, name)}")
        for name in ("warmup", "dropout", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name}: expected 0 to less than 1, got {getattr(self, name)}")


@dataclass
class State:
    """All that a training needs to go on."""

    network: Bert
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def build(sizes: Mapping[str, object], weights: Mapping[str, Array], config: EncoderConfig) -> Bert:
    """Return the network of an encoder folder with a fresh classifier where the folder has none of so many classes."""
    torch.manual_seed(config.seed)
    network = Bert(BertConfig(**{**sizes, "dropout": config.dropout}))  # type: ignore[arg-type]
    wanted = network.state_dict()
    fitting = {name: torch.from_numpy(value) for name, value in weights.items() if _fits(name, value, wanted)}
    network.load_state_dict(wanted | fitting)
    return network


def _fits(name: str, value: Array, wanted: Mapping[str, Tensor]) -> bool:
    return name in wanted and tuple(wanted[name].shape) == value.shape


def batches(lengths: Array, size: int, random: np.random.Generator) -> list[Array]:
    """Return rows in batches of `size`, those of like length together, batches in random order."""
    order = np.argsort(lengths + random.random(len(lengths)), kind="stable")
    cuts = [order[start : start + size] for start in range(0, len(order), size)]
    return [cuts[index] for index in random.permutation(len(cuts))]


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return ids and mask `(B, T)` of texts, padded to the longest."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def make_optimizer(network: Bert, config: EncoderConfig) -> torch.optim.Optimizer:
    """Return what moves the weights: each group carries its highest learning rate as `peak`."""
    layers = network.config.layers
    for part in [network.embeddings, *network.layers][: config.freeze]:
        part.requires_grad_(False)
    groups = []
    for name, weight in network.named_parameters():
        if not weight.requires_grad:
            continue
        first, _, rest = name.partition(".")
        if first == "layers":
            peak = config.lr * config.layer_decay ** (layers - 1 - int(rest.partition(".")[0]))
        else:
            peak = config.lr * config.layer_decay**layers if first == "embeddings" else config.head_lr
        decay = config.weight_decay if weight.ndim > 1 else 0.0
        groups.append({"params": [weight], "lr": peak, "peak": peak, "weight_decay": decay})
    return torch.optim.AdamW(groups, fused=True)


def pace(config: EncoderConfig, done: float) -> float:
    """Return the share of the learning rate when the share `done` of the training is over."""
    rising = done / config.warmup if config.warmup else 1.0
    return max(min(rising, (1 - done) / (1 - config.warmup)), 0.0)


def loss_of(network: Bert, logits: Tensor, truth: Tensor, smoothing: float) -> Tensor:
    """Return the mean cross-entropy in nats; where classes do not exclude each other, binary and summed over classes."""
    if network.config.multi_label:
        wanted = truth.float() * (1 - smoothing) + smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1).mean()
    return functional.cross_entropy(logits, truth, label_smoothing=smoothing)


@torch.no_grad()
def logits_of(network: Bert, encoded: Sequence[Sequence[int]], batch: int = 64) -> Floats:
    """Return `(N, C)` logits of texts given as ids, in their order."""
    network.eval()
    found = np.zeros((len(encoded), network.config.classes), np.float32)
    lengths = np.array([len(row) for row in encoded])
    for rows in batches(lengths, batch, np.random.default_rng(0)):
        found[rows] = network(*padded([encoded[row] for row in rows])).numpy()
    network.train()
    return found


def fit(
    network: Bert,
    tokens: Tokens,
    train: Labelled,
    dev: Labelled,
    config: EncoderConfig,
    out: Path,
    *,
    every_s: float = 240.0,
) -> Iterator[dict[str, float]]:
    """Train, and yield a row of figures at each checkpoint, which is in `out` by then; goes on from the one that is there.

    Raises:
        TrainingDiverged: The loss is not a finite number any more.
        CheckpointRefused: The state in `out` is damaged, or of another network.
    """
    path = out / STATE
    out.mkdir(parents=True, exist_ok=True)
    state = State(network, make_optimizer(network, config))
    if path.exists():
        load_state(path, state)
    encoded, seen = tokens.encode(train.texts), tokens.encode(dev.texts)
    lengths = np.array([len(row) for row in encoded])
    truth = torch.from_numpy(train.truth)
    of_epoch = -(-len(encoded) // config.batch)
    steps = of_epoch * config.epochs
    began = last = time.monotonic()
    before, total, count = state.seconds, 0.0, 0
    network.train()
    while state.step < steps:
        epoch, first = divmod(state.step, of_epoch)
        found = batches(lengths, config.batch, np.random.default_rng((config.seed, epoch)))
        for rows in found[first:]:
            state.step += 1
            torch.manual_seed(config.seed * 1_000_003 + state.step)  # of dropout, so that it goes on as it would have
            ids, mask = padded([encoded[row] for row in rows])
            state.seconds = before + time.monotonic() - began
            done = max(state.step / steps, state.seconds / (config.minutes * 60))
            total += _step(state, ids, mask, truth[torch.from_numpy(rows)], config, pace(config, done))
            count += 1
            if time.monotonic() - last > every_s or done >= 1:
                yield _checkpoint(state, seen, dev, path, total / count, of_epoch)
                last, total, count = time.monotonic(), 0.0, 0
            if done >= 1:
                return


def _step(state: State, ids: Tensor, mask: Tensor, truth: Tensor, config: EncoderConfig, share: float) -> float:
    with autocast(config.precision):
        logits = state.network(ids, mask)
    loss = loss_of(state.network, logits.float(), truth, config.smoothing)
    if not torch.isfinite(loss):
        raise TrainingDiverged(
            f"step {state.step}: the loss is not finite any more; a lower learning rate helps (lr is {config.lr:g})"
        )
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
    for group in state.optimizer.param_groups:
        group["lr"] = group["peak"] * share
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def _checkpoint(
    state: State, encoded: Sequence[Sequence[int]], dev: Labelled, path: Path, loss: float, of_epoch: int
) -> dict[str, float]:
    logits = logits_of(state.network, encoded)
    right = ((logits > 0) == dev.truth).all(1) if dev.truth.ndim == 2 else logits.argmax(1) == dev.truth
    row = {
        "step": state.step,
        "epoch": round(state.step / of_epoch, 3),
        "minutes": round(state.seconds / 60, 2),
        "loss": loss,
        "dev": float(right.mean()),
    }
    state.history.append(row)
    save_state(path, state)
    return row


def save_state(path: Path, state: State) -> None:
    """Write `state` to `path` in one step."""
    parts = {"network": state.network.state_dict(), "optimizer": optimizer_state(state.network, state.optimizer)}
    progress = {name: getattr(state, name) for name in ("step", "seconds", "history")}
    write_state(path, FORMAT, parts, asdict(state.network.config), progress)


def load_state(path: Path, state: State) -> None:
    """Set `state` to what is in `path`.

    Raises:
        CheckpointRefused: It is of another network.
    """
    stored = read_state(path, FORMAT)
    if BertConfig(**stored.network) != state.network.config:
        raise CheckpointRefused(f"{path}: holds another network than the one asked for")
    state.network.load_state_dict(stored.part("network"))
    set_optimizer_state(state.network, state.optimizer, stored.part("optimizer"))
    for name, value in stored.progress.items():
        setattr(state, name, value)


def load_network(path: Path) -> Bert:
    """Return the network from the state `path` of a training."""
    stored = read_state(path, FORMAT)
    network = Bert(BertConfig(**stored.network))
    network.load_state_dict(stored.part("network"))
    return network.eval()
