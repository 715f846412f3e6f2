"""What a worker does with the models that are served: items in, rows of JSON out."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from openlepton.errors import ImageNotFound, ImageTooLarge, ImageUnreadable, OpenLeptonError
from openlepton.hub.index import find
from openlepton.images import Limits as ImageLimits
from openlepton.predictor import Predictor, load
from openlepton.runtimes.onnx import OnnxRuntime, share_memory
from openlepton.serve import tensors
from openlepton.serve.catalog import ModelSetup
from openlepton.serve.child import Outcome, Share, trim
from openlepton.serve.settings import Limits
from openlepton.serve.tasks import TEXT

if TYPE_CHECKING:
    from openlepton.video.stream import Frame

Options = tuple[tuple[str, Any], ...]
"""Keyword arguments of `load`, sorted, hashable."""

_VARIANTS = 64
_WIDE_SPIN_US = (
    1000  # nobody else is worked for then: 80 requests a second where threads that sleep sooner make 57 to 84
)
_MOST_VIDEOS = 16
_SAMPLE_TEXT = "A short sentence, as people write them."


class Models:
    """Every model that a worker serves, and what it can do with them."""

    def __init__(self, setup: ModelSetup, share: Share, loaded: Mapping[str, Predictor[Any]] | None = None) -> None:
        _set_up_process()
        self._setup, loaded = setup, loaded or {}
        opened = [loaded.get(name) or _open(name, share.threads, setup.limits) for name in setup.models]
        self._names = {one.card.name: name for one, name in zip(opened, setup.models, strict=True)}
        self._predictors = {one.card.name: one for one in opened}
        self._threads_alone = share.wide
        self._wide: dict[str, Predictor[Any]] = {}
        self._variant = lru_cache(_VARIANTS)(self._make)
        self._videos: dict[str, tuple[int, Iterator[Frame]]] = {}
        self._kinds: Mapping[str, Callable[[Mapping[str, Any], Sequence[bytes]], list[Outcome]]] = {
            "predict": self._predict,
            "infer": self._infer,
            "file": self._file,
            "frames": self._piece,
            "measure": self._measure,
            "narrow": self._narrow,
        }

    def facts(self) -> dict[str, Any]:
        """Return, for each model, how long a sample takes, and the names, types and shapes of its graph."""
        facts = {}
        for name, predictor in self._predictors.items():
            sample = _sample(predictor)
            predictor(sample)
            started = time.perf_counter()
            predictor(sample)
            facts[name] = {"run_s": time.perf_counter() - started, "ports": tensors.ports(predictor)}
        return facts

    def __call__(self, head: Mapping[str, Any], parts: Sequence[bytes]) -> list[Outcome]:
        """Return one outcome for each of `parts`."""
        return self._kinds[head["kind"]](head, parts)

    def _predict(self, head: Mapping[str, Any], parts: Sequence[bytes]) -> list[Outcome]:
        options = tuple((name, _hashable(value)) for name, value in head["options"])
        predictor = self._variant(head["model"], options, bool(head.get("wide")))
        items = [part.decode() for part in parts] if predictor.card.task in TEXT else parts
        if len(items) > 1:
            try:
                return [row(predictor, result) for result in predictor.batch(items)]
            except OpenLeptonError:  # one of them is bad: each for itself
                pass
        return [_attempt(predictor, item) for item in items]

    def _infer(self, head: Mapping[str, Any], parts: Sequence[bytes]) -> list[Outcome]:
        predictor = self._predictors[head["model"]]
        return [tensors.infer(predictor, part, head["json_size"], self._setup.limits) for part in parts]

    def _file(self, head: Mapping[str, Any], parts: Sequence[bytes]) -> list[Outcome]:
        options = tuple((name, _hashable(value)) for name, value in head["options"])
        predictor, name = self._variant(head["model"], options, False), head["source"]
        try:
            data = _read_below(self._setup.jobs, Path(head["path"]), name, self._setup.limits)
            return [row(predictor, predictor(data), name)]
        except OpenLeptonError as error:
            return [type(error)(str(error).replace("image data", name, 1))]

    def _piece(self, head: Mapping[str, Any], parts: Sequence[bytes]) -> list[Outcome]:
        """Work on the next frames of a video, or on none, which closes it."""
        at, frames = self._videos.pop(head["job"], (-1, iter(())))
        if not head["count"]:
            return [b"{}"] * len(parts)
        options = tuple((name, _hashable(value)) for name, value in head["options"])
        predictor, source = self._variant(head["model"], options, False), head["source"]
        told: dict[str, Any] = {"rows": [], "end": False, "error": None}
        try:
            if at != head["start"]:  # the first piece, or another worker has died of the one before
                frames = islice(
                    _open_video(self._setup.jobs, Path(head["path"]), source, head["every"]), head["start"], None
                )
            for frame in islice(frames, head["count"]):
                found = json.loads(row(predictor, predictor(frame.image), source))
                told["rows"].append({"source": source, "frame": frame.index, "time_s": round(frame.time_s, 3), **found})
            told["end"] = len(told["rows"]) < head["count"]
        except OpenLeptonError as error:
            told |= {"end": True, "error": {"code": error.code, "detail": str(error).replace(head["path"], source)}}
        if not told["end"]:
            self._videos[head["job"]] = (head["start"] + head["count"], frames)
            while len(self._videos) > _MOST_VIDEOS:
                self._videos.pop(next(iter(self._videos)))
        return [json.dumps(told, ensure_ascii=False).encode()]

    def _measure(self, head: Mapping[str, Any], parts: Sequence[bytes]) -> list[Outcome]:
        """Work on a sample for some seconds: how often that went."""
        name = head["model"]
        predictor = self._alone(name) if head.get("wide") else self._predictors[name]
        sample = [_sample(predictor)] * head.get("batch", 1)
        predictor.batch(sample)  # the first takes longer
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < head["seconds"]:
            if len(sample) > 1:
                predictor.batch(sample)
            else:
                predictor(sample[0])
            count += len(sample)
        each = (time.perf_counter() - started) / count
        return [json.dumps({"each_s": each}).encode()] * len(parts)

    def _narrow(self, head: Mapping[str, Any], parts: Sequence[bytes]) -> list[Outcome]:
        """Give back what was made for items that are alone, as it is no faster."""
        self._threads_alone = 0
        self._wide.clear()
        self._variant.cache_clear()
        trim()
        return [b"{}"] * len(parts)

    def _alone(self, model: str) -> Predictor[Any]:
        """Return the model as it works on an item that is alone, loaded when the first such item comes.

        If its files have gone since, or are another model's, it works on such items as on others.
        """
        usual = self._predictors[model]
        if self._threads_alone <= 1:
            return usual
        if model not in self._wide:
            try:
                wide = _open(self._names[model], self._threads_alone, self._setup.limits, spin_us=_WIDE_SPIN_US)
            except OpenLeptonError:
                wide = usual
            self._wide[model] = wide if wide.card == usual.card else usual
        return self._wide[model]

    def _make(self, model: str, options: Options, wide: bool) -> Predictor[Any]:
        """Return the model with other options around the same graph."""
        loaded = self._alone(model) if wide else self._predictors[model]
        if not options:
            return loaded
        given: dict[str, Any] = {name: list(value) if isinstance(value, tuple) else value for name, value in options}
        given |= _limited(loaded.card.task, self._setup.limits)
        kept = getattr(loaded, "runtime", None)
        if kept is not None:  # a translator has an engine of its own
            given["runtime"] = lambda folder: kept[folder.card.name] if isinstance(kept, Mapping) else kept
        return load(self._names[model], **given)


@dataclass(frozen=True)
class Ready:
    """A setup whose models are loaded already, for copies of this process: they share the memory, and start at once."""

    setup: ModelSetup
    predictors: Mapping[str, Predictor[Any]]
    """By what `load` calls them; each computes on its caller's thread."""

    def __call__(self, share: Share) -> Models:
        """Return the models for a worker; where it may use more threads than one, they are loaded anew."""
        return Models(self.setup, share, self.predictors if share.threads == 1 else {})


