"""The queue before the workers, with real worker processes."""

import asyncio
import os
import signal

import pytest
from serve_handlers import BrokenSetup, EchoSetup

from openlepton.errors import (
    DeadlineExceeded,
    Draining,
    ModelFailed,
    OpenLeptonError,
    Overloaded,
    RequestInvalid,
    WorkerLost,
)
from openlepton.serve import pace
from openlepton.serve.child import Share
from openlepton.serve.launch import Anew
from openlepton.serve.scheduler import Scheduler, Work, _Lone
from openlepton.serve.settings import Settings


def work(body: str, model: str = "echo", **extra) -> Work:
    return Work("predict", model, body.encode(), extra=extra)


def scheduled(tmp_path, scenario, *, workers: int = 1, shares=None, launch=Anew, **settings):
    """Run `scenario(scheduler, log)` against a scheduler with real workers; return what it returns."""
    log = tmp_path / "log"
    log.touch()

    async def main():
        scheduler = Scheduler(launch(EchoSetup(str(log))), Settings(**settings))
        await scheduler.start(shares or [Share()] * workers)
        try:
            return await scenario(scheduler, lambda: [line.split(" ", 2) for line in log.read_text().splitlines()])
        finally:
            await scheduler.stop()
            assert all(worker.ran for worker in scheduler.pool.workers)

    return asyncio.run(main())


def test_answers_go_to_those_who_asked_and_say_how_long_it_took(tmp_path):
    async def scenario(scheduler, log):
        answers = await asyncio.gather(*(scheduler.submit(work(f"n{n}"), 10) for n in range(20)))
        assert [answer.body for answer in answers] == [b'{"echo": "n%d"}' % n for n in range(20)]
        slow = await scheduler.submit(work("sleep 0.1"), 10)
        assert 0.1 <= slow.run_s < 10
        assert scheduler.counts["done"] == 21
        assert {line[0] for line in log()} == {str(worker.pid) for worker in scheduler.pool.workers}

    scheduled(tmp_path, scenario, workers=2)


def test_no_more_than_the_queue_admits_are_taken_and_none_that_would_be_late(tmp_path):
    async def scenario(scheduler, log):
        waiting = [scheduler.submit(work("sleep 0.05"), 10) for _ in range(5)]  # one runs, four wait
        assert scheduler.refusal() is None
        waiting.append(scheduler.submit(work("sleep 0.05"), 10))
        assert isinstance(scheduler.refusal(), Overloaded)
        assert scheduler.refusal(0) is None
        await asyncio.gather(*waiting)
        again = await asyncio.gather(*(scheduler.submit(work("sleep 0.05"), 10) for _ in range(4)))
        assert all(answer.run_s >= 0.05 for answer in again)  # it knows now what an item takes
        waiting = [scheduler.submit(work("sleep 0.05"), 10) for _ in range(4)]
        assert isinstance(scheduler.refusal(1, 0.01), Overloaded)
        assert scheduler.refusal(1, 60.0) is None
        assert 0.02 < scheduler.wait_s() < 10
        await asyncio.gather(*waiting)
        assert scheduler.wait_s() == 0

    scheduled(tmp_path, scenario, queue=5)


def test_a_slow_moment_does_not_make_it_refuse_for_ever(tmp_path):
    async def scenario(scheduler, log):
        await scheduler.submit(work("sleep 1"), 10)
        assert scheduler.refusal(1, 0.5, "echo") is None  # one item was slow, most were not
        waiting = [scheduler.submit(work("sleep 0.1"), 10) for _ in range(2)]
        assert isinstance(scheduler.refusal(1, 0.5, "echo"), Overloaded)  # who has to wait could be late
        await asyncio.gather(*waiting)

    scheduled(tmp_path, scenario)


def test_what_takes_too_long_is_refused_but_tried_once_in_a_while(tmp_path):
    async def scenario(scheduler, log):
        assert scheduler.refusal(1, 1.0, "glacial") is None
        assert isinstance(scheduler.refusal(1, 1.0, "glacial"), DeadlineExceeded)
        assert scheduler.refusal(1, 10.0, "glacial") is None
        await scheduler.submit(work("a", "glacial"), 10)  # and it is not slow any more
        assert scheduler.refusal(1, 1.0, "glacial") is None
        assert scheduler.refusal(1, 1.0, "glacial") is None

    scheduled(tmp_path, scenario)


def test_what_cannot_be_begun_in_time_is_not_begun_at_all(tmp_path):
    async def scenario(scheduler, log):
        first = scheduler.submit(work("sleep 1"), 30)
        late = scheduler.submit(work("late"), 0.05)
        with pytest.raises(DeadlineExceeded):
            await late
        assert not first.done()  # at its deadline, not when the worker was free
        await first
        await scheduler.submit(work("after"), 10)
        assert "late" not in {line[2] for line in log()}
        assert (scheduler.counts["late"], scheduler.counts["overdue"]) == (1, 0)
        with pytest.raises(DeadlineExceeded):
            await scheduler.submit(work("sleep 0.5"), 0.1)
        await scheduler.submit(work("after"), 10)
        assert (scheduler.counts["late"], scheduler.counts["overdue"], scheduler.counts["done"]) == (1, 1, 3)

    scheduled(tmp_path, scenario)


