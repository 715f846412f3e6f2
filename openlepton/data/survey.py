"""What the labels of a split say altogether: how much can be used, how much of each class, and what is wrong."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from openlepton.arrays import UNKNOWN, Ints
from openlepton.data.samples import LEFT_OUT, Annotation, Problem, Split
from openlepton.errors import DataEmpty

Progress = Callable[[int, int], None]
"""Called with how many images are done, and how many there are."""


@dataclass(frozen=True, eq=False)
class Survey:
    """What the labels of one split say; no image was read."""

    split: str
    classes: tuple[str, ...]
    images: int
    usable: Ints
    """`(U,)` images to train on: the file is there, and its label says something or says that there is nothing."""
    backgrounds: int
    """Usable images without an object, those without a label file included."""
    unlabelled: int
    """Images without a label file, taken as background."""
    class_counts: Ints
    """`(C,)` objects of each class; images, where whole images or single pixels have classes."""
    problems: tuple[Problem, ...]

    def require_usable(self) -> None:
        """Return when there is something to learn from.

        Raises:
            DataEmpty: There is no usable image, or no object in any; the message says what was wrong most often.
        """
        if len(self.usable) and self.class_counts.any():
            return
        what = "no usable image" if not len(self.usable) else "no labelled object"
        raise DataEmpty(f"split {self.split}: {what} in {self.images:,} images{_most_common(self.problems)}")


def survey(split: Split, progress: Progress | None = None) -> Survey:
    """Return what the labels of a split say; every label is read once, and no image.

    An image of which every row was refused is not usable: it is not known to be a background.
    """
    usable: list[int] = []
    problems: list[Problem] = []
    counts = np.zeros(len(split.classes), np.int64)
    backgrounds = unlabelled = 0
    for index in range(len(split)):
        found = split.annotation(index)
        problems += found.problems
        if not found.image.is_file():
            problems.append(Problem("image-missing", "no such image", found.image, split=split.name))
        elif is_usable(found):
            usable.append(index)
            shown = class_counts(found, len(split.classes))
            counts += shown
            backgrounds += not len(found.objects) and not shown.any()
            unlabelled += any(problem.kind == "label-missing" for problem in found.problems)
        if progress is not None:
            progress(index + 1, len(split))
    rows = np.array(usable, np.int64)
    return Survey(split.name, split.classes, len(split), rows, backgrounds, unlabelled, counts, tuple(problems))


def is_usable(found: Annotation) -> bool:
    """Return whether a label can be learned from: it has objects, or nothing in it was refused; a class map says something."""
    if found.class_map is not None:
        return bool((found.class_map != UNKNOWN).any())
    return len(found.objects) > 0 or not any(problem.kind in LEFT_OUT for problem in found.problems)


def class_counts(found: Annotation, classes: int) -> Ints:
    """Return how many objects of each class a label has, `(C,)`, without crowds; a class of an image or its pixels counts once."""
    if found.class_id is not None:
        return np.bincount([found.class_id], minlength=classes)
    if found.tags is not None:
        return np.bincount(np.array(found.tags, np.int64), minlength=classes)
    if found.class_map is not None:
        return np.bincount(np.unique(found.class_map), minlength=UNKNOWN + 1)[:classes].clip(max=1)
    return np.bincount(found.objects.class_ids[~found.objects.crowd], minlength=classes)


def _most_common(problems: tuple[Problem, ...]) -> str:
    kinds = Counter(problem.kind for problem in problems)
    if not kinds:
        return ""
    kind, times = kinds.most_common(1)[0]
    example = next(problem for problem in problems if problem.kind == kind)
    return f": {kind} {times:,} times, such as {example}"


def count_kinds(problems: tuple[Problem, ...]) -> dict[str, int]:
    """Return how often each kind of problem occurs, most often first."""
    return dict(Counter(problem.kind for problem in problems).most_common())
