"""Checkpoints written the way the field writes them: whole pickled modules of classes that this package does not have."""

import io
import sys
import types
import zipfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

FIXTURES = Path(__file__).parent.parent / "fixtures" / "yolov5"


@pytest.fixture(scope="session")
def published() -> Path:
    """A checkpoint that the original implementation wrote."""
    return FIXTURES / "yolov5n.pt"


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    """What the original implementation computed with it."""
    with np.load(FIXTURES / "yolov5n.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def write_foreign(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes one of our networks as a foreign checkpoint: `write(network, names=..., edit=...)`."""
    torch = pytest.importorskip("torch")
    from openlepton.nets import yolov5, yolov5_cls

    for name in ("models", "models.common", "models.yolo"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    def foreign_class(name: str) -> type:
        module = "models.yolo" if name == "Detect" or name.endswith("Model") else "models.common"
        if not hasattr(sys.modules[module], name):
            setattr(sys.modules[module], name, type(name, (torch.nn.Module,), {"__module__": module}))
        cls: type = getattr(sys.modules[module], name)
        return cls

    def foreign(ours: Any) -> Any:
        if type(ours).__module__.startswith("torch."):
            if isinstance(ours, torch.nn.Sequential | torch.nn.ModuleList):
                return (
                    type(ours)(*map(foreign, ours))
                    if isinstance(ours, torch.nn.Sequential)
                    else type(ours)(map(foreign, ours))
                )
            return deepcopy(ours)
        theirs = foreign_class(type(ours).__name__)()
        for name, child in ours.named_children():
            theirs.add_module(name, foreign(child))
        if isinstance(ours, yolov5.Bottleneck):
            theirs.add = ours.shortcut
        if isinstance(ours, yolov5.SPP):
            theirs.m = torch.nn.ModuleList(torch.nn.MaxPool2d(k, 1, k // 2) for k in ours.pools)
        if isinstance(ours, yolov5.SPPF):
            theirs.m = torch.nn.MaxPool2d(5, 1, 2)
        if isinstance(ours, yolov5_cls.Classify):
            theirs.pool, theirs.drop = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Dropout(0.0, inplace=True)
        if isinstance(ours, yolov5.Detect):
            theirs.register_buffer("anchors", ours.anchors.clone())
        return theirs

    def write(
        network: Any,
        *,
        names: Any = None,
        half: bool = True,
        edit: Callable[[Any, dict[str, Any]], None] = lambda model, checkpoint: None,
        name: str = "Foreign Net.pt",
    ) -> Path:
        classifier = isinstance(network, yolov5_cls.Yolov5Cls)
        v5 = not classifier and network.config.layout == "v5"
        model = foreign_class("ClassificationModel" if classifier else "Model" if v5 else "DetectionModel")()
        model.model = torch.nn.Sequential(*map(foreign, network.model))
        for index, (layer, reads) in enumerate(zip(model.model, network.reads, strict=True)):
            layer.i, layer.f, layer.type = (
                index,
                reads[0] if len(reads) == 1 else list(reads),
                f"models.common.{type(layer).__name__}",
            )
        classes = network.config.classes
        head = model.model[-1]
        strides = torch.tensor([float(s) for s in getattr(network.config, "strides", ())])
        head.nc, head.no, head.stride, model.stride = classes, classes + 5, strides, strides
        if v5:
            head.register_buffer("anchor_grid", (head.anchors * strides[:, None, None])[:, None, :, None, None, :])
        model.nc, model.yaml = classes, {"nc": classes, "backbone": [[-1, 1, "__import__('os').system('false')", [64]]]}
        model.names = [f"c{i}" for i in range(classes)] if names is None else names
        checkpoint = {
            "epoch": -1,
            "best_fitness": np.array([0.5]),
            "model": model.half() if half else model,
            "ema": None,
            "updates": None,
            "optimizer": None,
            "opt": {"weights": PurePosixPath("a") / "yolov5n.pt", "imgsz": 640},
            "date": "2023-01-02T03:04:05",
        }
        edit(model, checkpoint)
        path = tmp_path / name
        torch.save(checkpoint, path)
        return path

    return write


@pytest.fixture
def archive_of() -> Callable[..., bytes]:
    """Return a function that puts a pickle, and other entries, into an archive as torch lays it out."""

    def write(pickled: bytes, entries: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, data in ({"net/data.pkl": pickled, "net/version": b"3\n"} | (entries or {})).items():
                archive.writestr(name, data)
        return buffer.getvalue()

    return write
