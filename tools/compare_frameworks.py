"""How far TensorFlow is from PyTorch, as the table of docs/runtimes.md: the same weights, images and targets in both.

python tools/compare_frameworks.py
"""

import argparse
import tempfile

import numpy as np
import torch

from openlepton.nets import NETS
from openlepton.nets.losses import LossConfig
from openlepton.tf.imports import tf
from openlepton.tf.networks import Network, network
from openlepton.tf.savedmodel import save_savedmodel
from openlepton.tf.weights import get_weights, set_weights

ROWS = {
    "yolov5n": (320, 640),
    "yolov5s": (320, 640),
    "yolov5n-seg": (320,),
    "yolov3-tiny": (320,),
    "efficientnet-lite0": (224,),
}
CLASSES = 20
HEADER = ("network", "size", "boxes, px", "scores", "SavedModel: boxes, px", "scores", "loss, relative")


def lively(module: torch.nn.Module, seed: int = 0) -> None:
    """Give a network statistics, scales and biases such as training leaves."""
    numbers = torch.Generator().manual_seed(seed)

    def draw(value: torch.Tensor, low: float, high: float) -> None:
        value.copy_(torch.rand(value.shape, generator=numbers) * (high - low) + low)

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                draw(part.weight, 0.7, 1.3)
                draw(part.bias, -0.3, 0.3)
                draw(part.running_mean, -0.1, 0.1)
                draw(part.running_var, 0.5, 1.5)
            elif isinstance(part, torch.nn.Conv2d) and part.bias is not None:
                draw(part.bias, -2, 2)


def largest(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> tuple[str, str]:
    """Return the largest difference of boxes and of scores."""
    found = {name: f"{np.abs(a[name] - np.asarray(b[name])).max():.1e}" for name in ("boxes", "scores") if name in a}
    return found.get("boxes", "-"), found["scores"]


def outputs(module: torch.nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a network in torch gives, by name."""
    with torch.no_grad():
        values = module.decode(module(torch.from_numpy(images)))
    values = (values,) if isinstance(values, torch.Tensor) else values
    return {name: value.numpy() for name, value in zip(module.outputs, values, strict=True)}


def losses(first: torch.nn.Module, second: Network, size: int, task: str) -> str:
    """Return how far the losses of one batch in training are from each other, relative to that of torch."""
    numbers = np.random.default_rng(1)
    images = numbers.random((2, 3, size, size), dtype=np.float32)
    count = 12
    ids = np.column_stack((numbers.integers(0, 2, count), numbers.integers(0, CLASSES, count)))
    places = numbers.uniform(0.1, 0.9, (count, 4)) * size * (1, 1, 0.5, 0.5)
    boxes = np.column_stack((ids, places)).astype(np.float32)
    given: tuple[np.ndarray, ...] = (boxes,)
    if task == "segment":
        given = (boxes, numbers.integers(0, count + 1, (2, size // 4, size // 4)).astype(np.int32))
    elif task == "classify":
        given = (np.arange(2), np.array([3, 5]), np.ones(2, np.float32))
    first.train()
    theirs = [torch.from_numpy(value) for value in given]
    criterion = first.criterion(LossConfig(), size)
    if task == "segment":
        from openlepton.nets.yolov5_seg_loss import MaskTargets

        wanted: object = MaskTargets(*theirs)
    elif task == "classify":
        from openlepton.nets.classifier_loss import ClassTargets

        wanted = ClassTargets(*theirs)
    else:
        wanted = theirs[0]
    with torch.no_grad():
        total = float(criterion(first(torch.from_numpy(images)), wanted)[0])
    ours = tuple(tf.constant(value) for value in given)
    found = second.criterion(LossConfig(), size)(
        second.raw(images, training=True), ours[0] if len(ours) == 1 else ours
    )[0]
    return f"{abs(float(found) - total) / total:.1e}"


def compared(name: str, size: int) -> tuple[str, ...]:
    """Return one row of the table."""
    torch.manual_seed(0)
    # Chance is drawn differently in each framework, so classifiers are compared without it.
    still = {"dropout": 0.0, "survival": 1.0} if NETS[name].task == "classify" else {}
    first = NETS[name].build(classes=CLASSES, **still)
    lively(first)
    tensors = {key: value.numpy() for key, value in first.state_dict().items()}
    second = network(name, classes=CLASSES, **still)
    set_weights(second.raw, tensors)
    assert all(value.tobytes() == tensors[key].tobytes() for key, value in get_weights(second.raw).items())
    images = np.random.default_rng(0).random((1, 3, size, size), dtype=np.float32)
    wanted = outputs(first.eval(), images)
    direct = largest(wanted, second.model(images))
    with tempfile.TemporaryDirectory() as folder:
        save_savedmodel(second.fused().model, folder)
        loaded = tf.saved_model.load(folder).signatures["serving_default"]
        written = largest(wanted, loaded(images=tf.constant(images)))
    return name, f"{size}", *direct, *written, losses(first, second, size, NETS[name].task)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(ROWS)}; all by default")
    names = parser.parse_args().names or list(ROWS)
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}", flush=True)
    for name in names:
        for size in ROWS[name]:
            print(f"| {' | '.join(compared(name, size))} |", flush=True)


if __name__ == "__main__":
    main()
