"""Checkpoints of segmenters to model folders, equal to the original implementation."""

# ruff: noqa: E402

from copy import deepcopy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from openlepton.card import ModelCard, open_folder
from openlepton.errors import CheckpointMismatch
from openlepton.hub.checkpoint import inspect_checkpoint, read_checkpoint
from openlepton.hub.convert import build_network, convert
from openlepton.predictor import load

FIXTURES = Path(__file__).parent.parent / "fixtures" / "yolov5"
PUBLISHED = FIXTURES / "yolov5n-seg-nc5.pt"
KINDS = ("float32", "float16")


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    """What the original implementation computed."""
    with np.load(FIXTURES / "yolov5n-seg-nc5.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ModelCard]]:
    root = tmp_path_factory.mktemp("converted")
    return {
        kind: (root / kind, convert(PUBLISHED, root / kind, licence="AGPL-3.0-only", weights_type=kind))
        for kind in KINDS
    }


def outputs_of(what: str, folders: dict[str, tuple[Path, ModelCard]], images: np.ndarray) -> list[np.ndarray]:
    if what in KINDS:
        graph = open_folder(folders[what][0]).read("model.onnx")
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        return list(session.run(["boxes", "scores", "coeffs", "protos"], {"images": images}))
    checkpoint = read_checkpoint(PUBLISHED)
    _, network = build_network(checkpoint.state, checkpoint.modules)
    dtype = torch.float64 if what == "double" else torch.float32
    with torch.no_grad():
        return [value.numpy() for value in network.to(dtype).decode(network(torch.from_numpy(images).to(dtype)))]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("what", ["double", "network", *KINDS])
def test_a_published_segmenter_computes_what_the_original_computed(
    what: str, index: int, folders: dict[str, tuple[Path, ModelCard]], reference: dict[str, np.ndarray]
) -> None:
    images = reference[f"input{index}"].astype(np.float32) / 255
    rows, total = reference[f"rows{index}"], reference[f"colsum{index}"]
    boxes, scores, coeffs, protos = outputs_of(what, folders, images)
    count = int(reference[f"shape{index}"][1])
    assert (boxes.shape, scores.shape, coeffs.shape) == ((1, count, 4), (1, count, 5), (1, count, 32))
    assert protos.shape == (1, 32, images.shape[2] // 4, images.shape[3] // 4)
    centre, half = rows[:, :2], rows[:, 2:4] / 2
    assert np.abs(boxes[0, ::37] - np.concatenate((centre - half, centre + half), 1)).max() < 0.02
    assert np.abs(scores[0, ::37] - rows[:, 4:5] * rows[:, 5:10]).max() < 2e-5
    assert np.abs(coeffs[0, ::37] - rows[:, 10:]).max() < 1e-3
    np.testing.assert_allclose(coeffs[0].sum(0, dtype=np.float64) / count, total[10:] / count, atol=1e-4)
    # They reach 119, where single precision, in which the original computed, is 1.0e-3 away from double precision; how far any
    # two orders of summing are apart, and with them two processors, is of that size too.
    away = np.abs(protos[0, :, ::8, ::8] - reference[f"proto{index}"]).max()
    assert away < {"double": 1.1e-3}.get(what, 2.5e-3)


def test_the_card_says_what_was_converted(folders: dict[str, tuple[Path, ModelCard]]) -> None:
    path, card = folders["float32"]
    assert open_folder(path).card == card
    assert (card.task, card.architecture, len(card.labels)) == ("segment", "yolov5n-seg", 5)
    assert card.description == "YOLOv5 segmenter of 5 classes"
    assert card.detect is not None
    assert card.detect.strides == (8, 16, 32)
    assert card.parity is not None
    assert card.parity.coeffs is not None
    assert card.parity.protos is not None
    assert 0 < card.parity.coeffs < 1e-3
    assert 0 < card.parity.protos < 1e-2


def test_the_weights_keep_their_names_and_bits(folders: dict[str, tuple[Path, ModelCard]]) -> None:
    load_file = pytest.importorskip("safetensors.numpy").load_file
    kept, state = load_file(folders["float16"][0] / "model.safetensors"), read_checkpoint(PUBLISHED).state
    assert kept.keys() == state.keys()
    assert len(kept) == 367
    assert all(np.array_equal(kept[name], array) for name, array in state.items())


def test_a_converted_segmenter_finds_masks_inside_boxes(folders: dict[str, tuple[Path, ModelCard]]) -> None:
    model = load(folders["float16"][0], min_score=0.3, max_detections=50)
    image = np.random.default_rng(0).integers(0, 255, (123, 217, 3)).astype(np.uint8)
    found = model(image)
    assert len(found) == 50
    assert found.masks is not None
    assert sum(mask.area > 0 for mask in found.masks) > 25
    for mask, (x1, y1, x2, y2) in zip(found.masks, found.boxes.tolist(), strict=True):
        assert mask.size_hw == (123, 217)
        if mask.area:
            left, top, right, bottom = mask.box()
            assert x1 - 0.5 <= left < right <= x2 + 0.5
            assert y1 - 0.5 <= top < bottom <= y2 + 0.5


def test_inspection_knows_every_global_of_a_published_segmenter() -> None:
    found = inspect_checkpoint(PUBLISHED)
    assert found.problem is None
    assert all(use.known for use in found.globals)
    assert {"models.yolo.SegmentationModel", "models.yolo.Detect.forward"} <= {use.name for use in found.globals}


def test_a_segmenter_with_other_prototypes_is_refused() -> None:
    checkpoint = read_checkpoint(PUBLISHED)
    state = dict(deepcopy(checkpoint.state))
    state["model.24.proto.cv3.conv.weight"] = state["model.24.proto.cv3.conv.weight"][:16]
    with pytest.raises(CheckpointMismatch, match=r"shape: model\.24\.proto\.cv3\.conv\.weight is \(16, 64, 1, 1\)"):
        build_network(state, checkpoint.modules)


def test_a_segmenter_of_four_levels_is_refused() -> None:
    from openlepton.nets import yolov5

    state = {name: tensor.numpy() for name, tensor in yolov5.build("n6", 2).state_dict().items()}
    state["model.33.proto.cv3.conv.weight"] = np.zeros((32, 64, 1, 1), np.float32)
    with pytest.raises(CheckpointMismatch, match=r"a segmenter with four levels \(P6\)"):
        build_network(state)
