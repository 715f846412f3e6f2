"""Training in TensorFlow: the steps of torch, and the files that any training leaves."""

from dataclasses import replace

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")

import safetensors.torch

from openlepton.card import open_folder
from openlepton.data.augment import PRESETS
from openlepton.data.loader import training_batches
from openlepton.errors import UsageError
from openlepton.nets import yolov5
from openlepton.predictor import load
from openlepton.tf.optimizer import Optimizer
from openlepton.tf.train import TfLearner, fit, resume
from openlepton.train import TrainConfig
from openlepton.train import resume as resume_in_torch
from openlepton.train.checkpoint import LAST
from openlepton.train.detecting import Detecting
from openlepton.train.learner import TorchLearner
from openlepton.train.ranks import Ranks
from openlepton.train.schedule import Pace, make_optimizer, set_pace
from openlepton.train.watch import Step


@pytest.fixture
def config(squares, tmp_path):
    """A training of seconds: two batches an epoch, two epochs."""
    return TrainConfig(
        data=str(squares),
        out=str(tmp_path / "run"),
        model="yolov3-tiny",
        epochs=2,
        batch=4,
        nominal_batch=4,
        size=64,
        warmup_epochs=0,
        ema_ramp=2.0,
        augment=PRESETS["none"],
        plots=False,
    )


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_steps_move_weights_as_those_of_torch_do(kind):
    numbers = np.random.default_rng(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    config = TrainConfig(data="x", out="x", optimizer=kind, batch=8, weight_decay=0.05, clip_norm=1.0)
    first = make_optimizer(network, config)
    order = (2, 3, 1, 0)
    ours = [
        (name, tf.Variable(value.detach().numpy().transpose(order) if value.ndim == 4 else value.detach().numpy()))
        for name, value in network.named_parameters()
    ]
    second = Optimizer([(name, value, order if len(value.shape) == 4 else ()) for name, value in ours], config)
    for number in range(5):
        now = Pace(lr_bias=0.1 - 0.01 * number, lr=0.01 * (number + 1), momentum=0.8 + 0.02 * number, accumulate=1)
        gradients = [numbers.normal(0, 1, value.shape).astype(np.float32) for value in network.parameters()]
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad = torch.from_numpy(gradient)
        set_pace(first, now)
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        first.step()
        second.add([value.transpose(order) if value.ndim == 4 else value for value in gradients])
        second.step(now)
    for (_, value), parameter in zip(ours, network.parameters(), strict=True):
        found = value.numpy().transpose(3, 2, 0, 1) if len(value.shape) == 4 else value.numpy()
        assert found == pytest.approx(parameter.detach().numpy(), rel=1e-5, abs=1e-6)
    state, theirs = second.state(), first.state[next(network.parameters())]
    for slot, value in theirs.items():
        assert state[f"0.weight/{slot}"] == pytest.approx(value.numpy(), rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["yolov5n"])
def test_from_the_same_weights_on_the_same_batches_both_frameworks_have_the_same_losses(config, model):
    config = replace(config, model=model, precision="float32")
    lesson = Detecting()
    _, train = lesson.data(config, print)
    torch.manual_seed(0)
    network = yolov5.build("n", classes=2, width=0.125)
    other = yolov5.build("n", classes=2, width=0.125)
    other.load_state_dict(network.state_dict())
    first = TorchLearner(config, lesson, network, Ranks())
    second = TfLearner(replace(config, framework="tensorflow"), lesson, other, Ranks())
    reader = lesson.reader(config, train, print)
    batches = list(training_batches(reader, 0, batch_size=4, config=PRESETS["low"], seed=0, workers=0))
    now = Pace(lr_bias=0.01, lr=0.01, momentum=0.9, accumulate=1)
    limit = 1e-4
    for number, batch in enumerate(batches):
        for learner in (first, second):
            learner.begin(())
            learner.learn(batch, now, 0, number, stepping=True)
        assert list(second.sums) == pytest.approx(list(first.sums), rel=limit)
        limit = 1e-2  # a step magnifies what rounding leaves
    ours, theirs = second.state(), first.state()
    for part in ("network", "averaged"):
        for name, value in getattr(theirs, part).items():
            if value.dtype.is_floating_point:
                assert getattr(ours, part)[name].numpy() == pytest.approx(value.numpy(), abs=5e-3), name


@pytest.fixture(scope="module")
def whole(squares, tmp_path_factory):
    """A training in TensorFlow that was never interrupted."""
    config = TrainConfig(
        data=str(squares),
        out=str(tmp_path_factory.mktemp("runs") / "whole"),
        model="yolov3-tiny",
        epochs=2,
        batch=4,
        nominal_batch=4,
        size=64,
        seed=3,
        warmup_epochs=0,
        licence="Apache-2.0",
        plots=False,
    )
    return config, fit(config)


@pytest.mark.slow
def test_a_run_in_tensorflow_leaves_the_model_folder_of_any_run(whole, photos):
    _, trained = whole
    folder = open_folder(trained.best)
    assert folder.card.architecture == "yolov3-tiny"
    assert "in TensorFlow" in folder.card.source
    assert set(folder.card.files) == {"model.onnx", "model.safetensors"}
    assert folder.card.parity.boxes_px <= 0.05
    assert [list(row)[:5] for row in trained.history] == [["epoch", "train/box", "train/obj", "train/cls", "lr"]] * 2
    assert all(0 <= row["val/ap"] <= 1 for row in trained.history)
    assert load(trained.best)(photos[0]).names == ("red", "green")


@pytest.mark.slow
def test_a_run_in_tensorflow_that_was_interrupted_goes_on_to_the_same_weights(whole, tmp_path):
    config, trained = whole
    config = replace(config, out=str(tmp_path / "stopped"))
    seen = []

    def stop(event):
        seen.append(event)
        if isinstance(event, Step) and sum(isinstance(one, Step) for one in seen) == 1:
            import signal

            signal.raise_signal(signal.SIGINT)

    assert fit(config, watch=stop).interrupted
    with pytest.raises(UsageError, match="add --framework tensorflow"):
        resume_in_torch(config.out)
    assert not resume(config.out).interrupted
    first, second = (safetensors.torch.load_file(folder / LAST) for folder in (trained.folder, tmp_path / "stopped"))
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.slow
def test_a_frozen_backbone_stays_as_it_is_in_tensorflow(whole, config):
    _, before = whole
    config = replace(config, pretrained=str(before.best), freeze="backbone", epochs=1, framework="tensorflow")
    after = fit(config)
    first = safetensors.torch.load_file(before.best / "model.safetensors")
    second = safetensors.torch.load_file(after.folder / LAST)
    same = {name for name, value in first.items() if torch.equal(value, second[f"network/{name}"])}
    kernels = {name for name in first if name.endswith("conv.weight")}
    assert {name for name in kernels if name.startswith("backbone")} <= same
    assert not {name for name in kernels if name.startswith("levels")} & same


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "yolov1"}, "yolov1: has no twin in TensorFlow"),
        ({"precision": "bfloat16"}, "computes in float32"),
        ({"device": "cuda:1"}, "chooses the device itself"),
        ({"compile": True}, "leave out device, precision, compile"),
    ],
)
def test_what_only_torch_does_is_refused_before_training(config, change, said):
    with pytest.raises(UsageError, match=said):
        fit(replace(config, **change))