def test_what_nobody_waits_for_any_more_is_not_begun(tmp_path):
    async def scenario(scheduler, log):
        first = scheduler.submit(work("sleep 0.2"), 10)
        dropped = [scheduler.submit(work(f"dropped {n}"), 10) for n in range(10)]
        kept = scheduler.submit(work("kept"), 10)
        for future in dropped:
            future.cancel()
        await asyncio.gather(first, kept)
        assert [line[2] for line in log()] == ["sleep 0.2", "kept"]
        assert scheduler.waiting == 0
        assert scheduler.counts["dropped"] == 10
        left = scheduler.submit(work("sleep 0.2"), 10)
        while len(log()) < 3:
            await asyncio.sleep(0.01)
        left.cancel()
        await scheduler.submit(work("after"), 10)
        assert {name: scheduler.counts[name] for name in ("done", "dropped", "left")} == {
            "done": 3,
            "dropped": 10,
            "left": 1,
        }

    scheduled(tmp_path, scenario)


def test_an_item_that_kills_its_workers_fails_alone(tmp_path):
    async def scenario(scheduler, log):
        futures = [scheduler.submit(work(body), 30) for body in ("a", "b", "die", "c", "d", "raise", "refuse", "e")]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(result).__name__ for result in results] == [
            "Answer", "Answer", "WorkerLost", "Answer", "Answer", "OpenLeptonError", "RequestInvalid", "Answer",
        ]  # fmt: skip
        assert isinstance(results[2], WorkerLost)
        assert isinstance(results[6], RequestInvalid)
        assert "secret" not in str(results[5])
        assert [line[2] for line in log()].count("die") == 3  # tried again, in case the worker was to blame
        assert scheduler.counts["retried"] >= 1

    scheduled(tmp_path, scenario, workers=2)


def test_a_worker_that_is_killed_is_replaced_and_its_item_done_by_another(tmp_path):
    async def scenario(scheduler, log):
        slow = scheduler.submit(work("sleep 1"), 60)
        while not log():
            await asyncio.sleep(0.01)
        victim = int(log()[0][0])
        os.kill(victim, signal.SIGKILL)
        while scheduler.pool.whole:  # another takes longer to start than this to see
            await asyncio.sleep(0.001)
        assert (await slow).body == b'{"echo": "sleep 1"}'
        while not scheduler.pool.whole:
            await asyncio.sleep(0.02)
        assert victim not in {worker.pid for worker in scheduler.pool.workers}
        assert scheduler.pool.restarts == 1
        assert (await scheduler.submit(work("after"), 10)).body == b'{"echo": "after"}'

    scheduled(tmp_path, scenario, workers=2)


def test_a_lost_worker_is_survived_when_it_is_the_only_one(tmp_path):
    async def scenario(scheduler, log):
        body = f"die-once {tmp_path / 'flag'}"
        waiting = [scheduler.submit(work(text), 30) for text in (body, "next")]
        assert [answer.body for answer in await asyncio.gather(*waiting)] == [b"{}", b'{"echo": "next"}']

    scheduled(tmp_path, scenario)


def test_a_worker_that_never_ends_is_ended(tmp_path):
    async def scenario(scheduler, log):
        stuck = scheduler.submit(work("sleep 60"), 30)
        with pytest.raises(DeadlineExceeded):
            await stuck
        assert (await scheduler.submit(work("after"), 30)).body == b'{"echo": "after"}'
        assert [line[2] for line in log()] == ["sleep 60", "after"]

    scheduled(tmp_path, scenario, run_s=1.5)


def test_items_go_together_only_where_that_helps_and_a_bad_one_spoils_nothing(tmp_path):
    async def scenario(scheduler, log):
        scheduler.together["echo"] = 4
        first = scheduler.submit(work("sleep 0.1", "slow"), 10)
        many = [scheduler.submit(work(body), 10) for body in ("a", "refuse", "b", "c", "d")]
        other = scheduler.submit(work("e", "slow"), 10)
        results = await asyncio.gather(first, *many, other, return_exceptions=True)
        assert [isinstance(result, Exception) for result in results] == [False, False, True, False, False, False, False]
        assert [line[2] for line in log()] == ["sleep 0.1", "a,refuse,b,c", "d", "e"]

    scheduled(tmp_path, scenario)


