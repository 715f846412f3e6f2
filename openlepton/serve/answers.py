"""From a request to its answer: admission, body, work, and what goes back."""

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from openlepton.errors import OpenLeptonError, RequestInvalid
from openlepton.serve import problems
from openlepton.serve.bodies import ClientGone, Held, Item, Items, Receive, read_body
from openlepton.serve.metrics import Metrics
from openlepton.serve.scheduler import Answer, Scheduler, Work
from openlepton.serve.settings import Settings

JSON = "application/json"
DEADLINE = "deadline-ms"

Outcome = Answer | BaseException


@dataclass(frozen=True)
class Site:
    """What all addresses of a server share."""

    settings: Settings
    scheduler: Scheduler
    held: Held
    metrics: Metrics

    async def answer(
        self, request: Request, model: str, read: Callable[[str, bytes], Items], make: Callable[[bytes], Work]
    ) -> Response:
        """Return the answer to a request for predictions, of which `take` says more."""
        found, outcomes, started = await self.take(request, model, read, make)
        if found.batch:
            rows = [_row(*pair, started) for pair in zip(outcomes, found.items, strict=True)]
            return Response(b'{"results":[' + b",".join(rows) + b"]}", media_type=JSON)
        if isinstance(outcomes[0], BaseException):
            raise outcomes[0]
        return Response(_row(outcomes[0], found.items[0], started), media_type=JSON)

    async def take(
        self, request: Request, model: str, read: Callable[[str, bytes], Items], make: Callable[[bytes], Work]
    ) -> tuple[Items, list[Outcome], float]:
        """Return what a request asks about, what came of each item, and when the whole request was there.

        Args:
            request: Whose body is still to be read.
            model: Whose time it costs.
            read: Finds the items in a body of a content type.
            make: Makes work of an item.

        Raises:
            OpenLeptonError: The request as a whole cannot be answered.
            ClientGone: Nobody waits for the answer.
        """
        ends = time.perf_counter() + deadline_s(request, self.settings)
        self.admit(1, ends, model)
        with self.held.some() as hold:
            body = await read_body(request.headers, request.receive, self.settings.limits, hold)
            started = time.perf_counter()
            found = read(request.headers.get("content-type", ""), body)
            works = [make(item.content) for item in found.items if isinstance(item.content, bytes)]
            if len(works) > 1:
                self.admit(len(works), ends, model)
            done = iter(await self.outcomes(works, ends, request.receive))
        outcomes = [next(done) if isinstance(item.content, bytes) else item.content for item in found.items]
        for outcome in outcomes:
            if isinstance(outcome, Answer):
                self.metrics.worked(model, outcome.run_s)
        return found, outcomes, started

    def admit(self, count: int, ends: float, model: str) -> None:
        """Raise unless there is room for `count` more items that are done by `ends`."""
        refusal = self.scheduler.refusal(count, ends - time.perf_counter(), model)
        if refusal is not None:
            raise refusal

    async def outcomes(self, works: Sequence[Work], ends: float, receive: Receive) -> list[Outcome]:
        """Return what came of each item; if the client hangs up, what has not begun never will.

        Raises:
            ClientGone: It did.
        """
        within_s = max(ends - time.perf_counter(), 0.001)
        futures = [self.scheduler.submit(work, within_s) for work in works]
        if not futures:
            return []
        everything = asyncio.gather(*futures, return_exceptions=True)
        hung_up = asyncio.ensure_future(_hang_up(receive))
        try:
            await asyncio.wait((everything, hung_up), return_when=asyncio.FIRST_COMPLETED)
            if not everything.done():
                raise ClientGone
            return everything.result()
        finally:
            hung_up.cancel()
            everything.cancel()

    def problem(self, request: Request, error: Exception, status: int | None = None) -> Response:
        """Return the answer that says what went wrong."""
        code, body = problems.body_of(error, status)
        if request.scope["path"].startswith("/v2/"):  # where that protocol looks for it
            told = json.loads(body)
            body = json.dumps(told | {"error": told["detail"]}, ensure_ascii=False).encode()
        headers = {}
        if code == 503:
            headers["retry-after"] = str(max(1, math.ceil(self.scheduler.wait_s())))
        if code == 401:
            headers["www-authenticate"] = "Bearer"
        return Response(body, code, headers, problems.TYPE)


def deadline_s(request: Request, settings: Settings) -> float:
    """Return how long the client will wait, as it says or as is usual here.

    Raises:
        RequestInvalid: It does not say a number of milliseconds.
    """
    said = request.headers.get(DEADLINE)
    if said is None:
        return settings.deadline_s
    if not (said.isascii() and said.isdigit() and 0 < len(said) < 10 and int(said)):
        raise RequestInvalid("Deadline-Ms: expected a number of milliseconds, at least 1")
    return min(int(said) / 1000, settings.deadline_s)


async def _hang_up(receive: Receive) -> Awaitable[None] | None:
    while (await receive())["type"] != "http.disconnect":
        pass
    return None


def _row(outcome: Outcome | OpenLeptonError, item: Item, started: float) -> bytes:
    """Return an outcome as JSON: the worker's, with the name of its source before and the time it took behind."""
    source: dict[str, Any] = {} if item.source is None else {"source": item.source}
    if isinstance(outcome, BaseException):
        error = outcome if isinstance(outcome, Exception) else OpenLeptonError(type(outcome).__name__)
        return json.dumps({**source, "error": problems.problem(error)}, ensure_ascii=False).encode()
    total_s = time.perf_counter() - started
    timing = b',"timing_ms":{"queue":%.3f,"run":%.3f,"total":%.3f}}' % (
        1000 * outcome.queue_s,
        1000 * outcome.run_s,
        1000 * total_s,
    )
    name = json.dumps(source, ensure_ascii=False).encode()[:-1] + b"," if source else b"{"
    return name + outcome.body[1:-1] + timing
