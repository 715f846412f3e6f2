"""Train the English sentiment model that ships: MiniLM-L6 on the film reviews of SST-2.

    python recipes/sentiment_en.py train ENCODER SST2 runs/sentiment-en
    python recipes/sentiment_en.py publish ENCODER SST2 runs/sentiment-en --to zoo/sentiment-en

ENCODER is the folder of all-MiniLM-L6-v2 (Apache-2.0), in the Hugging Face layout; SST2 a folder with `train`, `dev` and `test`
in JSON lines. Four passes over all phrases take half an hour on one core with instructions for bfloat16. Needs the extras
`train` and `text`. A training that was interrupted goes on when started again.
"""

import argparse
from pathlib import Path

import torch

from openlepton.hub.encoder_folder import read_encoder
from openlepton.text.labelled import read_labelled
from openlepton.text.tokens import read_tokens
from openlepton.train.classifying_text import TextRun, publish_encoder
from openlepton.train.text_encoder import STATE, EncoderConfig, build, fit, load_network

MAX_TOKENS = 128


def train(arguments: argparse.Namespace) -> None:
    """Train, or go on with a training."""
    torch.set_num_threads(arguments.threads)
    folder = read_encoder(arguments.encoder)
    data = read_labelled(arguments.data)
    config = EncoderConfig(batch=32, epochs=arguments.epochs, lr=6e-5, head_lr=1e-3)
    network = build({**folder.sizes, "classes": 2, "pooling": "mean"}, folder.weights, config)
    tokens = read_tokens(folder.tokenizer, MAX_TOKENS)
    for row in fit(network, tokens, data["train"], data["dev"], config, arguments.out):
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
        "published for research): four passes over all phrases of train, none of them a text of test; "
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
    one.add_argument("--epochs", type=int, default=4)
    one.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
