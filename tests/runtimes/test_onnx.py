"""The runtime on real graphs, against the same arithmetic in NumPy."""

import ast
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

import openlepton
from openlepton.card import DetectFacts, ImageInput, ModelCard, ModelFolder, file_facts, format_card, open_folder
from openlepton.errors import CardInvalid, ModelCorrupt, ModelFailed, ModelFormatRefused, ShapeError, UsageError
from openlepton.runtimes.onnx import OnnxRuntime

onnx = pytest.importorskip("onnx", reason="onnx comes with the extra train")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64

CLASSES = 5
IMAGES = ("images", FLOAT, ["B", 3, "H", "W"])
BOXES = ("boxes", FLOAT, ["B", "N", 4])
SCORES = ("scores", FLOAT, ["B", "N", CLASSES])
FILTERS = np.random.default_rng(1).normal(0, 0.1, (4 + CLASSES, 3, 8, 8)).astype(np.float32)


def detector(
    *, inputs=(IMAGES,), outputs=(BOXES, SCORES), layers=0, rows=(0, 4 + CLASSES, -1), opset=17, last="Sigmoid"
):
    """Return a detector: one 8x8 convolution for each 8x8 patch, four of its channels a box and the rest scores."""
    rng = np.random.default_rng(2)
    nodes, weights, value = [], {"w": FILTERS, "rows": np.array(rows), "parts": np.array([4, CLASSES])}, "images"
    for layer in range(layers):
        weights[f"w{layer}"] = rng.normal(
            0, 0.05, (48 if layer < layers - 1 else 3, 3 if layer == 0 else 48, 3, 3)
        ).astype("f4")
        nodes.append(helper.make_node("Conv", [value, f"w{layer}"], [f"v{layer}"], pads=[1, 1, 1, 1]))
        value = f"v{layer}"
    nodes += [
        helper.make_node("Conv", [value, "w"], ["map"], strides=[8, 8]),
        helper.make_node("Reshape", ["map", "rows"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["found"], perm=[0, 2, 1]),
        helper.make_node("Split", ["found", "parts"], ["boxes", "raw"], axis=2),
        helper.make_node(last, ["raw"], ["scores"]),
    ]
    return serialized(nodes, inputs, outputs, weights, opset)


def classifier(*, outputs=(("scores", FLOAT, ["B", CLASSES]),)):
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["scores"]),
    ]
    return serialized(nodes, (IMAGES,), outputs, {"w": np.ones((3, CLASSES), np.float32)}, 17)


def serialized(nodes, inputs, outputs, weights, opset):
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    ins, outs = ([helper.make_tensor_value_info(*port) for port in ports] for ports in (inputs, outputs))
    graph = helper.make_graph(nodes, "g", ins, outs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()


def expected(images):
    """Return what `detector()` gives, by NumPy."""
    B, _, H, W = images.shape
    patches = images.reshape(B, 3, H // 8, 8, W // 8, 8)
    found = np.einsum("bchiwj,ocij->bhwo", patches, FILTERS).reshape(B, -1, 4 + CLASSES)
    return {"boxes": found[..., :4], "scores": 1 / (1 + np.exp(-found[..., 4:]))}


def images_of(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.fixture
def folder_of(tmp_path):
    """Return a function that makes a model folder from the bytes of a graph."""

    def make(data, task="detect", labels=CLASSES) -> ModelFolder:
        card = ModelCard(
            contract=1,
            name="made",
            task=task,
            **dict.fromkeys(("version", "architecture", "description", "licence", "source"), "made for a test"),
            labels=tuple(f"label {index}" for index in range(labels)),
            input=ImageInput(size=64, resize="letterbox"),
            detect=DetectFacts() if task == "detect" else None,
            files={"model.onnx": file_facts(data)},
        )
        (tmp_path / "card.toml").write_text(format_card(card), encoding="utf-8")
        (tmp_path / "model.onnx").write_bytes(data)
        return open_folder(tmp_path)

    return make


@pytest.mark.parametrize("threads", [0, 1, 2])
@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 3, 32, 96), (1, 3, 8, 8)])
def test_a_detector_computes_what_numpy_does(folder_of, shape, threads):
    images = images_of(*shape)
    found = OnnxRuntime(folder_of(detector()), threads=threads)({"images": images})
    assert list(found) == ["boxes", "scores"]
    for name, values in expected(images).items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=0, atol=2e-6)


def test_a_classifier_computes_what_numpy_does(folder_of):
    found = OnnxRuntime(folder_of(classifier(), "classify"))({"images": images_of(2, 3, 24, 40)})
    np.testing.assert_allclose(found["scores"], np.full((2, CLASSES), 1 / CLASSES), atol=1e-6)


