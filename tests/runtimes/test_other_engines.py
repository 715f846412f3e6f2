"""Files for OpenVINO, LiteRT and TorchScript are read before the engines do; forms are named, chosen and remembered."""

import io
import json
import zipfile

import pytest

from openlepton.card import Compared, Form, ModelCard
from openlepton.errors import ModelFormatRefused, UsageError
from openlepton.hub.index import find
from openlepton.runtimes import forms, remembered
from openlepton.runtimes.litert_check import check_litert
from openlepton.runtimes.openvino_check import check_ir

IR = '<net name="a" version="11"><layers>{}</layers></net>'


def ir(layers: str) -> bytes:
    return IR.format(layers).encode()


def test_a_network_for_openvino_may_hold_layers_that_compute_and_weights_inside_its_file():
    check_ir(ir('<layer type="Convolution" version="opset1"/><layer type="Result" version="opset1"/>'), 0)
    check_ir(ir('<layer type="Const" version="opset1"><data offset="4" size="8"/></layer>'), 12)


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        (b'<!DOCTYPE net [<!ENTITY a "b">]>' + ir(""), "declarations"),
        (ir('<layer type="Loop" version="opset5"/>'), "'opset5 Loop' are not run"),
        (ir('<layer type="ReadValue" version="opset6"/>'), "'opset6 ReadValue' are not run"),
        (ir('<layer type="Convolution" version="extension"/>'), "'extension Convolution' are not run"),
        (ir('<layer type="Const" version="opset1"><data offset="8" size="8"/></layer>'), "outside the 12 bytes"),
        (ir('<layer type="Const" version="opset1"><data offset="-8" size="8"/></layer>'), "outside the 12 bytes"),
        (ir("")[:-4], "not an OpenVINO network"),
        (b'<net version="7"/>', "version 10 or 11"),
        (b"\x80\x04.", "not an OpenVINO network"),
    ],
)
def test_a_network_for_openvino_that_is_more_is_refused(xml, said):
    with pytest.raises(ModelFormatRefused, match=said):
        check_ir(xml, 12)


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0\0\0\0TFL3", b"\x10\0\0\0TFL3" + b"\xff" * 64, b"PK\x03\x04" * 9])
def test_what_is_no_litert_model_is_refused(data):
    with pytest.raises(ModelFormatRefused):
        check_litert(data)


def program(code: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/code/__torch__/net.py", code)
    return buffer.getvalue()


def test_a_program_in_torchscript_may_only_compute():
    pytest.importorskip("torch")
    from openlepton.nets.script import check_script

    check_script(program("def forward(self, x: Tensor) -> Tensor:\n  return torch.add(torch.conv2d(x, x), x)\n"))
    for call in ("torch.save(x)", "torch.from_file('/etc/passwd')", "ops.aten.from_file('a')", "torch.ops.mine.run(x)"):
        with pytest.raises(ModelFormatRefused, match="which no network needs"):
            check_script(program(f"def forward(self, x: Tensor) -> Tensor:\n  return {call}\n"))
    for data in (b"", b"\x80\x04.", program("")[:40], b"PK\x03\x04"):
        with pytest.raises(ModelFormatRefused, match="not a TorchScript program"):
            check_script(data)


@pytest.fixture
def card() -> ModelCard:
    found = find("yolov5n-bccd").card
    kept = Compared(images="8 images", scores=0.1, matched=0.99, keeps=True)
    return found.model_copy(
        update={
            "files": {**found.files, "int8.onnx": found.files["model.onnx"]},
            "forms": (
                Form(engine="onnx", precision="int8", files=("int8.onnx",), compared=kept),
                Form(
                    engine="openvino",
                    precision="int8",
                    files=("int8.onnx",),
                    compared=kept.model_copy(update={"keeps": False}),
                ),
            ),
        }
    )


def test_auto_takes_the_fastest_form_that_is_installed_and_keeps_the_accuracy(card, monkeypatch):
    monkeypatch.setattr(forms, "installed", lambda engine: engine == "onnx")
    assert forms.name_of(forms.chosen(card, "auto")) == "onnx-float32"
    assert forms.name_of(forms.chosen(card, "auto", remembered="onnx-int8")) == "onnx-int8"
    assert forms.name_of(forms.chosen(card, "auto", remembered="openvino-int8")) == "onnx-float32", "it keeps it not"
    assert forms.name_of(forms.chosen(card)) == "onnx-float32"
    assert forms.name_of(forms.chosen(card, "openvino-int8")) == "openvino-int8", "whoever names it gets it"


def test_a_form_that_is_not_there_is_said_with_how_to_make_it(card):
    with pytest.raises(UsageError, match=r"openlepton export yolov5n-bccd --to litert --precision int8"):
        forms.chosen(card, "litert-int8")
    with pytest.raises(UsageError, match=r"runtime: expected auto, onnx, openvino, .* got 'tensorrt'"):
        forms.chosen(card, "tensorrt")
    with pytest.raises(UsageError, match="got 'onnx-int4'"):
        forms.chosen(card, "onnx-int4")


def test_what_was_the_fastest_is_remembered_for_these_files_alone(card, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENLEPTON_CACHE", str(tmp_path / "cache"))
    assert remembered.recall(card) is None
    path = remembered.remember(card, "onnx-int8")
    assert path == tmp_path / "cache" / "runtimes.json"
    assert remembered.recall(card) == "onnx-int8"
    assert remembered.recall(find("yolox-nano-voc20").card) is None
    remembered.remember(find("yolox-nano-voc20").card, "onnx-float32")
    assert remembered.recall(card) == "onnx-int8"
    assert len(json.loads(path.read_text(encoding="utf-8"))) == 2
    for damaged in (b"", b"[1]", b"{", b"\xff" * 9):
        path.write_bytes(damaged)
        assert remembered.recall(card) is None
