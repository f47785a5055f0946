"""POST /v1/responses: answer an input, and remember the conversation."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import secrets
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bimo.serve.answers import answered, event
from bimo.serve.bodies import read_body
from bimo.serve.chat import chat_ids
from bimo.serve.choices import Job, Usage, settings_of, write_all
from bimo.serve.engines import Rule
from bimo.serve.errors import ApiError, wrong
from bimo.serve.fields import Sampled
from bimo.serve.response_request import ResponseRequest
from bimo.serve.served import Models, Served, now
from bimo.serve.stored import Store, Stored


class Responding:
    """One request, on its way to its answer."""

    def __init__(self, served: Served, store: Store, caller: str, body: ResponseRequest) -> None:
        self.served, self.store, self.caller, self.body = served, store, caller, body
        earlier: list[dict[str, Any]] = []
        if body.previous_response_id is not None:
            found = store.find(caller, body.previous_response_id)
            if found is None:
                message = f"Previous response with id '{body.previous_response_id}' not found."
                raise wrong(message, "previous_response_id", "previous_response_not_found")
            earlier = found.messages
        constraint = body.text.format.constraint if body.text and body.text.format else None
        self.messages = [*earlier, *served.guarded_messages([item.shown() for item in body.input], caller, "input")]
        ids = self._fitting_ids()
        room = served.room(len(ids), body.max_output_tokens, "input", "max_output_tokens")
        sampled = Sampled(model=body.model, temperature=body.temperature, top_p=body.top_p)
        settings = settings_of(
            served, sampled, max_tokens=room, ends=served.conventions.turn_ends, caller=caller,
            rule=None if constraint is None else Rule("json", constraint), rule_param="text.format",
        )  # fmt: skip
        self.job = Job(ids, settings, (), rule_param="text.format")
        self.usage = Usage(prompt=len(ids))
        self.id, self.item_id, self.created = f"resp_{secrets.token_hex(16)}", f"msg_{secrets.token_hex(16)}", now()
        self._sequence, self._why = -1, ""

    def _fitting_ids(self) -> list[int]:
        """The ids of the conversation; with truncation, without as many of the oldest messages as necessary."""
        if self.body.truncation == "auto":
            # The fewest that must go, found in a few steps: a conversation may have thousands of messages.
            last = len(self.messages) - 1
            self.messages = self.messages[bisect.bisect_left(range(last), True, key=self._fits_without) :]
        return chat_ids(self.served, self._shown(0), param="input")

    def _fits_without(self, dropped: int) -> bool:
        shown, room = self._shown(dropped), self.served.engine.facts.context - (self.body.max_output_tokens or 1)
        if self.served.least_tokens(sum(len(message["content"]) for message in shown)) > room:
            return False
        return len(chat_ids(self.served, shown, param="input")) <= room

    def _shown(self, dropped: int) -> list[dict[str, Any]]:
        told = [{"role": "system", "content": self.body.instructions}] if self.body.instructions else []
        return [*told, *self.messages[dropped:]]

    def _item(self, text: str | None, status: str) -> dict[str, Any]:
        content = [] if text is None else [_part(text)]
        return {"type": "message", "id": self.item_id, "status": status, "role": "assistant", "content": content}

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        body = self.body
        format = body.text.format if body.text and body.text.format else None
        shown_format = format.model_dump(by_alias=True, exclude_none=True) if format else {"type": "text"}
        counted = None
        if status in ("completed", "incomplete"):
            counted = {
                "input_tokens": self.usage.prompt,
                "input_tokens_details": {"cached_tokens": self.usage.cached},
                "output_tokens": self.usage.completion,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.usage.prompt + self.usage.completion,
            }
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": self._why} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self.served.name,
            "output": output,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": body.store is not False,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "text": {"format": shown_format},
            "tool_choice": body.tool_choice or "auto",
            "tools": [],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": body.truncation or "disabled",
            "usage": counted,
            "user": body.user,
            "metadata": body.metadata or {},
        }

    def _finish(self, text: str, reason: str) -> dict[str, Any]:
        self._why = {"length": "max_output_tokens", "content_filter": reason}.get(reason, "")
        status = "incomplete" if self._why else "completed"
        response = self._response(status, [self._item(text, status)])
        if self.body.store is not False:
            messages = [*self.messages, {"role": "assistant", "content": text}]
            self.store.add(self.caller, Stored(response, messages))
        return response

    async def whole(self) -> JSONResponse:
        """The answer at once."""
        text, reason = "", "length"
        async with contextlib.aclosing(write_all(self.served, self.caller, [self.job], self.usage)) as pieces:
            async for _, piece in pieces:
                text += piece.text
                reason = piece.finish_reason or reason
        return JSONResponse(self._finish(text, reason))

    async def stream(self) -> AsyncGenerator[str, None]:
        """The answer as it grows, in the events of OpenAI's Responses API."""
        text, reason, begun = "", "length", False
        place = {"item_id": self.item_id, "output_index": 0, "content_index": 0}
        async with contextlib.aclosing(write_all(self.served, self.caller, [self.job], self.usage)) as pieces:
            async for _, piece in pieces:
                if not begun:
                    begun = True
                    yield self._event("response.created", response=self._response("in_progress", []))
                    yield self._event("response.in_progress", response=self._response("in_progress", []))
                    item = self._item(None, "in_progress")
                    yield self._event("response.output_item.added", output_index=0, item=item)
                    yield self._event("response.content_part.added", **place, part=_part(""))
                text += piece.text
                reason = piece.finish_reason or reason
                if piece.text:
                    yield self._event("response.output_text.delta", **place, delta=piece.text, logprobs=[])
        response = self._finish(text, reason)
        yield self._event("response.output_text.done", **place, text=text, logprobs=[])
        yield self._event("response.content_part.done", **place, part=_part(text))
        yield self._event("response.output_item.done", output_index=0, item=response["output"][0])
        yield self._event(f"response.{response['status']}", response=response)

    def _event(self, kind: str, **values: Any) -> str:
        self._sequence += 1
        value = {"type": kind, "sequence_number": self._sequence, **values}
        return event(value, kind)

    def failed(self, cause: ApiError) -> str:
        """The event of a failure after the first ones."""
        return self._event("error", code=cause.code or cause.kind, message=cause.message, param=cause.param)


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def responses(models: Models, store: Store) -> Any:
    """The endpoint."""

    async def create(request: Request) -> Response:
        body = await read_body(request, ResponseRequest, models.shared.limits)
        served = models.find(body.model)
        work = await asyncio.to_thread(Responding, served, store, request.scope["bimo.caller"], body)
        return await answered(request.receive, work, stream=body.stream, failed=work.failed)

    return create


def stored_response(store: Store) -> Any:
    """The endpoint that gives an earlier answer again."""

    async def one(request: Request) -> Response:
        id = request.path_params["id"]
        found = store.find(request.scope["bimo.caller"], id)
        if found is None:
            raise _unknown(id)
        return JSONResponse(found.body)

    return one


def forget_response(store: Store) -> Any:
    """The endpoint that forgets an earlier answer."""

    async def remove(request: Request) -> Response:
        id = request.path_params["id"]
        if not store.remove(request.scope["bimo.caller"], id):
            raise _unknown(id)
        return JSONResponse({"id": id, "object": "response", "deleted": True})

    return remove


def _unknown(id: str) -> ApiError:
    return ApiError(404, f"Response with id '{id[:80]}' not found.", param="response_id", code="response_not_found")
