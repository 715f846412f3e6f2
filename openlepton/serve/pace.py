"""How a server uses the processor: measured on the spot, with the workers that will do the work."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from openlepton.errors import ModelFailed
from openlepton.runtimes.cores import usable_cores
from openlepton.serve.child import Share
from openlepton.serve.scheduler import Scheduler
from openlepton.serve.workers import Reply, Worker

_MOST_WORKERS = 16
_SECONDS = 0.3
_GAIN = 1.1  # by how much something must be faster to be worth its memory
_TOGETHER = 8

Tell = Callable[[str], None]


async def settle(
    scheduler: Scheduler, workers: int | None, tell: Tell, *, measure: str | None, texts: Sequence[str] = ()
) -> None:
    """Start the workers in the way that is fastest here, and tell which.

    Args:
        scheduler: Whose workers.
        workers: How many; None to choose.
        tell: Takes the choice, in a line.
        measure: The model to measure with; None for workers that have no models, as many as there are cores.
        texts: The models that may gain from working on several items together.
    """
    cores = usable_cores()
    count = workers or min(cores, _MOST_WORKERS)
    threads = max(1, cores // count)
    if workers is not None or measure is None or cores == 1:
        await scheduler.start([Share(threads)] * count)
        tell(f"{_of(count, 'worker')} with {_of(threads, 'thread')} each")
    else:
        await scheduler.start([Share(threads, cores), *[Share(threads)] * (count - 1)])
        await _choose(scheduler, count, threads, cores, measure, tell)
    for model in texts:
        alone_s, together_s = [await _each_s(scheduler.pool.workers[0], model, batch=size) for size in (1, _TOGETHER)]
        if alone_s > _GAIN * together_s:
            scheduler.together[model] = _TOGETHER
            tell(f"{model}: up to {_TOGETHER} texts at once ({1 / together_s:.0f}/s against {1 / alone_s:.0f}/s)")


async def _choose(scheduler: Scheduler, count: int, threads: int, cores: int, model: str, tell: Tell) -> None:
    """Keep the pool, or put one worker of all cores in its place; and see whether a lone item gains from all cores."""
    pool = scheduler.pool.workers
    each = await asyncio.gather(*(_each_s(worker, model) for worker in pool))
    rate = sum(1 / seconds for seconds in each)
    narrow_s = await _each_s(pool[0], model)
    wide_s = await _each_s(pool[0], model, wide=True)
    many, one = f"{_of(count, 'worker')} with {_of(threads, 'thread')} each", f"1 worker with {cores} threads"
    rates = f"{model}: {rate:.0f}/s against {1 / wide_s:.0f}/s"
    if wide_s * rate < 1 / _GAIN:
        await scheduler.pool.stop()
        await scheduler.start([Share(cores)])
        tell(f"{one} rather than {many} ({model}: {1 / wide_s:.0f}/s against {rate:.0f}/s)")
        return
    tell(f"{many} rather than {one} ({rates})")
    if wide_s * _GAIN < narrow_s:
        tell(f"an item that is alone gets {cores} threads ({1000 * wide_s:.1f} ms against {1000 * narrow_s:.1f} ms)")
    else:
        await _asked(pool[0], {"kind": "narrow"})
        pool[0].wide = False


async def _each_s(worker: Worker, model: str, *, wide: bool = False, batch: int = 1) -> float:
    head = {"kind": "measure", "model": model, "wide": wide, "batch": batch, "seconds": _SECONDS}
    return float(json.loads((await _asked(worker, head)).bodies[0])["each_s"])


async def _asked(worker: Worker, head: Mapping[str, Any]) -> Reply:
    future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
    worker.ask(head, (b"",), future.set_result)
    reply = await future
    if reply is None:
        raise ModelFailed("a worker ended while it was measured")
    if reply.errors[0] is not None:
        raise reply.errors[0]
    return reply


def _of(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count != 1)}"
