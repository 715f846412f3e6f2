"""What goes over the wire, as the OpenAPI document and the clients know it; results are those of `--json` plus `timing_ms`."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(_Wire):
    """What went wrong (RFC 9457, `application/problem+json`)."""

    type: str = "about:blank"
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    code: str = Field(description="one of the codes of openlepton.errors; never changes between releases")
    instance: str | None = Field(default=None, description="of failures inside: what the server's log calls this one")
    error: str | None = Field(default=None, description="below /v2: the detail once more, where that protocol wants it")


class Failure(_Wire):
    """One item of a batch that failed; its neighbours did not."""

    error: Problem
    source: str | None = Field(default=None, description="the file name that the request gave the item")


class ImageSize(_Wire):
    """Pixels of the original image."""

    width: int = Field(ge=1)
    height: int = Field(ge=1)


class ModelName(_Wire):
    """Which model answered."""

    name: str
    version: str


class Timing(_Wire):
    """Where the time went, milliseconds."""

    queue: float = Field(ge=0, description="waiting for a free worker")
    run: float = Field(ge=0, description="decoding, the network and what follows it")
    total: float = Field(ge=0, description="from the last byte of the body to the answer")


class Box(_Wire):
    """Corners in pixels of the original image."""

    x1: float
    y1: float
    x2: float
    y2: float


class Rle(_Wire):
    """A mask as COCO's compressed run lengths."""

    size: tuple[int, int] = Field(description="height, width")
    counts: str


class FoundObject(_Wire):
    """One detection."""

    label: str
    label_id: int = Field(ge=0)
    score: float = Field(ge=0, le=1)
    box: Box
    mask: Rle | None = None
    track_id: int | None = None


class ScoredClass(_Wire):
    """One class and its probability."""

    label: str
    label_id: int = Field(ge=0)
    score: float = Field(ge=0, le=1)


class _Result(_Wire):
    model_config = ConfigDict(extra="allow", frozen=True)  # a task may tell more than this release describes

    source: str | None = Field(default=None, description="the file name that the request gave the item")
    model: ModelName
    timing_ms: Timing


class DetectResult(_Result):
    """What a detector or an instance segmenter found, best first."""

    image: ImageSize
    detections: list[FoundObject]


class ClassifyResult(_Result):
    """The most probable classes of an image (or of a text, which has no size), best first."""

    image: ImageSize | None = None
    classes: list[ScoredClass]


class PixelClass(_Wire):
    """One class of a semantic segmenter and the pixels that show it."""

    label: str
    label_id: int = Field(ge=0)
    area: int = Field(ge=0, description="pixels")
    share: float = Field(ge=0, le=1)
    mask: Rle | None = Field(default=None, description="none for the background, which is what the others leave")


class SemanticResult(_Result):
    """Which class each pixel shows, the largest first."""

    image: ImageSize
    classes: list[PixelClass]


class TranslateResult(_Result):
    """A translation."""

    text: str
    score: float | None = None


class AnyResult(_Result):
    """The result of a task that has no description of its own here."""


class Batch(_Wire):
    """One result or failure for each item, in the order of the request."""

    results: list[DetectResult | SemanticResult | ClassifyResult | TranslateResult | AnyResult | Failure]


class ImageBody(_Wire):
    """One image."""

    image: str = Field(
        min_length=1, description="the file's bytes in base64", json_schema_extra={"contentEncoding": "base64"}
    )


class ImagesBody(_Wire):
    """Several images."""

    images: list[str] = Field(min_length=1, description="files in base64")


class TextBody(_Wire):
    """One text."""

    text: str


class TextsBody(_Wire):
    """Several texts."""

    texts: list[str] = Field(min_length=1)


class _Direction(_Wire):
    source: str | None = Field(
        default=None, description="language of the text, such as `en`; from the model if missing"
    )
    target: str | None = Field(default=None, description="language to translate to, such as `zh`")


class TranslateBody(TextBody, _Direction):
    """One text and the languages."""


class TranslatesBody(TextsBody, _Direction):
    """Several texts and the languages."""


class ModelSummary(_Wire):
    """A model that is served."""

    name: str
    version: str
    task: str
    description: str
    licence: str
    default: bool = Field(description="whether an address uses it unless `?model=` names another")
    addresses: tuple[str, ...] = Field(description="those below `/v1/` that take it")
    href: str


class ModelList(_Wire):
    """The models that are served."""

    models: list[ModelSummary]


class ModelDetails(BaseModel):
    """The model's card, as `card.toml` has it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    version: str
    task: str
    description: str
    licence: str
    labels: list[str] = []
    labels_zh: list[str] | None = None


class Health(_Wire):
    """Whether the server lives or is ready."""

    status: Literal["alive", "ready"]


class JobRequest(_Wire):
    """A folder of images, or a video, below the folder that the operator opened for jobs."""

    model: str = Field(min_length=1, max_length=64)
    source: str = Field(min_length=1, max_length=1024, description="a path relative to the folder of jobs, with /")
    options: dict[str, Any] = Field(default={}, description="as in the query of the task's address")
    every: int = Field(default=1, ge=1, le=100_000, description="of a video: every n-th frame")


class Job(_Wire):
    """How far a job is."""

    id: str
    state: Literal["running", "done", "failed", "cancelled"]
    model: str
    source: str
    done: int = Field(ge=0, description="images or frames that have their row, failures included")
    failed: int = Field(ge=0)
    total: int | None = Field(description="images or frames in all, where that is known")
    error: Problem | None = None
    expires_s: float = Field(description="seconds until the job and its result are forgotten")
    result: str = Field(description="address of the rows, one JSON object a line")


class JobList(_Wire):
    """The caller's jobs."""

    jobs: list[Job]
