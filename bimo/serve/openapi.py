"""GET /openapi.json and /docs: every route with the schemas that its requests are checked against."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jinja2
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from bimo import __version__
from bimo.serve import answer_schemas as answers
from bimo.serve.answers import LAST
from bimo.serve.chat_request import ChatRequest
from bimo.serve.classifications import ClassificationRequest
from bimo.serve.completions import CompletionRequest
from bimo.serve.embeddings import EmbeddingRequest
from bimo.serve.response_request import ResponseRequest
from bimo.serve.tokens import DetokenizeRequest, TokenizeRequest

REFERENCE = "#/components/schemas/{model}"
FAILURES = {
    "400": "the request is wrong",
    "401": "the API key is missing or wrong",
    "403": "the host or the web page may not use this server",
    "404": "there is no such model or URL",
    "405": "the URL knows another method",
    "408": "the body took too long to arrive",
    "413": "the body is too large",
    "415": "the body is not JSON",
    "429": "the key's rate limit or quota is used up; Retry-After says for how long",
    "500": "the server failed",
    "503": "the server is busy or ending; Retry-After says for how long",
}


class Operation(NamedTuple):
    """One method of one route; ``chunk`` is what its stream consists of."""

    summary: str
    request: type[BaseModel] | None
    answer: type[BaseModel] | None
    chunk: type[BaseModel] | None = None


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("get", "/v1/models"): Operation("List the models", None, answers.ModelList),
    ("get", "/v1/models/{model}"): Operation("Describe a model", None, answers.ModelFacts),
    ("post", "/v1/completions"): Operation("Continue texts", CompletionRequest, answers.Completion, answers.Completion),
    ("post", "/v1/chat/completions"): Operation("Answer a conversation", ChatRequest, answers.Chat, answers.ChatChunk),
    ("post", "/v1/responses"): Operation(
        "Answer an input and remember it", ResponseRequest, answers.Response, answers.ResponseEvent
    ),
    ("get", "/v1/responses/{id}"): Operation("Give an answer again", None, answers.Response),
    ("delete", "/v1/responses/{id}"): Operation("Forget an answer", None, answers.Forgotten),
    ("post", "/v1/embeddings"): Operation("Turn texts into vectors", EmbeddingRequest, answers.Embeddings),
    ("post", "/v1/classifications"): Operation("Say which class texts are of", ClassificationRequest, answers.Classes),
    ("post", "/classify"): Operation("The same, as vLLM calls it", ClassificationRequest, answers.Classes),
    ("post", "/tokenize"): Operation("Turn a text into token ids", TokenizeRequest, answers.Tokens),
    ("post", "/detokenize"): Operation("Turn token ids into a text", DetokenizeRequest, answers.Detokenized),
    ("get", "/health"): Operation("Say whether new work is taken", None, answers.Health),
    ("get", "/version"): Operation("Say which bimo this is", None, answers.Version),
    ("get", "/metrics"): Operation("Counters for Prometheus", None, None),
}


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    wanted: dict[type[BaseModel], Any] = {answers.Error: "serialization"}
    for operation in OPERATIONS.values():
        wanted |= {kind: "serialization" for kind in (operation.answer, operation.chunk) if kind is not None}
        wanted |= {operation.request: "validation"} if operation.request is not None else {}
    references, definitions = models_json_schema(list(wanted.items()), ref_template=REFERENCE)
    names: dict[Any, Any] = {kind: reference for (kind, _), reference in references.items()}
    paths: dict[str, Any] = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method] = _described(path, operation, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "bimo", "version": __version__, "description": "OpenAI's API over a model of your own."},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(path: str, operation: Operation, names: Mapping[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    if operation.answer is not None:
        content = {"application/json": {"schema": names[operation.answer]}}
    if operation.chunk is not None:
        told = {"anyOf": [names[operation.chunk], names[answers.Error]]}
        data = {"type": "string", "contentMediaType": "application/json", "contentSchema": told}
        events = {"type": "object", "properties": {"data": {"anyOf": [data, {"const": LAST}]}}}
        content["text/event-stream"] = {"schema": events}
    error = {"application/json": {"schema": names[answers.Error]}}
    found: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {
            "200": {"description": "the answer", "content": content},
            **{status: {"description": why, "content": error} for status, why in FAILURES.items()},
        },
    }
    if "{" in path:
        name = path.partition("{")[2].rstrip("}")
        found["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
    if operation.request is not None:
        schema = {"application/json": {"schema": names[operation.request]}}
        found["requestBody"] = {"required": True, "content": schema}
    if path == "/health":
        busy = {"application/json": {"schema": names[answers.Health]}}
        found["responses"]["503"] = {"description": "the server is ending, or its engine has failed", "content": busy}
    else:
        found["security"] = [{"key": []}, {}]
    return found


async def openapi(request: Request) -> Response:
    """The endpoint of the document."""
    return JSONResponse(document())


async def docs(request: Request) -> Response:
    """The endpoint of the document as a page, which needs nothing from elsewhere."""
    return HTMLResponse(_page())


@functools.cache
def _page() -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bimo.serve", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("docs.html.jinja").render(document=document(), shown=_shown_type)


def _shown_type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        kinds = (_shown_type(branch) for branch in schema["anyOf"] if branch.get("type") != "null")
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"array of {_shown_type(schema.get('items', {}))}"
    least, most = schema.get("minimum"), schema.get("maximum")
    return kind if least is None and most is None else f"{kind} {least if least is not None else ''}–{most or ''}"
