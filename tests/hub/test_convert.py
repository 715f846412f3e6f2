"""Checkpoints to model folders: equal to the original implementation where it can be, refused where it cannot."""

# ruff: noqa: E402

import functools
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from openlepton.card import ModelCard, file_facts, open_folder
from openlepton.errors import CheckpointMismatch, OpenLeptonError, OutputError, UsageError
from openlepton.hub.checkpoint import read_checkpoint
from openlepton.hub.convert import build_network, convert, model_name
from openlepton.nets import yolov5

Write = Callable[..., Path]


def run(folder: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(open_folder(folder).read("model.onnx"), providers=["CPUExecutionProvider"])
    boxes, scores = session.run(["boxes", "scores"], {"images": images})
    return boxes, scores


def decode(network: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        boxes, scores = network.decode(network(torch.from_numpy(images)))
    return boxes.numpy(), scores.numpy()


def to_xyxy(rows: np.ndarray) -> np.ndarray:
    centre, half = rows[:, :2], rows[:, 2:4] / 2
    return np.concatenate((centre - half, centre + half), 1)


@pytest.fixture(scope="session")
def folders(published: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ModelCard]]:
    """The published checkpoint converted both ways."""
    root = tmp_path_factory.mktemp("converted")
    return {
        kind: (root / kind, convert(published, root / kind, licence="AGPL-3.0-only", weights_type=kind))
        for kind in ("float32", "float16")
    }


@pytest.fixture(scope="session")
def trained() -> Callable[..., yolov5.Yolov5]:
    """Return a function that builds a network whose norms know their maps, so that its numbers are of a sensible size."""

    @functools.cache
    def build(size: str, classes: int, **changes: Any) -> yolov5.Yolov5:
        torch.manual_seed(0)
        network = yolov5.build(size, classes, **changes).train()
        with torch.no_grad():
            for _ in range(3):
                network(torch.rand(2, 3, 128, 128))
        return network.eval()

    return build


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("what", ["network", "float32", "float16"])
def test_a_published_checkpoint_computes_what_the_original_computed(
    what: str, index: int, published: Path, folders: dict[str, tuple[Path, ModelCard]], reference: dict[str, np.ndarray]
) -> None:
    images = reference[f"input{index}"].astype(np.float32) / 255
    rows, total = reference[f"rows{index}"], reference[f"colsum{index}"]
    if what == "network":
        checkpoint = read_checkpoint(published)
        boxes, scores = decode(build_network(checkpoint.state, checkpoint.modules)[1], images)
    else:
        boxes, scores = run(folders[what][0], images)
    assert boxes.shape == (*reference[f"shape{index}"][:2], 4)
    assert scores.shape == (*reference[f"shape{index}"][:2], 80)
    assert np.abs(boxes[0, ::37] - to_xyxy(rows)).max() < 0.02
    assert np.abs(scores[0, ::37] - rows[:, 4:5] * rows[:, 5:]).max() < 2e-5
    middles = (boxes[0, :, :2].astype(np.float64) + boxes[0, :, 2:]) / 2
    sides = boxes[0, :, 2:].astype(np.float64) - boxes[0, :, :2]
    np.testing.assert_allclose(np.concatenate((middles, sides), 1).mean(0), total[:4] / boxes.shape[1], atol=1e-4)


def test_the_card_says_what_was_converted_and_how_well(
    folders: dict[str, tuple[Path, ModelCard]], published: Path
) -> None:
    path, card = folders["float32"]
    assert open_folder(path).card == card
    assert (card.name, card.architecture, card.task, card.licence) == ("yolov5n", "yolov5n", "detect", "AGPL-3.0-only")
    assert card.labels == tuple(f"class{i}" for i in range(80))
    assert (card.input.size, card.input.multiple, card.input.resize) == (640, 32, "letterbox")
    assert card.detect is not None
    assert card.detect.strides == (8, 16, 32)
    assert card.detect.anchors == yolov5.ANCHORS_P5
    assert card.parity is not None
    assert card.parity.boxes_px is not None
    assert 0 < card.parity.boxes_px < 0.05
    assert 0 < card.parity.scores < 1e-4
    assert file_facts(published.read_bytes()).sha256 in card.source
    assert card.files == {name: file_facts((path / name).read_bytes()) for name in ("model.onnx", "model.safetensors")}
    assert {file.name for file in path.iterdir()} == {"card.toml", "model.onnx", "model.safetensors"}


def test_half_storage_halves_the_graph(folders: dict[str, tuple[Path, ModelCard]]) -> None:
    single, half = (folders[kind][1].files["model.onnx"].size for kind in ("float32", "float16"))
    assert half < 0.52 * single


def test_the_weights_keep_their_names_and_bits(folders: dict[str, tuple[Path, ModelCard]], published: Path) -> None:
    load_file = pytest.importorskip("safetensors.numpy").load_file
    kept, state = load_file(folders["float32"][0] / "model.safetensors"), read_checkpoint(published).state
    assert kept.keys() == state.keys()
    assert len(kept) == 349
    for name, array in state.items():
        assert kept[name].dtype == array.dtype
        assert np.array_equal(kept[name], array)


@pytest.mark.slow
def test_conversion_is_repeatable_to_the_byte(
    folders: dict[str, tuple[Path, ModelCard]], published: Path, tmp_path: Path
) -> None:
    assert convert(published, tmp_path / "again", licence="AGPL-3.0-only") == folders["float32"][1]


def test_the_checkpoint_is_not_touched(
    folders: dict[str, tuple[Path, ModelCard]], published: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "out" / "net.pt"
    weights.parent.mkdir()
    shutil.copy(published, weights)
    before = weights.stat().st_mtime_ns, weights.read_bytes()
    convert(weights, weights.parent, licence="MIT", overwrite=True)
    assert (weights.stat().st_mtime_ns, weights.read_bytes()) == before


@pytest.mark.slow
def test_six_levels_come_out_at_1280(trained: Callable[..., Any], write_foreign: Write, tmp_path: Path) -> None:
    network = trained("n6", 3)
    card = convert(write_foreign(network, half=False), tmp_path / "out", licence="MIT")
    assert (card.architecture, card.input.size, card.input.multiple) == ("yolov5n6", 1280, 64)
    assert card.detect is not None
    assert card.detect.strides == (8, 16, 32, 64)
    images = np.random.default_rng(0).random((2, 3, 128, 192), dtype=np.float32)
    for got, wanted, atol in zip(run(tmp_path / "out", images), decode(network, images), (0.02, 2e-5), strict=True):
        np.testing.assert_allclose(got, wanted, atol=atol)


@pytest.mark.slow
def test_the_v5_layout_with_focus_and_spp_is_understood(
    trained: Callable[..., Any], write_foreign: Write, tmp_path: Path
) -> None:
    network = trained("n", 2, layout="v5")
    weights = write_foreign(network, half=False)
    checkpoint = read_checkpoint(weights)
    assert "model.24.anchor_grid" in checkpoint.state
    assert checkpoint.kind == "models.yolo.Model"
    card = convert(weights, tmp_path / "out", licence="MIT")
    assert card.architecture == "yolov5n"
    images = np.random.default_rng(0).random((1, 3, 96, 64), dtype=np.float32)
    for got, wanted, atol in zip(run(tmp_path / "out", images), decode(network, images), (0.02, 2e-5), strict=True):
        np.testing.assert_allclose(got, wanted, atol=atol)


@pytest.mark.slow
def test_other_spp_kernels_are_taken_from_the_checkpoint(trained: Callable[..., Any], write_foreign: Write) -> None:
    network = trained("n6", 2, layout="v5", pools=(3, 5, 7))
    checkpoint = read_checkpoint(write_foreign(network, half=False))
    name, again = build_network(checkpoint.state, checkpoint.modules)
    assert name == "yolov5n6"
    assert again.config.pools == (3, 5, 7)
    images = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)
    assert np.array_equal(decode(again, images)[0], decode(network, images)[0])


@pytest.mark.slow
def test_one_class_and_other_anchors_survive(trained: Callable[..., Any], write_foreign: Write, tmp_path: Path) -> None:
    anchors = tuple(tuple((8.0 * (2 * level + k + 1), 16.0 * (level + k + 1)) for k in range(2)) for level in range(3))
    network = trained("n", 1, anchors=anchors)
    card = convert(
        write_foreign(network, names={0: "cell"}), tmp_path / "out", licence="MIT", name="cells", version="2"
    )
    assert (card.name, card.version, card.labels) == ("cells", "2", ("cell",))
    assert card.detect is not None
    assert card.detect.anchors == anchors
    boxes, scores = run(tmp_path / "out", np.zeros((1, 3, 64, 64), np.float32))
    assert boxes.shape == (1, 2 * (64 + 16 + 4), 4)
    assert scores.shape == (1, 2 * (64 + 16 + 4), 1)


@pytest.mark.slow
def test_named_tensors_alone_need_labels(trained: Callable[..., Any], tmp_path: Path) -> None:
    network = trained("n", 2)
    weights = tmp_path / "Named Tensors.pt"
    torch.save(network.state_dict(), weights)
    with pytest.raises(UsageError, match="has no class names; give 2 as labels"):
        convert(weights, tmp_path / "out", licence="MIT")
    card = convert(weights, tmp_path / "out", licence="MIT", labels=["cat", "dog"])
    assert (card.name, card.labels) == ("named-tensors", ("cat", "dog"))
    images = np.random.default_rng(0).random((1, 3, 64, 96), dtype=np.float32)
    np.testing.assert_allclose(run(tmp_path / "out", images)[1], decode(network, images)[1], atol=2e-5)


@pytest.mark.slow
def test_the_averaged_weights_are_preferred(trained: Callable[..., Any], write_foreign: Write) -> None:
    def add_average(model: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema"] = deepcopy(model)
        for parameter in checkpoint["ema"].parameters():
            parameter.data.fill_(0.25)

    checkpoint = read_checkpoint(write_foreign(trained("n", 2), edit=add_average))
    assert checkpoint.part == "ema"
    assert (checkpoint.state["model.0.conv.weight"] == 0.25).all()


def refused(weights: Path, tmp_path: Path, error: type[OpenLeptonError], **options: Any) -> str:
    with pytest.raises(error) as caught:
        convert(weights, tmp_path / "out", licence="MIT", **options)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def edit_other_shapes(model: Any, checkpoint: dict[str, Any]) -> None:
    del model.model[8].m
    model.model[9].cv9 = torch.nn.Linear(2, 3)
    model.model[0].conv.weight = torch.nn.Parameter(torch.zeros(16, 3, 3, 3).half())


def test_every_tensor_that_differs_is_listed(trained: Callable[..., Any], write_foreign: Write, tmp_path: Path) -> None:
    weights = write_foreign(trained("n", 2), edit=edit_other_shapes)
    lines = refused(weights, tmp_path, CheckpointMismatch).splitlines()
    assert lines[0] == f"{weights}: closest to yolov5n, but 15 differences:"
    assert "  missing: model.8.m.0.cv1.bn.num_batches_tracked ()" in lines
    assert "  unexpected: model.9.cv9.bias (3,)" in lines
    assert "  shape: model.0.conv.weight is (16, 3, 3, 3), expected (16, 3, 6, 6)" in lines
    assert len(lines) == 16


def edit_stride(model: Any, checkpoint: dict[str, Any]) -> None:
    model.model[3].conv.stride = (1, 1)


def edit_eps(model: Any, checkpoint: dict[str, Any]) -> None:
    model.model[2].cv1.bn.eps = 1e-5


def edit_wiring(model: Any, checkpoint: dict[str, Any]) -> None:
    model.model[12].f = [-1, 4]


def edit_shortcut(model: Any, checkpoint: dict[str, Any]) -> None:
    model.model[13].m[0].add = True


def edit_pool(model: Any, checkpoint: dict[str, Any]) -> None:
    model.model[9].m.kernel_size = 3


def edit_activation(model: Any, checkpoint: dict[str, Any]) -> None:
    model.model[2].cv1.act = torch.nn.Tanh()


def edit_nan(model: Any, checkpoint: dict[str, Any]) -> None:
    model.model[2].cv1.conv.weight.data[0, 0] = float("nan")


def edit_fused(model: Any, checkpoint: dict[str, Any]) -> None:
    model.model[0].conv.bias = torch.nn.Parameter(torch.zeros(16))


def edit_names(model: Any, checkpoint: dict[str, Any]) -> None:
    model.names = ["one", "two", "three"]


def edit_grey(model: Any, checkpoint: dict[str, Any]) -> None:
    model.model[0].conv.weight = torch.nn.Parameter(torch.zeros(16, 1, 6, 6).half())


def edit_width(model: Any, checkpoint: dict[str, Any]) -> None:
    model.model[0].conv.weight = torch.nn.Parameter(torch.zeros(24, 3, 6, 6).half())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_stride, "setting: model.3.conv.stride is [1, 1], expected (2, 2)"),
        (edit_eps, "setting: model.2.cv1.bn.eps is 1e-05, expected 0.001"),
        (edit_wiring, "wiring: layer 12 reads [-1, 4], expected [-1, 6]"),
        (edit_shortcut, "setting: model.13.m.0.add is True, expected False"),
        (edit_pool, "setting: model.9.m.kernel_size is 3, expected 5"),
        (edit_activation, "activations SiLU, Tanh: expected one of SiLU, ReLU, LeakyReLU, Hardswish"),
        (edit_nan, "model.2.cv1.conv.weight: holds numbers that are not finite"),
        (edit_fused, "its batch norms are fused into the convolutions already"),
        (edit_names, "3 class names in the checkpoint, but the network has 2 classes"),
        (edit_grey, "it takes images of 1 channels; models here take 3 (RGB)"),
        (edit_width, "none of the sizes n, s, m, l, x begins with 24 channels and 1 repeats in its first C3"),
    ],
)
def test_what_would_compute_something_else_is_refused(
    edit: Callable[..., None], message: str, trained: Callable[..., Any], write_foreign: Write, tmp_path: Path
) -> None:
    assert message in refused(write_foreign(trained("n", 2), edit=edit), tmp_path, CheckpointMismatch)


def test_a_folder_in_use_is_left_alone(published: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="the folder is not empty; choose another, or ask to overwrite"):
        convert(published, tmp_path, licence="MIT")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        convert(published, tmp_path / "mine.txt", licence="MIT")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    convert(published, tmp_path, licence="MIT", overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "precious"
    assert open_folder(tmp_path).card.name == "yolov5n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "No Spaces"}, "name: .*got 'No Spaces'"),
        ({"licence": " "}, "licence: "),
        ({"labels": ["a"]}, "1 class names"),
    ],
)
def test_bad_facts_for_the_card_are_refused_before_the_work(
    options: dict[str, Any], message: str, published: Path, tmp_path: Path
) -> None:
    with pytest.raises(OpenLeptonError, match=message):
        convert(published, tmp_path / "out", **({"licence": "MIT"} | options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stem", "name"),
    [("yolov5n", "yolov5n"), ("Best (3)", "best-3"), ("..hidden", "hidden"), ("模型", "model"), ("a" * 80, "a" * 64)],
)
def test_file_names_become_model_names(stem: str, name: str) -> None:
    assert model_name(stem) == name
