"""The inference engine, on one page: a task around a runtime, item in, result out.

::

    task.prepare -> stack -> runtime -> task.finish
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from openlepton.arrays import Array, Tensors
from openlepton.card import DetectFacts, ImageInput, ModelCard, ModelFolder
from openlepton.errors import OpenLeptonError, UsageError
from openlepton.hub.index import find
from openlepton.images import LIMITS, Limits
from openlepton.results import Classification, Detections, Segmentation, class_ids_of
from openlepton.runtimes import ENGINES, runtime_of
from openlepton.runtimes.cores import default_threads, usable_cores
from openlepton.runtimes.forms import chosen
from openlepton.runtimes.onnx import OnnxRuntime
from openlepton.runtimes.remembered import recall
from openlepton.text.classify import ByLanguage, Scorer, TextClassifier, open_classifier
from openlepton.text.encode import open_encoder
from openlepton.text.linear import Linear, open_linear
from openlepton.text.translate import Translator, open_translator
from openlepton.vision.classify import Classify
from openlepton.vision.detect import Detect
from openlepton.vision.segment import Segment
from openlepton.vision.semantic import Semantic

Result = TypeVar("Result")
Item = TypeVar("Item")
Out = TypeVar("Out")
Result_co = TypeVar("Result_co", covariant=True)

MAX_BATCH = 16
"""The most images that go through the graph together; more cost memory and gain nothing."""


class Runtime(Protocol):
    """Runs a graph; may be called from many threads at once."""

    def __call__(self, inputs: Mapping[str, Array]) -> Tensors:
        """Return the graph's outputs by name."""


class Task(Protocol[Result_co]):
    """Knows what goes into a graph and what comes out of it; pure functions, no state."""

    def prepare(self, source: Any, /) -> tuple[Tensors, Any]:
        """Return the graph's inputs for one item, without the batch axis, and what `finish` needs to know of it."""

    def finish(self, outputs: Tensors, frame: Any, /) -> Result_co:
        """Return the result from the graph's outputs for one item, without the batch axis."""


RuntimeFactory = Callable[[ModelFolder], Runtime]
"""Makes a runtime from a model folder: `OnnxRuntime`, or `functools.partial(OnnxRuntime, precision="int8")`."""


@dataclass(frozen=True)
class Predictor(Generic[Result]):
    """A loaded model: call it with one item, with `batch`, or with `stream`; immutable, safe from any number of threads."""

    card: ModelCard
    task: Task[Result]
    runtime: Runtime

    def __call__(self, item: Any) -> Result:
        """Return the result for one item: for vision, a path, bytes, a file object, a PIL image or an `(H,W,3)` RGB array."""
        inputs, frame = self.task.prepare(item)
        outputs = self.runtime({name: value[None] for name, value in inputs.items()})
        return self.task.finish({name: value[0] for name, value in outputs.items()}, frame)

    def batch(self, items: Sequence[Any]) -> list[Result]:
        """Return one result for each item, in order, each equal to what the item gives alone.

        Items whose tensors have the same shape go through the graph together; none is padded for the sake of another.
        """
        results: dict[int, Result] = {}
        groups: dict[tuple[Any, ...], list[tuple[int, Tensors, Any]]] = {}
        for index, item in enumerate(items):
            inputs, frame = self.task.prepare(item)
            shape = tuple(value.shape for value in inputs.values())
            group = groups.setdefault(shape, [])
            group.append((index, inputs, frame))
            if len(group) == MAX_BATCH:
                self._finish(groups.pop(shape), results)
        for group in groups.values():
            self._finish(group, results)
        return [results[index] for index in range(len(items))]

    def stream(self, items: Iterable[Any], *, workers: int | None = None) -> Iterator[Result | OpenLeptonError]:
        """Yield a result for each item, in order, or the error that it ended in, so that one bad file does not stop the rest.

        Reading, the graph and the rest overlap in `workers` threads (default: one for each processor), a few items ahead of
        the consumer. It is fastest with a runtime of one thread: `load(name, runtime=partial(OnnxRuntime, threads=1))`.
        """
        return ordered_map(self._attempt, items, workers=workers)

    def _attempt(self, item: Any) -> Result | OpenLeptonError:
        try:
            return self(item)
        except OpenLeptonError as error:
            return error

    def _finish(self, group: list[tuple[int, Tensors, Any]], results: dict[int, Result]) -> None:
        stacked = {name: np.stack([inputs[name] for _, inputs, _ in group]) for name in group[0][1]}
        outputs = self.runtime(stacked)
        for row, (index, _, frame) in enumerate(group):
            results[index] = self.task.finish({name: value[row] for name, value in outputs.items()}, frame)


