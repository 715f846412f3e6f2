"""Darknet's files to model folders and back, as a user converts them."""

# ruff: noqa: E402

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from openlepton import load
from openlepton.card import ModelCard, open_folder
from openlepton.cli import run
from openlepton.errors import CheckpointMismatch, CheckpointRefused, OutputError, UsageError
from openlepton.hub.darknet import convert_darknet, read_names, save_darknet
from openlepton.nets import NETS
from openlepton.nets.darknet import Darknet
from openlepton.nets.darknet_files import read_weights
from openlepton.nets.darknet_plan import plan
from openlepton.nets.darknet_write import write_darknet
from openlepton.runtimes.onnx import OnnxRuntime

FOLDER = Path(__file__).parent.parent / "fixtures" / "darknet"


def convert(fixture: str, out: Path, **options: Any) -> ModelCard:
    return convert_darknet(
        FOLDER / f"{fixture}.cfg", FOLDER / f"{fixture}.weights", out, **({"licence": "MIT"} | options)
    )


def reference(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def test_a_folder_computes_what_the_original_computed(tmp_path: Path) -> None:
    """From files to the graph's numbers: YOLOv2, whose rows are in the order of the original's."""
    card = convert("yolov2-kind", tmp_path / "out", epsilon="deviation")
    wanted = reference("yolov2-kind")
    found = OnnxRuntime(open_folder(tmp_path / "out"))({"images": wanted["input"][None].astype(np.float32) / 255})
    boxes = found["boxes"][0].astype(np.float64) / (96, 64, 96, 64)
    rows = np.concatenate(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1)
    assert (np.abs(rows - wanted["rows"][:, :4]) / np.abs(wanted["rows"][:, :4]).clip(1)).max() < 1e-4
    assert np.abs(found["scores"][0] - wanted["rows"][:, 5:]).max() < 1e-5
    assert card.parity is not None
    assert card.parity.scores < 1e-5


def test_the_card_says_what_was_converted(tmp_path: Path) -> None:
    card = convert("yolov4-kind", tmp_path / "out", labels=["a", "b", "c"], name="v4", version="2")
    assert open_folder(tmp_path / "out").card == card
    assert (card.name, card.version, card.architecture) == ("v4", "2", "darknet-yolov4-kind")
    assert (card.task, card.labels, card.licence) == ("detect", ("a", "b", "c"), "MIT")
    assert (card.input.resize, card.input.fill, card.input.size, card.input.size_hw) == ("letterbox", 128, 96, (64, 96))
    assert card.input.multiple == 8
    assert card.detect is not None
    assert card.detect.strides == (8, 4)
    assert card.detect.anchors == (((10, 14), (23, 27)),) * 2
    assert "yolov4-kind.weights, sha256 " in card.source
    assert "the variance" in card.source
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"card.toml", "model.onnx", "model.safetensors"}


@pytest.mark.parametrize(
    ("name", "resize", "expected"),
    [
        ("yolov2-kind", None, "letterbox"),
        ("yolov2-kind", "stretch", "stretch"),
        ("yolov1-kind", None, "stretch"),
        ("yolov1-kind", "letterbox", "letterbox"),
    ],
)
def test_images_come_to_the_size_of_the_network_in_either_way(
    name: str, resize: Any, expected: str, tmp_path: Path
) -> None:
    card = convert(name, tmp_path / "out", resize=resize)
    assert card.input.resize == expected
    detect = load(tmp_path / "out", min_score=0.001)
    image = np.full((60, 30, 3), 200, np.uint8)
    tensors, frame = detect.task.prepare(image)
    seen, (height, width) = tensors["images"], card.input.size_hw or (0, 0)
    assert seen.shape == (3, height, width)
    scale = height / 60  # the image is taller than the network
    inner = round(30 * scale) if expected == "letterbox" else width
    left = (width - inner) // 2
    np.testing.assert_allclose(seen[:, :, left : left + inner], 200 / 255, atol=1e-6)
    np.testing.assert_allclose(seen[:, :, :left], 128 / 255, atol=1e-6)
    corners = np.array([[left, 0, left + inner, height]], np.float32)
    np.testing.assert_allclose(frame.undo(corners), [[0, 0, 30, 60]], atol=1e-4)
    assert detect(image).image_hw == (60, 30)


