"""Texts a second of a classifier: `openlepton_text.py MODEL TEXTS THREADS`, TEXTS a JSON file. Prints JSON."""

import json
import sys
import time
from pathlib import Path

from translation_sources import peak_mb

from openlepton.predictor import load


def main(model: str, file: str, threads: int) -> None:
    """Print the rate, the first class's score of each text, and the peak of memory."""
    texts = json.loads(Path(file).read_text(encoding="utf-8"))
    classifier = load(model, threads=threads)
    classifier.batch(texts[:64])
    started = time.perf_counter()
    found = list(classifier.stream(texts))
    rate = len(texts) / (time.perf_counter() - started)
    print(json.dumps({"texts_s": rate, "peak_mb": peak_mb(), "scores": [float(one.scores[0]) for one in found]}))


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
