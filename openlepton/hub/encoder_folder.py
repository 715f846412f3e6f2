"""Encoder folders in the Hugging Face layout, read as data: configuration, tokenizer and weights, nothing of them run.

`config.json` says the sizes, `tokenizer.json` how text becomes ids, `model.safetensors` (or `pytorch_model.bin`, a pickle, read
by the reader that cannot call anything) holds the weights. What would need code of the folder is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openlepton.arrays import Array
from openlepton.errors import CheckpointMismatch, CheckpointRefused, ModelFormatRefused, ModelNotFound

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
MAX_JSON = 64 * 1024 * 1024

LAYER = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "joined",
    "attention.output.LayerNorm": "norm",
    "intermediate.dense": "wide",
    "output.dense": "narrow",
    "output.LayerNorm": "last_norm",
}
EMBEDDINGS = {
    "word_embeddings": "tokens",
    "position_embeddings": "positions",
    "token_type_embeddings": "types",
    "LayerNorm": "norm",
}


@dataclass(frozen=True)
class EncoderFolder:
    """What such a folder holds."""

    sizes: Mapping[str, Any]
    """Fields of `nets.bert.BertConfig`."""
    tokenizer: bytes
    weights: Mapping[str, Array]
    """By the names of `nets.bert.Bert`; without a classifier where the folder has none."""
    labels: tuple[str, ...]
    """Class names, where the folder is one of a classifier."""


def read_encoder(folder: Path) -> EncoderFolder:
    """Return what the encoder folder `folder` holds.

    Raises:
        ModelNotFound: A file is missing.
        ModelFormatRefused: The configuration asks for code, or is not one of a BERT.
        CheckpointRefused: The weights are neither safetensors nor a pickle of plain tensors.
        CheckpointMismatch: The weights are not those of the network that the configuration describes.
    """
    config = read_config(folder)
    state = _rename(_tensors(folder), config)
    classified = "classifier.weight" in state
    labels = config.get("id2label") or {}
    sizes = {
        "vocabulary": config["vocab_size"],
        "width": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "hidden": config["intermediate_size"],
        "positions": config["max_position_embeddings"],
        "types": config.get("type_vocab_size", 2),
        "epsilon": config.get("layer_norm_eps", 1e-12),
        "dropout": config.get("hidden_dropout_prob", 0.1),
        "multi_label": config.get("problem_type") == "multi_label_classification",
    }
    if classified:
        sizes |= {"classes": len(state["classifier.weight"]), "pooling": "first"}
    names = tuple(str(labels.get(str(index), index)) for index in range(len(labels))) if classified else ()
    return EncoderFolder(sizes, _bytes(folder / TOKENIZER), state, names)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the `config.json` of an encoder folder.

    Raises:
        ModelNotFound: There is none.
        ModelFormatRefused: It asks for code, is not JSON, or not the configuration of a BERT.
    """
    where = folder / CONFIG
    try:
        config = json.loads(_bytes(where))
    except ValueError as error:
        raise ModelFormatRefused(f"{where}: not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ModelFormatRefused(f"{where}: expected an object, got {type(config).__name__}")
    for key in ("auto_map", "custom_pipelines", "trust_remote_code"):
        if config.get(key):
            raise ModelFormatRefused(f"{where}: {key}: the model wants code of its own to be run, which is never done")
    if config.get("model_type") != "bert":
        raise ModelFormatRefused(f"{where}: model_type: expected bert, got {config.get('model_type')!r}")
    if config.get("hidden_act", "gelu") != "gelu" or config.get("position_embedding_type", "absolute") != "absolute":
        raise ModelFormatRefused(f"{where}: expected hidden_act gelu and absolute positions")
    for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        if not isinstance(config.get(key), int) or not 1 <= config[key] <= 1 << 20:
            raise ModelFormatRefused(f"{where}: {key}: expected a number of 1 and more, got {config.get(key)!r}")
    config.setdefault("max_position_embeddings", 512)
    return config


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON + 1)
    except OSError as error:
        raise ModelNotFound(f"{path}: {error.strerror or error}: an encoder folder needs it") from None
    if len(data) > MAX_JSON:
        raise ModelFormatRefused(f"{path}: more than {MAX_JSON:,} bytes")
    return data


def _tensors(folder: Path) -> Mapping[str, Array]:
    """Return the weights under the names that the file gives them."""
    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    if safe.is_file():
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            found: Mapping[str, Array] = load(safe.read_bytes())
        except SafetensorError as error:
            raise CheckpointRefused(f"{safe}: not a safetensors file: {error}") from None
        return found
    if pickled.is_file():
        from openlepton.hub.checkpoint import read_checkpoint

        return read_checkpoint(pickled).state
    raise ModelNotFound(f"{folder}: neither {safe.name} nor {pickled.name}: an encoder folder needs its weights")


def _rename(given: Mapping[str, Array], config: Mapping[str, Any]) -> dict[str, Array]:
    """Return the weights by our names; what no classifier needs is left out."""
    found: dict[str, Array] = {}
    for name, value in given.items():
        plain = name.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias")
        stem, _, kind = plain.rpartition(".")
        first, _, rest = stem.partition(".")
        ours = None
        if first == "embeddings" and rest in EMBEDDINGS:
            ours = f"embeddings.{EMBEDDINGS[rest]}"
        elif stem.startswith("encoder.layer."):
            index, _, part = stem.removeprefix("encoder.layer.").partition(".")
            ours = f"layers.{index}.{LAYER[part]}" if part in LAYER else None
        elif stem in ("pooler.dense", "classifier"):
            ours = stem.removesuffix(".dense")
        if ours is not None and kind in ("weight", "bias"):
            found[f"{ours}.{kind}"] = value.astype("float32")
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    wanted = {
        "embeddings.tokens.weight": (config["vocab_size"], width),
        f"layers.{layers - 1}.query.weight": (width, width),
    }
    for name, shape in wanted.items():
        if name not in found or found[name].shape != shape:
            got = found[name].shape if name in found else "nothing"
            raise CheckpointMismatch(f"the weights are not those of {CONFIG}: {name}: expected {shape}, got {got}")
    if "classifier.weight" not in found:
        found = {name: value for name, value in found.items() if not name.startswith("pooler")}
    return found
