"""The card that travels with the weights: what a model is, and what its files must be, byte for byte."""

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from openlepton.arrays import UNKNOWN
from openlepton.errors import CardInvalid, ModelCorrupt, ModelFormatRefused, ModelNotFound, UsageError

CONTRACT = 1
"""The version of the graph contract: the names, shapes and meaning of a graph's inputs and outputs.

1: `images (B,3,H,W)` float32 0..1 RGB goes in. A detector gives `boxes (B,N,4)` float32 xyxy in input pixels and
`scores (B,N,C)` float32 0..1; a segmenter gives `coeffs (B,N,32)` and `protos (B,32,h,w)` besides, for a grid of h x w
equal cells that covers the input: sigmoids of their products are the masks; a classifier gives `scores (B,C)` float32 0..1;
a semantic segmenter gives `scores (B,C,h,w)` float32 0..1, which sum to 1 over the classes, for such a grid. Normalisation,
anchors and grids are in the graph. For text, `input_ids (B,T)` int64 and `attention_mask (B,T)` int64, 0 where a row is padded,
go in, and a classifier gives `scores (B,C)` float32 0..1.
"""

CARD_NAME = "card.toml"
CARD_MAX_BYTES = 4 * 1024 * 1024
_PIECE = 1 << 20

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Task = Literal["detect", "segment", "classify", "semantic", "classify-text", "translate"]
Engine = Literal["onnx", "openvino", "litert", "savedmodel", "torchscript"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]

