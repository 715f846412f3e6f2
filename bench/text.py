"""Classifiers of texts: `sentiment-en` against transformers' `pipeline` with the same weights; the linear family by itself.

`text.py PEER_PYTHON [TEXTS]`: TEXTS is a folder with `sst2` and `thucnews`, each with its splits in JSON lines; without it the
sentences of the guides are read, and nothing is trained. The peer's environment needs `torch transformers safetensors psutil`.
"""

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from measure import OURS, ROOT, driver, ratio_table, whole_process
from onnx import numpy_helper
from safetensors.numpy import save_file

from openlepton.hub.encoder_folder import EMBEDDINGS, LAYER
from openlepton.hub.index import find
from openlepton.text.labelled import read_labelled
from openlepton.text.tokens import TOKENIZER

THREADS = 2
TARGET = 4.0
LINEAR_TARGET, TRAIN_TARGET_S = 5000, 60
BATCHES = (1, 8)
"""Of the peer: as it comes, and what suited it best of 8, 32 and more."""


def weights_of(graph: bytes) -> dict[str, np.ndarray]:
    """Return the weights of a graph that `nets.export_text` wrote, in float32, under the names of `nets.bert.Bert`."""
    model = onnx.load_from_string(graph)
    stored = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    found = {}
    for name, value in stored.items():
        if name.startswith("network.") and not name.endswith(".scale"):
            plain = name.removesuffix(".int8")
            scale = stored[f"{plain}.scale"] if name.endswith(".int8") else np.float32(1)
            found[plain.removeprefix("network.")] = (value * scale).astype(np.float32)
    for node in model.graph.node:
        if match := re.match(r"/network/layers\.(\d+)/(\w+)/MatMul_output_0", node.output[0]):
            if node.op_type in ("MatMul", "MatMulInteger"):
                matrix = stored.get(node.input[1])
                if matrix is None or node.input[1].endswith(".int8"):
                    plain = node.input[1].removesuffix(".int8")
                    matrix = stored[f"{plain}.int8"] * stored[f"{plain}.scale"]
                found[f"layers.{match[1]}.{match[2]}.weight"] = np.ascontiguousarray(matrix.T, np.float32)
        elif node.output[0] == "/network/embeddings/Add_output_0":  # places, and the one type that there is
            found["embeddings.types.weight"] = np.stack([stored[node.input[1]]] * 2)
    return found


def peer_folder(model: str, out: Path) -> Path:
    """Write the encoder of `model` in the Hugging Face layout; its temperature goes into the classifier."""
    folder = find(model)
    weights = weights_of(folder.read("model.onnx"))
    temperature = weights.pop("temperature")
    layer, embedding = ({ours: theirs for theirs, ours in names.items()} for names in (LAYER, EMBEDDINGS))
    tensors = {}
    for name, value in weights.items():
        first, *rest, kind = name.split(".")
        if first == "classifier":
            tensors[name] = value / temperature
        elif first == "embeddings":
            tensors[f"bert.embeddings.{embedding[rest[0]]}.{kind}"] = value
        else:
            tensors[f"bert.encoder.layer.{rest[0]}.{layer[rest[1]]}.{kind}"] = value
    config = {
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_act": "gelu",
        "vocab_size": len(weights["embeddings.tokens.weight"]), "hidden_size": weights["embeddings.tokens.weight"].shape[1],
        "num_hidden_layers": sum(name.endswith(".wide.weight") for name in weights), "num_attention_heads": 12,
        "intermediate_size": len(weights["layers.0.wide.weight"]), "layer_norm_eps": 1e-12,
        "max_position_embeddings": len(weights["embeddings.positions.weight"]),
        "id2label": dict(enumerate(folder.card.labels)), "label2id": {name: row for row, name in enumerate(folder.card.labels)},
    }  # fmt: skip
    out.mkdir()
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (out / TOKENIZER).write_bytes(folder.read(TOKENIZER))
    return out


