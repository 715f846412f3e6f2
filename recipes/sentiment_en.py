"""Train the English sentiment model that ships: MiniLM-L6 on the film reviews of SST-2.

    python recipes/sentiment_en.py train ENCODER SST2 runs/sentiment-held-out
    python recipes/sentiment_en.py train ENCODER SST2 runs/sentiment-en --all
    python recipes/sentiment_en.py publish ENCODER SST2 runs/sentiment-en --to zoo/sentiment-en

ENCODER is the folder of all-MiniLM-L6-v2 (Apache-2.0), in the Hugging Face layout; SST2 a folder with `train`, `dev` and `test`
in JSON lines. The first command says how good the settings are on whole sentences of which no part was learned from: 0.88; the
second learns from all. Two passes take a quarter of an hour on one core with instructions for bfloat16. Needs the extras `train`
and `text`. A training that was interrupted goes on when started again.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from openlepton.hub.encoder_folder import read_encoder
from openlepton.text.labelled import Labelled, read_labelled
from openlepton.text.tokens import read_tokens
from openlepton.train.classifying_text import TextRun, publish_encoder
from openlepton.train.text_encoder import STATE, EncoderConfig, build, fit, load_network

MAX_TOKENS = 128
SENTENCE, HELD_OUT = 12, 1000
"""Words of what may be a whole sentence, and how many of those are held out."""


def apart(train: Labelled, seed: int = 0) -> tuple[Labelled, Labelled]:
    """Return what is learned from, and whole sentences no part of which is in it.

    The file's phrases are parts of sentences: of a phrase held out by chance, other parts would be learned from, and what was
    learned by heart would look like understanding.
    """
    whole = "\n".join(train.texts)
    starts = np.cumsum([0, *(len(text) + 1 for text in train.texts)])
    long = [row for row, text in enumerate(train.texts) if len(text.split()) >= SENTENCE]
    rows = np.random.default_rng(seed).permutation(long)
    sentences = [row for row in rows if _alone(train.texts[row], whole, int(starts[row]))][:HELD_OUT]
    held = "\n".join(train.texts[row] for row in sentences)
    kept = [row for row, text in enumerate(train.texts) if text.strip() not in held]
    return train.take(np.array(kept)), train.take(np.array(sentences))


def _alone(text: str, whole: str, start: int) -> bool:
    """Return whether no other text of `whole` contains the one that stands at `start`."""
    return whole.find(text) == start and whole.find(text, start + 1) < 0


def train(arguments: argparse.Namespace) -> None:
    """Train, or go on with a training."""
    torch.set_num_threads(arguments.threads)
    folder = read_encoder(arguments.encoder)
    data = read_labelled(arguments.data)
    phrases, sentences = (data["train"], data["dev"]) if arguments.all else apart(data["train"])
    print(f"{len(phrases):,} phrases to learn from, {len(sentences):,} to watch it by", flush=True)
    config = EncoderConfig(
        batch=32,
        epochs=arguments.epochs,
        freeze=1,
        lr=1.5e-4,
        head_lr=1e-3,
        layer_decay=0.85,
        hidden=0.12,
        smoothing=0.1,
        average=0.999,
    )
    network = build({**folder.sizes, "classes": 2, "pooling": "mean"}, folder.weights, config)
    tokens = read_tokens(folder.tokenizer, MAX_TOKENS)
    for row in fit(network, tokens, phrases, sentences, config, arguments.out):
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


def publish(arguments: argparse.Namespace) -> None:
    """Write the model folder of what was trained."""
    data = read_labelled(arguments.data)
    run = TextRun(
        data=str(arguments.data),
        out=str(arguments.to),
        name="sentiment-en",
        languages=("en",),
        labels_zh=("负面", "正面"),
        licence="Apache-2.0",
        description="Sentiment of English film reviews, by MiniLM-L6, fine-tuned.",
        source="all-MiniLM-L6-v2 (Apache-2.0), fine-tuned by OpenLepton on phrases of SST-2 (Stanford Sentiment Treebank, "
        "published for research): two passes over all phrases of train, none of them a text of test; "
        "test is the GLUE dev set",
        command="python recipes/sentiment_en.py publish ENCODER SST2 runs/sentiment-en --to zoo/sentiment-en",
    )
    network = load_network(arguments.out / STATE)
    tokenizer = read_encoder(arguments.encoder).tokenizer
    tests = {"sst2 test": data["test"]}
    trained = publish_encoder(run, network, tokenizer, MAX_TOKENS, data, tests=tests, tell=print)
    for metric in trained.card.metrics:
        print(f"{metric.name} {metric.value} on {metric.data}")
    print({name: facts.size for name, facts in trained.card.files.items()})


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one, other = commands.add_parser("train"), commands.add_parser("publish")
    one.set_defaults(run=train)
    other.set_defaults(run=publish)
    for parser_of in (one, other):
        parser_of.add_argument("encoder", type=Path)
        parser_of.add_argument("data", type=Path)
        parser_of.add_argument("out", type=Path)
    other.add_argument("--to", type=Path, required=True)
    one.add_argument("--epochs", type=int, default=2)
    one.add_argument("--all", action="store_true", help="learn from what is otherwise held out, too")
    one.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
