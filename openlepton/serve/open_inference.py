"""The addresses of the Open Inference Protocol (KServe v2), below `/v2`: for those who bring tensors and want tensors."""

from typing import Any

from fastapi import APIRouter, Request, Response

import openlepton
from openlepton.card import ModelCard
from openlepton.errors import ModelNotFound, RequestInvalid
from openlepton.serve.answers import JSON, Site
from openlepton.serve.app import PROBLEMS, allowed, readiness
from openlepton.serve.bodies import Item, Items
from openlepton.serve.catalog import Catalog
from openlepton.serve.scheduler import Answer, Work

_JSON_SIZE = "inference-header-content-length"
_BINARY = "application/octet-stream"


def router(site: Site, models: Catalog) -> APIRouter:
    """Return the addresses."""
    routes = APIRouter(prefix="/v2", tags=["open inference protocol"])
    _add_health(routes, site)
    _add_models(routes, site, models)
    return routes


def _add_health(routes: APIRouter, site: Site) -> None:
    @routes.get("/health/live", operation_id="live", summary="Whether the server lives")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get(
        "/health/ready",
        operation_id="server_ready",
        summary="Whether it should be sent requests",
        responses={503: PROBLEMS[503]},
    )
    async def ready() -> dict[str, bool]:
        if refusal := readiness(site):
            raise refusal
        return {"ready": True}

    @routes.get(
        "",
        operation_id="server",
        summary="Describe the server",
        dependencies=allowed(site),
        responses=_failures(401, 403),
    )
    async def server() -> dict[str, Any]:
        return {"name": "openlepton", "version": openlepton.__version__, "extensions": ["binary_tensor_data"]}


def _add_models(routes: APIRouter, site: Site, models: Catalog) -> None:
    lock = allowed(site)

    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        card = _card(models, name, version)
        return {"name": card.name, "versions": [card.version], "platform": "onnxruntime_onnx", **_ports(site, card)}

    async def ready(name: str, version: str | None = None) -> dict[str, Any]:
        card = _card(models, name, version)
        if refusal := readiness(site):
            raise refusal
        return {"name": card.name, "ready": True}

    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        card = _card(models, name, version)
        _ports(site, card)
        return await _infer(site, card, request)

    for base in ("/models/{name}", "/models/{name}/versions/{version}"):
        short = "_of_version" * ("versions" in base)
        routes.add_api_route(
            base, metadata, dependencies=lock, operation_id=f"metadata{short}", summary="Describe the tensors of a graph",
            responses=_failures(401, 403, 404, 422),
        )  # fmt: skip
        routes.add_api_route(
            f"{base}/ready", ready, dependencies=lock, operation_id=f"ready{short}", summary="Whether a model is ready",
            responses=_failures(401, 403, 404, 422, 503),
        )  # fmt: skip
        routes.add_api_route(
            f"{base}/infer", infer, dependencies=lock, operation_id=f"infer{short}", methods=["POST"],
            summary="Run a graph on tensors", response_model=None, responses=PROBLEMS, openapi_extra=_DESCRIBED,
        )  # fmt: skip


async def _infer(site: Site, card: ModelCard, request: Request) -> Response:
    said, sizes = request.headers.get(_JSON_SIZE), dict[str, Any]()

    def read(_: str, body: bytes) -> Items:
        sizes["json_size"] = None if said is None else _size(said, len(body))
        return Items((Item(body),), False, {})

    _, outcomes, _ = await site.take(request, card.name, read, lambda body: Work("infer", card.name, body, extra=sizes))
    if not isinstance(outcomes[0], Answer):
        raise outcomes[0]
    data = memoryview(outcomes[0].body)
    json_size = int.from_bytes(data[:4], "big")
    if len(data) == 4 + json_size:
        return Response(bytes(data[4:]), media_type=JSON)
    return Response(bytes(data[4:]), headers={_JSON_SIZE: str(json_size)}, media_type=_BINARY)


def _size(said: str, most: int) -> int:
    if not (said.isascii() and said.isdigit() and len(said) < 12 and int(said) <= most):
        raise RequestInvalid("Inference-Header-Content-Length: expected how many bytes of the body are JSON")
    return int(said)


def _card(models: Catalog, name: str, version: str | None) -> ModelCard:
    card = models.get(name)
    if version not in (None, card.version):
        raise ModelNotFound(f"{card.name} is of version {card.version} here")
    return card


def _ports(site: Site, card: ModelCard) -> dict[str, Any]:
    ports = site.scheduler.facts.get(card.name, {}).get("ports")
    if ports is None:
        raise ModelNotFound(f"{card.name} is no single graph: ask it at /v1/models/{card.name}/predict")
    return dict(ports)


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: PROBLEMS[status] for status in statuses}


_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string", "enum": ["BOOL", "UINT8", "INT32", "INT64", "FP32", "FP64"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 8},
        "data": {"type": "array", "items": {}, "description": "numbers in row-major order, nested or flat"},
        "parameters": {"type": "object"},
    },
}
_DESCRIBED = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "parameters": {"type": "object"},
                        "inputs": {"type": "array", "items": _TENSOR, "minItems": 1},
                        "outputs": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
                            },
                        },
                    },
                }
            },
            _BINARY: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
