"""YOLOv5 classifiers: built as published, imported from their checkpoints."""

# ruff: noqa: E402

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import openlepton
from openlepton.errors import CheckpointMismatch, CheckpointRefused
from openlepton.hub.convert import build_network, convert
from openlepton.nets import yolov5_cls

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def network() -> Any:
    """A classifier of four classes whose norms know their maps, in the precision of checkpoints."""
    torch.manual_seed(0)
    made = yolov5_cls.build("n", 4).train()
    with torch.no_grad():
        for _ in range(3):
            made(torch.rand(4, 3, 64, 64))
    for tensor in made.state_dict().values():
        if tensor.dtype.is_floating_point:
            tensor.copy_(tensor.half())
    return made.eval()


@pytest.mark.parametrize(
    ("size", "published"), [("n", 2.5), ("s", 5.4), ("m", 12.9), ("l", 26.5), ("x", 48.1)], ids="nsmlx"
)
def test_parameters_are_as_many_as_published(size: str, published: float) -> None:
    with torch.device("meta"):
        fused = yolov5_cls.build(size).fused()
    assert round(sum(parameter.numel() for parameter in fused.parameters()) / 1e6, 1) == published


def test_tensors_are_named_as_published(network: Any) -> None:
    names = list(network.state_dict())
    assert names[0] == "model.0.conv.weight"
    assert [name for name in names if name.startswith("model.9.")] == [
        "model.9.conv.conv.weight",
        "model.9.conv.bn.weight",
        "model.9.conv.bn.bias",
        "model.9.conv.bn.running_mean",
        "model.9.conv.bn.running_var",
        "model.9.conv.bn.num_batches_tracked",
        "model.9.linear.weight",
        "model.9.linear.bias",
    ]


def attach_transforms(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, dict[str, Any]], None]:
    """Return an edit that puts how images were prepared into a checkpoint, as training does there."""
    made = []
    for module, names in (
        ("torchvision.transforms.transforms", ("Compose", "Normalize")),
        ("utils.augmentations", ("CenterCrop", "ToTensor")),
    ):
        found = types.ModuleType(module)
        for parent in (module.split(".")[0], ".".join(module.split(".")[:2])):
            monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent) or types.ModuleType(parent))
        monkeypatch.setitem(sys.modules, module, found)
        for name in names:
            kind = type(name, (), {"__module__": module})
            setattr(found, name, kind)
            made.append(kind)

    def edit(model: Any, checkpoint: dict[str, Any]) -> None:
        compose, normalize, crop, tensor = (kind() for kind in made)
        crop.size, normalize.mean = 224, [0.485, 0.456, 0.406]
        compose.transforms = [crop, tensor, normalize]
        model.transforms = compose

    return edit


def test_a_checkpoint_becomes_a_model_that_says_the_same(
    network: Any, write_foreign: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_foreign(
        network, names=["ant", "bee", "cow", "dog"], edit=attach_transforms(monkeypatch), name="yolov5n-cls.pt"
    )
    card = convert(path, tmp_path / "model", licence="AGPL-3.0-only")
    assert (card.task, card.architecture, card.labels) == ("classify", "yolov5n-cls", ("ant", "bee", "cow", "dog"))
    assert (card.input.size, card.input.resize, card.input.crop_fraction) == (224, "crop", 1.0)
    assert card.parity is not None
    assert card.parity.scores < 1e-5
    image = np.random.default_rng(0).integers(0, 256, (300, 224, 3)).astype(np.uint8)
    found = openlepton.load(tmp_path / "model")(image)
    middle = torch.from_numpy(image[38:262].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        wanted = network(middle).softmax(1)[0].numpy()
    np.testing.assert_allclose(found.scores, wanted, atol=1e-5)
    assert found.label == ("ant", "bee", "cow", "dog")[wanted.argmax()]


def test_images_are_normalised_by_the_mean_and_deviation_of_imagenet(network: Any) -> None:
    images = torch.rand(1, 3, 64, 64)
    x = (images - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    with torch.no_grad():
        for layer in network.model[:-1]:
            x = layer(x)
        wanted = network.head.linear(network.head.conv(x).mean((2, 3)))
        torch.testing.assert_close(network(images), wanted)


def test_a_classifier_that_differs_is_refused(network: Any) -> None:
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    with pytest.raises(
        CheckpointMismatch, match=r"closest to yolov5n-cls, but 1 differences:\n  missing: model.9.linear.bias"
    ):
        build_network({name: value for name, value in state.items() if name != "model.9.linear.bias"})
    with pytest.raises(CheckpointMismatch, match="none of the sizes n, s, m, l, x begins with 7 channels"):
        build_network(state | {"model.0.conv.weight": np.zeros((7, 3, 6, 6), np.float32)})


def test_a_global_that_no_classifier_needs_is_refused(
    network: Any, write_foreign: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = types.ModuleType("utils.augmentations")
    found.Anything = type("Anything", (), {"__module__": "utils.augmentations"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "utils", types.ModuleType("utils"))
    monkeypatch.setitem(sys.modules, "utils.augmentations", found)

    def edit(model: Any, checkpoint: dict[str, Any]) -> None:
        model.transforms = found.Anything()

    path = write_foreign(network, edit=edit)
    with pytest.raises(CheckpointRefused, match=r"it mentions utils.augmentations.Anything, which no network needs"):
        convert(path, tmp_path / "model", licence="MIT")
