"""Darknet's files against what the original C program and OpenCV 4 compute with them (tools/darknet_references.py)."""

# ruff: noqa: E402

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from openlepton.errors import CheckpointMismatch, CheckpointRefused, UsageError
from openlepton.nets.darknet import Darknet
from openlepton.nets.darknet_blocks import Convolution, Pool
from openlepton.nets.darknet_files import Header, read_weights, write_weights
from openlepton.nets.darknet_layers import Convolutional, Maxpool
from openlepton.nets.darknet_plan import plan
from openlepton.nets.export import export_onnx, parity

FOLDER = Path(__file__).parent.parent / "fixtures" / "darknet"
NAMES = sorted(path.stem for path in FOLDER.glob("*.cfg"))
DETECTORS = [name for name in NAMES if name != "classifier"]


def read(name: str, epsilon: Any = "deviation") -> Any:
    """The network of a configuration, in evaluation mode; the references were computed on a processor."""
    network = Darknet(plan((FOLDER / f"{name}.cfg").read_text(), name), epsilon).eval()
    read_weights(network, FOLDER / f"{name}.weights")
    return network


def reference(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def run(network: Any, image: np.ndarray) -> tuple[list[Any], tuple[np.ndarray, ...]]:
    """What the heads read, and what comes out for one image of bytes."""
    with torch.no_grad():
        raw = network(torch.from_numpy(image[None].astype(np.float32) / 255))
        found = network.decode(raw)
    return raw, tuple(part[0].numpy() for part in (found if isinstance(found, tuple) else (found,)))


def relative(boxes: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Boxes in pixels as centre, width and height, relative to the image."""
    boxes = boxes.astype(np.float64) / (size_hw * 2)[::-1][:4]
    return np.concatenate(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1)


def cells_first(raw: list[Any], anchors: int) -> list[np.ndarray]:
    """For each head our rows in the order of `[yolo]`'s boxes: by cell, then by anchor."""
    counts = [anchors * x.shape[2] * x.shape[3] for x in raw]
    starts = np.cumsum([0, *counts[:-1]])
    return [start + np.arange(n).reshape(anchors, -1).T.ravel() for start, n in zip(starts, counts, strict=True)]


def distance(name: str, epsilon: Any = "deviation", *, fused: bool = False) -> tuple[float, float]:
    """How far boxes (relative units) and scores are from the reference, over every row of it."""
    network, wanted = read(name, epsilon), reference(name)
    raw, found = run(network.fused() if fused else network, wanted["input"])
    size_hw = network.config.size_hw
    if name == "classifier":
        return 0.0, float(np.abs(found[0] - wanted["scores"]).max())
    boxes, scores, thresh = relative(found[0], size_hw), found[1], 0.0
    if "opencv0" in wanted:
        order = np.concatenate(cells_first(raw, 2))
        rows, thresh = np.concatenate([wanted[f"opencv{index}"] for index in range(len(raw))]), 0.2
    elif name == "yolov3-tiny-slim":
        rows, thresh = wanted["rows"], float(wanted["thresh"])
        objectness = torch.cat([x.reshape(3, 9, -1)[:, 4].sigmoid().flatten() for x in raw]).numpy()
        order = np.concatenate(cells_first(raw, 3))
        order = order[objectness[order] > thresh]
    else:
        rows = wanted["rows"]
        order = np.concatenate(cells_first(raw, 2)) if name == "yolov3-kind" else np.arange(len(rows))
        if name.startswith("yolov1"):  # the one that gives pixels
            rows = rows / ([*size_hw[::-1], *size_hw[::-1]] + [1] * (rows.shape[1] - 4))
            rows[:, 5:] = rows[:, 5:].clip(0, 1)
    assert len(order) == len(rows) > 0
    boxes, scores = boxes[order], np.where(scores[order] > thresh, scores[order], 0)
    # of a box a hundred times as wide as the image, seven digits are what float32 has
    return float((np.abs(boxes - rows[:, :4]) / np.abs(rows[:, :4]).clip(1)).max()), float(
        np.abs(scores - rows[:, 5:]).max()
    )


@pytest.mark.parametrize("fused", [False, True], ids=["as read", "fused"])
@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_as_the_original_computes_it(name: str, fused: bool) -> None:
    boxes, scores = distance(name, fused=fused)
    assert boxes < 1e-4
    assert scores < 1e-5


@pytest.mark.parametrize("name", ["yolov1-kind", "yolov2-kind", "yolov3-kind", "yolov3-tiny-slim"])
def test_the_two_epsilons_are_two_things(name: str) -> None:
    assert distance(name, "variance")[1] > 10 * distance(name, "deviation")[1]


def test_the_references_say_something() -> None:
    """Scores of every size, and not one box everywhere."""
    for name in DETECTORS:
        arrays = reference(name)
        rows = arrays["rows"] if "rows" in arrays else np.concatenate([arrays["opencv0"], arrays["opencv1"]])
        assert rows[:, 5:].max() > 0.2
        assert (rows[:, 5:] > 0).mean() > 0.1
        assert rows[:, :4].std(0).min() > 0.01


def test_old_and_new_headers_are_read() -> None:
    headers = {
        name: read_weights(Darknet(plan((FOLDER / f"{name}.cfg").read_text())), FOLDER / f"{name}.weights")
        for name in ("yolov1-kind", "yolov3-tiny-slim")
    }
    assert headers["yolov1-kind"] == Header(0, 1, 0, 12345)
    assert headers["yolov3-tiny-slim"] == Header(0, 2, 0, 32013312)
    assert [len(header.data) for header in headers.values()] == [16, 20]


@pytest.mark.parametrize("name", NAMES)
def test_what_was_read_is_written_to_the_bit(name: str, tmp_path: Path) -> None:
    network, weights = Darknet(plan((FOLDER / f"{name}.cfg").read_text())), FOLDER / f"{name}.weights"
    header = read_weights(network, weights)
    write_weights(network, tmp_path / "again.weights", header)
    assert (tmp_path / "again.weights").read_bytes() == weights.read_bytes()


def test_matrices_of_very_old_files_are_the_other_way_round(tmp_path: Path) -> None:
    network, old = read("yolov1-kind"), Header(0, 1001, 0, 7)
    assert (len(old.data), old.transposed) == (16, True)
    write_weights(network, tmp_path / "old.weights", old)
    again = Darknet(network.config, "deviation").eval()
    assert read_weights(again, tmp_path / "old.weights") == old
    image = reference("yolov1-kind")["input"]
    for a, b in zip(run(network, image)[1], run(again, image)[1], strict=True):
        np.testing.assert_array_equal(a, b)
    data = bytearray((tmp_path / "old.weights").read_bytes())
    data[4:8] = (1).to_bytes(4, "little")  # the same numbers called new
    (tmp_path / "new.weights").write_bytes(data)
    read_weights(again, tmp_path / "new.weights")
    assert (run(network, image)[0][0] - run(again, image)[0][0]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("change", "said"),
    [(-4, "found 558,296: truncated"), (-1, "found 558,299: truncated"), (4, "found 558,304: overlong")],
)
def test_a_file_of_another_size_is_refused_with_both_sizes(change: int, said: str, tmp_path: Path) -> None:
    data = (FOLDER / "yolov3-tiny-slim.weights").read_bytes()
    path = tmp_path / "net.weights"
    path.write_bytes(data[:change] if change < 0 else data + bytes(change))
    network = Darknet(plan((FOLDER / "yolov3-tiny-slim.cfg").read_text()))
    with pytest.raises(CheckpointMismatch, match=f"expected 558,300 bytes, {said}"):
        read_weights(network, path)


def test_what_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    network, path = Darknet(plan((FOLDER / "yolov2-kind.cfg").read_text())), tmp_path / "net.weights"
    with pytest.raises(CheckpointRefused, match="No such file"):
        read_weights(network, path)
    for data, said in [(b"", "0 bytes"), (bytes(15), "15 bytes"), (b"\x80\x02}q\x01(" + b"\xff" * 20, "version")]:
        path.write_bytes(data)
        with pytest.raises(CheckpointRefused, match=said):
            read_weights(network, path)
    data = bytearray((FOLDER / "yolov2-kind.weights").read_bytes())
    data[100:104] = b"\x00\x00\xc0\x7f"
    path.write_bytes(data)
    with pytest.raises(CheckpointMismatch, match="not finite"):
        read_weights(network, path)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "yolov3-tiny-slim"])
