"""POST /v1/classifications, which vLLM calls /classify: the class of each text, and how likely each class is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bimo.serve.answers import unless_gone
from bimo.serve.bodies import read_body
from bimo.serve.choices import Usage, count
from bimo.serve.engines.texts import TextEngine
from bimo.serve.fields import Body, Cut, Inputs, Name
from bimo.serve.inputs import TOGETHER, input_ids
from bimo.serve.served import Models, Served, now


class ClassificationRequest(Body):
    """Texts to be classified."""

    model: Name | None = None
    input: Inputs
    truncate_prompt_tokens: Cut | None = None
    user: Annotated[str, Field(description="accepted, not used")] | None = None


def classifications(models: Models) -> Any:
    """The endpoint."""

    async def classify(served: Served, texts: Sequence[Sequence[int]], caller: str) -> Response:
        engine = served.engine
        assert isinstance(engine, TextEngine), "what gives classes"
        rows: list[list[float]] = []
        async with served.shared.admission.place():
            for start in range(0, len(texts), TOGETHER):
                rows += await asyncio.gather(*map(engine.numbers, texts[start : start + TOGETHER]))
        usage = Usage(prompt=sum(map(len, texts)))
        count(served, caller, usage)
        answer = {
            "id": f"classify-{secrets.token_hex(12)}",
            "object": "list",
            "created": now(),
            "model": served.name,
            "data": [_class(index, row, engine.facts.labels) for index, row in enumerate(rows)],
            "usage": {
                "prompt_tokens": usage.prompt,
                "total_tokens": usage.prompt,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        }
        return JSONResponse(answer)

    async def create(request: Request) -> Response:
        body = await read_body(request, ClassificationRequest, models.shared.limits)
        served = models.find(body.model, "classes")
        cut = body.truncate_prompt_tokens is not None
        texts = await asyncio.to_thread(input_ids, served, body.input, cut=cut)
        return await unless_gone(request.receive, classify(served, texts, request.scope["bimo.caller"]))

    return create


def _class(index: int, probabilities: Sequence[float], labels: Sequence[str]) -> dict[str, Any]:
    best = max(range(len(labels)), key=probabilities.__getitem__)
    return {
        "index": index,
        "label": labels[best],
        "probs": list(probabilities),
        "num_classes": len(labels),
        "scores": dict(zip(labels, probabilities, strict=True)),
    }
