"""SavedModels: written as one file, run as they were written, and refused where they could do more than compute."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")

from dataclasses import replace

from openlepton.card import CONTRACT, DetectFacts, ImageInput, ModelCard, ModelFolder, file_facts
from openlepton.errors import CardInvalid, ModelCorrupt, ModelFormatRefused, ShapeError
from openlepton.hub.folder import write_card
from openlepton.nets import yolov3
from openlepton.predictor import load
from openlepton.tf import TfRuntime, build, save_savedmodel
from openlepton.tf.savedmodel import FILE_NAME, OPERATIONS, checked


def write_folder(path, data: bytes, classes: int = 2, multiple: int = 32) -> ModelFolder:
    (path / FILE_NAME).write_bytes(data)
    card = ModelCard(
        contract=CONTRACT,
        name="twin",
        version="1",
        task="detect",
        architecture="yolov3-tiny",
        description="x",
        licence="Apache-2.0",
        source="x",
        labels=tuple("abcdefgh"[:classes]),
        input=ImageInput(size=128, resize="letterbox", multiple=multiple),
        detect=DetectFacts(strides=(16, 32), anchors=yolov3.ANCHORS_TINY),
        files={FILE_NAME: file_facts(data)},
    )
    write_card(path, card)
    return ModelFolder(path, card)


@pytest.fixture(scope="module")
def written(tmp_path_factory, twins):
    """A network in torch, and the folder with its twin as a SavedModel."""
    path = tmp_path_factory.mktemp("twin")
    torch.manual_seed(0)
    first = twins.lively(yolov3.build("tiny", classes=2, width=0.125))
    model = build("yolov3-tiny", classes=2, width=0.125, weights=twins.arrays(first), fused=True)
    file = save_savedmodel(model, path)
    return first, write_folder(path, file.read_bytes())


@pytest.mark.slow
def test_a_savedmodel_gives_what_torch_gives(written, twins):
    first, folder = written
    runtime = TfRuntime(folder)
    for shape in ((1, 3, 128, 96), (3, 3, 64, 64)):
        images = np.random.default_rng(0).random(shape, dtype=np.float32)
        found = twins.largest(twins.torch_outputs(first, images), runtime({"images": images}))
        assert found["boxes"] <= 0.05
        assert found["scores"] <= 1e-4


@pytest.mark.slow
def test_a_savedmodel_is_loaded_like_any_model(written, photos):
    _, folder = written
    predictor = load(folder.path, runtime=TfRuntime, min_score=0.0, max_detections=5)
    found = predictor(photos[0])
    assert len(found) == 5
    assert predictor.runtime.name == "tensorflow"
    assert predictor.runtime.inputs == {"images": ("B", 3, "H", "W")}
    assert predictor.runtime.outputs == {"boxes": ("B", "N", 4), "scores": ("B", "N", 2)}


@pytest.mark.slow
def test_tensorflow_itself_loads_the_folder(written, twins):
    first, folder = written
    images = np.random.default_rng(1).random((2, 3, 64, 64), dtype=np.float32)
    found = tf.saved_model.load(str(folder.path)).signatures["serving_default"](images=tf.constant(images))
    assert twins.largest(twins.torch_outputs(first, images), found)["boxes"] <= 0.05


@pytest.mark.slow
def test_wrong_images_are_refused_before_tensorflow_sees_them(written):
    runtime = TfRuntime(written[1])
    with pytest.raises(ShapeError, match=r"images: expected \(B, 3, H, W\)"):
        runtime({"images": np.zeros((1, 1, 64, 64), np.float32)})
    with pytest.raises(ShapeError, match="images: expected a float32 array, got float64"):
        runtime({"images": np.zeros((1, 3, 64, 64))})


@pytest.mark.slow
def test_a_file_that_was_changed_is_refused(written, tmp_path):
    data = written[1].read(FILE_NAME)
    folder = write_folder(tmp_path, data)
    (tmp_path / FILE_NAME).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ModelCorrupt, match="sha256 differs"):
        TfRuntime(folder)


@pytest.mark.slow
def test_a_card_with_another_number_of_classes_is_refused(written, tmp_path):
    with pytest.raises(ModelFormatRefused, match=r"scores: expected float32 \(B, N, C\) \(C is 3"):
        TfRuntime(write_folder(tmp_path, written[1].read(FILE_NAME), classes=3))


def savedmodel(function, signature) -> bytes:
    """What a stranger may send: a graph of any operations, under the names that the contract has."""
    from tensorflow.core.protobuf import saved_model_pb2

    graph = tf.function(function, autograph=False).get_concrete_function(signature).graph
    saved = saved_model_pb2.SavedModel()
    meta = saved.meta_graphs.add()
    meta.graph_def.CopyFrom(graph.as_graph_def())
    meta.signature_def["serving_default"].inputs["images"].name = graph.inputs[0].name
    return saved.SerializeToString()


IMAGES = tf.TensorSpec((None, 3, None, None), tf.float32)


def write_file(x):
    with tf.control_dependencies([tf.raw_ops.WriteFile(filename="x", contents="y")]):
        return tf.identity(x)


STRANGERS = {
    "ReadFile": lambda x: tf.raw_ops.ReadFile(filename="x"),
    "WriteFile": write_file,
    "PyFunc": lambda x: tf.numpy_function(lambda y: y, [x], tf.float32),
    "Print": lambda x: tf.raw_ops.Print(input=x, data=[x]),
    "functions": lambda x: tf.while_loop(lambda i: i < 9, lambda i: (i + 1,), (tf.constant(0),)),
}


@pytest.mark.parametrize("said", STRANGERS)
def test_operations_that_do_more_than_compute_are_refused(said):
    with pytest.raises(ModelFormatRefused, match=said):
        checked(savedmodel(STRANGERS[said], IMAGES), "stranger")


def test_no_operation_that_is_admitted_has_state_or_side_effects():
    from tensorflow.python.framework import op_def_registry

    stateful = {name for name in OPERATIONS if op_def_registry.get(name).is_stateful}
    assert stateful == set()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x04pickle", "not a SavedModel"),
        (b"", "expected one graph in it, found 0"),
    ],
)
def test_what_is_no_savedmodel_is_said_to_be_none(data, said):
    with pytest.raises(ModelFormatRefused, match=said):
        checked(data, "stranger")


def test_a_model_without_a_savedmodel_says_how_to_make_one(tmp_path):
    folder = write_folder(tmp_path, b"x")
    without = replace(folder, card=folder.card.model_copy(update={"files": {"model.onnx": file_facts(b"x")}}))
    with pytest.raises(CardInvalid, match="openlepton export .* --to savedmodel"):
        TfRuntime(without)
