"""Two processes that train together, started by torchrun, on the processor."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import openlepton
from openlepton.data.augment import PRESETS
from openlepton.data.datasets import open_dataset
from openlepton.data.loader import training_batches
from openlepton.data.reader import Reader
from openlepton.errors import UsageError
from openlepton.train.checkpoint import load_checkpoint
from openlepton.train.ranks import Ranks, choose_device, joined

ONE_RUN = """
import sys
from openlepton.train import TrainConfig, fit
fit(TrainConfig.from_json(sys.argv[1]))
"""
ONE_EPOCH = """
import sys
from pathlib import Path

import safetensors.torch
import torch

from openlepton.data.datasets import open_dataset
from openlepton.data.reader import Reader
from openlepton.nets import yolov5
from openlepton.train import TrainConfig
from openlepton.train.checkpoint import Progress
from openlepton.interrupt import Interrupt
from openlepton.train.detecting import Detecting
from openlepton.train.loop import Training
from openlepton.train.ranks import joined

config = TrainConfig.from_json(sys.argv[1])
torch.set_num_threads(1)
with joined("cpu") as ranks:
    torch.manual_seed(ranks.rank)  # other weights in each process, until the first brings them into line
    reader = Reader(open_dataset(config.data)["train"], config.size)
    training = Training(config, Detecting(), yolov5.build("n", classes=2), reader, Progress(), ranks, print)
    before = training.network.model[5].conv.weight.detach().clone()
    training.run_epoch(Interrupt())
    assert not torch.equal(training.network.model[5].conv.weight, before)
    state = {name: value.detach().contiguous() for name, value in training.network.named_parameters()}
    Path(f"{config.out}-{ranks.rank}.safetensors").write_bytes(safetensors.torch.save(state))
"""

pytestmark = pytest.mark.slow


def in_two_processes(script, config, folder):
    path = folder / "script.py"
    path.write_text(script, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(path)]
    done = subprocess.run([*command, config.to_json()], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]


needs_processes = pytest.mark.skipif(
    not torch.distributed.is_available() or sys.platform == "win32",
    reason="torch cannot train in several processes here",
)


@needs_processes
def test_two_processes_keep_the_same_weights(config, tmp_path):
    in_two_processes(ONE_EPOCH, replace(config, device="cpu"), tmp_path)
    first, second = (Path(f"{config.out}-{rank}.safetensors").read_bytes() for rank in (0, 1))
    assert first == second


@needs_processes
def test_two_processes_write_one_run(config, tmp_path):
    in_two_processes(ONE_RUN, replace(config, epochs=2, device="cpu"), tmp_path)
    progress = load_checkpoint(Path(config.out)).progress
    assert [row["epoch"] for row in progress.history] == [1, 2]
    assert openlepton.load(Path(config.out) / "best").card.labels == ("red", "green")


def test_shares_of_an_epoch_hold_every_image_and_are_as_long(squares):
    reader = Reader(open_dataset(squares)["train"].take(range(9)), 64)

    def images(share, first=0):
        batches = training_batches(reader, 0, batch_size=2, config=PRESETS["none"], share=share, first=first)
        return [batch.indices.tolist() for batch in batches]

    whole = np.concatenate(images((0, 1))).tolist()
    halves = [np.concatenate(images((part, 2))).tolist() for part in (0, 1)]
    assert sorted(whole) == list(range(9))
    assert [len(half) for half in halves] == [5, 5]
    assert halves[0] == whole[::2]
    assert halves[1] == [*whole[1::2], whole[0]]
    assert images((0, 1), first=2) == images((0, 1))[2:]
    with pytest.raises(UsageError, match="share: expected"):
        images((2, 2))


def test_a_single_process_needs_no_torchrun(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with joined("cpu") as ranks:
        assert ranks == Ranks(0, 1, 0)
        assert ranks.any(True)
        assert not ranks.any(False)
        assert ranks.total([1.5, 2.0]) == [1.5, 2.0]


def test_a_device_that_is_not_there_is_refused():
    assert choose_device("cpu", Ranks()).type == "cpu"
    with pytest.raises(UsageError, match="device: 'tpu' cannot be used here"):
        choose_device("tpu", Ranks())