def test_another_size_keeps_the_shape_where_the_network_has_none_of_its_own(tmp_path: Path) -> None:
    convert("yolov2-kind", tmp_path / "any")
    assert load(tmp_path / "any", size=192).task.prepare(np.zeros((50, 50, 3), np.uint8))[0]["images"].shape == (
        3,
        128,
        192,
    )
    load(tmp_path / "any", size=192)(np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(UsageError, match="multiple of 8, got 100"):
        load(tmp_path / "any", size=100)
    convert("yolov1-kind", tmp_path / "fixed")
    with pytest.raises(UsageError, match="takes images of 96 x 96 pixels alone, got 192"):
        load(tmp_path / "fixed", size=192)


def test_a_classifier_becomes_a_classifier(tmp_path: Path) -> None:
    text = (FOLDER / "classifier.cfg").read_text().replace("height=48", "height=60")  # classifiers see squares here
    cfg, weights = tmp_path / "classifier.cfg", FOLDER / "classifier.weights"
    cfg.write_text(text)
    card = convert_darknet(cfg, weights, tmp_path / "out", licence="MIT")
    assert (card.task, card.input.resize, card.input.size, len(card.labels)) == ("classify", "crop", 60, 6)
    assert card.labels[:2] == ("class0", "class1")
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    network = Darknet(plan(text)).eval()
    read_weights(network, weights)
    with torch.no_grad():
        wanted = network.decode(network(torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)))
    np.testing.assert_allclose(load(tmp_path / "out")(image).scores, wanted[0], atol=1e-6)
    with pytest.raises(UsageError, match="a classifier takes crop or stretch, got letterbox"):
        convert_darknet(cfg, weights, tmp_path / "other", licence="MIT", resize="letterbox")
    with pytest.raises(CheckpointRefused, match="a classifier of 48x60 pixels; squares are supported"):
        convert("classifier", tmp_path / "other")


