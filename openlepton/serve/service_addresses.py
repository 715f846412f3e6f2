"""The addresses of a class of your own, and the server around them."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from openlepton.errors import MediaTypeRefused, RequestInvalid
from openlepton.serve import hosting, pace
from openlepton.serve.answers import JSON, Site
from openlepton.serve.app import PROBLEMS, allowed
from openlepton.serve.bodies import Item, Items, check_json
from openlepton.serve.launch import Anew
from openlepton.serve.run import Tell
from openlepton.serve.scheduler import Work
from openlepton.serve.schemas import Timing
from openlepton.serve.service import Endpoint, Service, ServiceSetup, endpoints
from openlepton.serve.settings import Settings
from openlepton.serve.tasks import IMAGE_TYPES


def serve_service(service: type[Service], settings: Settings, tell: Tell) -> int:
    """Serve the endpoints of a class until a signal comes; return 0 if everything that was accepted was finished."""
    found = endpoints(service, settings.limits)
    site = hosting.site_of(Anew(ServiceSetup(service, settings.limits)), settings)
    start = partial(pace.settle, site.scheduler, settings.workers, tell, measure=None)
    return hosting.run(site, [router(site, found)], service.__name__, start, site.scheduler.stop, tell)


def router(site: Site, found: Mapping[str, Endpoint]) -> APIRouter:
    """Return the addresses."""
    routes = APIRouter(dependencies=allowed(site), tags=["endpoints"])
    for known in found.values():
        _add(routes, site, known)
    return routes


def _add(routes: APIRouter, site: Site, known: Endpoint) -> None:
    async def call(request: Request) -> Response:
        raw = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if raw != JSON and (known.image is None or raw not in IMAGE_TYPES):
            raise MediaTypeRefused(f"Content-Type: expected {JSON}{' or an image' if known.image else ''}")
        query = request.query_params.multi_items()
        if query and raw == JSON:
            raise RequestInvalid("parameters stand in the JSON, not in the query")
        extra = {"raw": raw != JSON}

        def read(_: str, body: bytes) -> Items:
            if raw == JSON:
                check_json(body)
            return Items((Item(body),), False, {})

        return await site.answer(
            request, known.name, read, lambda body: Work("call", known.name, body, tuple(query), extra)
        )

    routes.add_api_route(
        f"/v1/{known.name}",
        call,
        methods=["POST"],
        operation_id=known.name,
        name=known.name,
        summary=known.summary,
        response_model=None,
        responses={
            200: {"content": {JSON: {"schema": _answer(known)}}, "description": "What the method returned"},
            **PROBLEMS,
        },
        openapi_extra=_described(known),
    )


def _answer(known: Endpoint) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"result": dict(known.result), "timing_ms": Timing.model_json_schema()},
        "required": ["result", "timing_ms"],
    }


def _described(known: Endpoint) -> dict[str, Any]:
    schema = known.body.model_json_schema()
    content: dict[str, Any] = {JSON: {"schema": schema}}
    parameters: list[dict[str, Any]] = []
    if known.image is not None:
        content |= {kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES}
        others = [pair for pair in schema.get("properties", {}).items() if pair[0] != known.image]
        parameters = [{"name": name, "in": "query", "required": False, "schema": kind} for name, kind in others]
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}
