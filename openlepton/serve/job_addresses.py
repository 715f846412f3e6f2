"""The addresses of jobs, below `/v1/jobs`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse
from pydantic import ValidationError

from openlepton.errors import JobUnfinished, MediaTypeRefused, RequestInvalid
from openlepton.serve import schemas
from openlepton.serve.answers import JSON, Site
from openlepton.serve.app import PROBLEMS, caller_of
from openlepton.serve.bodies import read_body
from openlepton.serve.catalog import Catalog
from openlepton.serve.jobs import Jobs, described
from openlepton.serve.predictions import options_of
from openlepton.serve.problems import first_of
from openlepton.serve.settings import Limits
from openlepton.serve.tasks import TEXT
from openlepton.serve.tokens import Caller

_LINES = "application/x-ndjson"
_FAILURES: dict[int | str, dict[str, Any]] = {
    status: PROBLEMS[status] for status in (400, 401, 403, 404, 422, 500, 503)
}

_BEGIN_FAILURES = _FAILURES | {status: PROBLEMS[status] for status in (408, 413, 415)}
_REQUEST = schemas.JobRequest.model_json_schema()
_LIMITS = Limits(body_bytes=64 * 1024)


def router(site: Site, models: Catalog, jobs: Jobs) -> APIRouter:
    """Return the addresses."""
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    asker = Annotated[Caller, Depends(caller_of(site))]

    @routes.post(
        "",
        operation_id="begin_job",
        status_code=202,
        summary="Begin a job: a folder of images, or a video",
        responses=_BEGIN_FAILURES,
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": _REQUEST}}}},
    )
    async def begin(request: Request, caller: asker, response: Response) -> schemas.Job:
        asked = await _asked(site, request)
        card = models.get(asked.model)
        if card.task in TEXT:
            raise RequestInvalid(f"{card.name}: jobs are for images and videos")
        given = [
            (name, str(value).lower() if isinstance(value, bool) else str(value))
            for name, value in asked.options.items()
        ]
        job = jobs.start(asked, options_of(given), caller)
        response.headers["location"] = f"/v1/jobs/{job.id}"
        return described(job)

    @routes.get("", operation_id="list_jobs", summary="List the caller's jobs", responses=_FAILURES)
    async def listed(caller: asker) -> schemas.JobList:
        return schemas.JobList(jobs=[described(job) for job in jobs.of(caller)])

    @routes.get("/{job_id}", operation_id="show_job", summary="How far a job is", responses=_FAILURES)
    async def progress(job_id: str, caller: asker) -> schemas.Job:
        return described(jobs.get(job_id, caller))

    @routes.get(
        "/{job_id}/result",
        operation_id="result_of_job",
        summary="The rows of a job, one JSON object a line",
        response_class=FileResponse,
        responses={
            200: {"content": {_LINES: {"schema": {"type": "string"}}}},
            409: {"model": schemas.Problem, "description": "Not done yet"},
            **_FAILURES,
        },
    )
    async def result(job_id: str, caller: asker) -> FileResponse:
        job = jobs.get(job_id, caller)
        if job.state == "running":
            raise JobUnfinished(f"{job.done} rows so far")
        return FileResponse(job.rows, media_type=_LINES)

    @routes.delete(
        "/{job_id}",
        operation_id="cancel_job",
        summary="Cancel a job; the rows that it has stay",
        responses=_FAILURES,
    )
    async def cancel(job_id: str, caller: asker) -> schemas.Job:
        job = jobs.get(job_id, caller)
        await jobs.cancel(job)
        return described(job)

    return routes


async def _asked(site: Site, request: Request) -> schemas.JobRequest:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise MediaTypeRefused(f"Content-Type: expected {JSON}")
    with site.held.some() as hold:
        body = await read_body(request.headers, request.receive, _LIMITS, hold)
    try:
        return schemas.JobRequest.model_validate_json(body)
    except ValidationError as error:
        raise RequestInvalid(first_of(error.errors())) from None
