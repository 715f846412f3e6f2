"""How often an ImageNet classifier names the one thing in a photograph: a check on data that it was not trained on.

    python bench/classify_voc20.py VOC20_FOLDER [--model NAME_OR_FOLDER] [--against NAME_OR_FOLDER]

VOC20_FOLDER holds `classes.txt`, lists of images (`train.txt`, `val.txt`) and YOLO labels. A photograph counts when its
boxes are all of one class of `GROUPS` and the largest covers a fifth of it or more. The answer is right when the best of
the 1,000 classes belongs to the group. This is no ImageNet accuracy: a cat on a sofa may well be called a sofa.
`--against` names a second model, such as one with float32 weights, and prints how far the scores of the two differ.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

import openlepton
from openlepton.predictor import Predictor
from openlepton.results import Classification
from openlepton.runtimes.onnx import OnnxRuntime

LEAST_COVER = 0.2

GROUPS = {
    "aeroplane": {"airliner", "warplane"},
    "bicycle": {"mountain bike", "tandem bicycle"},
    "bird": {*range(7, 25), *range(80, 101), *range(127, 147)},
    "boat": {
        "canoe", "catamaran", "container ship", "fireboat", "gondola", "lifeboat", "ocean liner", "pirate ship", "schooner",
        "speedboat", "trimaran", "yawl",
    },
    "bus": {"minibus", "school bus", "trolleybus"},
    "car": {
        "convertible", "jeep", "limousine", "minivan", "Model T", "pickup truck", "race car", "sports car", "station wagon",
        "taxi",
    },
    "cat": set(range(281, 286)),
    "dog": set(range(151, 269)),
    "motorbike": {"moped", "motor scooter"},
    "train": {"bullet train", "electric locomotive", "passenger car (train)", "steam locomotive", "streetcar"},
    "tvmonitor": {"monitor", "screen (CRT)", "television"},
}  # fmt: skip
"""The classes of voc20 that ImageNet has names for, by name or by id; cows, horses, sheep and furniture it has only in part."""


def photographs(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the images that show one thing, and what it is."""
    names = (folder / "classes.txt").read_text("utf-8").split()
    for line in [line for part in ("train.txt", "val.txt") for line in (folder / part).read_text("utf-8").split()]:
        rows = (folder / "labels" / f"{Path(line).stem}.txt").read_text("utf-8").splitlines()
        boxes = [(names[int(fields[0])], float(fields[3]) * float(fields[4])) for fields in map(str.split, rows)]
        if len({name for name, _ in boxes}) == 1 and boxes[0][0] in GROUPS and max(boxes)[1] >= LEAST_COVER:
            yield folder / line, boxes[0][0]


def answers(model: str, paths: Sequence[Path]) -> list[Classification]:
    """Return what `model` says of each photograph."""
    classify: Predictor[Classification] = openlepton.load(model, runtime=partial(OnnxRuntime, threads=1))
    results = []
    for result in classify.stream(paths):
        if isinstance(result, openlepton.errors.OpenLeptonError):
            raise result
        results.append(result)
    return results


def main() -> None:
    """Print how often the best class is right, for each group and over all photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--against")
    arguments = parser.parse_args()
    paths, truths = zip(*photographs(arguments.folder), strict=True)
    results = answers(arguments.model, paths)
    unknown = {label for group in GROUPS.values() for label in group if isinstance(label, str)} - {*results[0].names}
    if unknown:
        parser.error(f"{arguments.model} has no class {', '.join(sorted(unknown))}")
    right: dict[str, list[bool]] = {}
    for truth, result in zip(truths, results, strict=True):
        right.setdefault(truth, []).append(bool({result.class_id, result.label} & GROUPS[truth]))
    for name in sorted(right):
        print(f"{name:12} {sum(right[name]):5} of {len(right[name]):5}   {sum(right[name]) / len(right[name]):6.1%}")
    total = sum(map(sum, right.values()))
    print(f"{'all':12} {total:5} of {len(truths):5}   {total / len(truths):6.1%}")
    if arguments.against is not None:
        others = answers(arguments.against, paths)
        same = [one.class_id == other.class_id for one, other in zip(results, others, strict=True)]
        apart = [np.abs(one.scores - other.scores).max() for one, other in zip(results, others, strict=True)]
        print(f"same best class: {sum(same)} of {len(same)}; scores differ by at most {max(apart):.4f}")


if __name__ == "__main__":
    main()