def load(
    model: str | os.PathLike[str],
    *,
    runtime: RuntimeFactory | str | None = None,
    threads: int = 0,
    size: int | None = None,
    language: str = "en",
    min_score: float | None = None,
    max_iou: float | None = None,
    max_detections: int | None = None,
    classes: Sequence[str | int] | None = None,
    agnostic: bool = False,
    top: int | None = None,
    beam: int | None = None,
    limits: Limits = LIMITS,
) -> Predictor[Any] | Any:
    """Return a predictor for a model that ships with the package, by name, or for a model folder.

    What translates is a `Translator`: it is called like every predictor, with texts, and has the same methods and a card.

    Args:
        model: A name that `openlepton models` lists, or the path of a folder with a `card.toml`.
        runtime: What runs the graph; by default ONNX Runtime, or what the card of an exported model lists first. An engine
            (`openvino`), a form (`openvino-int8`), `auto` for the fastest one that is installed and of which the card says that
            it keeps the accuracy, or a factory such as `OnnxRuntime`.
        threads: How many threads one call uses; 0 for one on each core. Many callers at once want 1.
        size: Longest side that a detector or segmenter sees, pixels; what the card says by default.
        language: Of the class names, `en` or `zh`.
        min_score: Detections score more than this, 0..1; so do the classes of a classifier that reports any number of them, and
            the `labels` of a text: where the classifier is less sure, there are none.
        max_iou: Detections of one class overlap by no more than this, 0..1.
        max_detections: The most detections in one image.
        classes: Names or ids of the classes to report; all by default.
        agnostic: Whether detections of different classes suppress each other too.
        top: How many classes a classification lists when it is printed.
        beam: Of a translator: hypotheses kept at each step, 1 is greedy; what the card says by default.
        limits: The most bytes and pixels that an image may have.

    Raises:
        ModelNotFound: There is no such model or folder.
        ModelCorrupt: A file differs from its card.
        ModelFormatRefused: The graph could do more than compute, or is not what its card says.
        MissingExtra: The runtime is not installed.
        UsageError: An option is out of range, or makes no sense for the model's task.
    """
    folder = find(model)
    card = folder.card
    names = card.names(language)
    given = {"min_score": min_score, "max_iou": max_iou, "max_detections": max_detections}
    options = {name: value for name, value in given.items() if value is not None}
    if card.task == "translate":
        _refuse(card, size=size, classes=classes, agnostic=agnostic or None, top=top, **options, runtime=runtime)
        return _translator(folder, beam, threads)
    _refuse(card, beam=beam)
    if card.task == "classify-text":
        options.pop("min_score", None)
        _refuse(card, size=size, classes=classes, agnostic=agnostic or None, **options)
        return _text_classifier(
            folder, runtime, threads, top=5 if top is None else top, min_score=min_score, language=language
        )
    task: Task[Detections] | Task[Classification] | Task[Segmentation]
    if card.task in ("detect", "segment"):
        _refuse(card, top=top)
        facts = (card.detect or DetectFacts()).model_copy(update=options)
        wanted = None if classes is None else class_ids_of(classes, names, card.labels)
        task = (Segment if card.task == "segment" else Detect)(
            _resized(card.image_input, size),
            names,
            min_score=facts.min_score,
            max_iou=facts.max_iou,
            max_detections=facts.max_detections,
            class_ids=wanted,
            agnostic=agnostic,
            limits=limits,
        )
    elif card.task == "semantic":
        _refuse(card, classes=classes, agnostic=agnostic or None, top=top, **options)
        background = card.semantic.background if card.semantic is not None else None
        task = Semantic(_resized(card.image_input, size), names, background, limits)
    else:
        threshold = options.pop("min_score", None) if card.classify is not None else None
        _refuse(card, size=size, classes=classes, agnostic=agnostic or None, **options)
        if card.classify is not None and threshold is None:
            threshold = card.classify.min_score
        task = Classify(card.image_input, names, top=5 if top is None else top, min_score=threshold, limits=limits)
    runner = _opened(folder, runtime, threads)
    return Predictor(card, _held(task, runner, size), runner)


