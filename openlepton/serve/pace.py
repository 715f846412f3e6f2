"""How a server uses the processor: measured on the spot, with the workers that will do the work."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from openlepton.errors import ModelFailed
from openlepton.runtimes.cores import usable_cores
from openlepton.serve.child import Share
from openlepton.serve.scheduler import Scheduler
from openlepton.serve.workers import Line, Reply

_LANES = (
    1  # of a process: a second saves some 20 MB and costs a tenth of the speed, as Python runs one thread at a time
)
_MOST_WORKERS = 16
_SECONDS = 0.3
_TRIES, _TRY_S = 3, 0.1
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
    if workers is not None or measure is None or cores == 1:
        count = workers or min(cores, _MOST_WORKERS)
        shares = [Share(threads=max(1, cores // count))] * count
        await scheduler.start(shares)
        tell(_said(shares))
    else:
        await _choose(scheduler, cores, measure, tell)
    for model in texts:
        alone_s, together_s = [await _each_s(scheduler.pool.lines[0], model, batch=size) for size in (1, _TOGETHER)]
        if alone_s > _GAIN * together_s:
            scheduler.together[model] = _TOGETHER
            tell(f"{model}: up to {_TOGETHER} texts at once ({1 / together_s:.0f}/s against {1 / alone_s:.0f}/s)")


async def _choose(scheduler: Scheduler, cores: int, model: str, tell: Tell) -> None:
    """Work on an item in each core or on one in all of them, as is faster; and see whether a lone item gains from all cores."""
    items = min(cores, _LANES * _MOST_WORKERS)
    lanes = [min(_LANES, items - first) for first in range(0, items, _LANES)]
    many, one = [Share(count, cores // items) for count in lanes], [Share(threads=cores)]
    many[0] = replace(many[0], wide=cores)
    await scheduler.start(many)
    lines = scheduler.pool.lines
    rate, narrow_s, wide_s = await _tried(lines, model)
    if wide_s * rate < 1 / _GAIN:
        await scheduler.pool.stop()
        await scheduler.start(one)
        tell(f"{_said(one)}; rather than {_said(many)} ({model}: {1 / wide_s:.0f}/s against {rate:.0f}/s)")
        return
    tell(f"{_said(many)}; rather than {_said(one)} ({model}: {rate:.0f}/s against {1 / wide_s:.0f}/s)")
    if wide_s * _GAIN < narrow_s:
        tell(f"an item that is alone gets {cores} threads ({1000 * wide_s:.1f} ms against {1000 * narrow_s:.1f} ms)")
    else:
        await _asked(lines[0], {"kind": "narrow"})
        scheduler.pool.workers[0].wide = False


def _said(shares: Sequence[Share]) -> str:
    items = sum(share.lanes for share in shares)
    return f"{_of(items, 'item')} at a time, {_of(shares[0].threads, 'thread')} each, in {_of(len(shares), 'process')}"


async def _tried(lines: Sequence[Line], model: str) -> tuple[float, float, float]:
    """Return how many items a second all lines do, and how long one item takes in one core and in all of them.

    Each is tried several times, in turn, and the best one counts: what else runs meanwhile makes some tries of them all slower.
    """
    rates, narrow_s, wide_s = [], [], []
    for _ in range(_TRIES):
        together = await asyncio.gather(*(_each_s(line, model, seconds=_TRY_S) for line in lines))
        rates.append(sum(1 / seconds for seconds in together))
        narrow_s.append(await _each_s(lines[0], model, seconds=_TRY_S))
        wide_s.append(await _each_s(lines[0], model, wide=True, seconds=_TRY_S))
    return max(rates), min(narrow_s), min(wide_s)


async def _each_s(line: Line, model: str, *, wide: bool = False, batch: int = 1, seconds: float = _SECONDS) -> float:
    head = {"kind": "measure", "model": model, "wide": wide, "batch": batch, "seconds": seconds}
    return float(json.loads((await _asked(line, head)).bodies[0])["each_s"])


async def _asked(line: Line, head: Mapping[str, Any]) -> Reply:
    future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
    line.ask(head, (b"",), future.set_result)
    reply = await future
    if reply is None:
        raise ModelFailed("a worker ended while it was measured")
    if reply.errors[0] is not None:
        raise reply.errors[0]
    return reply


def _of(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 'es' if thing.endswith('s') else 's'}"