TEXT_TASKS: tuple[Task, ...] = ("classify-text", "translate")
"""The tasks whose models take text; the others take images."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileFacts(_Part):
    """Size in bytes and sha256 of one file of the model."""

    size: int = Field(ge=1)
    sha256: Sha256


class ImageInput(_Part):
    """How an image becomes the tensor `images (B,3,H,W)`, float32 0..1 RGB.

    `letterbox` keeps the aspect ratio, pads with `fill` and takes any height and width that `multiple` divides, up to
    `size`; `crop` resizes the shorter side to `size / crop_fraction` and takes the central square; `stretch` resizes to `size`.
    With `size_hw`, letterbox and stretch give every image that height and width.
    """

    size: int = Field(ge=8, le=8192, description="longest side (letterbox) or both sides (crop, stretch), pixels")
    resize: Literal["letterbox", "crop", "stretch"]
    multiple: int = Field(default=32, ge=1, le=1024, description="what height and width must be divisible by")
    fill: int = Field(default=114, ge=0, le=255, description="grey of the letterbox, 0 to 255")
    crop_fraction: float = Field(default=1.0, gt=0, le=1, description="side of the crop relative to the resized image")
    interpolation: Literal["linear", "cubic", "area"] = "linear"
    size_hw: tuple[int, int] | None = Field(default=None, description="height and width, pixels; the larger is `size`")

    @model_validator(mode="after")
    def _one_size(self) -> "ImageInput":
        if self.size_hw is not None and (
            max(self.size_hw) != self.size or min(self.size_hw) < 1 or self.resize == "crop"
        ):
            raise ValueError(
                f"size_hw: expected two sides, the larger {self.size}, and no crop, got {list(self.size_hw)}"
            )
        return self


class TextInput(_Part):
    """What text a model takes: the languages that it knows, and how much of a text it sees."""

    languages: tuple[Language, ...] = Field(min_length=1, description="ISO 639 codes, such as en and zh")
    max_tokens: int | None = Field(default=None, ge=1, description="what is longer is cut; None where all is read")


class NgramFacts(_Part):
    """How a linear model turns a text into features: hashed n-grams of words and of characters."""

    buckets: int = Field(ge=2, le=1 << 24, description="rows of the weights")
    words: int = Field(ge=0, le=5, description="the longest n-gram of words; 0 for none")
    chars: int = Field(ge=0, le=8, description="the longest n-gram of characters; 0 for none")


class TranslateFacts(_Part):
    """What only a translator has: the two languages, and how it searches unless the caller says otherwise."""

    source: Language
    target: Language
    beam: int = Field(default=4, ge=1, le=64, description="hypotheses kept at each step; 1 is greedy")
    prefix: tuple[Text, ...] = Field(default=(), description="pieces before each source, such as >>cmn_Hans<<")


class DetectFacts(_Part):
    """What detectors have, with masks or without: a pyramid, and the thresholds used unless the caller says otherwise."""

    strides: tuple[int, ...] = ()
    anchors: tuple[tuple[tuple[float, float], ...], ...] = Field(default=(), description="pixels, per stride")
    min_score: float = Field(default=0.25, ge=0, le=1)
    max_iou: float = Field(default=0.45, ge=0, le=1)
    max_detections: int = Field(default=300, ge=1)


class ClassifyFacts(_Part):
    """What only a classifier has whose classes do not exclude each other; without this table, scores sum to 1."""

    multi_label: bool = True
    min_score: float = Field(default=0.5, ge=0, le=1, description="classes that score more than this are there")


class SemanticFacts(_Part):
    """What only a semantic segmenter has."""

    background: int | None = Field(
        default=None, ge=0, description="the class of pixels that show nothing, if there is one"
    )


class Metric(_Part):
    """One measured or published number, the data it was measured on, and the command that reproduces it."""

    name: Text
    value: float
    data: Text
    command: str = ""
    note: str = ""


class Parity(_Part):
    """The largest difference between the exported graph and the network on the same input."""

    boxes_px: float | None = None
    scores: float
    coeffs: float | None = None
    protos: float | None = None
    inputs: Text


class Compared(_Part):
    """How near a form comes to the model it was made of, on real images that went through both.

    Boxes are compared where the original sees something (it scores more than the card's threshold), scores everywhere.
    """

    images: Text = Field(description="which, and how many")
    boxes_px: float | None = Field(default=None, description="largest difference, pixels of the input")
    scores: float = Field(description="largest difference")
    coeffs: float | None = None
    protos: float | None = None
    matched: float = Field(
        ge=0, le=1, description="share of results that both have: boxes of a class, best classes, pixels"
    )
    metric: str = Field(default="", description="what was measured on annotated data, if anything was")
    original: float | None = Field(default=None, description="its value for the model in float32")
    value: float | None = Field(default=None, description="its value for this form")
    data: str = ""
    keeps: bool = Field(description="whether all this is within what is tolerated of the precision")


class Form(_Part):
    """One way to run the model: an engine, a precision, and the files it takes."""

    engine: Engine
    precision: Precision
    files: tuple[str, ...] = Field(min_length=1)
    calibrated: str = Field(default="", description="the images that the ranges of int8 were taken from")
    compared: Compared | None = None


class ModelCard(_Part):
    """Everything that must be known to run a model and to judge it; nothing in it is guessed when it is missing."""

    contract: int
    name: Name
    version: Text
    task: Task
    architecture: Text
    description: Text
    licence: Text = Field(description="SPDX expression")
    source: Text = Field(description="where the weights come from, and what they were trained on")
    labels: tuple[str, ...] = ()
    labels_zh: tuple[str, ...] | None = None
    input: ImageInput | None = None
    text: TextInput | None = None
    ngrams: NgramFacts | None = None
    detect: DetectFacts | None = None
    classify: ClassifyFacts | None = None
    semantic: SemanticFacts | None = None
    translate: TranslateFacts | None = None
    members: Mapping[Language, Name] | None = Field(
        default=None,
        description="shipped models, by language, of which each text goes to one; such a card has no files",
    )
    files: Mapping[str, FileFacts] = {}
    parity: Parity | None = None
    metrics: tuple[Metric, ...] = ()
    forms: tuple[Form, ...] = ()

    @field_validator("contract")
    @classmethod
    def _known_contract(cls, value: int) -> int:
        if value != CONTRACT:
            raise ValueError(f"contract {value} is not known to this release, which reads contract {CONTRACT}")
        return value

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: Mapping[str, FileFacts]) -> Mapping[str, FileFacts]:
        for name in files:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
                raise ValueError(f"{name!r} is not a plain file name")
        return files

    @model_validator(mode="after")
    def _consistent(self) -> "ModelCard":
        if (self.task in ("detect", "segment")) != (self.detect is not None):
            raise ValueError("a card has a [detect] table exactly when its task is detect or segment")
        if self.classify is not None and self.task not in ("classify", "classify-text"):
            raise ValueError("a card has a [classify] table only when its task is classify or classify-text")
        if self.semantic is not None and self.task != "semantic":
            raise ValueError("a card has a [semantic] table only when its task is semantic")
        self._check_text()
        self._check_forms()
        if bool(self.files) == (self.members is not None):
            raise ValueError("files: a card names at least one file, unless its members are models of their own")
        if not self.labels and self.task != "translate":
            raise ValueError(f"labels: a model whose task is {self.task} names at least 1 class")
        if self.task == "semantic" and len(self.labels) > UNKNOWN:
            raise ValueError(f"{len(self.labels)} labels: a class map tells at most {UNKNOWN} classes apart")
        background = self.semantic.background if self.semantic is not None else None
        if background is not None and background >= len(self.labels):
            raise ValueError(f"semantic.background is {background}, but there are {len(self.labels)} labels")
        if self.labels_zh is not None and len(self.labels_zh) != len(self.labels):
            raise ValueError(f"labels_zh has {len(self.labels_zh)} names, labels has {len(self.labels)}")
        return self

    def _check_text(self) -> None:
        takes_text = self.task in TEXT_TASKS
        if takes_text != (self.text is not None) or takes_text == (self.input is not None):
            table = "[text] table and no [input]" if takes_text else "[input] table and no [text]"
            raise ValueError(f"a card whose task is {self.task} has a {table}")
        if self.ngrams is not None and self.task != "classify-text":
            raise ValueError("a card has a [ngrams] table only when its task is classify-text")
        if self.members is not None and (
            self.task != "classify-text" or self.text is None or tuple(self.members) != self.text.languages
        ):
            raise ValueError("members: expected one for each of text.languages, of a card whose task is classify-text")
        if (self.task == "translate") != (self.translate is not None):
            raise ValueError("a card has a [translate] table exactly when its task is translate")

    def _check_forms(self) -> None:
        kinds = [(form.engine, form.precision) for form in self.forms]
        if len(set(kinds)) != len(kinds):
            raise ValueError("forms: an engine has at most one form of a precision")
        for form in self.forms:
            for file in form.files:
                if file not in self.files:
                    raise ValueError(
                        f"forms: {form.engine} in {form.precision} wants {file}, which files does not name"
                    )

    @property
    def image_input(self) -> ImageInput:
        """How images become what the graph takes.

        Raises:
            UsageError: The model takes text.
        """
        if self.input is None:
            raise UsageError(f"{self.name}: its task is {self.task}: it takes text, not images")
        return self.input

    def names(self, language: str = "en") -> tuple[str, ...]:
        """Return the class names in `language` (`en` or `zh`), in English where the card has no others."""
        return self.labels_zh if language == "zh" and self.labels_zh is not None else self.labels


def parse_card(text: str, where: str = CARD_NAME) -> ModelCard:
    """Return the card that `text` (TOML) states.

    Raises:
        CardInvalid: The text is not TOML, a field is missing, unknown or out of range, or the contract is not known.
    """
    try:
        return ModelCard.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise CardInvalid(f"{where}: not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "card"
        raise CardInvalid(f"{where}: {field}: {first['msg'].removeprefix('Value error, ')}") from None


def format_card(card: ModelCard) -> str:
    """Return `card` as TOML that `parse_card` reads back to an equal card."""
    return format_toml(card.model_dump(mode="json", exclude_none=True))


def format_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Return `table` as TOML: plain values first, then its tables; `prefix` is the path of the table, with a final dot."""
    plain = {key: value for key, value in table.items() if not _is_table(value)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        path = f"{prefix}{_key(key)}"
        if isinstance(value, Mapping):
            lines += ["", f"[{path}]", format_toml(value, f"{path}.").strip("\n")]
        elif _is_table(value):
            for row in value:
                lines += ["", f"[[{path}]]", format_toml(row, f"{path}.").strip("\n")]
    return "\n".join(lines) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\u{ord(found[0]):04x}", escaped) + '"'
        case int() | float():
            return repr(value)
        case list() | tuple():
            return "[" + ", ".join(_value(item) for item in value) + "]"
    raise TypeError(f"a card cannot hold {type(value).__name__}")


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a card and the files it names; bytes come out of it only after their size and hash were checked."""

    path: Path
    card: ModelCard

    def read(self, name: str) -> bytes:
        """Return the bytes of the file `name`, which are exactly those the card describes.

        The file is opened once; what is hashed is what is returned, so it cannot be swapped in between.

        Raises:
            CardInvalid: The card does not name the file.
            ModelCorrupt: The file is missing, or its size or sha256 differ.
        """
        data = b"".join(self._pieces(name, self._facts(name).size + 1))
        self._check(name, len(data), hashlib.sha256(data).hexdigest())
        return data

    def copy(self, name: str, out: Path) -> None:
        """Write the bytes of the file `name`, exactly those the card describes, to `out`, piece by piece.

        For engines that read large files themselves: from a copy in a folder of one's own, which nobody swaps.

        Raises:
            CardInvalid: The card does not name the file.
            ModelCorrupt: The file is missing, or its size or sha256 differ; `out` is incomplete then.
            OSError: `out` cannot be written.
        """
        size, digest = 0, hashlib.sha256()
        with out.open("wb") as copy:
            for piece in self._pieces(name, _PIECE):
                size += len(piece)
                if size > self._facts(name).size:
                    break
                digest.update(piece)
                copy.write(piece)
        self._check(name, size, digest.hexdigest())

    def _facts(self, name: str) -> FileFacts:
        facts = self.card.files.get(name)
        if facts is None:
            raise CardInvalid(f"{self.path / CARD_NAME}: files: {name} is not named")
        return facts

    def _file(self, name: str) -> Path:
        return self.path / PurePosixPath(name).name

    def _pieces(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the file in pieces of `size` bytes, one byte more than the card says at most."""
        left, path = self._facts(name).size + 1, self._file(name)
        try:
            with path.open("rb") as file:
                while left and (piece := file.read(min(size, left))):
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise ModelCorrupt(f"{path}: {error.strerror or error}") from None

    def _check(self, name: str, size: int, digest: str) -> None:
        facts, path = self._facts(name), self._file(name)
        if size != facts.size:
            found = "more" if size > facts.size else f"{size:,}"
            raise ModelCorrupt(f"{path}: the card says {facts.size:,} bytes, found {found}")
        if digest != facts.sha256:
            raise ModelCorrupt(f"{path}: sha256 differs from the card: the file was changed after the card was written")


def open_folder(path: Path) -> ModelFolder:
    """Return the model folder at `path` with its card read and validated.

    Raises:
        ModelNotFound: There is no such folder.
        CardInvalid: The folder has no valid card.
        ModelFormatRefused: The card is absurdly large.
    """
    if not path.is_dir():
        raise ModelNotFound(f"{path}: no such model folder")
    card = path / CARD_NAME
    try:
        with card.open("rb") as file:
            data = file.read(CARD_MAX_BYTES + 1)
    except OSError as error:
        raise CardInvalid(f"{card}: {error.strerror or error}: a model folder needs a card") from None
    if len(data) > CARD_MAX_BYTES:
        raise ModelFormatRefused(f"{card}: a card has at most {CARD_MAX_BYTES:,} bytes")
    try:
        return ModelFolder(path, parse_card(data.decode(), str(card)))
    except UnicodeDecodeError:
        raise CardInvalid(f"{card}: not UTF-8 text") from None


def file_facts(data: bytes) -> FileFacts:
    """Return the size and sha256 of `data`, as a card states them."""
    return FileFacts(size=len(data), sha256=hashlib.sha256(data).hexdigest())