def ordered_map(function: Callable[[Item], Out], items: Iterable[Item], *, workers: int | None = None) -> Iterator[Out]:
    """Yield `function(item)` for each item, in order, computed in `workers` threads a few items ahead of the consumer."""
    count = workers or usable_cores()
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="openlepton") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _opened(folder: ModelFolder, runtime: RuntimeFactory | str | None, threads: int) -> Runtime:
    if runtime is not None and not isinstance(runtime, str):
        if threads:
            raise UsageError("threads: a runtime of your own is given them: functools.partial(OnnxRuntime, threads=1)")
        return runtime(folder)
    if runtime is None and not folder.card.forms:
        return OnnxRuntime(folder, threads=threads)
    form = chosen(folder.card, runtime, remembered=recall(folder.card) if runtime == "auto" else None)
    precision = {"precision": form.precision} if ENGINES[form.engine].precisions else {}
    runner: Runtime = runtime_of(form.engine)(folder, threads=threads, **precision)
    return runner


def _translator(folder: ModelFolder, beam: int | None, threads: int) -> Translator:
    return open_translator(folder, beam=beam, threads=threads)


def _text_classifier(
    folder: ModelFolder, runtime: RuntimeFactory | str | None, threads: int, **options: Any
) -> TextClassifier | ByLanguage:
    card = folder.card
    if card.members is not None:
        members = {
            language: _member(find(name), runtime, threads, **options) for language, name in card.members.items()
        }
        return ByLanguage(card, members)
    return _member(folder, runtime, threads, **options)


def _member(folder: ModelFolder, runtime: RuntimeFactory | str | None, threads: int, **options: Any) -> TextClassifier:
    card = folder.card
    scorer: Scorer
    if card.ngrams is None:
        ours = runtime is None or isinstance(runtime, str)  # then a thread for each of several groups of texts
        workers = (threads or default_threads()) if ours and threads >= 0 else 1
        scorer = open_encoder(folder, _opened(folder, runtime, 1 if workers > 1 else threads), workers)
    elif runtime is None or isinstance(runtime, str):
        scorer = open_linear(folder)
    else:
        loaded: Any = runtime(folder)
        if not isinstance(loaded, Linear):
            raise UsageError(f"runtime: {card.name} is linear: there is no graph to run")
        scorer = loaded
    return open_classifier(card, scorer, **options)


def _held(task: Any, runtime: Runtime, size: int | None) -> Any:
    """Return `task` so that it gives the one height and width that `runtime` takes, if it takes only one."""
    sides = getattr(runtime, "inputs", {}).get("images", ())[2:]
    if len(sides) != 2 or not all(isinstance(side, int) for side in sides) or task.input.resize == "crop":
        return task
    if size is not None and size != max(sides):
        raise UsageError(
            f"size: this form of the model takes images of {sides[0]} x {sides[1]} pixels alone, got {size}"
        )
    return replace(task, input=task.input.model_copy(update={"size": max(sides), "size_hw": sides}))


def _resized(facts: ImageInput, size: int | None) -> ImageInput:
    if size is None:
        return facts
    changes: dict[str, Any] = {"size": size}
    if facts.size_hw is not None:  # the same shape at another size
        step = facts.multiple
        changes["size_hw"] = tuple(max(round(side * size / facts.size / step), 1) * step for side in facts.size_hw)
    return facts.model_copy(update=changes)


def _refuse(card: ModelCard, **options: Any) -> None:
    """Raise for the options that the task of `card` does not have."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name}: makes no sense for {card.name}, whose task is {card.task}")