def test_arrays_that_are_not_contiguous_give_the_same(folder_of):
    runtime = OnnxRuntime(folder_of(detector()))
    images = images_of(1, 3, 64, 32)
    turned = np.ascontiguousarray(images.transpose(0, 3, 2, 1)).transpose(0, 3, 2, 1)
    assert not turned.flags.c_contiguous
    frozen = images.copy()
    frozen.flags.writeable = False
    for same in (turned, frozen, np.tile(images, (1, 1, 2, 1))[:, :, ::1][:, :, :64]):
        np.testing.assert_array_equal(runtime({"images": same})["boxes"], runtime({"images": images})["boxes"])


def test_a_runtime_says_what_it_is_and_cannot_be_changed(folder_of):
    runtime = OnnxRuntime(folder_of(detector()), threads=3)
    assert (runtime.name, runtime.threads) == ("onnxruntime", 3)
    assert repr(runtime).endswith("model.onnx, 3 threads>")
    for name in ("name", "threads"):
        with pytest.raises(AttributeError):
            setattr(runtime, name, 1)
    with pytest.raises(UsageError, match=r"threads: expected 0 \(one for each core\) or more, got -1"):
        OnnxRuntime(folder_of(detector()), threads=-1)
    with pytest.raises(UsageError, match="spin_us: expected 0 or more"):
        OnnxRuntime(folder_of(detector()), spin_us=-1)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs: expected images, got none"),
        ({"image": images_of(1, 3, 8, 8)}, "inputs: expected images, got image"),
        ({"images": images_of(1, 3, 8, 8), "extra": images_of(1)}, "inputs: expected images, got images, extra"),
        ({"images": images_of(1, 3, 8, 8).astype("f8")}, "images: expected a float32 array, got float64"),
        ({"images": images_of(1, 3, 8, 8).astype(">f4")}, "images: expected a float32 array, got >f4"),
        ({"images": (images_of(1, 3, 8, 8) * 255).astype("u1")}, "images: expected a float32 array, got uint8"),
        ({"images": images_of(1, 3, 8, 8).tolist()}, "images: expected a float32 array, got list"),
        ({"images": images_of(3, 8, 8)}, r"images: expected \(B, 3, H, W\), each at least 1, got \(3, 8, 8\)"),
        ({"images": images_of(1, 8, 8, 3)}, r"images: expected \(B, 3, H, W\), each at least 1, got \(1, 8, 8, 3\)"),
        ({"images": images_of(0, 3, 8, 8)}, r"images: expected \(B, 3, H, W\), each at least 1, got \(0, 3, 8, 8\)"),
    ],
)
def test_inputs_that_the_graph_does_not_take_are_named(folder_of, inputs, message):
    with pytest.raises(ShapeError, match=f"^{message}$"):
        OnnxRuntime(folder_of(detector()))(inputs)


def test_a_graph_of_fixed_size_takes_only_that(folder_of):
    fixed = ("images", FLOAT, [1, 3, 32, 64])
    runtime = OnnxRuntime(folder_of(detector(inputs=[fixed])))
    assert runtime({"images": images_of(1, 3, 32, 64)})["boxes"].shape == (1, 32, 4)
    with pytest.raises(ShapeError, match=r"^images: expected \(1, 3, 32, 64\), each at least 1, got \(2, 3, 32, 64\)$"):
        runtime({"images": images_of(2, 3, 32, 64)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": [BOXES]}, "outputs: expected boxes, scores, found boxes"),
        (
            {"outputs": [BOXES, SCORES, ("raw", FLOAT, None)]},
            "outputs: expected boxes, scores, found boxes, scores, raw",
        ),
        ({"outputs": [BOXES, SCORES, SCORES]}, "outputs: expected boxes, scores, found boxes, scores, scores"),
        ({"inputs": [("image", FLOAT, ["B", 3, "H", "W"])]}, "inputs: expected images, found image"),
        ({"inputs": [IMAGES, ("w", FLOAT, None)]}, "inputs: expected images, found images, w"),
        ({"inputs": []}, "inputs: expected images, found none"),
        (
            {"inputs": [("images", FLOAT, [1, 64, 64, 3])]},
            "inputs: images: expected float32 (B, 3, H, W), found float32 (1, 64, 64, 3)",
        ),
        (
            {"inputs": [("images", onnx.TensorProto.UINT8, ["B", 3, "H", "W"])]},
            "inputs: images: expected float32 (B, 3, H, W), found uint8 (B, 3, H, W)",
        ),
        ({"inputs": [("images", FLOAT, None)]}, "found float32 of unknown rank"),
        ({"inputs": [("images", FLOAT, [None, 3, None, -1])]}, "found float32 (?, 3, ?, -1)"),
        ({"outputs": [("boxes", FLOAT, ["B", "N", 5]), SCORES]}, "outputs: boxes: expected float32 (B, N, 4), found"),
        ({"outputs": [("boxes", FLOAT, ["B", 10, 4]), ("scores", FLOAT, ["B", 9, 5])]}, "found float32 (B, 9, 5)"),
        (
            {"outputs": [BOXES, ("scores", FLOAT, ["B", "N", 80])]},
            "outputs: scores: expected float32 (B, N, C) (C is 5, the card's number of labels), found float32 (B, N, 80)",
        ),
    ],
)
def test_a_graph_that_breaks_the_contract_is_refused(folder_of, changes, message):
    with pytest.raises(ModelFormatRefused, match=re.escape(message)):
        OnnxRuntime(folder_of(detector(**changes)))


