"""Marian translators in the Hugging Face layout (OPUS-MT) to model folders: files are read as data, nothing in them is run.

The network (Junczys-Dowmunt et al. 2018) is a Transformer with layer norm after each sublayer; its layout in CTranslate2 is written
here, so that neither transformers nor torch takes part.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openlepton.arrays import Array
from openlepton.card import CONTRACT, ModelCard, TextInput, TranslateFacts
from openlepton.errors import CheckpointMismatch, CheckpointRefused, OutputError, UsageError, missing_extra
from openlepton.hub.checkpoint import read_checkpoint
from openlepton.hub.convert import draft_card, model_name
from openlepton.hub.translators import UNKNOWN_FILES, Quantization, import_specs, set_linear, set_norm, write_translator
from openlepton.text.translate import limit
from openlepton.text.translate_tokens import SOURCE, TARGET

HUB = "hf:"
"""What a source begins with that is a name on the Hugging Face hub, not a folder."""
WANTED = ("config.json", "vocab.json", "target_vocab.json", "tokenizer_config.json", SOURCE, TARGET)
WEIGHTS = ("model.safetensors", "pytorch_model.bin")

_NAME = re.compile(r"opus-mt(?:-tc-\w+)?-([a-z]{2,3})-([a-z]{2,3})\Z")
_TWO = {
    "eng": "en",
    "zho": "zh",
    "cmn": "zh",
    "deu": "de",
    "fra": "fr",
    "spa": "es",
    "rus": "ru",
    "jpn": "ja",
    "kor": "ko",
}
_PREFIXES = {"zh": ">>cmn_Hans<<"}
"""What a model for several target languages is asked for by default."""
_ACTIVATIONS = {"swish": "SWISH", "silu": "SWISH", "relu": "RELU", "gelu": "GELU"}
_MAX_JSON = 32 * 1024 * 1024
_NEVER = -1e9
"""Added to the score of a piece that is never to be written."""


@dataclass(frozen=True)
class Marian:
    """What a folder says, as plain values and arrays."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Array]
    source: tuple[str, ...]
    """Pieces of the source vocabulary, by row."""
    target: tuple[str, ...]
    tokenizers: Mapping[str, bytes]
    languages: tuple[str, str] | None
    """What it translates from and to, where its files say so."""


def convert_marian(
    folder: str | Path,
    out: Path,
    *,
    licence: str,
    languages: tuple[str, str] | None = None,
    prefix: str | None = None,
    name: str | None = None,
    quantization: Quantization = "int8",
    overwrite: bool = False,
) -> ModelCard:
    """Convert a Marian model to a model folder and return its card.

    Args:
        folder: A folder in the Hugging Face layout, or `hf:OWNER/NAME`, which is fetched from the hub unless it is in its cache.
        out: The folder to write; made if missing.
        licence: SPDX expression of the licence that the weights are under.
        languages: What it translates from and to; by default what its files or its name say.
        prefix: For models of several target languages, the piece that asks for one, such as `>>cmn_Hans<<`.
        name: Name of the model; by default that of the folder.
        quantization: How matrices are stored.
        overwrite: Whether a folder that is not empty may be written to; other files in it stay.

    Raises:
        CheckpointRefused: The folder is no such model, or wants code of its own to be run.
        CheckpointMismatch: Tensors are missing, or have other shapes than its config says.
        UsageError: The languages are not known, or the prefix is none of the model's.
        OutputError: The folder is not empty, or cannot be written.
        MissingExtra: The extra `text` is not installed.
    """
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out}: the folder is not empty; choose another, or ask to overwrite")
    asked = str(folder)
    path = fetched(asked.removeprefix(HUB)) if asked.startswith(HUB) else Path(folder)
    label = asked.removeprefix(HUB).rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    marian = read_marian(path, label)
    pair = languages or marian.languages
    if pair is None:
        raise UsageError(f"{asked}: neither its files nor its name say the languages: give both (--from en --to zh)")
    draft = draft_card(
        contract=CONTRACT,
        name=model_name(label) if name is None else name,
        version="1",
        task="translate",
        architecture="marian",
        description=f"Marian Transformer that translates {pair[0]} to {pair[1]}",
        licence=licence,
        source=f"converted from {label} ({'the Hugging Face hub' if asked.startswith(HUB) else 'a local folder'})",
        text=TextInput(languages=(pair[0],), max_tokens=readable(int(marian.config["max_position_embeddings"]))),
        translate=TranslateFacts(source=pair[0], target=pair[1], beam=4, prefix=_prefix(marian, pair[1], prefix)),
        files=UNKNOWN_FILES,
    )
    pad = int(marian.config["pad_token_id"])
    return write_translator(
        out,
        marian_spec(marian),
        draft,
        marian.tokenizers,
        vocabularies=(marian.source, marian.target),
        start=marian.target[int(marian.config.get("decoder_start_token_id", pad))],
        quantization=quantization,
    )


