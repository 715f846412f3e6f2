"""Texts with labels to a model folder that classifies texts: training, temperature, numbers, card.

::

    train -> fit_linear, or text_encoder.fit and an ONNX graph      dev: the best, and the temperature      test: the numbers
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.numpy
import torch

from openlepton.arrays import Array, Floats, Tensors
from openlepton.card import CONTRACT, ClassifyFacts, Metric, ModelCard, Parity, TextInput, file_facts
from openlepton.hub.convert import draft_card, model_name
from openlepton.hub.encoder_folder import read_encoder
from openlepton.hub.folder import GRAPH, write_folder
from openlepton.metrics.calibration import best_temperature, expected_calibration_error
from openlepton.metrics.classification import ClassificationReport, TagReport, classification_report, tag_report
from openlepton.nets.bert import Bert
from openlepton.nets.export import open_graph
from openlepton.nets.export_text import export_encoder, in_int8, text_parity
from openlepton.text.encode import Encoder
from openlepton.text.labelled import Labelled, read_labelled
from openlepton.text.languages import language_of
from openlepton.text.linear import WEIGHTS
from openlepton.text.tokens import TOKENIZER, read_tokens
from openlepton.train.text_encoder import EncoderConfig, build, fit, logits_of, padded
from openlepton.train.text_linear import LinearConfig, fit_linear

Tell = Callable[[str], None]
Scores = Callable[[list[str]], Floats]


@dataclass(frozen=True)
class TextRun:
    """What to train on what, and how.

    Attributes:
        data: What `openlepton.text.labelled.read_labelled` reads.
        out: The model folder.
        model: `linear`, or an encoder folder in the Hugging Face layout.
        column: Where the text is.
        label: Where its label is.
        multi_label: Whether a text may have any number of labels.
        max_tokens: What an encoder sees of a text at most.
        languages: ISO 639 codes; by default what the texts of train look like.
        labels_zh: The names of the classes in Chinese, in the same order.
        name: Of the model; by default that of the folder.
        licence: SPDX expression of the licence of the weights.
        description: For the card.
        source: Where the data are from, for the card.
        command: What reproduces the run, for the card.
    """

    data: str
    out: str
    model: str = "linear"
    column: str = "text"
    label: str = "label"
    multi_label: bool = False
    max_tokens: int = 128
    languages: tuple[str, ...] = ()
    labels_zh: tuple[str, ...] = ()
    name: str = ""
    licence: str = "NOASSERTION"
    description: str = ""
    source: str = ""
    command: str = ""


@dataclass(frozen=True)
class TrainedText:
    """What came out."""

    folder: Path
    card: ModelCard
    report: ClassificationReport | TagReport
    """On test, or on dev where there is no test."""


def train_linear(run: TextRun, config: LinearConfig, *, tell: Tell = lambda _: None) -> TrainedText:
    """Train a linear classifier and write its model folder.

    Raises:
        DataNotFound: There is no such data.
        DataInvalid: A row cannot be read.
        DataEmpty: No n-gram occurs often enough.
    """
    splits = read_labelled(Path(run.data), column=run.column, label=run.label, multi_label=run.multi_label)
    return publish_linear(run, config, splits, tell=tell)


def publish_linear(
    run: TextRun,
    config: LinearConfig,
    splits: Mapping[str, Labelled],
    *,
    tests: Mapping[str, Labelled] | None = None,
    notes: Mapping[str, str] | None = None,
    tell: Tell = lambda _: None,
) -> TrainedText:
    """Train a linear classifier on `splits`, write its model folder, and measure it on `tests`, by what they are called.

    Args:
        run: What the card says.
        config: How it learns.
        splits: `train`, `dev`, and perhaps `test`.
        tests: What the numbers of the card are measured on; by default test, or dev where there is none.
        notes: What a card says of the numbers of a test.
        tell: Told how far it is.
    """
    trained = fit_linear(splits["train"], splits["dev"], config, tell)
    dev, linear = splits["dev"], trained.linear
    linear = linear.heated(round(best_temperature(linear.logits(list(dev.texts)), dev.truth), 4))
    data = {WEIGHTS: safetensors.numpy.save(dict(linear.tensors()), {"source": run.source or run.data})}
    where, measured = _tests(run, splits, tests)
    report, metrics = numbers(linear, measured, run, where, notes or {})
    draft = _draft(run, splits["train"]) | {"architecture": "linear-ngrams", "ngrams": linear.facts, "metrics": metrics}
    best = max(trained.tried, key=lambda l2: trained.tried[l2])
    tell(f"l2 {best:g}, temperature {linear.temperature:g}, {len(linear.buckets):,} n-grams, {trained.seconds:.1f} s")
    return TrainedText(Path(run.out), write_classifier(Path(run.out), draft, data), report)


def train_encoder(run: TextRun, config: EncoderConfig, *, threads: int = 0, tell: Tell = lambda _: None) -> TrainedText:
    """Train an encoder to classify texts and write its model folder; a run that was interrupted goes on.

    Raises:
        DataNotFound: There is no such data.
        DataInvalid: A row cannot be read.
        ModelNotFound: There is no such encoder folder.
        ModelFormatRefused: It wants code to be run, or is not a BERT.
        MissingExtra: The extras `train` and `text` are not both installed.
    """
    if threads:
        torch.set_num_threads(threads)
    folder = read_encoder(Path(run.model))
    splits = read_labelled(Path(run.data), column=run.column, label=run.label, multi_label=run.multi_label)
    longest = min(run.max_tokens, folder.sizes["positions"])
    sizes = {**folder.sizes, "classes": len(splits["train"].names), "multi_label": run.multi_label}
    network, tokens = build(sizes, folder.weights, config), read_tokens(folder.tokenizer, longest)
    state = Path(run.out) / "training"
    for row in fit(network, tokens, splits["train"], splits["dev"], config, state):
        tell("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    return publish_encoder(run, network, folder.tokenizer, longest, splits)


def publish_encoder(
    run: TextRun,
    network: Bert,
    tokenizer: bytes,
    max_tokens: int,
    splits: Mapping[str, Labelled],
    *,
    tests: Mapping[str, Labelled] | None = None,
    tell: Tell = lambda _: None,
) -> TrainedText:
    """Write the model folder of a trained encoder: its graph in int8 where that keeps the accuracy on dev, else in float32.

    The temperature is that of dev. The accuracy is kept where int8 is right as often as float32, but for half a percent.
    """
    network.eval()
    dev, tokens = splits["dev"], read_tokens(tokenizer, max_tokens)
    encoded = tokens.encode(dev.texts)
    network.temperature.fill_(best_temperature(logits_of(network, encoded), dev.truth))
    network.eval()
    graph = export_encoder(network)
    some = [padded(encoded[:16]), padded(sorted(encoded, key=len)[-4:])]
    difference = text_parity(network, graph, some, tolerance=1e-4)
    small = in_int8(graph)

    def scores(data: bytes) -> Scores:
        return Encoder(tokens, _Session(data), len(dev.names))

    right = [_right(scores(data)(list(dev.texts)), dev) for data in (graph, small)]
    tell(f"right on dev: {right[0]:.4f} in float32, {right[1]:.4f} in int8")
    chosen = small if right[1] >= right[0] - 0.005 else graph
    where, measured = _tests(run, splits, tests)
    report, metrics = numbers(scores(chosen), measured, run, where, {})
    inputs = f"{sum(len(ids) for ids, _ in some)} texts of dev, the float32 graph"
    draft = _draft(run, splits["train"]) | {
        "architecture": "bert",
        "parity": Parity(scores=difference, inputs=inputs),
        "metrics": metrics,
    }
    draft["text"] = draft["text"].model_copy(update={"max_tokens": max_tokens})
    files = {GRAPH: chosen, TOKENIZER: tokenizer}
    return TrainedText(Path(run.out), write_classifier(Path(run.out), draft, files), report)


class _Session:
    """A graph that is not in a folder yet, run as it will be."""

    def __init__(self, graph: bytes) -> None:
        self.session = open_graph(graph, threads=1)

    def __call__(self, inputs: Mapping[str, Array]) -> Tensors:
        return {"scores": self.session.run(["scores"], dict(inputs))[0]}


def _right(scores: Floats, data: Labelled) -> float:
    if data.truth.ndim == 2:
        return float(((scores > 0.5) == data.truth).all(1).mean())
    return float((scores.argmax(1) == data.truth).mean())


def numbers(
    scores: Scores, measured: Mapping[str, Labelled], run: TextRun, where: str, notes: Mapping[str, str]
) -> tuple[ClassificationReport | TagReport, list[Metric]]:
    """Return the report on the first test, and what the card says of all."""
    reports, metrics = [], list[Metric]()
    for name, test in measured.items():
        found = scores(list(test.texts))
        tags = test.truth.ndim == 2
        report = (
            tag_report(found, test.truth, test.names, unit="texts")
            if tags
            else classification_report(found, test.truth, test.names, unit="texts")
        )
        reports.append(report)
        values = (
            {"mAP": report.map, "F1": report.micro_f1} if isinstance(report, TagReport) else {"accuracy": report.top1}
        )
        values["ECE"] = expected_calibration_error(found, test.truth)
        command = run.command or f"openlepton evaluate {run.name or run.out} {where} --split {name}"
        metrics += [
            Metric(
                name=key,
                value=round(float(value), 4),
                data=f"{name}, {len(test):,} texts",
                command=command,
                note=notes.get(name, ""),
            )
            for key, value in values.items()
        ]
    return reports[0], metrics


def _tests(
    run: TextRun, splits: Mapping[str, Labelled], tests: Mapping[str, Labelled] | None
) -> tuple[str, Mapping[str, Labelled]]:
    name = "test" if "test" in splits else "dev"
    return run.data, tests or {name: splits[name]}


def _draft(run: TextRun, train: Labelled) -> dict[str, Any]:
    """Return what a card says whatever the family."""
    languages = run.languages or tuple(sorted({language_of(text) for text in train.texts[:1000]}))
    name = run.name or model_name(Path(run.out).name)
    facts = {"classify": ClassifyFacts()} if run.multi_label else {}
    return {
        "contract": CONTRACT,
        "name": name,
        "version": "1",
        "task": "classify-text",
        "description": run.description
        or f"Tells {len(train.names)} classes of texts apart: {', '.join(train.names)}."[:500],
        "licence": run.licence,
        "source": run.source or f"trained on {Path(run.data).name} ({len(train):,} texts)",
        "labels": train.names,
        "labels_zh": run.labels_zh or None,
        "text": TextInput(languages=languages),
        **facts,
    }


def write_classifier(out: Path, draft: Mapping[str, Any], files: Mapping[str, bytes]) -> ModelCard:
    """Write a model folder: its files, and last the card."""
    card = draft_card(**draft, files={name: file_facts(data) for name, data in files.items()})
    return write_folder(out, card, files)
