"""POST /v1/embeddings: texts as vectors."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bimo.serve.answers import unless_gone
from bimo.serve.bodies import read_body
from bimo.serve.choices import Usage, count
from bimo.serve.errors import ApiError
from bimo.serve.fields import Body, Cut, Inputs, Name
from bimo.serve.inputs import TOGETHER, input_ids
from bimo.serve.served import Models, Served


class EmbeddingRequest(Body):
    """Texts to be embedded."""

    refused = {"dimensions": "this model's embeddings have one length: leave 'dimensions' out."}  # noqa: RUF012

    model: Name
    input: Inputs
    truncate_prompt_tokens: Cut | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: Annotated[str, Field(description="accepted, not used")] | None = None


def embeddings(models: Models) -> Any:
    """The endpoint."""

    async def embed(served: Served, body: EmbeddingRequest, texts: Sequence[Sequence[int]], caller: str) -> Response:
        usage = Usage(prompt=sum(map(len, texts)))
        vectors: list[list[float]] = []
        async with served.shared.admission.place():
            for start in range(0, len(texts), TOGETHER):
                vectors += await asyncio.gather(*map(served.engine.embed, texts[start : start + TOGETHER]))
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, body)}
            for index, vector in enumerate(vectors)
        ]
        count(served, caller, usage)
        counted = {"prompt_tokens": usage.prompt, "total_tokens": usage.prompt}
        return JSONResponse({"object": "list", "data": data, "model": served.name, "usage": counted})

    async def create(request: Request) -> Response:
        body = await read_body(request, EmbeddingRequest, models.shared.limits)
        served = models.find(body.model, "text", "vectors")
        if "embeddings" in served.engine.facts.lacks:
            raise ApiError(400, "This model's engine cannot give embeddings.", code="unsupported_endpoint")
        texts = await asyncio.to_thread(input_ids, served, body.input, cut=body.truncate_prompt_tokens is not None)
        return await unless_gone(request.receive, embed(served, body, texts, request.scope["bimo.caller"]))

    return create


def _encoded(vector: list[float], body: EmbeddingRequest) -> list[float] | str:
    """The numbers, or their float32 bytes, little-endian, in base64."""
    if body.encoding_format != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