@pytest.mark.parametrize("name", ["\x1b[31m\nimages", "i" * 10_000])
def test_what_a_model_says_of_itself_cannot_disturb_the_message(folder_of, name):
    for port in ((name, FLOAT, ["B", 3, "H", "W"]), ("images", FLOAT, [name, 4, "H", "W"])):
        with pytest.raises(ModelFormatRefused) as caught:
            OnnxRuntime(folder_of(detector(inputs=[port])))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000


def test_a_detector_does_not_pass_for_a_classifier(folder_of):
    with pytest.raises(ModelFormatRefused, match="outputs: expected scores, found boxes, scores"):
        OnnxRuntime(folder_of(detector(), "classify"))
    with pytest.raises(ModelFormatRefused, match="outputs: expected boxes, scores, found scores"):
        OnnxRuntime(folder_of(classifier()))


def test_a_file_that_is_not_what_the_card_says_never_reaches_the_engine(folder_of):
    data = detector()
    folder = folder_of(data)
    path = folder.path / "model.onnx"
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    for wrong, message in ((flipped, "sha256 differs"), (data[:-1], "the card says"), (data + b"\0", "found more")):
        path.write_bytes(wrong)
        with pytest.raises(ModelCorrupt, match=message):
            OnnxRuntime(folder)
    path.unlink()
    with pytest.raises(ModelCorrupt, match=r"model\.onnx"):
        OnnxRuntime(folder)


def test_a_card_that_names_another_file_is_refused(folder_of):
    folder = folder_of(detector())
    card = folder.card.model_copy(update={"files": {"weights.onnx": folder.card.files["model.onnx"]}})
    with pytest.raises(CardInvalid, match=r"model\.onnx is not named"):
        OnnxRuntime(ModelFolder(folder.path, card))


def test_a_pickle_with_a_true_hash_is_refused_all_the_same(folder_of):
    with pytest.raises(ModelFormatRefused, match="this is a Python pickle, not an ONNX model"):
        OnnxRuntime(folder_of(pickle.dumps({"weights": [0.0] * 100})))


def test_weights_in_a_file_next_to_the_process_are_not_read(folder_of, tmp_path, monkeypatch):
    """The engine alone reads them, even when it is given bytes."""
    model = onnx.ModelProto.FromString(detector())
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    (tmp_path / "secret.bin").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="secret.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFormatRefused, match=r"graph\.initializer\[0\]: external_data"):
        OnnxRuntime(folder_of(model.SerializeToString()))


def assert_plain(error, folder):
    text = str(error.value)
    assert text.startswith(f"{folder.path / 'model.onnx'}: ")
    assert "\n" not in text
    for noise in ("ONNXRuntimeError", "onnxruntime_src", "::", ".cc", ".h:"):
        assert noise not in text.removeprefix(str(folder.path))
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_a_graph_that_cannot_be_loaded_fails_in_one_clear_line(folder_of, capfd):
    folder = folder_of(detector(last="Sigmund"))
    with pytest.raises(ModelFailed, match=r"ONNX Runtime \d\S+ cannot load it: .*Sigmund") as error:
        OnnxRuntime(folder)
    assert_plain(error, folder)
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_cannot_be_run_fails_in_one_clear_line(folder_of, capfd):
    folder = folder_of(detector(rows=(0, 4 + CLASSES, 16)))
    runtime = OnnxRuntime(folder)
    assert runtime({"images": images_of(1, 3, 32, 32)})["boxes"].shape == (1, 16, 4)
    with pytest.raises(ModelFailed, match=r"could not run on images \(1, 3, 64, 64\): .*cannot be reshaped") as error:
        runtime({"images": images_of(1, 3, 64, 64)})
    assert_plain(error, folder)
    assert capfd.readouterr() == ("", "")
    assert runtime({"images": images_of(1, 3, 32, 32)})["boxes"].shape == (1, 16, 4)