def test_an_item_that_kills_the_worker_it_shares_harms_no_neighbour(tmp_path):
    async def scenario(scheduler, log):
        texts = ["sleep 0.3", "die", "sleep 0.2", "a", "b"]
        results = await asyncio.gather(*(scheduler.submit(work(text), 60) for text in texts), return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["Answer", "WorkerLost", "Answer", "Answer", "Answer"]
        alone = [number for number, line in enumerate(log()) if line[2] == "die"][1:]
        assert len(alone) == 2
        assert all(log()[number + 1 :][:1] != [] for number in alone)

    scheduled(tmp_path, scenario, shares=[Share(lanes=2)])


def test_a_group_whose_worker_dies_is_tried_again_one_by_one(tmp_path):
    async def scenario(scheduler, log):
        scheduler.together["echo"] = 8
        first = scheduler.submit(work("sleep 0.1", "slow"), 10)
        many = [scheduler.submit(work(body), 30) for body in ("a", "die", "b")]
        results = await asyncio.gather(first, *many, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["Answer", "Answer", "WorkerLost", "Answer"]

    scheduled(tmp_path, scenario)


def test_jobs_wait_for_requests_but_get_a_turn(tmp_path):
    async def scenario(scheduler, log):
        first = scheduler.submit(work("sleep 0.1"), 10)
        jobs = [scheduler.submit(work(f"job {n}", job="j"), 30, job=True) for n in range(4)]
        requests = [scheduler.submit(work(f"request {n}"), 30) for n in range(20)]
        await asyncio.gather(first, *jobs, *requests)
        order = [line[2].split()[0] for line in log()][1:]
        assert order[:3] == ["request"] * 3
        first_job = order.index("job")
        assert first_job <= 8
        assert order[first_job : first_job + 8].count("job") == 1
        assert scheduler.refusal() is None

    scheduled(tmp_path, scenario)


def test_pieces_of_one_video_go_to_one_worker(tmp_path):
    async def scenario(scheduler, log):
        for start in range(6):
            piece = Work("frames", "echo", f"piece {start}".encode(), extra={"job": "v", "count": 8, "start": start})
            await scheduler.submit(piece, 30, job=True)
        assert len({line[0] for line in log()}) == 1

    scheduled(tmp_path, scenario, workers=2)


def test_only_an_item_that_is_alone_gets_all_cores(tmp_path):
    async def scenario(scheduler, log):
        await scheduler.submit(work("alone"), 10)
        await asyncio.gather(*(scheduler.submit(work(f"{n}"), 10) for n in range(4)))
        modes = {line[2]: line[1] for line in log()}
        assert modes["alone"] == "wide"
        assert [modes[str(n)] for n in range(1, 4)] == ["narrow"] * 3

    scheduled(tmp_path, scenario, shares=[Share(wide=2), Share()])


def test_a_stop_finishes_what_runs_and_tells_the_rest(tmp_path):
    async def scenario(scheduler, log):
        running = scheduler.submit(work("sleep 0.2"), 10)
        scheduler.drain()
        assert isinstance(scheduler.refusal(), Draining)
        assert (await running).body == b'{"echo": "sleep 0.2"}'

    scheduled(tmp_path, scenario)


def test_a_model_that_cannot_be_loaded_is_told_and_leaves_nobody_behind():
    async def main():
        scheduler = Scheduler(Anew(BrokenSetup()), Settings())
        with pytest.raises(ModelFailed, match="the model is broken"):
            await scheduler.start([Share(), Share()])
        await scheduler.stop()

    asyncio.run(main())


CHOSEN = {
    1: "1 item at a time, 1 thread each, in 1 process",
    2: "2 items at a time, 1 thread each, in 2 processes; rather than 1 item at a time, 2 threads each, in 1 process",
    3: "1 item at a time, 3 threads each, in 1 process; rather than 3 items at a time, 1 thread each, in 3 processes",
}  # fmt: skip


@pytest.mark.parametrize(("cores", "said"), CHOSEN.items())
def test_the_way_to_use_the_processor_is_measured_and_told(tmp_path, monkeypatch, cores, said):
    monkeypatch.setattr(pace, "usable_cores", lambda: cores)
    lines = []

    async def main():
        (tmp_path / "log").touch()
        scheduler = Scheduler(Anew(EchoSetup(str(tmp_path / "log"))), Settings())
        await pace.settle(scheduler, None, lines.append, measure="echo")
        try:
            assert scheduler.pool.size == (2 if cores == 2 else 1)
            assert (await scheduler.submit(work("a"), 10)).body == b'{"echo": "a"}'
            return (tmp_path / "log").read_text().split()[1]
        finally:
            await scheduler.stop()

    assert asyncio.run(main()) == "narrow"  # no faster alone: what was made for that was given back
    assert [line.split(" (")[0] for line in lines] == [said]
    rates = {2: "(echo: 200/s against 100/s)", 3: "(echo: 500/s against 300/s)"}
    assert rates.get(cores, "") in lines[0]


@pytest.mark.parametrize("faster", [True, False])
def test_lone_items_go_the_way_that_was_faster_of_late(faster):
    lone, ways = _Lone(), []

    def work_on(count, faster):
        for _ in range(count):
            ways.append(lone.wide())
            lone.add(ways[-1], 0.01 if ways[-1] == faster else 0.015)

    work_on(64, faster)
    assert ways[:2] == [True, False]  # both are tried at first
    assert ways.count(not faster) == 3  # and the slower one every 32nd time
    work_on(100, not faster)  # the machine has changed
    assert ways[-16:].count(not faster) >= 15


def test_an_error_of_a_worker_keeps_its_class_across_the_line():
    from openlepton.serve.problems import BY_CODE, error_of

    assert isinstance(error_of("image-too-large", "x"), BY_CODE["image-too-large"])
    assert type(error_of("from-the-future", "x")) is OpenLeptonError
