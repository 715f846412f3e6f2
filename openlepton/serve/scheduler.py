"""Who is worked for next: a bounded queue before the workers, right under overload.

What cannot be answered in time is refused at once rather than late; what nobody waits for any more is not begun; what a dying
worker held is tried again, alone, so that it can harm no other item. Jobs get what requests leave, and every eighth turn.
"""

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openlepton.errors import DeadlineExceeded, Draining, OpenLeptonError, Overloaded, WorkerLost
from openlepton.serve.child import Share
from openlepton.serve.launch import Launch
from openlepton.serve.settings import Settings
from openlepton.serve.workers import Line, Pool, Reply

_TRIES = 3
_JOBS_TURN = 8
_SHARE = 0.9  # of the time that is given: the rest is for the way back
_DOUBT_S = 1.0  # between two items that are let through though they seem to take too long
_LOOK_EVERY = 32  # lone items, one of which goes the way that was slower
_MARGIN = 1.25  # by how much a wait may exceed what is expected of it

log = logging.getLogger("openlepton.serve")


@dataclass(frozen=True)
class Work:
    """One item for a worker."""

    kind: str
    model: str
    body: bytes = b""
    options: tuple[tuple[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> tuple[Any, ...] | None:
        """What items have in common that may go to a worker together; None if this one goes alone."""
        return None if self.extra else (self.kind, self.model, self.options)


@dataclass(frozen=True)
class Answer:
    """What came of an item."""

    body: bytes
    queue_s: float
    run_s: float


@dataclass(eq=False)
class _Ticket:
    work: Work
    deadline: float
    future: "asyncio.Future[Answer]"
    queued: float
    expected_s: float
    tries: int = 0
    begun: float = 0.0


@dataclass
class _Pace:
    """How long items of a model take, and how much that varies: as TCP knows its round trips (Jacobson 1988)."""

    mean_s: float = 0.05
    deviation_s: float = 0.0
    doubted_at: float = -math.inf
    doubted: bool = False

    @property
    def most_s(self) -> float:
        """How long an item takes at most, almost always."""
        return self.mean_s + 3 * self.deviation_s

    def hopeless(self, within_s: float, now: float) -> bool:
        """Return whether an item begun at once would be late; one is let through now and then, to see if that still holds."""
        if self.mean_s <= within_s or now - self.doubted_at < _DOUBT_S:
            return self.mean_s > within_s
        self.doubted_at, self.doubted = now, True
        return False

    def add(self, seconds: float) -> None:
        """Take one more into account."""
        if self.doubted:
            self.mean_s, self.deviation_s, self.doubted = seconds, seconds / 2, False
            return
        error = seconds - self.mean_s
        self.mean_s += error / 8
        self.deviation_s += (abs(error) - self.deviation_s) / 4


@dataclass
class _Lone:
    """Whether lone items are faster in all cores than in one, which depends on what else the machine does."""

    times: dict[bool, float] = field(default_factory=dict)
    turns: int = 0

    def wide(self) -> bool:
        """Return whether the next one is to have all cores: what was faster of late, and now and then the other, to see."""
        self.turns += 1
        for way in (True, False):
            if way not in self.times:
                return way
        faster = self.times[True] < self.times[False]
        return faster if self.turns % _LOOK_EVERY else not faster

    def add(self, wide: bool, seconds: float) -> None:
        """Take one more into account."""
        known, other = self.times.get(wide, seconds), self.times.get(not wide, math.inf)
        share = (
            1.0 if known > other else 0.25
        )  # of what was slower the last look was long ago: it says nothing any more
        self.times[wide] = known + share * (seconds - known)


class Scheduler:
    """Puts work before the workers; made for one event loop.

    Args:
        launch: Starts the worker processes.
        settings: How many may wait, and how long.
    """

    def __init__(self, launch: Launch, settings: Settings) -> None:
        self._settings = settings
        self._pool = Pool(launch, self._dispatch)
        self._queue: OrderedDict[int, _Ticket] = OrderedDict()
        self._jobs: OrderedDict[int, _Ticket] = OrderedDict()
        self._running: dict[Line, list[_Ticket]] = {}
        self._expected_s = 0.0  # of all that waits
        self._paces: dict[str, _Pace] = {}
        self._lone: dict[str, _Lone] = {}
        self.together: dict[str, int] = {}
        """How many items of a model may go to a worker at once; those of all others go one by one."""
        self._facts: Mapping[str, Any] = {}
        self._bound: dict[str, Line] = {}
        self._turn = 0
        self._draining = False
        self.counts = dict.fromkeys(("done", "failed", "dropped", "left", "late", "overdue", "refused", "retried"), 0)
        """Of items: done and failed were answered; of dropped ones and left ones the client had gone, before and while they were
        worked on; late ones were not begun in time, overdue ones not ready. Those refused never were items, nor is a second try."""

    async def start(self, shares: list[Share]) -> None:
        """Start a worker for each share."""
        await self._pool.start(shares)
        for worker in self._pool.workers:
            self._facts = worker.facts
            for model, facts in worker.facts.items():
                self._paces[model] = _Pace(facts["run_s"]) if "run_s" in facts else _Pace()

    async def stop(self) -> None:
        """Stop the workers; whoever still waits is told so."""
        self.drain()
        for ticket in (*self._queue.values(), *self._jobs.values()):
            if not ticket.future.done():
                ticket.future.set_exception(Draining("the server is stopping"))
        await self._pool.stop()

    def drain(self) -> None:
        """Take no more work; what was accepted is finished."""
        self._draining = True

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the workers said of each model when they were ready."""
        return self._facts

    @property
    def draining(self) -> bool:
        """Whether no more work is taken."""
        return self._draining

    @property
    def pool(self) -> Pool:
        """The workers."""
        return self._pool

    @property
    def waiting(self) -> int:
        """How many items of requests wait."""
        return len(self._queue)

    @property
    def busy(self) -> int:
        """How many items or groups of them are worked on."""
        return len(self._running)

    def refusal(self, count: int = 1, within_s: float | None = None, model: str = "") -> OpenLeptonError | None:
        """Return why `count` more items cannot be taken right now, or None if they can."""
        if self._draining:
            return Draining("the server is stopping")
        if len(self._queue) + count > self._settings.queue:
            self.counts["refused"] += 1
            return Overloaded(f"{len(self._queue)} items are waiting, the most is {self._settings.queue}")
        if within_s is not None:
            return self._too_late(within_s, model)
        return None

    def _too_late(self, within_s: float, model: str) -> OpenLeptonError | None:
        """Return why an item could not be ready in time, or None if it could."""
        wait_s, pace = self.wait_s(), self._pace(model)
        takes_s, most_s = wait_s + pace.most_s, _SHARE * within_s
        now = asyncio.get_running_loop().time()
        # Whoever is idle may as well try: a slow moment would else be believed for ever, as nothing else was let in.
        late = takes_s > most_s if wait_s else pace.hopeless(most_s, now)
        if not late:
            return None
        self.counts["refused"] += 1
        text = f"an answer takes about {takes_s:.3f} s at the moment, and {within_s:.3f} s are given"
        return Overloaded(text) if wait_s else DeadlineExceeded(text)

    def wait_s(self) -> float:
        """Return how long a new item would wait for a worker, about."""
        lines = max(1, len(self._pool.lines))
        if not self._queue and self.busy < lines:
            return 0.0
        now = asyncio.get_running_loop().time()
        left_s = sum(
            max(sum(one.expected_s for one in group) - (now - group[0].begun), 0.0) for group in self._running.values()
        )
        return (self._expected_s + left_s) / lines * _MARGIN

    def submit(self, work: Work, within_s: float, *, job: bool = False) -> "asyncio.Future[Answer]":
        """Return the answer to come; cancel it when nobody wants it any more.

        The future fails with `DeadlineExceeded` after `within_s` seconds, with `WorkerLost` if one worker after the other
        died of the item, with `Draining` if the server stops, or with what the worker says.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        expected_s = self._pace(work.model).mean_s * work.extra.get("count", 1)
        ticket = _Ticket(work, now + within_s, loop.create_future(), now, expected_s)
        lane = self._jobs if job else self._queue
        lane[id(ticket)] = ticket
        self._expected_s += 0.0 if job else ticket.expected_s
        alarm = loop.call_at(ticket.deadline, self._expire, ticket)

        def over(future: "asyncio.Future[Answer]") -> None:
            alarm.cancel()
            waited = self._leave(ticket)
            if future.cancelled():
                self.counts["dropped" if waited else "left"] += 1

        ticket.future.add_done_callback(over)
        self._dispatch()
        return ticket.future

    def _pace(self, model: str) -> _Pace:
        return self._paces.get(model) or _Pace()

    def _expire(self, ticket: _Ticket) -> None:
        if not ticket.future.done():
            self.counts["overdue" if ticket.begun else "late"] += 1
            ticket.future.set_exception(DeadlineExceeded("there was no result in the time given"))

    def _leave(self, ticket: _Ticket) -> bool:
        """Take the ticket out of its lane; say whether it was in one."""
        if self._queue.pop(id(ticket), None) is not None:
            self._expected_s = max(0.0, self._expected_s - ticket.expected_s) if self._queue else 0.0
            return True
        return self._jobs.pop(id(ticket), None) is not None

    def _dispatch(self) -> None:
        """Give work to whoever is free."""
        while (found := self._next()) is not None:
            lane, first, line = found
            group = self._with(first, lane)
            for ticket in group:
                self._leave(ticket)
            alone = line.worker.wide and not self._queue and not self._running and len(group) == 1
            self._give(line, group, self._lone.setdefault(first.work.model, _Lone()) if alone else None)

    def _next(self) -> "tuple[OrderedDict[int, _Ticket], _Ticket, Line] | None":
        """Return what is to be done next, where it waits, and by whom; None if nobody is free for what there is."""
        if not (self._queue or self._jobs):
            return None
        alone = {line.worker for line, group in self._running.items() if group[0].tries > 1}
        free = [line for line in self._pool.lines if line.idle and line.worker not in alone]
        if not free:
            return None
        self._turn += 1
        lanes = (self._jobs, self._queue) if self._turn % _JOBS_TURN == 0 else (self._queue, self._jobs)
        for lane in lanes:
            for ticket in lane.values():
                if ticket.future.done():  # given up just now
                    continue
                line = self._line_for(ticket, free)
                if line is not None:
                    return lane, ticket, line
                if lane is self._queue:  # what was tried before waits for a worker of its own, and the others for it
                    return None
        return None

    def _line_for(self, ticket: _Ticket, free: list[Line]) -> Line | None:
        """Return who of `free` is to do it: a piece of a video is for who has it open, what killed a worker must be alone."""
        job = ticket.work.extra.get("job", "")
        bound = self._bound.get(job)
        if bound is not None and not bound.worker.gone.is_set():
            return bound if bound in free else None
        self._bound.pop(job, None)
        if ticket.tries:
            busy = {line.worker for line in self._running}
            return next((line for line in free if line.worker not in busy), None)
        return next((line for line in free if line.worker.wide), free[0])

    def _with(self, first: _Ticket, lane: "OrderedDict[int, _Ticket]") -> list[_Ticket]:
        """Return a ticket and those that gain from going together with it."""
        most, group = self.together.get(first.work.model, 1), [first]
        if most > 1 and first.work.group is not None and not first.tries:
            for ticket in lane.values():
                if len(group) == most:
                    break
                if (
                    ticket is not first
                    and not (ticket.tries or ticket.future.done())
                    and ticket.work.group == first.work.group
                ):
                    group.append(ticket)
        return group

    def _give(self, line: Line, group: list[_Ticket], lone: _Lone | None) -> None:
        loop = asyncio.get_running_loop()
        wide = lone is not None and lone.wide()
        now, work = loop.time(), group[0].work
        for ticket in group:
            ticket.begun = now
            ticket.tries += 1
        self._running[line] = group
        if work.kind == "frames":
            self._bound[work.extra["job"]] = line
        head = {"kind": work.kind, "model": work.model, "options": work.options, "wide": wide, **work.extra}
        alarm = loop.call_later(self._settings.run_s, self._overrun, line, group)

        def over(reply: Reply | None) -> None:
            alarm.cancel()
            del self._running[line]
            if reply is None:
                for ticket in reversed(group):
                    self._again(ticket)
            else:
                self._take(group, reply)
                if lone is not None and not any(reply.errors):
                    lone.add(wide, reply.run_s)
                if not work.extra.get("count", 1):  # the video is closed
                    self._bound.pop(work.extra["job"], None)
            self._dispatch()

        line.ask(head, tuple(ticket.work.body for ticket in group), over)

    def _overrun(self, line: Line, group: list[_Ticket]) -> None:
        for ticket in group:
            if not ticket.future.done():
                self.counts["overdue"] += 1
                ticket.future.set_exception(DeadlineExceeded("a worker took too long and was ended"))
        log.error("a worker was busy with %s for %.0f s and is replaced", group[0].work.model, self._settings.run_s)
        line.worker.kill()

    def _take(self, group: list[_Ticket], reply: Reply) -> None:
        for ticket, body, error in zip(group, reply.bodies, reply.errors, strict=True):
            if ticket.future.done():
                continue
            self.counts["done" if error is None else "failed"] += 1
            if error is not None:
                ticket.future.set_exception(error)
            else:
                ticket.future.set_result(Answer(body, ticket.begun - ticket.queued, reply.run_s))
        if not any(reply.errors) and group[0].work.kind in ("predict", "call"):
            self._pace(group[0].work.model).add(reply.run_s / len(group))

    def _again(self, ticket: _Ticket) -> None:
        """Put an item whose worker died before all others, unless they were too many."""
        if ticket.future.done():
            return
        if ticket.tries >= _TRIES:
            ticket.future.set_exception(WorkerLost("one worker after the other ended while it worked on this"))
            return
        self.counts["retried"] += 1
        lane = self._jobs if ticket.work.extra.get("job") else self._queue
        lane[id(ticket)] = ticket
        lane.move_to_end(id(ticket), last=False)
        self._expected_s += 0.0 if lane is self._jobs else ticket.expected_s