def ready(setup: ModelSetup) -> Ready:
    """Load what can be copied with its process: all but translators, whose engine has threads of its own.

    Raises:
        OpenLeptonError: A model cannot be loaded.
    """
    _set_up_process()
    names = [name for name in setup.models if find(name).card.task != "translate"]
    return Ready(setup, {name: _open(name, 1, setup.limits) for name in names})


def _set_up_process() -> None:
    cv2.setNumThreads(1)  # the workers have the cores already
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    share_memory()


def row(predictor: Predictor[Any], result: Any, source: str | None = None) -> bytes:
    """Return a result as the JSON that `--json` prints, with the name of its source only where it has one."""
    head, *rest = result.to_dict().items()
    card = {"name": predictor.card.name, "version": predictor.card.version}
    named = [] if source is None else [("source", source)]
    return json.dumps(dict([*named, head, ("model", card), *rest]), ensure_ascii=False, separators=(",", ":")).encode()


def _attempt(predictor: Predictor[Any], item: Any) -> Outcome:
    try:
        return row(predictor, predictor(item))
    except OpenLeptonError as error:
        return error


def _open(name: str, threads: int, limits: Limits, **settings: Any) -> Predictor[Any]:
    if find(name).card.task in TEXT:  # they have engines of their own
        return load(name, threads=threads)
    return load(
        name, runtime=partial(OnnxRuntime, threads=threads, **settings), **_limited(find(name).card.task, limits)
    )


def _limited(task: str, limits: Limits) -> dict[str, Any]:
    if task in TEXT:
        return {}
    return {"limits": ImageLimits(limits.image_bytes, limits.image_pixels, frozenset(limits.image_formats))}


def _sample(predictor: Predictor[Any]) -> Any:
    """Return an item like those that come: an image file of moderate size, or a sentence."""
    if predictor.card.task in TEXT:
        return _SAMPLE_TEXT
    coarse = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC))[1].tobytes()


def _open_video(root: Path | None, path: Path, name: str, every: int) -> "Iterator[Frame]":
    from openlepton.video.stream import frames

    if not _is_below(root, path):
        raise ImageNotFound(f"{name}: no such file")
    return frames(path, every=every)


def _is_below(root: Path | None, path: Path) -> bool:
    """Return whether a file of a job is still below the folder of jobs, now that it is to be opened."""
    return root is not None and path.resolve(strict=True).is_relative_to(root.resolve()) and path.is_file()


def _read_below(root: Path | None, path: Path, name: str, limits: Limits) -> bytes:
    try:
        if not _is_below(root, path):
            raise ImageNotFound(f"{name}: no such file")
        with path.open("rb") as file:
            data = file.read(limits.image_bytes + 1)
    except OSError as error:
        raise ImageUnreadable(f"{name}: cannot be read: {error.strerror}") from None
    if len(data) > limits.image_bytes:
        raise ImageTooLarge(f"{name}: has more bytes than the limit of {limits.image_bytes:,}")
    return data


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
