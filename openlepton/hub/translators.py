"""Translators as model folders: weights laid out for CTranslate2, tokenizers, card; and which pairs of languages there are."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from openlepton.arrays import Array
from openlepton.card import ModelCard, ModelFolder, file_facts
from openlepton.errors import ModelNotFound, missing_extra
from openlepton.hub.folder import write_folder
from openlepton.hub.index import models

Quantization = Literal["int8", "float32", "float16"]
UNKNOWN_FILES = {"model.bin": file_facts(b"?")}
"""What the draft of a card says before the files are written."""


def pairs() -> dict[tuple[str, str], ModelFolder]:
    """Return the translators that ship, by the language they read and the one they write."""
    found = {}
    for folder in models():
        if folder.card.translate is not None:
            found[folder.card.translate.source, folder.card.translate.target] = folder
    return found


def find_pair(source: str, target: str) -> ModelFolder:
    """Return the translator that ships for a pair of languages.

    Raises:
        ModelNotFound: There is none; the message lists the pairs there are.
    """
    known = pairs()
    if (source, target) in known:
        return known[source, target]
    listed = ", ".join(f"{a} to {b}" for a, b in sorted(known)) or "none"
    raise ModelNotFound(
        f"no model ships that translates {source[:20]!r} to {target[:20]!r}; pairs: {listed}. `openlepton convert "
        "hf:Helsinki-NLP/opus-mt-SOURCE-TARGET OUT` makes one from an OPUS model; then name it: --model OUT"
    )


def import_specs() -> Any:
    """Return CTranslate2's module of model specifications.

    Raises:
        MissingExtra: CTranslate2 is not installed.
    """
    try:
        import ctranslate2.specs
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "text") from None
    return ctranslate2.specs


def set_linear(spec: Any, tensors: Mapping[str, Array], *names: str) -> None:
    """Put the layers `names` into one of CTranslate2's, their outputs one after the other."""
    spec.weight = np.concatenate([tensors[f"{name}.weight"] for name in names])
    spec.bias = np.concatenate([tensors[f"{name}.bias"] for name in names])


def set_norm(spec: Any, tensors: Mapping[str, Array], name: str) -> None:
    """Put the layer norm `name` into one of CTranslate2's."""
    spec.gamma, spec.beta = tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def network_spec(config: Mapping[str, Any], tensors: Mapping[str, Array], positions: Array) -> Any:
    """Return the specification of a `nets.transformer.Transformer` with the fields `config` and these tensors.

    Args:
        config: The network's config as a dict.
        tensors: Its `state_dict` as float32 arrays.
        positions: `(positions, width)`, what is added to embeddings.
    """
    specs = import_specs()
    layers = (config["encoder_layers"], config["decoder_layers"])
    spec = specs.TransformerSpec.from_config(layers, config["heads"], pre_norm=True)
    for side, embeddings in ((spec.encoder, spec.encoder.embeddings[0]), (spec.decoder, spec.decoder.embeddings)):
        embeddings.weight = tensors["embedding.weight"]
        side.scale_embeddings = True
        side.position_encodings.encodings = positions
    set_norm(spec.encoder.layer_norm, tensors, "encoder_norm")
    set_norm(spec.decoder.layer_norm, tensors, "decoder_norm")
    spec.decoder.projection.weight, spec.decoder.projection.bias = tensors["embedding.weight"], tensors["bias"]
    for side, stack in (("encoder", spec.encoder.layer), ("decoder", spec.decoder.layer)):
        for row, layer in enumerate(stack):
            at = f"{side}.{row}"
            set_norm(layer.self_attention.layer_norm, tensors, f"{at}.attention.norm")
            set_linear(layer.self_attention.linear[0], tensors, f"{at}.attention.query_key_value")
            set_linear(layer.self_attention.linear[1], tensors, f"{at}.attention.out")
            if side == "decoder":
                set_norm(layer.attention.layer_norm, tensors, f"{at}.source.norm")
                for number, name in enumerate(("query", "key_value", "out")):
                    set_linear(layer.attention.linear[number], tensors, f"{at}.source.{name}")
            set_norm(layer.ffn.layer_norm, tensors, f"{at}.ffn.norm")
            set_linear(layer.ffn.linear_0, tensors, f"{at}.ffn.wide")
            set_linear(layer.ffn.linear_1, tensors, f"{at}.ffn.narrow")
    return spec


def write_translator(
    out: Path,
    spec: Any,
    draft: ModelCard,
    tokenizers: Mapping[str, bytes],
    *,
    vocabularies: tuple[Sequence[str], Sequence[str]],
    start: str,
    unknown: str = "<unk>",
    quantization: Quantization = "int8",
) -> ModelCard:
    """Write a translator as a model folder and return its card.

    Args:
        out: The folder, made if missing; other files in it stay.
        spec: CTranslate2's specification with all weights.
        draft: The card but for its `files`, which are found out here.
        tokenizers: Files of the tokenizer, by name.
        vocabularies: Pieces of source and target, by row; the same twice where they are shared.
        start: The piece that the decoder begins with.
        unknown: The piece for what is not in the vocabulary.
        quantization: How matrices are stored.

    Raises:
        OutputError: The folder cannot be written.
    """
    source, target = vocabularies
    spec.register_source_vocabulary(list(source))
    spec.register_target_vocabulary(list(target))
    spec.config.bos_token, spec.config.eos_token = start, "</s>"
    spec.config.unk_token, spec.config.decoder_start_token = unknown, start
    spec.config.add_source_bos = spec.config.add_source_eos = False
    spec.validate()
    spec.optimize(quantization=None if quantization == "float32" else quantization)
    with tempfile.TemporaryDirectory(prefix="openlepton-") as folder:
        spec.save(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    files |= tokenizers
    card = draft.model_copy(update={"files": {name: file_facts(data) for name, data in files.items()}})
    return write_folder(out, card, files)