def fetched(name: str) -> Path:
    """Return the folder of a model on the Hugging Face hub: from its cache, or else downloaded; only files that hold data.

    Raises:
        UsageError: It is no name of the hub.
        CheckpointRefused: The hub has no such model, or cannot be reached.
        MissingExtra: The hub's client is not installed.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError(f"{HUB}{name}: expected {HUB}OWNER/NAME")
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "text") from None
    try:
        return Path(snapshot_download(name, allow_patterns=[*WANTED, *WEIGHTS], local_files_only=True))
    except (OSError, ValueError):  # not in the cache
        pass
    try:
        found = snapshot_download(name, allow_patterns=[*WANTED, WEIGHTS[0]])
        if not (Path(found) / WEIGHTS[0]).is_file():
            found = snapshot_download(name, allow_patterns=[*WANTED, WEIGHTS[1]])
        return Path(found)
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise CheckpointRefused(f"{HUB}{name}: cannot be fetched: {first}") from None


def read_marian(path: Path, label: str = "") -> Marian:
    """Return what the folder `path` says; `label` is the model's name, which may tell the languages.

    Raises:
        CheckpointRefused: It is no folder of a Marian model, or wants code of its own to be run.
        CheckpointMismatch: A tensor or a row of the vocabulary is missing.
    """
    config = _json(path / "config.json")
    if "auto_map" in config:
        raise CheckpointRefused(f"{path}: it wants code of its own to be run (auto_map), which is not done")
    if config.get("model_type") != "marian":
        raise CheckpointRefused(f"{path}: model_type is {config.get('model_type')!r}, only marian is read")
    activation = config.get("activation_function", "swish")
    if activation not in _ACTIVATIONS or config.get("normalize_before") or config.get("normalize_embedding"):
        raise CheckpointRefused(f"{path}: a variant of Marian that is not known ({activation}, layer norm before)")
    source = _vocabulary(path / "vocab.json")
    target = _vocabulary(path / "target_vocab.json") if (path / "target_vocab.json").is_file() else source
    tokenizers = {name: _bytes(path / name) for name in (SOURCE, TARGET)}
    settings = _json(path / "tokenizer_config.json") if (path / "tokenizer_config.json").is_file() else {}
    tensors = _tensors(path)
    marian = Marian(config, tensors, source, target, tokenizers, _languages(label or path.name, settings))
    _check(marian, path)
    return marian


def marian_spec(marian: Marian) -> Any:
    """Return CTranslate2's specification of the network."""
    specs = import_specs()
    config, tensors = marian.config, marian.tensors
    spec = specs.TransformerSpec.from_config(
        (config["encoder_layers"], config["decoder_layers"]),
        config["encoder_attention_heads"],
        pre_norm=False,
        activation=getattr(specs.Activation, _ACTIVATIONS[config.get("activation_function", "swish")]),
    )
    positions = sinusoids(config["max_position_embeddings"], config["d_model"])
    for side, embeddings, name in (
        (spec.encoder, spec.encoder.embeddings[0], "encoder"),
        (spec.decoder, spec.decoder.embeddings, "decoder"),
    ):
        embeddings.weight = _embeddings(tensors, name)
        side.scale_embeddings = bool(config.get("scale_embedding", False))
        side.position_encodings.encodings = positions
        for row, layer in enumerate(side.layer):
            at = f"model.{name}.layers.{row}"
            _set_attention(layer.self_attention, tensors, f"{at}.self_attn")
            if name == "decoder":
                _set_attention(layer.attention, tensors, f"{at}.encoder_attn", crossed=True)
            set_norm(layer.ffn.layer_norm, tensors, f"{at}.final_layer_norm")
            set_linear(layer.ffn.linear_0, tensors, f"{at}.fc1")
            set_linear(layer.ffn.linear_1, tensors, f"{at}.fc2")
    spec.decoder.projection.weight = tensors.get("lm_head.weight", _embeddings(tensors, "decoder"))
    bias = tensors["final_logits_bias"].reshape(-1).copy()
    bias[int(config["pad_token_id"])] = _NEVER
    spec.decoder.projection.bias = bias
    return spec


