"""What stands before all routes: headers, host, key, rate limits; and after them: the log and the counters."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bimo.serve.answers import Stalled
from bimo.serve.errors import ApiError
from bimo.serve.hosts import Hosts
from bimo.serve.limits import HEADER_BYTES, HEADERS
from bimo.serve.served import Shared

log = logging.getLogger("bimo.serve")
OPEN = ("/health",)  # without a key
SEND_SECONDS = 60  # for a client to take a piece of its answer
GONE = 499  # in the log: the client hung up
METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"}
PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, DELETE",
    "access-control-allow-headers": "authorization, content-type, x-requested-with",
    "access-control-max-age": "600",
}
EXPOSED = "x-request-id, retry-after"


class Gate:
    """An ASGI application around another.

    Args:
        open_paths: answered without a key, besides ``/health``: pages that hold nothing of the model.
    """

    def __init__(self, app: ASGIApp, shared: Shared, hosts: Hosts, open_paths: Collection[str] = ()) -> None:
        self._app, self._shared, self._hosts = app, shared, hosts
        self._open = {*OPEN, *open_paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 500
        scope["bimo.caller"] = "-"
        added = {"x-request-id": f"req_{secrets.token_hex(12)}", "x-content-type-options": "nosniff"}

        async def sender(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(added)
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                raise Stalled from None

        try:
            answer = self._check(scope, added)
            await (self._app if answer is None else answer)(scope, receive, sender)
        except ApiError as refusal:
            await refusal.response()(scope, receive, sender)
        except Stalled:
            scope["bimo.gone"] = True
        finally:
            seconds = time.perf_counter() - started
            if scope.get("bimo.gone"):
                self._shared.metrics.disconnects += 1
                status = GONE
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            self._shared.metrics.request(route, status, seconds)
            log.info("%s %s %s %d %.3fs", scope["bimo.caller"], method, route, status, seconds)

    def _check(self, scope: Scope, added: dict[str, str]) -> Response | None:
        """Let a request in, or answer it; ``added`` gets headers for its answer.

        Raises:
            ApiError: it is refused.
        """
        raw: Any = scope["headers"]
        if len(raw) > HEADERS or sum(len(name) + len(value) for name, value in raw) > HEADER_BYTES:
            raise ApiError(431, "The request has too many headers, or too long ones.", code="headers_too_large")
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if len(headers.getlist("host")) > 1:
            raise ApiError(400, "The request has several Host headers.", code="invalid_host")
        followed = scope["path"] in self._open and headers.get("sec-fetch-mode") == "navigate"  # a link to a page
        self._hosts.check(headers.get("host"), origin, None if followed else headers.get("sec-fetch-site"))
        if origin is not None and self._hosts.allows(origin):
            added |= {"access-control-allow-origin": origin, "vary": "Origin", "access-control-expose-headers": EXPOSED}
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                return Response(status_code=204, headers=PREFLIGHT)
        if scope["path"] in self._open:
            return None
        scope["bimo.caller"] = caller = self._shared.keys.caller(headers.get("authorization"))
        if scope["method"] == "POST":
            self._shared.admission.refuse_if_draining()
            added |= self._shared.quotas.admit(caller)
        return None