def sentences(texts: str) -> list[str]:
    """Return what is judged: the test of SST-2, or sentences of the guides."""
    if texts:
        return list(read_labelled(Path(texts) / "sst2")["test"].texts)
    guides = [
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")) if "zh-CN" not in path.name
    ]
    found = re.split(r"(?<=[.!?])\s+", " ".join(" ".join(guide.split()) for guide in guides))
    return [text for text in found if text.isascii() and 20 < len(text) < 200][:800]


def with_long_ones(given: Sequence[str]) -> list[str]:
    """Return the same, but of ten each one is made of eight: about as long as the model reads."""
    return [" ".join(given[row : row + 8]) if row % 10 == 0 else text for row, text in enumerate(given)]


def encoder(peer_python: str, texts: str, model: str, rounds: int) -> None:
    """Print texts a second, ours and the peer's in turn, and how far the scores are apart."""
    short = sentences(texts)
    name = "the test of SST-2" if texts else "sentences of the guides"
    for title, rows in ((name, short), (f"{name}, a tenth of them long", with_long_ones(short))):
        with tempfile.TemporaryDirectory() as folder:
            given, theirs = Path(folder) / "texts.json", peer_folder(model, Path(folder) / "peer")
            given.write_text(json.dumps(rows), encoding="utf-8")
            ours, peer = list[float](), {batch: list[float]() for batch in BATCHES}
            for _ in range(rounds):
                own = driver(OURS, "openlepton_text.py", model, str(given), str(THREADS), threads=THREADS)
                ours.append(own["texts_s"])
                for batch, figures in peer.items():
                    options = (str(theirs), str(given), str(batch), str(THREADS))
                    other = driver([peer_python], "transformers_text.py", *options, threads=THREADS)
                    figures.append(other["texts_s"])
            apart = np.abs(np.array(own["scores"]) - np.array(other["scores"]))
            for batch, figures in peer.items():
                case = f"{title}: pipeline with batch_size={batch}{' (as it comes)' if batch == 1 else ''}"
                print(ratio_table(case, figures, ours, "texts/s", TARGET, "openlepton", "transformers"))
            print(f"  memory      {own['peak_mb']:.0f} MB against {other['peak_mb']:.0f} MB")
            print(f"  scores      apart by {apart.mean():.4f} on average, by {apart.max():.3f} at most")


def linear(texts: str, rounds: int) -> None:
    """Print texts a second of `topics-zh`, and how long it takes to train its like."""
    if not texts:
        print("linear: left out, no texts")
        return
    rows = list(read_labelled(Path(texts) / "thucnews")["dev"].texts)
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "texts.json", Path(folder) / "out"
        given.write_text(json.dumps(rows), encoding="utf-8")
        options = ("topics-zh", str(given), "1")
        rates = [driver(OURS, "openlepton_text.py", *options, threads=1)["texts_s"] for _ in range(rounds)]
        slowest, verdict = min(rates), "reached" if min(rates) >= LINEAR_TARGET else "MISSED"
        print(f"topics-zh, {len(rows):,} headlines, one core: {slowest:,.0f} to {max(rates):,.0f} texts/s")
        print(f"  target {LINEAR_TARGET:,}: {verdict}")
        command = ["train", "--task", "classify-text", "--data", str(Path(texts) / "thucnews"), "--out", str(out)]
        command = [*OURS, "-m", "openlepton", *command]
        seconds = whole_process(command, ROOT, 0.05).seconds
        verdict = "reached" if seconds < TRAIN_TARGET_S else "MISSED"
        print(f"openlepton train on thucnews, from start to end: {seconds:.1f} s; target {TRAIN_TARGET_S} s: {verdict}")


def main(peer_python: str = "", texts: str = "", model: str = "sentiment-en", rounds: str = "3") -> None:
    """Print both families."""
    linear(texts, int(rounds))
    if Path(peer_python).is_file():
        encoder(peer_python, texts, model, int(rounds))


if __name__ == "__main__":
    main(*sys.argv[1:])
