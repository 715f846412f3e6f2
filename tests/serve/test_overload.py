"""A server under more than it can do, with clients that leave and workers that die; the long form is in bench/."""

import asyncio
import importlib.util
import random
import re
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from serve_running import JPEG, running, until

BENCH = Path(__file__).parents[2] / "bench" / "http_load.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def http_load():
    spec = importlib.util.spec_from_file_location("http_load", BENCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pool():
    with running("yolov5n-bccd", "--workers", "2") as started:
        yield started


def measure(server, name: str) -> float:
    return float(re.search(rf"^{re.escape(name)} (\S+)$", server.client.get("/metrics").text, re.MULTILINE)[1])


def quiet(server) -> bool:
    names = ("waiting_items", "busy_items", "held_bytes")
    return all(measure(server, f"openlepton_{name}") == 0 for name in names)


def test_goodput_stays_and_nobody_waits_in_vain_at_three_times_what_can_be_done(pool, http_load, photo):
    deadline_s = 2.0
    request = http_load.post("/v1/detect", photo, Deadline_Ms=str(round(1000 * deadline_s)))
    kept = []
    while not any(kept) and len(kept) < 3:  # what else runs on the machine may spoil a measurement, not each
        peak = asyncio.run(http_load.Load(pool.port, request).closed(4, 3.0)).summary()["rps"]
        tally = asyncio.run(http_load.Load(pool.port, request).opened(3 * peak, 5.0))
        found = tally.summary(deadline_s)
        assert set(tally.statuses) <= {200, 503, 504}
        assert tally.statuses[503] > 0  # refused at once, not left waiting
        begun = time.perf_counter()
        assert pool.client.post("/v1/detect", content=photo, headers=JPEG).status_code == 200
        kept.append(
            time.perf_counter() - begun < 2
            and tally.statuses[504] < 0.5 * tally.statuses[200]
            and found["goodput"] > 0.6 * peak  # the load itself takes its share of the same cores
            and found["p99"] < 1100 * deadline_s  # as the client sees it, which shares the cores with the server
        )
        until(lambda: quiet(pool))
    assert any(kept), (peak, found)


def test_what_clients_left_behind_is_not_worked_on(pool, http_load, photo):
    until(lambda: quiet(pool))
    done = 'openlepton_items_total{outcome="done"}'
    before = measure(pool, done)

    async def leave():
        load = http_load.Load(pool.port, http_load.post("/v1/detect", photo))
        stay = [asyncio.create_task(load.one()) for _ in range(4)]
        gone = [asyncio.create_task(load.one(hang_up_s=0.05)) for _ in range(40)]
        await asyncio.gather(*stay, *gone)
        return load.tally

    tally = asyncio.run(leave())
    until(lambda: quiet(pool))
    worked = measure(pool, done) - before
    answered = tally.statuses[200]
    assert answered >= 4
    assert tally.statuses[-1] > 10
    assert worked <= answered + 10  # and what was under way when their clients left
    assert measure(pool, 'openlepton_items_total{outcome="dropped"}') > 0


def test_a_killed_worker_makes_no_answer_wrong(pool, http_load, photo):
    request = http_load.post("/v1/detect?min_score=0.1", photo)
    restarts = measure(pool, "openlepton_worker_restarts_total")
    seen_unready = []

    async def scenario():
        load = http_load.Load(pool.port, request, cut=b',"timing_ms"')
        running_load = asyncio.create_task(load.closed(6, 6.0))
        while sum(seen_unready) < 2 and len(seen_unready) < 6:  # a probe may come when it is over
            await asyncio.sleep(0.5)
            random.choice(pool.workers()).kill()
            unready, before = False, restarts + len(seen_unready)
            while not unready and measure(pool, "openlepton_worker_restarts_total") == before:
                status = await asyncio.to_thread(lambda: pool.client.get("/readyz").status_code)
                unready = status == 503
            while measure(pool, "openlepton_worker_restarts_total") == before:
                await asyncio.sleep(0.01)
            seen_unready.append(unready)
        return await running_load

    tally = asyncio.run(scenario())
    assert sum(seen_unready) == 2
    assert set(tally.statuses) == {200}
    assert len(tally.bodies) == 1  # every answer the same, to the last digit
    until(lambda: pool.client.get("/readyz").status_code == 200)
    assert measure(pool, "openlepton_worker_restarts_total") == restarts + len(seen_unready)
    assert len(pool.workers()) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are started anew in any case")
def test_a_worker_is_replaced_even_when_the_process_that_copies_itself_is_lost(photo):
    with running("yolov5n-bccd", "--workers", "1") as server:
        helper = next(
            one
            for one in psutil.Process(server.process.pid).children()
            if one.pid not in {w.pid for w in server.workers()}
        )
        before = server.client.post("/v1/detect", content=photo, headers=JPEG).json()["detections"]
        (worker,) = server.workers()
        helper.kill()
        worker.kill()
        assert server.client.post("/v1/detect", content=photo, headers=JPEG).json()["detections"] == before
        until(lambda: server.client.get("/readyz").status_code == 200)
        assert measure(server, "openlepton_worker_restarts_total") == 1
        assert server.stop()[0] == 0


def test_a_stop_finishes_what_was_accepted_and_leaves_with_zero(http_load, photo):
    with running("yolov5n-bccd", "--workers", "1") as server:

        async def scenario():
            load = http_load.Load(server.port, http_load.post("/v1/detect", photo))
            asking = [asyncio.create_task(load.one()) for _ in range(40)]
            while await asyncio.to_thread(lambda: measure(server, "openlepton_waiting_items")) < 10:
                await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*asking)
            late = http_load.Load(server.port, http_load.post("/v1/detect", photo))
            await late.one()
            return load.tally, late.tally

        tally, late = asyncio.run(scenario())
        status, lines = server.stop()
    assert tally.statuses[200] >= 10  # those that waited when the signal came
    assert set(tally.statuses) <= {200, 503, 0}
    assert set(late.statuses) <= {503, 0}
    assert status == 0
    assert not any("Traceback" in line for line in lines)


def test_hundreds_of_fuzzed_bodies_cause_no_failure_and_leave_no_memory(pool, photo):
    rng = random.Random(0)
    kinds = ["image/jpeg", "image/png", "application/json", "multipart/form-data; boundary=b", "text/plain", ""]
    addresses = ["/v1/detect", "/v1/models/yolov5n-bccd/predict", "/v2/models/yolov5n-bccd/infer", "/v1/classify"]

    def body() -> bytes:
        data = bytearray(
            rng.choice([photo, b'{"image": "AAAA"}', b'{"inputs": [{"name": "images"}]}', rng.randbytes(300)])
        )
        for _ in range(rng.randrange(20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data[: rng.randrange(len(data) + 1)])

    def round_(count: int) -> set[int]:
        return {
            pool.client.post(
                rng.choice(addresses), content=body(), headers={"Content-Type": rng.choice(kinds)}
            ).status_code
            for _ in range(count)
        }

    assert round_(100) <= {200, 404, 413, 415, 422}
    before = pool.memory()
    assert round_(500) <= {200, 404, 413, 415, 422}
    assert pool.memory() - before < 30e6
    assert pool.client.get("/readyz").status_code == 200
    assert not any("Traceback" in line for line in pool.lines)
