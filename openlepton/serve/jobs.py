"""Folders of images and videos, worked through while nobody waits: started, watched, fetched, cancelled, each by its owner."""

import asyncio
import json
import logging
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from openlepton.errors import DataNotFound, Draining, JobNotFound, OpenLeptonError, Overloaded, RequestInvalid
from openlepton.serve import problems, schemas
from openlepton.serve.answers import Outcome, Site
from openlepton.serve.scheduler import Answer, Work
from openlepton.serve.tokens import Caller

IMAGES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".webp"))
VIDEOS = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"))

_MOST_RUNNING = 16
_MOST_OF_ONE = 4
_MOST_KEPT = 1000
_MOST_FILES = 100_000
_ITEM_S = 3600.0  # requests come first, so one image may wait long
_FRAMES = 8  # of a video at a time: a worker is not kept from requests for longer

log = logging.getLogger("openlepton.serve")


@dataclass(eq=False)
class Job:
    """One folder or video, and how far it is."""

    owner: str
    model: str
    source: str
    options: tuple[tuple[str, Any], ...]
    every: int
    rows: Path
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    state: Literal["running", "done", "failed", "cancelled"] = "running"
    done: int = 0
    failed: int = 0
    total: int | None = None
    error: OpenLeptonError | None = None
    ends: float = 0.0
    task: "asyncio.Task[None] | None" = None


class Jobs:
    """The jobs of a server.

    Args:
        site: Whose workers do the work when requests leave them time.
        root: The folder that jobs may read from.
    """

    def __init__(self, site: Site, root: Path) -> None:
        self._site, self._root = site, root.resolve()
        self._jobs: dict[str, Job] = {}
        self._spool: tempfile.TemporaryDirectory[str] | None = None

    def start(self, asked: schemas.JobRequest, options: tuple[tuple[str, Any], ...], caller: Caller) -> Job:
        """Return a job that has begun.

        Raises:
            RequestInvalid: The source leads out of the folder of jobs, or is neither folder, image nor video.
            DataNotFound: There is nothing of that name.
            Overloaded: Too many jobs run.
        """
        path = below(self._root, asked.source)
        running = [job for job in self._jobs.values() if job.state == "running"]
        if self._site.scheduler.draining:
            raise Draining("the server is stopping")
        if len(running) >= _MOST_RUNNING or sum(job.owner == caller.key for job in running) >= _MOST_OF_ONE:
            raise Overloaded(f"too many jobs are running, the most is {_MOST_OF_ONE} for each caller")
        if len(self._jobs) >= _MOST_KEPT:
            self._forget(next(job for job in self._jobs.values() if job.state != "running"))
        if self._spool is None:
            self._spool = tempfile.TemporaryDirectory(prefix="openlepton-")
        rows = Path(self._spool.name) / secrets.token_hex(8)
        job = Job(caller.key, asked.model, asked.source, options, asked.every, rows)
        self._jobs[job.id] = job
        job.task = asyncio.create_task(self._run(job, path))
        return job

    def get(self, job_id: str, caller: Caller) -> Job:
        """Return the caller's job of that id.

        Raises:
            JobNotFound: There is none; whether somebody else has it is not told.
        """
        job = self._jobs.get(job_id)
        if job is None or job.owner != caller.key:
            raise JobNotFound("no such job")
        return job

    def of(self, caller: Caller) -> list[Job]:
        """Return the caller's jobs, oldest first."""
        return [job for job in self._jobs.values() if job.owner == caller.key]

    async def cancel(self, job: Job) -> None:
        """Stop a job; the rows that it has stay readable."""
        if job.task is not None and not job.task.done():
            job.task.cancel()
            await asyncio.wait([job.task])

    async def stop(self) -> None:
        """Cancel everything and remove what was written."""
        for job in self._jobs.values():
            await self.cancel(job)
        if self._spool is not None:
            self._spool.cleanup()

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        job.rows.unlink(missing_ok=True)

    async def _run(self, job: Job, path: Path) -> None:
        try:
            with job.rows.open("wb") as file:
                rows = self._video(job, path) if path.suffix.lower() in VIDEOS else self._images(job, path)
                async for row, error in rows:
                    file.write(row + b"\n")
                    job.done += 1
                    job.failed += error
            job.state = "done"
        except asyncio.CancelledError:
            job.state = "cancelled"
        except OpenLeptonError as error:
            job.state, job.error = "failed", error
        except OSError as error:
            log.error("job %s: %s", job.id, error)
            job.state, job.error = "failed", OpenLeptonError("the rows could not be written")
        finally:
            ttl_s = self._site.settings.job_ttl_s
            job.ends = time.monotonic() + ttl_s
            asyncio.get_running_loop().call_later(ttl_s, self._forget, job)

    async def _images(self, job: Job, path: Path) -> AsyncIterator[tuple[bytes, bool]]:
        """Yield a row for each image, in order of name, as many under way as there are workers."""
        files = await asyncio.to_thread(_files, path, self._root)
        if not files:
            raise DataNotFound(f"{job.source}: no images in it")
        job.total = len(files)
        under_way: list[tuple[str, asyncio.Future[Answer]]] = []
        try:
            for number, file in enumerate(files, 1):
                name = file.relative_to(self._root).as_posix()
                under_way.append((name, self._submit(job, "file", file, name, {})))
                while len(under_way) > self._site.scheduler.pool.size or (under_way and number == len(files)):
                    name, future = under_way.pop(0)
                    yield _image_row(name, await _outcome(future))
        finally:
            for _, future in under_way:
                future.cancel()

    async def _video(self, job: Job, path: Path) -> AsyncIterator[tuple[bytes, bool]]:
        """Yield a row for each frame; the worker that began stays with it, as only it knows where the decoder is."""
        start, ended = 0, False
        try:
            while not ended:
                piece = {"every": job.every, "start": start, "count": _FRAMES}
                outcome = await _outcome(self._submit(job, "frames", path, job.source, piece))
                if not isinstance(outcome, Answer):
                    raise outcome
                told = json.loads(outcome.body)
                for row in told["rows"]:
                    yield json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode(), False
                start, ended = start + len(told["rows"]), told["end"]
                if told["error"] is not None:
                    raise problems.error_of(**told["error"])
        finally:
            if not self._site.scheduler.draining:
                self._submit(job, "frames", path, job.source, {"every": 1, "start": 0, "count": 0}).add_done_callback(
                    _unasked
                )

    def _submit(self, job: Job, kind: str, path: Path, name: str, piece: dict[str, int]) -> "asyncio.Future[Answer]":
        extra = {"path": str(path), "source": name, "job": job.id, **piece}
        return self._site.scheduler.submit(Work(kind, job.model, b"", job.options, extra), _ITEM_S, job=True)


