"""How workers are started as copies of a process that has loaded the models."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from serve_running import JPEG, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every worker is a new process")

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


def test_copies_use_what_was_prepared_once(tmp_path):
    prepare = "print('prepared', flush=True); return EchoSetup(log)"
    assert ran(tmp_path, "BrokenSetup()", prepare) == 'prepared\n{"echo": "hello"}'


@pytest.mark.parametrize(
    ("setup", "said"), [("EchoSetup(log)", '{"echo": "hello"}'), ("BrokenSetup()", "refused: the model is broken")]
)
def test_what_cannot_be_prepared_is_for_each_worker_to_do(tmp_path, setup, said):
    assert ran(tmp_path, setup, "raise ValueError('broken')") == said


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
