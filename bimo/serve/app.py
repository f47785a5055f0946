"""All routes as one ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from bimo.errors import BimoError
from bimo.serve import status
from bimo.serve.answers import Gone
from bimo.serve.chat import chats
from bimo.serve.classifications import classifications
from bimo.serve.completions import completions
from bimo.serve.embeddings import embeddings
from bimo.serve.errors import ApiError, from_bimo
from bimo.serve.gate import GONE, Gate
from bimo.serve.hosts import Hosts
from bimo.serve.openapi import docs, openapi
from bimo.serve.responses import forget_response, responses, stored_response
from bimo.serve.served import Models
from bimo.serve.stored import Store
from bimo.serve.tokens import detokenize, tokenize


def create_app(
    models: Models, hosts: Hosts, *, pages: Sequence[BaseRoute] = (), open_paths: Collection[str] = ()
) -> ASGIApp:
    """The whole server.

    Args:
        pages: further routes, such as a playground's.
        open_paths: of these, what is shown without an API key.
    """
    store = Store()

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        yield
        for served in models:
            await served.engine.close()

    app = Starlette(
        routes=[
            Route("/v1/models", status.listed(models), methods=["GET"]),
            Route("/v1/models/{model:path}", status.one(models), methods=["GET"]),
            Route("/v1/completions", completions(models), methods=["POST"]),
            Route("/v1/chat/completions", chats(models), methods=["POST"]),
            Route("/v1/responses", responses(models, store), methods=["POST"]),
            Route(
                "/v1/responses/{id}", _either(stored_response(store), forget_response(store)), methods=["GET", "DELETE"]
            ),
            Route("/v1/embeddings", embeddings(models), methods=["POST"]),
            Route("/v1/classifications", classifications(models), methods=["POST"]),
            Route("/classify", classifications(models), methods=["POST"]),
            Route("/tokenize", tokenize(models), methods=["POST"]),
            Route("/detokenize", detokenize(models), methods=["POST"]),
            Route("/health", status.health(models), methods=["GET"]),
            Route("/version", status.version, methods=["GET"]),
            Route("/metrics", status.metrics(models), methods=["GET"]),
            Route("/openapi.json", openapi, methods=["GET"]),
            Route("/docs", docs, methods=["GET"]),
            *pages,
        ],
        exception_handlers={
            ApiError: _refused,
            BimoError: _failed,
            HTTPException: _unrouted,
            Gone: _gone,
            ClientDisconnect: _gone,
            Exception: _broken,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Gate(app, models.shared, hosts, open_paths)


def _either(get: Any, delete: Any) -> Any:
    async def endpoint(request: Request) -> Response:
        return await (delete if request.method == "DELETE" else get)(request)

    return endpoint


async def _refused(request: Request, cause: Any) -> Response:
    return cause.response()


async def _failed(request: Request, cause: Any) -> Response:
    return from_bimo(cause).response()


async def _unrouted(request: Request, cause: Any) -> Response:
    where = f"{request.method} {request.url.path[:200]}"
    if cause.status_code == 405:
        message = f"Not allowed to {where}: another HTTP method is needed."
        return ApiError(405, message, code="method_not_allowed", headers=cause.headers).response()
    return ApiError(cause.status_code, f"Invalid URL ({where})", code="unknown_url").response()


async def _gone(request: Request, cause: Any) -> Response:
    request.scope["bimo.gone"] = True
    return Response(status_code=GONE)


async def _broken(request: Request, cause: Any) -> Response:
    message = "The server had an error while processing your request. Sorry about that!"
    return ApiError(500, message, code="internal_error").response()
