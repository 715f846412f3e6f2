"""The server as an application: its addresses put together, its guards around them, its errors in one form."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import openlepton
from openlepton.errors import Draining, NotAllowed, NotFound, OpenLeptonError, RequestInvalid, Unauthorized
from openlepton.serve import metrics, problems, schemas
from openlepton.serve.answers import Site
from openlepton.serve.bodies import ClientGone
from openlepton.serve.guard import PROBES, Guard
from openlepton.serve.tokens import Caller, Scope

PAGE = Path(__file__).parent / "page"

_PAGE_TYPES = {  # some systems' own tables are wrong, and browsers take no script of another type
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

Step = Callable[[], Awaitable[None]]


def create_app(site: Site, routers: Sequence[APIRouter], *, title: str, start: Step, stop: Step) -> FastAPI:
    """Return the application.

    Args:
        site: What its addresses share.
        routers: The addresses of what is served.
        title: What the OpenAPI document calls it.
        start: Starts the workers; awaited before the first request is answered.
        stop: Stops them; awaited after the last one.
    """

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        try:
            await start()
            yield
        finally:
            await stop()

    app = FastAPI(
        title=title,
        version=openlepton.__version__,
        lifespan=life,
        openapi_url=None,  # served below, behind the same lock as everything else
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "auto_configure": False,
        },  # nothing is sent anywhere
        separate_input_output_schemas=False,
    )
    for router in routers:
        app.include_router(router)
    _health(app, site)
    _about(app, site)
    _page(app)
    _errors(app, site)
    app.add_middleware(Guard, settings=site.settings, metrics=site.metrics)
    return app


def allowed(site: Site, scope: Scope = "predict") -> list[Any]:
    """Return the dependencies of an address that only callers with a scope may use: none where there are no tokens."""
    return [Depends(caller_of(site, scope))] if site.settings.tokens else []


def caller_of(site: Site, scope: Scope = "predict") -> Callable[[Request], Awaitable[Caller]]:
    """Return what finds out who asks, and refuses those who may not."""

    async def check(request: Request) -> Caller:
        tokens = site.settings.tokens
        if not tokens:
            return Caller()
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        caller = tokens.find(token.strip()) if kind.lower() == "bearer" else None
        if caller is None:
            raise Unauthorized("a token is needed: Authorization: Bearer TOKEN")
        if scope not in caller.scopes:
            raise NotAllowed(f"this token lacks the scope {scope}")
        return caller

    return check


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": text}
    for status, text in (
        (400, "Not HTTP that is understood here"),
        (401, "No token, or an unknown one"),
        (403, "Host, origin or scope not admitted"),
        (404, "No such model"),
        (408, "The body came too slowly"),
        (413, "Too large"),
        (415, "Of a type that is not taken"),
        (422, "Not what is expected"),
        (500, "A failure inside"),
        (503, "No room at the moment"),
        (504, "Too late"),
    )
}
"""Every way in which an address that works may fail, for the OpenAPI document."""


def _health(app: FastAPI, site: Site) -> None:
    @app.get(
        "/livez",
        operation_id="livez",
        response_model=schemas.Health,
        tags=["operation"],
        summary="Whether the server lives",
    )
    async def livez() -> Response:
        return Response(b'{"status":"alive"}', media_type="application/json")

    @app.get(
        "/readyz",
        operation_id="readyz",
        response_model=schemas.Health,
        responses={503: PROBLEMS[503]},
        tags=["operation"],
        summary="Whether it should be sent requests: not while it stops, nor while a worker is missing",
    )
    async def readyz() -> Response:
        if refusal := readiness(site):
            raise refusal
        return Response(b'{"status":"ready"}', media_type="application/json")


def readiness(site: Site) -> Draining | None:
    """Return why the server is not ready, or None if it is."""
    if site.scheduler.draining:
        return Draining("the server is stopping")
    if not site.scheduler.pool.whole:
        return Draining("a worker is being replaced")
    return None


def _about(app: FastAPI, site: Site) -> None:
    @app.get(
        "/metrics",
        operation_id="metrics",
        dependencies=allowed(site, "admin"),
        responses={200: {"content": {"text/plain": {}}}, 401: PROBLEMS[401], 403: PROBLEMS[403]},
        response_class=Response,
        tags=["operation"],
        summary="What is counted, for Prometheus",
    )
    async def numbers() -> Response:
        return Response(site.metrics.text(), media_type=metrics.TYPE)

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _polished(FastAPI.openapi(app), bool(site.settings.tokens))
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False, dependencies=allowed(site))
    async def openapi() -> dict[str, Any]:
        return document()


def _polished(document: dict[str, Any], locked: bool) -> dict[str, Any]:
    """Return the document with problems in their own media type, and the lock if there is one."""
    document["components"].get("schemas", {}).pop("HTTPValidationError", None)
    document["components"].get("schemas", {}).pop("ValidationError", None)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status >= "400" and "application/json" in response.get("content", {}):
                    response["content"] = {problems.TYPE: response["content"].pop("application/json")}
            if locked and path not in PROBES:
                operation["security"] = [{"token": []}]
    if locked:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return document


def _page(app: FastAPI) -> None:
    """Add the page: a handful of files that are read once, by names that are known."""
    files = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in _PAGE_TYPES}

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _page_file("index.html", files)

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        return _page_file(name, files)


def _page_file(name: str, files: Mapping[str, bytes]) -> Response:
    if name not in files:
        raise NotFound("no such file of the page")
    return Response(files[name], media_type=_PAGE_TYPES[Path(name).suffix])


def _errors(app: FastAPI, site: Site) -> None:
    async def known(request: Request, error: Exception) -> Response:
        return site.problem(request, error)

    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=metrics.GONE)

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return site.problem(request, NotFound("no such address; /openapi.json lists what there is"))
        if error.status_code == 405:
            answer = site.problem(request, NotAllowed("not with this method"), 405)
            answer.headers.update(error.headers or {})
            return answer
        return site.problem(request, RequestInvalid(str(error.detail)))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return site.problem(request, RequestInvalid(problems.first_of(error.errors())))

    app.add_exception_handler(OpenLeptonError, known)
    app.add_exception_handler(ClientGone, gone)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, known)