def below(root: Path, source: str) -> Path:
    """Return the file or folder `source` below `root`, links followed.

    Raises:
        RequestInvalid: It leads elsewhere by its spelling, or is a file of a kind that jobs do not read.
        DataNotFound: There is nothing of that name, or it is a link that leads elsewhere.
    """
    given = PurePosixPath(source)
    if (
        not source.isprintable()
        or "\\" in source
        or ".." in given.parts
        or given.is_absolute()
        or PureWindowsPath(source).drive
    ):
        raise RequestInvalid("source: expected a path below the folder of jobs, with / and without ..")
    try:
        path = (root / given).resolve(strict=True)
        there = path.is_relative_to(root.resolve()) and (path.is_dir() or path.is_file())
    except (OSError, RuntimeError):  # a loop of links
        there = False
    if not there:
        raise DataNotFound(f"{source}: no such file or folder")
    if path.is_file() and path.suffix.lower() not in IMAGES | VIDEOS:
        raise RequestInvalid(f"{source}: expected a folder, an image or a video ({', '.join(sorted(IMAGES | VIDEOS))})")
    return path


def described(job: Job) -> schemas.Job:
    """Return the job as it goes over the wire."""
    error = None if job.error is None else schemas.Problem.model_validate(problems.problem(job.error))
    expires_s = max(0.0, job.ends - time.monotonic()) if job.ends else 0.0
    return schemas.Job(
        id=job.id,
        state=job.state,
        model=job.model,
        source=job.source,
        done=job.done,
        failed=job.failed,
        total=job.total,
        error=error,
        expires_s=round(expires_s, 1),
        result=f"/v1/jobs/{job.id}/result",
    )


def _files(path: Path, root: Path) -> list[Path]:
    """Return the images below `path`, which is below `root`, links to folders not followed."""
    if path.is_file():
        return [path]
    found: list[Path] = []
    for folder, _, names in os.walk(path):
        found += [Path(folder, name) for name in names if Path(name).suffix.lower() in IMAGES]
        if len(found) > _MOST_FILES:
            raise RequestInvalid(f"{path.relative_to(root).as_posix()}: more than {_MOST_FILES:,} images")
    return sorted(found)


async def _outcome(future: "asyncio.Future[Answer]") -> Outcome:
    try:
        return await future
    except OpenLeptonError as error:
        if isinstance(error, Draining):
            raise
        return error


def _image_row(name: str, outcome: Outcome) -> tuple[bytes, bool]:
    if isinstance(outcome, Answer):
        return outcome.body, False
    assert isinstance(outcome, OpenLeptonError)
    row = {"source": name, "error": problems.problem(outcome)}
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode(), True


def _unasked(future: "asyncio.Future[Answer]") -> None:
    if not future.cancelled():
        future.exception()  # whether the decoder could be closed interests nobody