def test_the_graph_computes_the_same(name: str) -> None:
    network = read(name)
    size_hw, any_size = network.config.size_hw, network.config.any_size
    graph = export_onnx(network, size_hw, any_size=any_size)
    m = network.multiple
    shapes = [(1, 3, *size_hw), (2, 3, *size_hw)] + ([(1, 3, m, m), (1, 3, 3 * m, 5 * m)] if any_size else [])
    found = parity(network, graph, shapes, tolerance={"boxes": 0.05, "scores": 1e-5})
    assert set(found.largest) == set(network.outputs)


def test_which_networks_take_any_size_is_found_out() -> None:
    known = {name: (read(name).config.any_size, read(name).multiple) for name in NAMES}
    assert known == {
        "classifier": (False, 1),
        "yolov1-kind": (False, 1),
        "yolov1-softmax": (False, 1),
        "yolov2-kind": (True, 8),
        "yolov3-kind": (True, 16),
        "yolov3-tiny-slim": (True, 32),
        "yolov4-kind": (True, 8),
    }


def convolution(**changes: Any) -> Convolution:
    facts = {"line": 1, "reads": (-1,), "cin": 2, "stride": 1, "groups": 1, "normalized": False, "activation": "linear"}
    return Convolution(Convolutional(**(facts | changes)), "variance")


