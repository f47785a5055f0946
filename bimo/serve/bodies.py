"""A request's body: of the right kind, of bounded size, sent within bounded time, and as the route's model."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from bimo.serve.errors import ApiError, from_validation
from bimo.serve.limits import Limits
from bimo.serve.strict_json import parse

B = TypeVar("B", bound=BaseModel)
CLOSE = {"connection": "close"}  # what is left of the body is not read


async def read_body(request: Request, kind: type[B], limits: Limits) -> B:
    """Read a JSON body and check it.

    Raises:
        ApiError: 415 for another content type, 413 for too many bytes, 408 for too slow a sender, 400 for the rest.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if content_type != "application/json" or encoding != "identity":
        got = content_type if content_type != "application/json" else encoding
        message = f"Send the request as 'Content-Type: application/json', not compressed; got '{got[:80]}'."
        raise ApiError(415, message, code="unsupported_media_type", headers=CLOSE)
    length = request.headers.get("content-length", "")
    if length.isdigit() and (len(length) > 18 or int(length) > limits.body_bytes):
        raise _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise _too_large(limits)
    except TimeoutError:
        message = f"The request body did not arrive within {limits.body_seconds:g} seconds."
        raise ApiError(408, message, code="request_timeout", headers=CLOSE) from None
    try:
        return kind.model_validate(parse(bytes(body)))
    except ValidationError as cause:
        raise from_validation(cause) from None


def _too_large(limits: Limits) -> ApiError:
    message = f"The request body is larger than {limits.body_bytes:,} bytes."
    return ApiError(413, message, code="request_too_large", headers=CLOSE)
