"""The table of what can be taught, and the settings that suit each of it."""

from dataclasses import replace
from typing import Any

from openlepton.errors import UsageError
from openlepton.train.classifying import Classifying
from openlepton.train.config import LossConfig, TrainConfig
from openlepton.train.detecting import Detecting
from openlepton.train.lesson import Lesson
from openlepton.train.segmenting import Segmenting
from openlepton.train.semantic import SemanticLesson
from openlepton.train.start import task_of

LESSONS: dict[str, Lesson] = {
    "detect": Detecting(),
    "segment": Segmenting(),
    "semantic": SemanticLesson(),
    "classify": Classifying(),
}
"""By task, as cards say it."""


def lesson_of(architecture: str) -> Lesson:
    """Return how networks of that architecture are taught.

    Raises:
        UsageError: There is no such architecture, or it cannot be trained.
    """
    task = task_of(architecture)
    if task not in LESSONS:
        raise UsageError(f"model: {architecture} is for {task}; what can be trained so far: {', '.join(LESSONS)}")
    return LESSONS[task]


def lesson_for(task: str) -> Lesson:
    """Return how that task is taught, and how good a model is at it.

    Raises:
        UsageError: Nothing of the kind is known.
    """
    if task not in LESSONS:
        raise UsageError(f"task: expected {', '.join(LESSONS)}, got {task}")
    return LESSONS[task]


def suited(task: str = "", model: str = "", **given: Any) -> TrainConfig:
    """Return a config with the settings that suit a task, but for those that are given.

    Args:
        task: Which; by default that of `model`, or detection.
        model: The architecture; by default the smallest one for the task, trained on from what ships.
        given: Fields of `TrainConfig`, among them `data` and `out`; `augment` may be the name of a preset, `pretrained` may be
            `none`, and `smoothing` is that of the loss. With a frozen backbone a classifier's images are not varied by
            default, so that its features are computed once.

    Raises:
        UsageError: A name is not known, or the model is for another task.
    """
    task = task or (task_of(model) if model else "detect")
    lesson = lesson_for(task)
    if model and task_of(model) != task:
        raise UsageError(f"model: {model} is for {task_of(model)}, not to {task}")
    settings: dict[str, Any] = dict(lesson.defaults)
    if model and model != settings["model"]:
        settings |= {"model": model, "pretrained": ""}  # other architectures do not ship
    if task == "classify" and given.get("freeze") == "backbone":
        settings["augment"] = lesson.presets["none"]
    smoothing = given.pop("smoothing", None)
    settings |= given
    if isinstance(settings.get("augment"), str):
        if settings["augment"] not in lesson.presets:
            raise UsageError(f"augment: expected {', '.join(lesson.presets)}, got {settings['augment']}")
        settings["augment"] = lesson.presets[settings["augment"]]
    if smoothing is not None:
        settings["loss"] = replace(settings.get("loss", LossConfig()), smoothing=smoothing)
    if settings.get("pretrained") == "none":
        settings["pretrained"] = ""
    return TrainConfig(**settings)