def test_outputs_of_another_shape_than_the_contract_are_not_passed_on(folder_of):
    loose = [("boxes", FLOAT, ["b", "n", "four"]), ("scores", FLOAT, ["b", "n", "c"])]
    runtime = OnnxRuntime(folder_of(detector(outputs=loose), labels=CLASSES + 1))
    with pytest.raises(ModelFailed, match=r"scores: expected \(B, N, C\), got \(1, 1, 5\)"):
        runtime({"images": images_of(1, 3, 8, 8)})


@pytest.mark.parametrize("threads", [1, 2])
def test_thirty_two_threads_get_what_one_gets(folder_of, threads):
    runtime = OnnxRuntime(folder_of(detector(layers=3)), threads=threads)
    many = [images_of(1 + seed % 2, 3, 32 + 8 * (seed % 4), 40, seed=seed) for seed in range(32)]
    alone = [runtime({"images": images}) for images in many]
    together = threading.Barrier(32)

    def work(index):
        together.wait()
        return [runtime({"images": many[index]}) for _ in range(8)]

    with ThreadPoolExecutor(32) as pool:
        for index, found in enumerate(pool.map(work, range(32))):
            for one in found:
                for name in ("boxes", "scores"):
                    np.testing.assert_array_equal(one[name], alone[index][name])


def test_with_one_thread_the_work_is_done_on_the_callers(folder_of):
    process = psutil.Process()
    before = process.num_threads()
    runtime = OnnxRuntime(folder_of(detector(layers=4)), threads=1)
    images = {"images": images_of(1, 3, 256, 256)}
    runtime(images)
    assert process.num_threads() <= before
    mine, everyones = time.thread_time(), time.process_time()
    for _ in range(5):
        runtime(images)
    mine, everyones = time.thread_time() - mine, time.process_time() - everyones
    assert mine > 0.9 * everyones


def test_callers_of_one_session_do_not_wait_for_each_other(folder_of):
    runtime = OnnxRuntime(folder_of(detector(layers=4)), threads=1)
    large, small = images_of(1, 3, 768, 768), images_of(1, 3, 16, 16)
    begun = threading.Event()

    def long_call():
        begun.set()
        runtime({"images": large})

    calls = 0
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(long_call)
        begun.wait()
        while not call.done():
            runtime({"images": small})
            calls += 1
        call.result()
    assert calls > 10


FRESH = """
import os, sys
from pathlib import Path
before = dict(os.environ)
import openlepton.runtimes.onnx
assert "onnxruntime" not in sys.modules
import numpy as np
from openlepton.card import open_folder
from openlepton.runtimes.onnx import OnnxRuntime
runtime = OnnxRuntime(open_folder(Path(sys.argv[1])))
for _ in range(3):
    runtime({"images": np.zeros((1, 3, 64, 64), np.float32)})
assert dict(os.environ) == before, "the environment was changed"
descriptors = Path("/proc/self/fd")
if descriptors.is_dir():
    links = [os.readlink(one) for one in descriptors.iterdir() if one.is_symlink()]
    assert not [link for link in links if link.startswith("socket:") or link.endswith(".db")], links
print("ran")
"""


@pytest.mark.parametrize("switch", [None, "1"])
def test_running_a_model_sends_and_stores_and_prints_nothing_and_leaves_the_environment(folder_of, tmp_path, switch):
    folder = folder_of(detector())
    home = tmp_path / "home"
    home.mkdir()
    places = ("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR", "TEMP")
    environment = {**os.environ, **dict.fromkeys(places, str(home)), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    if switch is not None:
        environment["ORT_DISABLE_TELEMETRY"] = switch
    command = [sys.executable, "-c", FRESH, str(folder.path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home, check=False)
    assert (done.stdout, done.stderr) == ("ran\n", "")
    assert list(home.rglob("*")) == []


_ALIKE = """
import sys, numpy as np
from openlepton.hub.index import find
from openlepton.runtimes.onnx import OnnxRuntime, share_memory
folder = find("yolox-nano-voc20")
images = {"images": np.random.default_rng(0).random((2, 3, 160, 224), np.float32)}
alone = OnnxRuntime(folder, threads=1)(images)
share_memory(), share_memory()
for threads in (1, 2):
    together = OnnxRuntime(folder, threads=threads)(images)
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, atol=1e-4)
print("alike")
"""


def test_graphs_that_share_their_memory_compute_the_same():
    done = subprocess.run([sys.executable, "-c", _ALIKE], capture_output=True, text=True, check=False)
    assert done.stdout == "alike\n", done.stderr


def test_only_one_file_imports_the_engine():
    """So that it is never imported with its telemetry on."""
    root = Path(openlepton.__file__).parent
    importing = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(name.split(".")[0] == "onnxruntime" for name in names):
                importing.add(path.relative_to(root).as_posix())
    assert importing == {"offline.py"}
