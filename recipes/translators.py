"""Train what translates between English and Chinese, `tiny-en-zh` and `tiny-zh-en`.

    python recipes/translators.py train MT en zh runs/en-zh
    python recipes/translators.py export MT en zh runs/en-zh OUT

MT is a folder with Tatoeba's sentences, Python's documentation and TensorFlow's, each as `train`, `dev` and `test.tsv.gz` of
English and Chinese. OUT is the model folder that ships. Needs the extras `train` and `text`, and `opencc` from PyPI, which
makes the Chinese simplified.

An hour of one processor core is all the training there is, so most of it goes to Tatoeba: each epoch has all of its sentences and
a changing share of the documentation's short ones.
"""

import argparse
import gzip
import random
from collections.abc import Callable
from pathlib import Path

import opencc
import torch

from openlepton.files import write_atomic
from openlepton.hub.folder import write_card
from openlepton.nets.transformer import Config
from openlepton.text.translate_tokens import PIECES
from openlepton.train.parallel import encoded, learn_pieces, open_tokenizer
from openlepton.train.states import read_state
from openlepton.train.translating import FORMAT, STATE, Encoded, TranslateConfig, fit, load_network, pairs_of
from openlepton.train.translator import draft_translator, publish, score

EVERYDAY, DOCUMENTS = "tatoeba_en_zh", ("pydocs_en_zh", "tfdocs_en_zh")
VOCABULARY = 8000
DOCUMENT_PIECES = 40
"""Longest sentence of the documentation that is learned from."""
DOCUMENT_PAIRS = 4000
"""Of them, how many an epoch has."""
TESTS = {
    "Tatoeba, test": f"{EVERYDAY}/test.tsv.gz",
    "Python's documentation, test": f"{DOCUMENTS[0]}/test.tsv.gz",
    "FLORES, dev: news and encyclopedia, what it was not made for": "eval/flores-dev.en-zh.tsv.gz",
}

Pairs = list[tuple[str, str]]


def read(path: Path, simplified: Callable[[str], str], source: str) -> Pairs:
    """Return the pairs of a file, source first."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    pairs = pairs_of((row[0], simplified(row[1])) for row in rows)
    return pairs if source == "en" else [(zh, en) for en, zh in pairs]


def train(data: Path, source: str, out: Path, minutes: float) -> None:
    """Train one direction; goes on where it stopped."""
    simplified = opencc.OpenCC("t2s").convert
    everyday = read(data / EVERYDAY / "train.tsv.gz", simplified, source)
    held = {
        text for part in ("dev", "test") for text, _ in read(data / EVERYDAY / f"{part}.tsv.gz", simplified, source)
    }
    documents = [pair for name in DOCUMENTS for pair in read(data / name / "train.tsv.gz", simplified, source)]
    short = [pair for pair in documents if max(map(len, pair)) < 200]
    if not (out / PIECES).exists():
        out.mkdir(parents=True, exist_ok=True)
        texts = sorted(text for pair in [*everyday * 3, *short] for text in pair)  # sorted: the same in both directions
        write_atomic(out / PIECES, learn_pieces(texts, VOCABULARY))
    everyday = [pair for pair in everyday if pair[0] not in held]
    tokenizer = open_tokenizer((out / PIECES).read_bytes())
    common = encoded(everyday, tokenizer)
    technical = [pair for pair in encoded(documents, tokenizer) if max(map(len, pair)) <= DOCUMENT_PIECES]
    print(f"{len(common)} everyday pairs, {len(technical)} of the documentation", flush=True)

    def draw(epoch: int) -> list[Encoded]:
        return common + random.Random(epoch).sample(technical, DOCUMENT_PAIRS)

    dev = encoded(read(data / EVERYDAY / "dev.tsv.gz", simplified, source), tokenizer)
    config = TranslateConfig(
        Config(VOCABULARY, width=192, inner=768),
        batch_tokens=2048,
        lr=3e-3,
        warmup=150,
        epochs=1000,
        minutes=minutes,
        cooldown=0.4,
        precision="float32",  # as what ships was trained
    )
    for row in fit(draw, dev, config, out, every_s=180):
        print(row, flush=True)


def export(data: Path, source: str, run: Path, out: Path) -> None:
    """Write the model folder with the averaged weights of a run, measured on what nothing was learned from."""
    simplified = opencc.OpenCC("t2s").convert
    target = "zh" if source == "en" else "en"
    pieces = (run / PIECES).read_bytes()
    progress = read_state(run / STATE, FORMAT).progress
    dev = encoded(read(data / EVERYDAY / "dev.tsv.gz", simplified, source), open_tokenizer(pieces))
    names = {"en": "English", "zh": "simplified Chinese"}
    draft = draft_translator(
        out.name,
        (source, target),
        licence="Apache-2.0",
        source="trained on Tatoeba (CC BY 2.0 FR, by way of manythings.org), Python's documentation (PSF-2.0; its Chinese CC0-1.0) "
        f"and TensorFlow's (Apache-2.0) for {progress['step']} steps, {round(progress['seconds'] / 60)} minutes of a shared core; "
        f"made by: python recipes/translators.py train MT {source} {target} OUT",
        description=f"A small Transformer that translates everyday sentences from {names[source]} to {names[target]}. "
        "It knows neither news nor long sentences, and makes up what it does not know: read what it writes before you use it.",
    )
    card = publish(load_network(run / STATE), pieces, out, draft, check=dev[:64])
    command = f"python recipes/translators.py export MT {source} {target} RUN OUT"
    metrics = []
    for label, path in TESTS.items():
        if (data / path).exists():
            metrics += score(out, read(data / path, simplified, source), data=label, command=command)
    card = card.model_copy(update={"metrics": tuple(metrics)})
    write_card(out, card)
    for metric in metrics:
        print(f"{metric.name} {metric.value} on {metric.data}", flush=True)


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "export"))
    parser.add_argument("data", type=Path)
    parser.add_argument("source", choices=("en", "zh"))
    parser.add_argument("target", choices=("en", "zh"))
    parser.add_argument("out", type=Path)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=65)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "train":
        train(options.data, options.source, options.out, options.minutes)
    elif options.folder is None:
        parser.error("export: name the run, then the model folder to write")
    else:
        export(options.data, options.source, options.out, options.folder)


if __name__ == "__main__":
    main()
