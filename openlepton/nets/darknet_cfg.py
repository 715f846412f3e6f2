"""Darknet's configuration files as sections of options, each of which is known or refused by section and line.

How the original reads a file is kept: blanks count nowhere, `#` and `;` begin a comment, of several equal keys the first
counts. What it would pass over in silence (a line that is no option, a key that it does not know) is an error here, because
whoever wrote it meant something by it.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from openlepton.errors import CheckpointRefused

MAX_BYTES = 1 << 20
MAX_SECTIONS = 2000

NAMES = {
    "network": "net",
    "conv": "convolutional",
    "conn": "connected",
    "max": "maxpool",
    "avg": "avgpool",
    "soft": "softmax",
}
"""Other names of sections."""

TRAINING: Mapping[str, frozenset[str]] = {
    kind: frozenset(keys.split())
    for kind, keys in {
        "net": "batch subdivisions momentum decay angle saturation exposure hue learning_rate learning_rate_min burn_in "
        "max_batches policy steps scales seq_scales step scale gamma power aspect max_crop min_crop flip blur mixup mosaic "
        "mosaic_bound cutmix gaussian_noise label_smooth_eps resize_step adam B1 B2 eps sgdr_cycle sgdr_mult time_steps track "
        "augment_speed sequential_subdivisions try_fix_nan loss_scale dynamic_minibatch optimized_memory max_chart_loss "
        "workspace_size_limit_MB ema_alpha use_cuda_graph benchmark_layers show_receptive_field contrastive color random "
        "contrastive_jit_flip contrastive_color unsupervised center seen",
        "*": "onlyforward dont_update burnin_update stopbackward train_only_bn learning_rate clip truth",
        "convolutional": "dot angle reverse grad_centr",
        "maxpool": "out_channels",
        "shortcut": "weights_normalizion weights_normalization",
        "dropout": "probability dropblock dropblock_size_rel dropblock_size_abs",
        "cost": "type scale ratio",
        "softmax": "noloss",
        "yolo": "jitter resize random ignore_thresh truth_thresh iou_thresh iou_thresh_kind iou_loss max max_delta focal_loss "
        "iou_normalizer obj_normalizer cls_normalizer delta_normalizer label_smooth_eps objectness_smooth counters_per_class "
        "nms_kind beta_nms show_details track_history_size sim_thresh dets_for_track dets_for_show track_ciou_norm "
        "embedding_layer",
        "region": "jitter resize random thresh rescore absolute bias_match coord_scale object_scale noobject_scale mask_scale "
        "class_scale focal_loss log sqrt max",
        "detection": "jitter random rescore forced coord_scale object_scale noobject_scale class_scale max",
    }.items()
}
"""Keys that change the training, or what comes after the network, and not what it computes; `*` stands for every layer."""

Value = TypeVar("Value", int, float)

_COMMENT = re.compile(r"[#;].*")
_INTEGER = re.compile(r"[+-]?\d{1,9}")
_NUMBER = re.compile(r"[+-]?(\d{1,9}(\.\d{0,30})?|\.\d{1,30})(e[+-]?\d{1,2})?f?", re.IGNORECASE)


@dataclass(frozen=True)
class Section:
    """One `[section]`: its kind, its line, and the line and text of each of its keys."""

    kind: str
    line: int
    options: Mapping[str, tuple[int, str]]


def read_sections(text: str, where: str) -> list[Section]:
    """Return the sections of a configuration file, of which the first is `[net]`.

    Raises:
        CheckpointRefused: The text is no such file, or has more of anything than any network needs.
    """
    if len(text) > MAX_BYTES:
        raise CheckpointRefused(f"{where}: a configuration has at most {MAX_BYTES:,} characters")
    sections: list[Section] = []
    options: dict[str, tuple[int, str]] = {}
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = _COMMENT.sub("", "".join(raw.split()))
        if not line:
            continue
        if line[0] == "[":
            if line[-1] != "]":
                raise CheckpointRefused(f"{where}: line {number}: expected [section], got {quoted(raw)}")
            kind, options = line[1:-1], {}
            sections.append(Section(NAMES.get(kind, kind), number, options))
            if len(sections) > MAX_SECTIONS:
                raise CheckpointRefused(
                    f"{where}: line {number}: a configuration has at most {MAX_SECTIONS:,} sections"
                )
            continue
        key, equals, value = line.partition("=")
        if not (sections and key and equals and value):
            wanted = "key = value" if sections else "[net] first"
            raise CheckpointRefused(f"{where}: line {number}: expected {wanted}, got {quoted(raw)}")
        options.setdefault(key, (number, value))
    if not sections or sections[0].kind != "net":
        found = f"[{quoted(sections[0].kind)}] in line {sections[0].line}" if sections else "no section"
        raise CheckpointRefused(f"{where}: expected [net] first, got {found}")
    return sections


def quoted(text: str) -> str:
    """Return what a stranger wrote as it may stand in a message: printable, and short."""
    text = "".join(char if char.isprintable() else "?" for char in text.strip()[:60])
    return text or "nothing"


class Options:
    """The options of a section, each asked for by the one who knows what it means; `done` refuses what nobody asked for."""

    def __init__(self, section: Section, where: str) -> None:
        self.section = section
        self._where = where
        self._asked: set[str] = set()

    def error(self, text: str, key: str | None = None) -> CheckpointRefused:
        """Return the error that says where `text` is the case."""
        line, _ = self.section.options.get(key or "", (self.section.line, ""))
        kind = f"[{quoted(self.section.kind)}]" + ("" if key is None else f" {quoted(key)}")
        return CheckpointRefused(f"{self._where}: line {line}: {kind}: {text}")

    def text(self, key: str, default: str) -> str:
        """Return the value as it stands."""
        self._asked.add(key)
        return self.section.options.get(key, (0, default))[1]

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """Return a whole number within `low` to `high`."""
        return self._one(key, default, _INTEGER, int, low, high)

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """Return a number within `low` to `high`."""
        return self._one(key, default, _NUMBER, _float, low, high)

    def flag(self, key: str) -> bool:
        """Return whether the option is there and not 0."""
        return self.integer(key, 0, 0, 999) != 0

    def integers(self, key: str, low: int, high: int) -> tuple[int, ...]:
        """Return a list of whole numbers, empty where there is no such key."""
        return self._many(key, _INTEGER, int, low, high)

    def numbers(self, key: str, low: float, high: float) -> tuple[float, ...]:
        """Return a list of numbers, empty where there is no such key."""
        return self._many(key, _NUMBER, _float, low, high)

    def only(self, key: str, value: float) -> None:
        """Refuse every value but the one that changes nothing."""
        if self.number(key, value, -1e9, 1e9) != value:
            raise self.error(f"{quoted(self.text(key, ''))} is not supported, {value:g} is", key)

    def done(self) -> None:
        """Refuse keys that nobody asked for, but for those that matter in training alone."""
        known = TRAINING.get(self.section.kind, frozenset()) | (TRAINING["*"] if self.section.kind != "net" else set())
        for key in self.section.options.keys() - self._asked - known:
            raise self.error("not supported, or not a key of Darknet; take it out if it does nothing", key)

    def _one(
        self, key: str, default: Value, form: re.Pattern[str], parse: Callable[[str], Value], low: Value, high: Value
    ) -> Value:
        self._asked.add(key)
        if key not in self.section.options:
            return default
        return self._value(key, self.section.options[key][1], form, parse, low, high)

    def _many(
        self, key: str, form: re.Pattern[str], parse: Callable[[str], Value], low: Value, high: Value
    ) -> tuple[Value, ...]:
        self._asked.add(key)
        if key not in self.section.options:
            return ()
        parts = self.section.options[key][1].split(",")
        if len(parts) > MAX_SECTIONS:
            raise self.error(f"at most {MAX_SECTIONS:,} values, got {len(parts):,}", key)
        return tuple(self._value(key, part, form, parse, low, high) for part in parts)

    def _value(
        self, key: str, text: str, form: re.Pattern[str], parse: Callable[[str], Value], low: Value, high: Value
    ) -> Value:
        if form.fullmatch(text):
            value = parse(text)
            if low <= value <= high and math.isfinite(value):
                return value
        kind = "a whole number of" if form is _INTEGER else "a number of"
        raise self.error(f"expected {kind} {low:,} to {high:,}, got {quoted(text)}", key)


def _float(text: str) -> float:
    return float(text.rstrip("fF"))
