"""Losses in TensorFlow against those in torch: values and derivatives on the same logits and targets."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")

from openlepton.nets import yolov3, yolov5
from openlepton.nets.classifier_loss import ClassifierLoss, ClassTargets
from openlepton.nets.losses import LossConfig
from openlepton.nets.yolov5_loss import Yolov5Loss
from openlepton.nets.yolov5_seg_loss import MaskTargets, Yolov5SegLoss
from openlepton.tf import losses, yolov3_loss, yolov5_seg_loss

SIZE, BATCH, CLASSES = 128, 3, 4
RELATIVE = 1e-4


def some_targets(count: int, seed: int) -> np.ndarray:
    """`(count, 6)`, in any image but the last, small and large, at edges and on the borders of cells."""
    numbers = np.random.default_rng(seed)
    rows, kinds = numbers.integers(0, BATCH - 1, count), numbers.integers(0, CLASSES, count)
    centres = np.where(
        numbers.random((count, 2)) < 0.3, numbers.integers(0, 17, (count, 2)) * 8, numbers.random((count, 2)) * 128
    )
    return np.column_stack((rows, kinds, centres, numbers.uniform(4, 120, (count, 2)))).astype(np.float32)


def some_maps(strides, channels: int, seed: int) -> list[np.ndarray]:
    """For each level `(B, channels, H, W)`."""
    numbers = np.random.default_rng(seed)
    return [numbers.normal(0, 1, (BATCH, channels, SIZE // s, SIZE // s)).astype(np.float32) for s in strides]


def of_torch(loss, maps, targets, extra=()):
    given = [torch.from_numpy(value).requires_grad_() for value in (*maps, *extra)]
    total, parts = loss((given[: len(maps)], given[-1]) if extra else given, targets)
    total.backward()
    slopes = [torch.zeros_like(value) if value.grad is None else value.grad for value in given]
    return float(total.detach()), parts.detach().numpy(), [value.numpy() for value in slopes]


def of_tensorflow(loss, maps, targets, extra=()):
    given = [tf.constant(value.transpose(0, 2, 3, 1)) for value in (*maps, *extra)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        total, parts = loss((given[: len(maps)], given[-1]) if extra else given, targets)
    slopes = tape.gradient(total, given, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return float(total), parts.numpy(), [value.numpy().transpose(0, 3, 1, 2) for value in slopes]


def assert_equal(first, second):
    assert second[0] == pytest.approx(first[0], rel=RELATIVE)
    assert second[1] == pytest.approx(first[1], rel=RELATIVE, abs=1e-9)
    for a, b in zip(first[2], second[2], strict=True):
        assert np.abs(a - b).max() <= RELATIVE * np.abs(a).max()


@pytest.mark.parametrize(
    "weights",
    [LossConfig(), LossConfig(smoothing=0.1, focus=1.5, max_ratio=6.0)],
    ids=["published", "smoothed and focused"],
)
@pytest.mark.parametrize("count", [0, 40])
def test_the_loss_of_yolov5_and_its_slopes_are_those_of_torch(weights, count):
    config = yolov5.Config(0.33, 0.25, CLASSES)
    maps, targets = some_maps(config.strides, 3 * (5 + CLASSES), 1), some_targets(count, 2)
    first = of_torch(Yolov5Loss(config, weights, SIZE), maps, torch.from_numpy(targets))
    second = of_tensorflow(losses.Yolov5Loss(config, weights, SIZE), maps, tf.constant(targets))
    assert_equal(first, second)


def test_one_class_has_no_loss_of_classes():
    config = yolov5.Config(0.33, 0.25, 1)
    maps, targets = some_maps(config.strides, 18, 1), some_targets(20, 2)
    targets[:, 1] = 0
    first = of_torch(Yolov5Loss(config, LossConfig(), SIZE), maps, torch.from_numpy(targets))
    second = of_tensorflow(losses.Yolov5Loss(config, LossConfig(), SIZE), maps, tf.constant(targets))
    assert second[1][2] == 0
    assert_equal(first, second)


@pytest.mark.parametrize("count", [0, 25])
def test_the_loss_of_masks_and_its_slopes_are_those_of_torch(count):
    config, numbers = yolov5.Config(0.33, 0.25, CLASSES), np.random.default_rng(3)
    maps, boxes = some_maps(config.strides, 3 * (5 + CLASSES + 32), 1), some_targets(count, 4)
    protos = numbers.normal(0, 0.3, (BATCH, 32, SIZE // 4, SIZE // 4)).astype(np.float32)
    owners = numbers.integers(0, count + 1, (BATCH, SIZE // 4, SIZE // 4)).astype(np.int32)
    theirs = MaskTargets(torch.from_numpy(boxes), torch.from_numpy(owners))
    first = of_torch(Yolov5SegLoss(config, LossConfig(), SIZE), maps, theirs, (protos,))
    ours = (tf.constant(boxes), tf.constant(owners))
    second = of_tensorflow(yolov5_seg_loss.Yolov5SegLoss(config, LossConfig(), SIZE), maps, ours, (protos,))
    assert_equal(first, second)


@pytest.mark.parametrize("count", [0, 30])
def test_the_loss_of_yolov3_tiny_and_its_slopes_are_those_of_torch(count):
    config = yolov3.Config("tiny", CLASSES, anchors=yolov3.ANCHORS_TINY)
    maps, targets = some_maps(config.strides, 3 * (5 + CLASSES), 5), some_targets(count, 6)
    first = of_torch(yolov3.Yolov3Loss(config, LossConfig(smoothing=0.1)), maps, torch.from_numpy(targets))
    second = of_tensorflow(yolov3_loss.Yolov3Loss(config, LossConfig(smoothing=0.1)), maps, tf.constant(targets))
    assert_equal(first, second)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_loss_of_classifiers_and_its_slopes_are_those_of_torch(multi_label):
    logits = np.random.default_rng(7).normal(0, 2, (4, 6)).astype(np.float32)
    labels = (
        np.array([0, 0, 1, 2, 3, 3]),
        np.array([1, 4, 5, 0, 2, 3]),
        np.array([0.7, 0.3, 1, 1, 0.5, 0.5], np.float32),
    )
    given = torch.from_numpy(logits).requires_grad_()
    theirs = ClassTargets(*map(torch.from_numpy, labels))
    total, parts = ClassifierLoss(LossConfig(smoothing=0.1), multi_label=multi_label)(given, theirs)
    total.backward()
    own = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(own)
        ours = tuple(map(tf.constant, labels))
        value, means = losses.ClassifierLoss(LossConfig(smoothing=0.1), multi_label=multi_label)(own, ours)
    assert float(value) == pytest.approx(float(total.detach()), rel=1e-6)
    assert means.numpy() == pytest.approx(parts.numpy(), rel=1e-6)
    assert tape.gradient(value, own).numpy() == pytest.approx(given.grad.numpy(), abs=1e-6)
