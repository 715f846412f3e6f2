"""The table of what can be taught."""

from openlepton.errors import UsageError
from openlepton.train.detecting import Detecting
from openlepton.train.lesson import Lesson
from openlepton.train.segmenting import Segmenting
from openlepton.train.start import task_of

LESSONS: dict[str, Lesson] = {"detect": Detecting(), "segment": Segmenting()}
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
