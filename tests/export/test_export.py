"""Forms of models for other runtimes: written, compared with the original, run, refused where they are too far."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

import openlepton
from openlepton.card import open_folder
from openlepton.errors import MissingExtra, ModelFailed, ParityFailed, UsageError
from openlepton.export import bench, export
from openlepton.export.compare import TOLERANCES
from openlepton.export.quantize import last_convolutions
from openlepton.export.speed import Timed, fastest
from openlepton.runtimes import ENGINES
from openlepton.runtimes.forms import SPEED, chosen, forms_of, name_of

NUCLEI = Path(__file__).parent.parent / "fixtures" / "nuclei"
MODEL = "yolov5n-seg-nuclei"
FORMS = [
    ("onnx", "float32", "onnx"),
    ("onnx", "float16", "onnx"),
    ("onnx", "int8", "onnx"),
    ("openvino", "float32", "openvino"),
    ("openvino", "float16", "openvino"),
    pytest.param("torchscript", "float32", "torch", marks=pytest.mark.slow),
    pytest.param("savedmodel", "float32", "tensorflow", marks=pytest.mark.slow),
    pytest.param("litert", "float32", "tensorflow", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return tmp_path_factory.mktemp("exported") / "nuclei"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with the model in float32 and in int8."""
    folder = tmp_path_factory.mktemp("small") / "m"
    export(MODEL, "onnx", folder, precision="int8", data=NUCLEI / "images")
    return folder


@pytest.mark.parametrize(("engine", "precision", "package"), FORMS)
def test_a_form_finds_what_the_original_finds(exported, engine, precision, package):
    if importlib.util.find_spec(package) is None or (engine == "litert" and not _litert()):
        pytest.skip(f"{package} is not installed")
    card = export(MODEL, engine, exported, precision=precision, data=NUCLEI / "images", size=320)
    form = card.forms[-1]
    found = form.compared
    assert (form.engine, form.precision, found.images) == (engine, precision, "8 images of images")
    assert found.keeps
    assert found.matched >= TOLERANCES[precision].matched
    if precision == "float32":
        assert found.boxes_px < 0.05
        assert found.scores < 1e-4
    else:
        assert found.scores > 1e-6, "less precision changes something"
    image = NUCLEI / "images" / "n0051.jpg"
    original, other = openlepton.load(MODEL), openlepton.load(exported, runtime=f"{engine}-{precision}")
    assert type(other.runtime).__name__ == ENGINES[engine].runtime
    count = len(original(image))
    assert count > 10
    assert abs(len(other(image)) - count) <= 0.1 * count
    assert open_folder(exported).card == card


def _litert():
    return importlib.util.find_spec("ai_edge_litert") is not None


def test_forms_gather_in_one_folder_and_the_original_stays_in_it(tmp_path):
    first = export(MODEL, "onnx", tmp_path / "m", precision="float16", data=NUCLEI / "images")
    second = export(MODEL, "onnx", tmp_path / "m", precision="float32", data=NUCLEI / "images")
    again = export(MODEL, "onnx", tmp_path / "m", precision="float16", data=NUCLEI / "images")
    assert [name_of(form) for form in second.forms] == ["onnx-float16", "onnx-float32"]
    assert [name_of(form) for form in again.forms] == ["onnx-float32", "onnx-float16"]
    assert set(again.files) == {"model.onnx", "float16.onnx", "float32.onnx"}
    assert again.files["float16.onnx"] == first.files["float16.onnx"]
    assert again.files["float16.onnx"].size < 0.6 * again.files["float32.onnx"].size
    for file in again.files:
        open_folder(tmp_path / "m").read(file)


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="holds no model"):
        export(MODEL, "onnx", tmp_path / "mine")
    shutil.copytree(_zoo("yolov5n-bccd"), tmp_path / "other")
    before = (tmp_path / "other" / "card.toml").read_bytes()
    with pytest.raises(UsageError, match="holds another model, yolov5n-bccd"):
        export(MODEL, "onnx", tmp_path / "other")
    assert (tmp_path / "other" / "card.toml").read_bytes() == before
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def _zoo(name):
    from openlepton.hub.index import find

    return find(name).path


