"""POST /tokenize and /detokenize: what the model makes of a text; the same shapes as vLLM's."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from pydantic import FailFast, Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bimo.serve import limits
from bimo.serve.bodies import read_body
from bimo.serve.chat import chat_ids
from bimo.serve.chat_request import Message
from bimo.serve.engines import PURPOSES
from bimo.serve.errors import Refusal
from bimo.serve.fields import Body, Name
from bimo.serve.served import Models, Served
from bimo.serve.token_names import legacy_name

MOST_IDS = 1_000_000


class TokenizeRequest(Body):
    """A text, or a conversation."""

    model: Name | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=limits.MESSAGES)] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise Refusal("give 'prompt' or 'messages'.", inside="prompt", code="missing_required_parameter")
        return self


class DetokenizeRequest(Body):
    """Ids of a text."""

    model: Name | None = None
    tokens: Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(max_length=MOST_IDS), FailFast()]


def tokenize(models: Models) -> Any:
    """The endpoint."""

    def ids_of(served: Served, body: TokenizeRequest) -> list[int]:
        if body.messages is not None:
            return chat_ids(served, [message.shown() for message in body.messages])
        text = body.prompt or ""
        return served.tokenizer.encode(text) if body.add_special_tokens is False else served.whole_text_ids(text)

    async def create(request: Request) -> Response:
        body = await read_body(request, TokenizeRequest, models.shared.limits)
        served = models.find(body.model, *PURPOSES)
        ids = await asyncio.to_thread(ids_of, served, body)
        names = [legacy_name(served.tokenizer, id) for id in ids] if body.return_token_strs else None
        answer = {"count": len(ids), "max_model_len": served.engine.facts.context, "tokens": ids, "token_strs": names}
        return JSONResponse(answer)

    return create


def detokenize(models: Models) -> Any:
    """The endpoint."""

    async def create(request: Request) -> Response:
        body = await read_body(request, DetokenizeRequest, models.shared.limits)
        served = models.find(body.model, *PURPOSES)
        served.check_ids(body.tokens, "tokens")
        text = await asyncio.to_thread(served.tokenizer.decode, body.tokens, skip_special=False)
        return JSONResponse({"prompt": text})

    return create
