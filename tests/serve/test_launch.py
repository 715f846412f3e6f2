"""How workers are started as copies of a process that has loaded the models, and what they load themselves."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from serve_running import JPEG, running

from openlepton.hub.index import find
from openlepton.serve.catalog import ModelSetup
from openlepton.serve.child import Share
from openlepton.serve.models import Models

copied = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every worker is a new process")

FACTS = """
import asyncio, os, sys
from serve_handlers import BrokenSetup, EchoSetup
from openlepton.errors import ModelFailed
from openlepton.serve.child import Share
from openlepton.serve.launch import Copies
from openlepton.serve.scheduler import Scheduler, Work
from openlepton.serve.settings import Settings

def prepare():
    {prepare}

async def main(launch):
    scheduler = Scheduler(launch, Settings())
    try:
        await scheduler.start([Share()] * 2)
        print((await scheduler.submit(Work("predict", "echo", b"hello"), 10)).body.decode())
    except ModelFailed as error:
        print("refused:", error)
    await scheduler.stop()
    launch.close()

log = open("log", "w").name
launch = Copies({setup}, prepare)
asyncio.run(main(launch))
"""


def ran(tmp_path, setup: str, prepare: str) -> str:
    code = FACTS.format(setup=setup, prepare=prepare)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


@copied
def test_copies_use_what_was_prepared_once(tmp_path):
    prepare = "print('prepared', flush=True); return EchoSetup(log)"
    assert ran(tmp_path, "BrokenSetup()", prepare) == 'prepared\n{"echo": "hello"}'


@copied
@pytest.mark.parametrize(
    ("setup", "said"), [("EchoSetup(log)", '{"echo": "hello"}'), ("BrokenSetup()", "refused: the model is broken")]
)
def test_what_cannot_be_prepared_is_for_each_worker_to_do(tmp_path, setup, said):
    assert ran(tmp_path, setup, "raise ValueError('broken')") == said


@copied
@pytest.mark.slow
def test_models_are_loaded_once_in_a_process_without_threads_and_workers_share_them(photo):
    with running("--workers", "2", "efficientnet-lite0", "topics-en", "tiny-en-zh") as server:
        workers = server.workers()
        assert len(workers) == 2
        (helper,) = {worker.parent() for worker in workers}
        assert helper.pid != server.process.pid
        assert helper.num_threads() == 1  # a copy of a process has only one of its threads, and the locks of them all
        own = [worker.memory_full_info().uss for worker in workers]
        assert max(own) < 70e6  # 47 MB each; 97 MB where each loads for itself
        for _ in range(4):
            server.client.post("/v1/classify", content=photo, headers=JPEG).raise_for_status()
            server.client.post("/v1/translate", json={"text": "hello"}).raise_for_status()
        workers[0].kill()
        psutil.wait_procs(workers[:1], 10)
        for _ in range(4):
            server.client.post("/v1/classify", content=photo, headers=JPEG).raise_for_status()


@pytest.mark.parametrize("afterwards", ["there", "gone", "another"])
def test_an_item_that_is_alone_is_worked_on_by_the_model_that_was_loaded(tmp_path, photo, afterwards):
    folder = tmp_path / "model"
    shutil.copytree(find("yolox-nano-voc20").path, folder)
    models = Models(ModelSetup((str(folder),)), Share(wide=2))
    if afterwards != "there":
        shutil.rmtree(folder)
    if afterwards == "another":
        shutil.copytree(find("yolov5n-bccd").path, folder)
    head = {"kind": "predict", "model": "yolox-nano-voc20", "options": ()}
    usual, alone = (models({**head, "wide": wide}, [photo])[0] for wide in (False, True))
    assert [one["label"] for one in json.loads(usual)["detections"]] == ["person"]
    assert json.loads(alone)["model"] == json.loads(usual)["model"]
    for one, other in zip(json.loads(alone)["detections"], json.loads(usual)["detections"], strict=True):
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)
    wide = models._alone("yolox-nano-voc20").runtime.threads
    assert wide == (2 if afterwards == "there" else 1)