@pytest.mark.slow
def test_a_form_that_is_too_far_away_is_refused_unless_forced(tmp_path, monkeypatch):
    from dataclasses import replace

    narrow = {**TOLERANCES, "int8": replace(TOLERANCES["int8"], boxes_px=1e-3)}
    monkeypatch.setattr("openlepton.export.write.TOLERANCES", narrow)
    with pytest.raises(ParityFailed, match=r"onnx-int8 is too far from the original: largest differences: boxes"):
        export(MODEL, "onnx", tmp_path / "m", precision="int8", data=NUCLEI / "images")
    assert not (tmp_path / "m").exists()
    card = export(MODEL, "onnx", tmp_path / "m", precision="int8", data=NUCLEI / "images", force=True)
    assert not card.forms[-1].compared.keeps
    assert chosen(card, "auto").precision == "float32", "what does not keep the accuracy is not taken by itself"


def test_boxes_and_scores_stay_in_float32_when_the_rest_is_int8(small):
    onnx = pytest.importorskip("onnx")
    card = open_folder(small).card
    assert card.forms[-1].calibrated == "8 images of images"
    graph = onnx.load(small / "int8.onnx").graph
    makers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    rounded = [
        node for node in convolutions if node.input[1] in makers and makers[node.input[1]].op_type == "DequantizeLinear"
    ]
    last = last_convolutions(graph)
    assert len(rounded) > 40
    assert not {node.name for node in rounded} & set(last)
    assert {value.name for value in graph.output} == {"boxes", "scores", "coeffs", "protos"}
    assert 0.2 < card.files["int8.onnx"].size / 7.5e6 < 0.45


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"to: expected one of onnx, openvino, .* got 'coreml'"):
        export(MODEL, "coreml", tmp_path / "m")
    with pytest.raises(UsageError, match=r"onnx is written in float32, float16, int8, not in 'bfloat16'"):
        export(MODEL, "onnx", tmp_path / "m", precision="bfloat16")
    with pytest.raises(UsageError, match="size: expected a multiple of 32, got 100"):
        export(MODEL, "torchscript", tmp_path / "m", size=100)
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_a_network_without_a_twin_is_said_so(tmp_path):
    pytest.importorskip("tensorflow")
    with pytest.raises(UsageError, match="yolox-nano: has no twin in TensorFlow"):
        export("yolox-nano-voc20", "savedmodel", tmp_path / "m")


def test_bench_measures_every_form_and_names_what_is_missing(small, monkeypatch):
    monkeypatch.setattr("openlepton.export.speed.installed", lambda engine: engine == "onnx")
    rows = list(bench(small, size=64, seconds=0.1))
    assert [row.form for row in rows] == [name_of(form) for form in forms_of(open_folder(small).card)]
    measured = [row for row in rows if row.latency_ms is not None]
    assert {row.form for row in measured} == {"onnx-float32", "onnx-int8"}
    assert all(row.latency_ms > 0 and row.images_per_s > 0 for row in measured)
    assert all("pip install 'openlepton[openvino]'" in row.problem for row in rows if row not in measured)


def test_the_fastest_is_one_that_keeps_the_accuracy():
    slow = Timed("onnx-float32", 9.0, 100.0, None, True, "")
    quick = Timed("onnx-int8", 5.0, 100.0, None, False, "")
    gone = Timed("litert-int8", None, None, None, True, "", "not installed")
    assert fastest([slow, quick, gone]) is slow
    assert fastest([gone]) is None
    assert {row.form for row in (slow, quick, gone)} <= set(SPEED)


def test_what_is_measured_dies_with_its_process_alone(tmp_path):
    shutil.copytree(_zoo("yolov5n-bccd"), tmp_path / "m")
    (tmp_path / "m" / "model.onnx").write_bytes(b"\0" * (tmp_path / "m" / "model.onnx").stat().st_size)
    rows = [row for row in bench(tmp_path / "m", size=64, seconds=0.1) if row.form == "onnx-float32"]
    assert rows[0].latency_ms is None
    assert "model.onnx" in rows[0].problem


def test_without_the_engine_the_line_to_type_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises((MissingExtra, ModelFailed), match=r"openlepton\[openvino\]"):
        export(MODEL, "openvino", tmp_path / "m", data=NUCLEI / "images")


