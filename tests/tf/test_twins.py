"""Every network in Keras against its twin in torch, with the same weights on the same images."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")

from functools import partial

from openlepton.errors import CheckpointMismatch, UsageError
from openlepton.nets import NETS, efficientnet, yolov3, yolov5, yolov5_seg
from openlepton.tf import build, get_weights, network, set_weights
from openlepton.tf.networks import KINDS
from openlepton.tf.weights import IGNORED, to_keras, to_torch

BOXES_PX, SCORES, RAW = 5e-4, 2e-6, 2e-5
NARROW = {"width": 0.25}
SMALL = {
    "yolov5n": (partial(yolov5.build, "n", width=0.125), {"width": 0.125}),
    "yolov5n v5": (partial(yolov5.build, "n", width=0.125, layout="v5"), {"width": 0.125, "layout": "v5"}),
    "yolov5n6": (partial(yolov5.build, "n6", width=0.125), {"width": 0.125}),
    "yolov5n-seg": (partial(yolov5_seg.build, "n", width=0.125), {"width": 0.125}),
    "yolov3-tiny": (partial(yolov3.build, "tiny", width=0.25), {"width": 0.25}),
    "efficientnet-lite0": (partial(efficientnet.build, "lite0", width=0.25, depth=0.5), {"width": 0.25, "depth": 0.5}),
}
"""Shapes that take a second: name, the network in torch, and how it differs from the published one."""


def images_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def close(found: dict[str, float]) -> bool:
    limits = {"boxes": BOXES_PX, "scores": SCORES, "coeffs": RAW, "protos": RAW}
    return all(value <= limits[name] for name, value in found.items())


@pytest.fixture(scope="module", params=SMALL)
def pair(request, twins):
    """A network in torch, and its twin with the same weights."""
    make, changes = SMALL[request.param]
    torch.manual_seed(0)
    first = twins.lively(make(classes=3))
    second = network(request.param.split()[0], classes=3, **changes)
    set_weights(second.raw, twins.arrays(first))
    return first, second


@pytest.mark.slow
def test_a_twin_gives_the_same_boxes_and_scores(pair, twins):
    first, second = pair
    for shape in ((2, 3, 64, 128), (1, 3, 128, 128)):
        images = images_of(*shape)
        found = twins.largest(twins.torch_outputs(first, images), second.model(images))
        assert close(found), found


@pytest.mark.slow
def test_weights_come_back_bit_for_bit(pair, twins):
    first, second = pair
    given, back = twins.arrays(first), get_weights(second.raw)
    assert {name for name in given if name.rpartition(".")[2] not in IGNORED} == set(back)
    assert all(back[name].tobytes() == given[name].tobytes() for name in back)


@pytest.mark.slow
def test_a_fused_twin_of_one_size_gives_the_same(pair, twins):
    first, second = pair
    images = images_of(1, 3, 64, 64)
    found = twins.largest(twins.torch_outputs(first, images), second.fused(size=64, batch=1).model(images))
    assert close(found), found


@pytest.mark.slow
@pytest.mark.parametrize("size", [320, 640])
@pytest.mark.parametrize("name", ["yolov5n", "yolov5s"])
def test_the_published_shapes_agree_to_half_a_thousandth_of_a_pixel(name, size, twins):
    torch.manual_seed(1)
    first = twins.lively(NETS[name].build(classes=80))
    images = images_of(1, 3, size, size)
    found = twins.largest(
        twins.torch_outputs(first, images), build(name, classes=80, weights=twins.arrays(first))(images)
    )
    assert close(found), found


def test_every_architecture_that_the_table_names_is_one_of_nets():
    assert set(KINDS) <= set(NETS)
    assert {name: kind.task for name, kind in KINDS.items()} == {name: NETS[name].task for name in KINDS}


@pytest.mark.parametrize("order", [(2, 3, 1, 0), (2, 3, 0, 1), (1, 0)])
def test_axes_go_there_and_back(order):
    value = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape((2, 3, 4, 5) if len(order) == 4 else (6, 20))
    moved = to_keras(value, order)
    assert moved.shape == tuple(value.shape[axis] for axis in order)
    assert np.array_equal(to_torch(moved, order), value)


@pytest.mark.slow
def test_weights_of_another_network_are_refused_by_name_and_by_shape():
    made = network("yolov3-tiny", classes=2, width=0.125)
    own = get_weights(made.raw)
    with pytest.raises(
        CheckpointMismatch, match=r"1 missing \(such as levels.1.head.1.bias\), 1 that the network has not"
    ):
        set_weights(made.raw, {name.replace("levels.1.head.1.bias", "other"): value for name, value in own.items()})
    with pytest.raises(
        CheckpointMismatch, match=r"levels.0.head.1.weight: expected \(21, 64, 1, 1\), got \(1, 64, 1, 1\)"
    ):
        set_weights(made.raw, own | {"levels.0.head.1.weight": own["levels.0.head.1.weight"][:1]})


def test_what_has_no_twin_is_said_with_what_has():
    with pytest.raises(UsageError, match="yolov1: has no twin in TensorFlow; those that have: efficientnet-lite0"):
        build("yolov1", classes=2)


def test_sides_that_do_not_divide_are_refused():
    with pytest.raises(UsageError, match="size: expected sides that 32 divides, got 100 x 100"):
        build("yolov3-tiny", classes=2, size=100)


@pytest.mark.slow
def test_a_fresh_twin_begins_with_the_priors_of_torch(twins):
    first, second = yolov5.build("n", classes=3, width=0.125), network("yolov5n", classes=3, width=0.125)
    for index in range(3):
        theirs = twins.arrays(first)[f"model.24.m.{index}.bias"].reshape(3, 8)
        ours = get_weights(second.raw)[f"model.24.m.{index}.bias"].reshape(3, 8)
        bound = 1 / np.sqrt(first.model[-1].m[index].in_channels)  # what torch draws biases from, around the priors
        assert np.abs(theirs - ours).max() <= bound
        assert ours[:, 4] == pytest.approx(np.log(8 / (640 / (8 << index)) ** 2))