def sinusoids(positions: int, width: int) -> Array:
    """Return what Marian adds to embeddings, `(positions, width)` float32: sines, then cosines, by falling frequency."""
    rates = 10_000.0 ** (-2.0 * np.arange(width // 2) / width)  # (width / 2)
    angles = np.arange(positions)[:, None] * rates  # (positions, width / 2)
    return np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)


def readable(positions: int) -> int:
    """Return how many pieces a model with so many positions may read, so that it has positions for all that it may write.

    Raises:
        CheckpointRefused: Not for one.
    """
    found = next((length for length in (128, 64, 32, 16) if limit(length) <= positions), None)
    if found is None:
        raise CheckpointRefused(f"max_position_embeddings is {positions}: at least {limit(1)} are needed")
    return found


def _set_attention(spec: Any, tensors: Mapping[str, Array], at: str, *, crossed: bool = False) -> None:
    groups = ("q_proj",), ("k_proj", "v_proj"), ("out_proj",)
    for row, group in enumerate(groups if crossed else (("q_proj", "k_proj", "v_proj"), ("out_proj",))):
        set_linear(spec.linear[row], tensors, *(f"{at}.{name}" for name in group))
    set_norm(spec.layer_norm, tensors, f"{at}_layer_norm")


def _embeddings(tensors: Mapping[str, Array], side: str) -> Array:
    for name in (f"model.{side}.embed_tokens.weight", "model.shared.weight"):
        if name in tensors:
            return tensors[name]
    raise CheckpointMismatch(
        f"no embeddings for the {side}: neither model.{side}.embed_tokens.weight nor model.shared.weight"
    )


def _check(marian: Marian, path: Path) -> None:
    """Raise unless every tensor is there in its shape; what the config says is bounded before anything is made from it."""
    config = marian.config
    numbers = ("d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "max_position_embeddings")
    for name in (*numbers, "encoder_ffn_dim", "decoder_ffn_dim", "pad_token_id"):
        value = config.get(name)
        if type(value) is not int or not (name != "pad_token_id") <= value <= 1 << 20:
            raise CheckpointRefused(f"{path / 'config.json'}: {name}: expected a whole number, got {value!r}")
    start = config.get("decoder_start_token_id", config["pad_token_id"])
    if not isinstance(start, int) or not 0 <= max(start, config["pad_token_id"]) < len(marian.target):
        raise CheckpointMismatch(f"{path}: the vocabulary has {len(marian.target)} pieces, too few for its config")
    for name, shape in _shapes(config, len(marian.source), len(marian.target)):
        tensor = marian.tensors.get(name)
        if tensor is None or tensor.shape != shape:
            found = "is missing" if tensor is None else f"has shape {tensor.shape}"
            raise CheckpointMismatch(f"{path}: {name} {found}, expected {shape}")
    for side, rows in (("encoder", len(marian.source)), ("decoder", len(marian.target))):
        found_shape = _embeddings(marian.tensors, side).shape
        if found_shape != (rows, config["d_model"]):
            raise CheckpointMismatch(f"{path}: embeddings have shape {found_shape}, the vocabulary {rows} pieces")


def _shapes(config: Mapping[str, Any], source: int, target: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    D = config["d_model"]
    yield "final_logits_bias", (1, target)
    for side in ("encoder", "decoder"):
        inner = config[f"{side}_ffn_dim"]
        for row in range(config[f"{side}_layers"]):
            at = f"model.{side}.layers.{row}"
            for attention in ("self_attn", "encoder_attn")[: 1 + (side == "decoder")]:
                for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    yield f"{at}.{attention}.{name}.weight", (D, D)
                    yield f"{at}.{attention}.{name}.bias", (D,)
                yield f"{at}.{attention}_layer_norm.weight", (D,)
                yield f"{at}.{attention}_layer_norm.bias", (D,)
            for name, shape in (("fc1", (inner, D)), ("fc2", (D, inner))):
                yield f"{at}.{name}.weight", shape
                yield f"{at}.{name}.bias", shape[:1]
            yield f"{at}.final_layer_norm.weight", (D,)
            yield f"{at}.final_layer_norm.bias", (D,)


def _tensors(path: Path) -> dict[str, Array]:
    if (path / WEIGHTS[0]).is_file():
        try:
            import safetensors
            import safetensors.numpy
        except ModuleNotFoundError as error:
            raise missing_extra(error.name, "train") from None
        try:
            found = safetensors.numpy.load_file(path / WEIGHTS[0])
        except (safetensors.SafetensorError, OSError, KeyError, TypeError) as error:
            raise CheckpointRefused(f"{path / WEIGHTS[0]}: not a safetensors file, or damaged: {error}") from None
    elif (path / WEIGHTS[1]).is_file():
        found = dict(read_checkpoint(path / WEIGHTS[1]).state)
    else:
        raise CheckpointRefused(f"{path}: neither {WEIGHTS[0]} nor {WEIGHTS[1]} is in it")
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def _prefix(marian: Marian, target: str, asked: str | None) -> tuple[str, ...]:
    codes = [piece for piece in marian.source if re.fullmatch(r">>.+<<", piece)]
    if asked is None:
        asked = _PREFIXES.get(target) if codes else None
        if codes and (asked is None or asked not in codes):
            raise UsageError(f"the model writes several languages: --prefix: name one of {', '.join(codes[:20])}")
    elif asked not in codes:
        raise UsageError(f"prefix: {asked!r} is none of the model's: {', '.join(codes[:20]) or 'it has none'}")
    return () if asked is None else (asked,)


def _languages(label: str, settings: Mapping[str, Any]) -> tuple[str, str] | None:
    named = _NAME.search(label.lower())
    pair: Sequence[Any] = named.groups() if named else (settings.get("source_lang"), settings.get("target_lang"))
    plain = [_TWO.get(code, code) for code in pair if isinstance(code, str)]
    return (plain[0], plain[1]) if len(plain) == 2 and all(re.fullmatch("[a-z]{2,3}", p) for p in plain) else None


def _vocabulary(path: Path) -> tuple[str, ...]:
    rows = _json(path)
    if sorted(rows.values(), key=str) != sorted(range(len(rows)), key=str):
        raise CheckpointMismatch(f"{path}: its {len(rows)} pieces are not numbered from 0 without gaps")
    return tuple(sorted(rows, key=lambda piece: int(rows[piece])))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(path, _MAX_JSON).decode())
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise CheckpointRefused(f"{path}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointRefused(f"{path}: not a JSON object")
    return found


def _bytes(path: Path, most: int = 64 * 1024 * 1024) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise CheckpointRefused(f"{path}: {error.strerror or error}: a Marian model has this file") from None
    if len(data) > most:
        raise CheckpointRefused(f"{path}: more than {most:,} bytes")
    return data