@pytest.mark.slow
def test_the_command_line_writes_compares_and_measures(tmp_path, capsys, monkeypatch):
    from openlepton.cli import run

    monkeypatch.setenv("OPENLEPTON_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "m"
    assert run(["export", MODEL, "--to", "onnx", "--precision", "float16", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "float16.onnx" in printed
    assert "% of results in common" in printed
    assert run(["bench", str(out), "--imgsz", "64", "--seconds", "0.1", "--remember"]) == 0
    printed = capsys.readouterr().out
    assert "onnx-float16" in printed
    assert "fastest of those that keep the accuracy: " in printed
    best = printed.split("keep the accuracy: ")[1].split()[0]
    assert name_of(chosen(open_folder(out).card, "auto", remembered=best)) == best
    assert np.isfinite(openlepton.load(out, runtime="auto")(NUCLEI / "images" / "n0002.jpg").scores).all()


def test_commands_run_the_form_that_they_are_told(small, capsys):
    import json

    from openlepton.cli import run

    photo = str(NUCLEI / "images" / "n0051.jpg")

    def scores(*options):
        assert run(["segment", photo, "--model", str(small), "--json", *options]) == 0
        return [one["score"] for one in json.loads(capsys.readouterr().out)["detections"]]

    exact, rounded = scores(), scores("--runtime", "onnx-int8")
    assert len(exact) > 10
    assert exact == scores("--runtime", "onnx-float32")
    assert exact != rounded
    assert rounded[0] == pytest.approx(exact[0], abs=0.2)
    assert run(["segment", photo, "--model", str(small), "--runtime", "litert"]) == 2
    assert "openlepton export yolov5n-seg-nuclei --to litert" in capsys.readouterr().err


def test_evaluate_measures_the_form_that_it_is_told(small, capsys):
    import json

    from openlepton.cli import run

    def measured(form):
        assert run(["evaluate", str(small), str(NUCLEI), "--runtime", form, "--json"]) == 0
        return json.loads(capsys.readouterr().out)["masks"]["ap"]

    exact, rounded = measured("onnx-float32"), measured("onnx-int8")
    assert exact > 0.2
    assert exact != rounded
    assert rounded == pytest.approx(exact, abs=0.05)


@pytest.mark.slow
def test_bench_says_how_good_each_form_is_on_a_data_set(small, capsys, monkeypatch):
    from openlepton.cli import run

    monkeypatch.setattr("openlepton.export.speed.installed", lambda engine: engine == "onnx")
    rows = {row.form: row for row in bench(small, size=64, seconds=0.1, data=NUCLEI, limit=4)}
    exact, rounded = rows["onnx-float32"].measured, rows["onnx-int8"].measured
    assert all(row.measured is None for row in rows.values() if row.latency_ms is None)
    assert (exact.metric, exact.lost) == ("mask_ap", 0)
    assert exact.value > 0.2
    assert rounded.original == exact.value
    assert rounded.value != exact.value
    assert rows["onnx-int8"].keeps == (rounded.lost <= TOLERANCES["int8"].lost)
    assert run(["bench", str(small), "--imgsz", "64", "--seconds", "0.1", "--data", str(NUCLEI), "--limit", "4"]) == 0
    printed = capsys.readouterr().out
    assert "mask_ap" in printed
    assert f"{rounded.value:.4f}" in printed
    assert f"{rounded.value - exact.value:+.4f}" in printed


def test_what_loses_too_much_on_a_data_set_is_not_the_fastest(small, monkeypatch):
    from openlepton.export.accuracy import Judge, Measured

    monkeypatch.setattr("openlepton.export.speed.installed", lambda engine: engine == "onnx")
    monkeypatch.setattr(Judge, "__call__", lambda self, form: Measured("mask_ap", 0.5 - 0.02 * ("int8" in form), 0.5))
    rows = list(bench(small, size=64, seconds=0.1, data=NUCLEI, limit=1))
    assert {row.form for row in rows if row.keeps} >= {"onnx-float32"}
    assert not next(row.keeps for row in rows if row.form == "onnx-int8")
    assert fastest(rows).form == "onnx-float32"


def test_a_data_set_may_be_a_file(tmp_path):
    from openlepton.data.convert import convert_dataset
    from openlepton.data.datasets import open_dataset

    convert_dataset(open_dataset(NUCLEI), tmp_path / "set", "yolo")
    named = tmp_path / "set" / "data.yaml"
    card = export(MODEL, "onnx", tmp_path / "m", precision="int8", data=named, images=3, calibration=2)
    form = card.forms[-1]
    split = "train" if "train" in open_dataset(named).splits else "val"
    assert form.calibrated == f"2 images of data.yaml {split}"
    assert form.compared.images == "3 images of data.yaml val"
