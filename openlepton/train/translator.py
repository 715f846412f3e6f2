"""A folder of pairs of sentences to a model folder that translates: tokenizer, training, export proved equal, scores.

::

    train.jsonl -> pieces.model -> translator.safetensors -> best/        dev.jsonl watches, test.jsonl scores
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openlepton.arrays import Array
from openlepton.card import CONTRACT, Metric, ModelCard, Parity, TextInput, TranslateFacts, open_folder
from openlepton.errors import DataEmpty, DataNotFound, ParityFailed, UsageError, missing_extra
from openlepton.files import write_atomic
from openlepton.hub.convert import draft_card, model_name
from openlepton.hub.translators import UNKNOWN_FILES, Quantization, network_spec, write_translator
from openlepton.nets.transformer import BOS, UNKNOWN, Config, Transformer
from openlepton.text.rows import Row, read_rows
from openlepton.text.translate import open_translator
from openlepton.text.translate_tokens import PIECES
from openlepton.train.config import Precision
from openlepton.train.parallel import encoded, learn_pieces, open_tokenizer
from openlepton.train.precision import choose_precision
from openlepton.train.translating import STATE, Encoded, TranslateConfig, fit, load_network, padded, pairs_of

Tell = Callable[[str], None]
Pairs = Sequence[tuple[str, str]]

ENDINGS = (".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz", ".tsv.gz")
TOLERANCE = 2e-3
"""How far the engine's logarithms of probabilities may be from the network's, float32."""


@dataclass(frozen=True)
class TranslatorRun:
    """What to train on what, and how.

    Attributes:
        data: A folder with `train` and, for the numbers, `dev` (or `val`) and `test`, each JSON lines or a table with a header; the
            columns are called as the languages.
        out: The folder that the run is written to; a run that is there goes on.
        source: The language that is read.
        target: The language that is written.
        vocabulary: Pieces of the tokenizer, source and target together.
        width: Width of the Transformer.
        encoder_layers: Layers that read.
        decoder_layers: Layers that write.
        batch_tokens: Pieces of a batch, padding included.
        epochs: How often every pair is seen, at most.
        minutes: When to stop before that.
        lr: Highest learning rate of AdamW; None for the usual.
        smoothing: Label smoothing, 0..1.
        precision: Of the matrix products.
        threads: Processor threads of torch; 0 for all.
        seed: Of everything random.
        name: Of the model; by default that of the folder.
        licence: SPDX expression of the licence of the weights.
    """

    data: str
    out: str
    source: str
    target: str
    vocabulary: int = 8000
    width: int = 256
    encoder_layers: int = 3
    decoder_layers: int = 3
    batch_tokens: int = 4096
    epochs: int = 30
    minutes: float = float("inf")
    lr: float = 2e-3
    smoothing: float = 0.1
    precision: Precision = "auto"
    threads: int = 0
    seed: int = 0
    name: str = ""
    licence: str = "NOASSERTION"

    def __post_init__(self) -> None:
        choose_precision(self.precision)
        if self.source == self.target:
            raise UsageError(f"source and target are both {self.source!r}")


@dataclass(frozen=True)
class TrainedTranslator:
    """What came out."""

    folder: Path
    card: ModelCard


def train(run: TranslatorRun, *, tell: Tell = lambda _: None) -> TrainedTranslator:
    """Train, export and score a translator; a run that was interrupted goes on.

    Raises:
        DataNotFound: The folder has no `train`.
        DataEmpty: No pair in it can be used.
        ParityFailed: The engine computes something else than the network.
        MissingExtra: The extras `train` and `text` are not both installed.
    """
    if run.threads:
        torch.set_num_threads(run.threads)
    out = Path(run.out)
    pairs = read_pairs(Path(run.data), ("train",), run.source, run.target, tell)
    if not pairs:
        raise DataEmpty(f"{run.data}: train: no pair of {run.source} and {run.target}")
    dev = read_pairs(Path(run.data), ("dev", "val"), run.source, run.target, tell, needed=False) or pairs[-500:]
    out.mkdir(parents=True, exist_ok=True)
    if not (out / PIECES).exists():
        texts = [text for pair in pairs for text in pair]
        write_atomic(out / PIECES, learn_pieces(texts, run.vocabulary, seed=run.seed))
    pieces = (out / PIECES).read_bytes()
    tokenizer = open_tokenizer(pieces)
    learned, watched = encoded(pairs, tokenizer), encoded(dev, tokenizer)
    tell(f"{len(pairs)} pairs to learn from, {len(dev)} to watch")
    for row in fit(lambda _: learned, watched, _config(run, tokenizer.get_piece_size()), out):
        tell("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    test = read_pairs(Path(run.data), ("test",), run.source, run.target, tell, needed=False) or dev
    draft = draft_translator(
        model_name(out.name) if not run.name else run.name,
        (run.source, run.target),
        licence=run.licence,
        source=f"trained by openlepton on {Path(run.data).name}: {len(pairs)} pairs",
    )
    best = out / "best"
    card = publish(load_network(out / STATE), pieces, best, draft, check=watched[:16])
    command = f"openlepton train --task translate --data {run.data} --from {run.source} --to {run.target}"
    metrics = score(best, test, data="test" if test is not dev else "dev", command=command)
    card = publish(load_network(out / STATE), pieces, best, card.model_copy(update={"metrics": metrics}))
    return TrainedTranslator(best, card)


def _config(run: TranslatorRun, vocabulary: int) -> TranslateConfig:
    layers = {"encoder_layers": run.encoder_layers, "decoder_layers": run.decoder_layers}
    return TranslateConfig(
        Config(vocabulary, width=run.width, inner=4 * run.width, **layers),
        batch_tokens=run.batch_tokens,
        lr=run.lr,
        smoothing=run.smoothing,
        epochs=run.epochs,
        minutes=run.minutes,
        precision=run.precision,
        seed=run.seed,
    )


def read_pairs(
    folder: Path, names: Sequence[str], source: str, target: str, tell: Tell, *, needed: bool = True
) -> list[tuple[str, str]]:
    """Return the pairs of the first of `names` that `folder` has, source first, each once; what cannot be read is told.

    Raises:
        DataNotFound: There is none, and it is needed.
        DataInvalid: A table has no column of the source's name.
    """
    paths = [folder / f"{name}{ending}" for name in names for ending in ENDINGS]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        if not needed:
            return []
        raise DataNotFound(f"{folder}: no {' or '.join(names)}.jsonl, .csv or .tsv in it")
    found, bad = list[tuple[str, str]](), 0
    for row in read_rows(path, column=source):
        other = row.fields.get(target) if isinstance(row, Row) else None
        if isinstance(row, Row) and isinstance(other, str):
            found.append((row.text, other))
            continue
        bad += 1
        if bad <= 5:
            tell(str(row) if not isinstance(row, Row) else f"{path}: line {row.number}: {target}: no text")
    if bad > 5:
        tell(f"{path}: {bad} rows left out in all")
    return pairs_of(found)


def draft_translator(name: str, languages: tuple[str, str], *, licence: str, source: str, **fields: Any) -> ModelCard:
    """Return the card of a translator but for what its files and scores say."""
    reads, writes = languages
    plain: Mapping[str, Any] = {
        "contract": CONTRACT,
        "name": name,
        "version": "1",
        "task": "translate",
        "architecture": "transformer",
        "description": f"Transformer that translates {reads} to {writes}",
        "licence": licence,
        "source": source,
        "text": TextInput(languages=(reads,), max_tokens=128),
        "translate": TranslateFacts(source=reads, target=writes, beam=4),
        "files": UNKNOWN_FILES,
    }
    return draft_card(**{**plain, **fields})


def publish(
    network: Transformer,
    pieces: bytes,
    out: Path,
    draft: ModelCard,
    *,
    check: Sequence[Encoded] = (),
    quantization: Quantization = "int8",
) -> ModelCard:
    """Write a trained network as a model folder and return its card.

    Args:
        network: With its trained weights.
        pieces: The tokenizer.
        out: The folder.
        draft: The card but for its files.
        check: Pairs on which engine and network, both in float32, must agree on every piece's probability.
        quantization: How matrices are stored.

    Raises:
        ParityFailed: They do not.
    """
    network = network.eval()
    tokenizer = open_tokenizer(pieces)
    vocabulary = [tokenizer.id_to_piece(row) for row in range(tokenizer.get_piece_size())]
    tensors: dict[str, Array] = {name: value.numpy() for name, value in network.state_dict().items()}
    config = {"encoder_layers": network.config.encoder_layers, "decoder_layers": network.config.decoder_layers}
    config |= {"heads": network.config.heads}

    def write(folder: Path, card: ModelCard, kind: Quantization) -> ModelCard:
        return write_translator(
            folder,
            network_spec(config, tensors, network.positions.numpy()),
            card,
            {PIECES: pieces},
            vocabularies=(vocabulary, vocabulary),
            start=vocabulary[BOS],
            unknown=vocabulary[UNKNOWN],
            quantization=kind,
        )

    if check:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="openlepton-") as folder:
            write(Path(folder), draft, "float32")
            difference = parity(network, vocabulary, Path(folder), check)
        if not difference <= TOLERANCE:
            raise ParityFailed(
                f"{draft.name}: engine and network differ by {difference:.2g}, tolerated is {TOLERANCE:.2g}"
            )
        draft = draft.model_copy(
            update={"parity": Parity(scores=difference, inputs=f"{len(check)} pairs, logarithms, float32")}
        )
    return write(out, draft, quantization)


@torch.no_grad()
def parity(network: Transformer, vocabulary: Sequence[str], folder: Path, pairs: Sequence[Encoded]) -> float:
    """Return the largest difference of a target piece's logarithm of probability between the network and its float32 folder."""
    translator = open_translator(open_folder(folder), threads=1, compute="float32")
    sources, targets = ([[vocabulary[row] for row in pair[side]] for pair in pairs] for side in (0, 1))
    found = translator.engine.score_batch(sources, [target[:-1] for target in targets])
    worst = 0.0
    for (source, target), result in zip(pairs, found, strict=True):
        states = network(padded([source]), padded([[BOS, *target[:-1]]]))  # (1, T, D)
        logs = network.logits(states).log_softmax(-1)[0, range(len(target)), list(target)]  # (T,)
        worst = max(worst, float(np.abs(logs.numpy() - np.array(result.log_probs)).max()))
    return worst


def score(folder: Path, pairs: Pairs, *, data: str, command: str) -> tuple[Metric, ...]:
    """Return BLEU (Papineni et al. 2002) and chrF (Popovic 2015) of the model in `folder` on `pairs`, as sacrebleu has them.

    Raises:
        MissingExtra: sacrebleu is not installed.
    """
    try:
        import sacrebleu
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "train") from None
    translator = open_translator(open_folder(folder))
    hypotheses = [" ".join(found.text.splitlines()) for found in translator.batch([source for source, _ in pairs])]
    references = [[target for _, target in pairs]]
    tokenize = "zh" if translator.pair[1] == "zh" else "char" if translator.pair[1] in ("ja", "th") else "13a"
    bleu = sacrebleu.corpus_bleu(hypotheses, references, tokenize=tokenize).score
    chrf = sacrebleu.corpus_chrf(hypotheses, references).score
    note = f"{len(pairs)} pairs, beam {translator.beam}"
    return (
        Metric(name="BLEU", value=round(bleu, 2), data=data, command=command, note=f"{note}, sacrebleu, {tokenize}"),
        Metric(name="chrF", value=round(chrf, 2), data=data, command=command, note=f"{note}, sacrebleu"),
    )