def write_ours(folder: Path, architecture: str, **changes: Any) -> Any:
    """A network of the table as Darknet's files `net.cfg` and `net.weights`."""
    torch.manual_seed(0)
    network: Any = NETS[architecture].build(classes=3, **changes)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    write_darknet(network, folder / "net.cfg", folder / "net.weights", (64, 64))
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("yolov3-tiny", {"anchors": (((1, 2), (3, 4), (5, 6)), ((7, 8), (9, 10), (11, 12)))}),
        ("yolov1-tiny", {"size": 128, "boxes": 3}),
    ],
)
def test_a_published_network_can_be_trained_on_and_comes_back_to_the_bit(
    architecture: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    network = write_ours(tmp_path, architecture, **changes)
    card = convert_darknet(tmp_path / "net.cfg", tmp_path / "net.weights", tmp_path / "out", licence="MIT")
    assert card.architecture == architecture
    load_file = pytest.importorskip("safetensors.torch").load_file
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    if architecture == "yolov3-tiny":
        assert card.detect is not None
        assert (card.detect.strides, card.detect.anchors) == ((16, 32), changes["anchors"])
    save_darknet(tmp_path / "out", tmp_path / "again.cfg", tmp_path / "again.weights")
    for suffix in (".cfg", ".weights"):
        assert (tmp_path / "again").with_suffix(suffix).read_bytes() == (tmp_path / "net").with_suffix(
            suffix
        ).read_bytes()


@pytest.mark.slow
def test_with_the_other_epsilon_it_is_another_network(tmp_path: Path) -> None:
    write_ours(tmp_path, "yolov3-tiny")
    (tmp_path / "net.cfg").rename(tmp_path / "odd.cfg")
    card = convert_darknet(
        tmp_path / "odd.cfg", tmp_path / "net.weights", tmp_path / "out", licence="MIT", epsilon="deviation"
    )
    assert card.architecture == "darknet-odd"
    with pytest.raises(UsageError, match="its architecture is darknet-odd; YOLOv3 and YOLOv1 are written for Darknet"):
        save_darknet(tmp_path / "out", tmp_path / "a.cfg", tmp_path / "a.weights")


def test_nothing_is_written_where_something_is_wrong(tmp_path: Path) -> None:
    out, weights = tmp_path / "out", tmp_path / "cut.weights"
    weights.write_bytes((FOLDER / "yolov2-kind.weights").read_bytes()[:-4])
    with pytest.raises(CheckpointMismatch, match="expected 18,932 bytes, found 18,928: truncated"):
        convert_darknet(FOLDER / "yolov2-kind.cfg", weights, out, licence="MIT")
    with pytest.raises(CheckpointMismatch, match="2 class names given, but the network has 3 classes"):
        convert("yolov2-kind", out, labels=["a", "b"])
    with pytest.raises(UsageError, match="a detector takes letterbox or stretch, got crop"):
        convert("yolov2-kind", out, resize="crop")
    with pytest.raises(UsageError, match="name: "):
        convert("yolov2-kind", out, name="No Spaces")
    with pytest.raises(CheckpointRefused, match=r"nowhere\.cfg: No such file"):
        convert_darknet(tmp_path / "nowhere.cfg", weights, out, licence="MIT")
    (tmp_path / "large.cfg").write_bytes(bytes(2_000_000))
    with pytest.raises(CheckpointRefused, match="at most 1,048,576 bytes are read"):
        convert_darknet(tmp_path / "large.cfg", weights, out, licence="MIT")
    assert not out.exists()
    with pytest.raises(OutputError, match="the folder is not empty"):
        convert("yolov2-kind", tmp_path)


def test_names_are_read_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "coco.names"
    path.write_bytes("person\r\n traffic light \n猫\n\n".encode())
    assert read_names(path) == ("person", "traffic light", "猫")
    path.write_bytes(b"person\n\ncat\n")
    with pytest.raises(CheckpointRefused, match="line 2: a name is empty"):
        read_names(path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in, with names for three classes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three.names").write_text("cat\ndog\nbird\n")
    return tmp_path


def test_the_command_line_makes_a_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(FOLDER / f"yolov3-kind.{suffix}") for suffix in ("cfg", "weights")]
    assert run(["convert", *files, "out", "--names", "three.names", "--licence", "MIT", "--resize", "stretch"]) == 0
    assert "out: darknet-yolov3-kind, 3 classes, licence MIT" in capsys.readouterr().out
    card = open_folder(home / "out").card
    assert (card.labels, card.input.resize) == (("cat", "dog", "bird"), "stretch")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("net.weights out --licence MIT", "net.weights: "),
        ("net.cfg out --licence MIT", "expected net.pt OUT, net.cfg net.weights OUT"),
        ("a b c d --licence MIT", "expected net.pt OUT, net.cfg net.weights OUT"),
        ("net.cfg net.weights out", "--licence: the files do not say what licence"),
        ("net.pt out --licence MIT --epsilon deviation", "--epsilon and --resize are for Darknet's files"),
        ("nowhere net.cfg net.weights", "nowhere: no such model folder"),
    ],
)
def test_the_command_line_says_what_it_takes(
    arguments: str, said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert", *arguments.split()]) in (1, 2)
    assert said in capsys.readouterr().err
    assert [path.name for path in home.iterdir()] == ["three.names"]


@pytest.mark.slow
def test_the_command_line_converts_back(home: Path) -> None:
    write_ours(home, "yolov3-tiny")
    assert run(["convert", "net.cfg", "net.weights", "out", "--names", "three.names", "--licence", "MIT"]) == 0
    assert open_folder(home / "out").card.architecture == "yolov3-tiny"
    assert run(["convert", "out", "again.cfg", "again.weights"]) == 0
    assert Path("again.weights").read_bytes() == Path("net.weights").read_bytes()