def test_a_dilated_convolution_is_a_larger_one_full_of_zeros() -> None:
    torch.manual_seed(0)
    found = plan(
        "[net]\nheight=9\nwidth=7\nchannels=3\n[convolutional]\nfilters=2\nactivation=linear\n"
        "[convolutional]\nfilters=10\nsize=3\npad=1\ndilation=2\nactivation=linear\n[avgpool]\n[softmax]"
    )
    facts = found.layers[1]
    assert isinstance(facts, Convolutional)
    assert facts.shape == (10, 9, 7)
    dilated = Convolution(facts, "variance")
    whole = convolution(shape=(10, 9, 7), size=5, pad=2, dilation=1)
    with torch.no_grad():
        whole.conv.weight.zero_()
        whole.conv.weight[:, :, ::2, ::2] = dilated.conv.weight
        whole.conv.bias.copy_(dilated.conv.bias)
        x = torch.rand(1, 2, 9, 7)
        torch.testing.assert_close(dilated(x), whole(x))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2, None])
@pytest.mark.parametrize("side", [5, 8, 13])
def test_a_max_pool_is_what_its_definition_says(size: int, stride: int, padding: int | None, side: int) -> None:
    """Windows begin at -(padding // 2) and step by the stride; what lies outside of the map counts for nothing."""
    padding = size - 1 if padding is None else padding
    high = (side + padding - size) // stride + 1
    if high < 1 or padding >= 2 * size - 1 or (high - 1) * stride - padding // 2 >= side:
        return
    x = torch.randn(1, 2, side, side)
    pool = Pool(Maxpool(line=1, reads=(0,), shape=(2, high, high), size=size, stride=stride, padding=padding))
    wanted = torch.empty(1, 2, high, high)
    for row in range(high):
        for column in range(high):
            y, z = row * stride - padding // 2, column * stride - padding // 2
            wanted[0, :, row, column] = x[0, :, max(y, 0) : y + size, max(z, 0) : z + size].amax((1, 2))
    assert torch.equal(pool(x), wanted)


def test_an_epsilon_has_two_names() -> None:
    with pytest.raises(UsageError, match="expected variance or deviation"):
        read("yolov2-kind", "small")


def test_a_fused_network_is_not_written_as_another(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "yolov2-kind.weights", tmp_path / "net.weights")
    network = read("yolov2-kind").fused()
    write_weights(network, tmp_path / "fused.weights")
    with pytest.raises(CheckpointMismatch, match="truncated"):
        read_weights(read("yolov2-kind"), tmp_path / "fused.weights")


def test_a_shortcut_adds_of_several_maps_what_they_share() -> None:
    head = "[net]\nheight=5\nwidth=6\nchannels=3\n"
    layers = [f"[convolutional]\nfilters={filters}\nactivation=linear\n" for filters in (2, 6, 4)]
    network = Darknet(
        plan(head + "".join(layers) + "[shortcut]\nfrom=-2,-3\nactivation=leaky\n[avgpool]\n[softmax]")
    ).eval()
    with torch.no_grad():
        a = network.layers[0](torch.rand(1, 3, 5, 6))
        b = network.layers[1](a)
        c = network.layers[2](b)
        wanted = c.clone() + b[:, :4]
        wanted[:, :2] += a
        found = network.layers[3](c, b, a)
    torch.testing.assert_close(found, torch.nn.functional.leaky_relu(wanted, 0.1))
    assert network.config.layers[3].reads == (2, 1, 0)
