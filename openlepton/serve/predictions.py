"""The addresses below `/v1/` that answer with predictions, and those that say which models there are."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from openlepton.card import ModelCard
from openlepton.errors import RequestInvalid
from openlepton.serve import schemas
from openlepton.serve.answers import Site
from openlepton.serve.app import PROBLEMS, allowed
from openlepton.serve.bodies import Items, images_of, texts_of
from openlepton.serve.catalog import Catalog, addresses
from openlepton.serve.scheduler import Work
from openlepton.serve.tasks import IMAGE_TYPES, OPTIONS, TASKS, TEXT

_WORDS = {
    "detect": "Find objects in an image",
    "segment": "Find objects in an image, with their outlines",
    "classify": "Say what an image shows",
    "classify-text": "Say what a text is about",
    "sentiment": "Say whether a text is positive or negative",
    "translate": "Translate a text",
}
_RESULTS: dict[str, Any] = {
    "detect": schemas.DetectResult,
    "segment": schemas.DetectResult | schemas.SemanticResult,
    "translate": schemas.TranslateResult,
}
_ANY_RESULT = (
    schemas.DetectResult
    | schemas.SemanticResult
    | schemas.ClassifyResult
    | schemas.TranslateResult
    | schemas.AnyResult
    | schemas.Batch
)
_TAKES = {
    "detect": ("min_score", "max_iou", "max_detections", "classes", "agnostic", "size", "lang"),
    "classify": ("top", "lang"),
    "classify-text": ("top", "lang"),
    "sentiment": ("top", "lang"),
    "translate": (),
}


def router(site: Site, models: Catalog) -> APIRouter:
    """Return the addresses."""
    routes = APIRouter(dependencies=allowed(site))
    for address in TASKS:
        _add_task(routes, site, models, address)
    _add_models(routes, site, models)
    return routes


def _add_task(routes: APIRouter, site: Site, models: Catalog, address: str) -> None:
    async def predict(request: Request) -> Response:
        card = models.pick(address, request.query_params.get("model"))
        return await _predict(site, models, card, request)

    routes.add_api_route(
        f"/v1/{address}",
        predict,
        methods=["POST"],
        operation_id=f"predict_{address.replace('-', '_')}",
        name=address,
        summary=_WORDS[address],
        tags=["predictions"],
        response_model=None,
        responses={200: {"model": _RESULTS.get(address, schemas.ClassifyResult) | schemas.Batch}, **PROBLEMS},
        openapi_extra=_described(address),
    )


def _add_models(routes: APIRouter, site: Site, models: Catalog) -> None:
    @routes.get(
        "/v1/models", operation_id="list_models", tags=["models"], summary="List the models", responses=_some(401, 403)
    )
    async def listed() -> schemas.ModelList:
        return schemas.ModelList(models=[_summary(models, card) for card in models.cards.values()])

    @routes.get(
        "/v1/models/{name}",
        operation_id="show_model",
        tags=["models"],
        summary="Show the card of a model",
        responses=_some(401, 403, 404, 422),
        response_model=schemas.ModelDetails,
    )
    async def details(name: str) -> dict[str, Any]:
        return models.get(name).model_dump(mode="json")

    async def predict(name: str, request: Request) -> Response:
        return await _predict(site, models, models.get(name), request)

    routes.add_api_route(
        "/v1/models/{name}/predict",
        predict,
        methods=["POST"],
        operation_id="predict_with_model",
        name="model",
        summary="Predict with a model, whatever its task",
        tags=["predictions"],
        response_model=None,
        responses={200: {"model": _ANY_RESULT}, **PROBLEMS},
        openapi_extra=_described(None),
    )


def options_of(given: list[tuple[str, str]]) -> tuple[tuple[str, Any], ...]:
    """Return the options of a query as `load` takes them, sorted.

    Raises:
        RequestInvalid: One is unknown, comes twice, or has a value that it cannot have.
    """
    options: dict[str, Any] = {}
    for name, text in given:
        option = OPTIONS.get(name)
        if option is None:
            raise RequestInvalid(f"{ascii(name)[1:-1][:40]}: no such option, there are {', '.join(OPTIONS)}")
        if option.argument in options:
            raise RequestInvalid(f"{name}: given twice")
        try:
            options[option.argument] = option.parse(text)
        except (ValueError, KeyError, OverflowError):
            raise RequestInvalid(f"{name}: expected {_expected(option.schema)}") from None
    return tuple(sorted(options.items()))


def _expected(schema: Any) -> str:
    if "enum" in schema:
        return " or ".join(schema["enum"])
    bounds = f" from {schema['minimum']} to {schema['maximum']}" if "minimum" in schema else ""
    return f"{schema['type']}{bounds}"


async def _predict(site: Site, models: Catalog, card: ModelCard, request: Request) -> Response:
    given = [pair for pair in request.query_params.multi_items() if pair[0] != "model"]
    options = options_of(given)
    limits = site.settings.limits
    if card.translate is not None:
        return await _translate(site, models, card, request, options)
    read = partial(texts_of if card.task in TEXT else images_of, limits=limits)
    return await site.answer(request, card.name, read, lambda body: Work("predict", card.name, body, options))


async def _translate(
    site: Site, models: Catalog, card: ModelCard, request: Request, options: tuple[tuple[str, Any], ...]
) -> Response:
    """Answer with translations: by `card` if it was asked for by name, else by the model for the languages that the body names."""
    free = "name" not in request.path_params and "model" not in request.query_params
    choice = models if free else Catalog({card.name: card}, (card.name,))
    chosen = card

    def read(kind: str, body: bytes) -> Items:
        nonlocal chosen
        found = texts_of(kind, body, site.settings.limits, ("source", "target"))
        if found.fields:
            chosen = choice.translator(found.fields.get("source"), found.fields.get("target"))
        return found

    return await site.answer(request, card.name, read, lambda body: Work("predict", chosen.name, body, options))


def _summary(models: Catalog, card: ModelCard) -> schemas.ModelSummary:
    return schemas.ModelSummary(
        name=card.name,
        version=card.version,
        task=card.task,
        description=card.description,
        licence=card.licence,
        default=models.usual(card),
        addresses=addresses(card),
        href=f"/v1/models/{card.name}",
    )


def _some(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: PROBLEMS[status] for status in statuses}


def _described(address: str | None) -> dict[str, Any]:
    """Return what OpenAPI should say of the body, the query and the deadline of an address (None: of any task)."""
    names = tuple(OPTIONS) if address is None else _TAKES.get(address, _TAKES["detect"])
    parameters = [_parameter(name, "query", dict(OPTIONS[name].schema), OPTIONS[name].hint) for name in names]
    if address is not None:
        parameters.append(
            _parameter("model", "query", {"type": "string", "maxLength": 64}, "another model of this task")
        )
    wait = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
    parameters.append(_parameter("Deadline-Ms", "header", wait, "how long the caller will wait, milliseconds"))
    images = address is None or TASKS[address][0] not in TEXT
    texts = address is None or not images
    content: dict[str, Any] = {}
    bodies: list[type[BaseModel]] = []
    if images:
        binary = {"schema": {"type": "string", "format": "binary"}}
        content |= dict.fromkeys(IMAGE_TYPES, binary)
        content["multipart/form-data"] = {"schema": {"anyOf": [_form("image"), _form("images")]}}
        bodies += [schemas.ImageBody, schemas.ImagesBody]
    if texts:
        bodies += [schemas.TextBody, schemas.TextsBody]
    if address in (None, "translate"):
        bodies += [schemas.TranslateBody, schemas.TranslatesBody]
    content["application/json"] = {"schema": {"anyOf": [body.model_json_schema() for body in bodies]}}
    return {"parameters": parameters, "requestBody": {"required": True, "content": content}}


def _parameter(name: str, place: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": False, "schema": schema, "description": text}


def _form(name: str) -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    value = file if name == "image" else {"type": "array", "items": file, "minItems": 1, "maxItems": 16}
    return {"type": "object", "properties": {name: value}, "required": [name], "additionalProperties": False}
