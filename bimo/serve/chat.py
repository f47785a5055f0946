"""POST /v1/chat/completions: answer conversations."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bimo.errors import TokenizerError
from bimo.serve.answers import DONE, answered, event
from bimo.serve.bodies import read_body
from bimo.serve.chat_request import ChatRequest
from bimo.serve.choices import Job, Usage, seeds_of, settings_of, write_all
from bimo.serve.engines import Rule
from bimo.serve.errors import without_paths, wrong
from bimo.serve.served import Models, Served, now
from bimo.serve.token_names import chat_logprobs
from bimo.serve.tools import Call, CallReader, call_schema
from bimo.serve.writing import Entry


def chat_ids(
    served: Served, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = (), param: str = "messages"
) -> list[int]:
    """The ids of a conversation, ready for the answer.

    Raises:
        ApiError: 400; the model cannot chat, or its template refuses these messages.
    """
    if served.conventions.no_chat is not None:
        message = f"This model cannot chat: {served.conventions.no_chat}. Use /v1/completions."
        raise wrong(message, "model", "unsupported_model")
    served.require_short(sum(len(message["content"]) for message in messages), param)
    try:
        return served.tokenizer.encode_chat(messages, add_generation_prompt=True, tools=tools or None)
    except TokenizerError as cause:
        raise wrong(without_paths(str(cause)), param) from None


class Chatting:
    """One request, on its way to its answer."""

    def __init__(self, served: Served, caller: str, body: ChatRequest) -> None:
        self.served, self.caller, self.body = served, caller, body
        self.n = body.n or 1
        choice = body.tool_choice or "auto"
        tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()] if choice != "none" else []
        self.names = [tool["function"]["name"] for tool in tools]
        self.forced = choice == "required" or choice.startswith(":")
        rule, param = self._rule(tools, choice)
        messages = served.guarded_messages([message.shown() for message in body.messages], caller, "messages")
        ids = chat_ids(served, messages, tools)
        max_param = "max_tokens" if body.max_tokens is not None else "max_completion_tokens"
        room = served.room(len(ids), body.max_completion_tokens or body.max_tokens, "messages", max_param)
        self.top = body.top_logprobs or 0
        settings = settings_of(
            served,
            body,
            max_tokens=room,
            ends=served.conventions.turn_ends,
            top=self.top,
            rule=rule,
            rule_param="tool_choice" if self.forced else param,
            caller=caller,
        )
        seeds, stop = seeds_of(settings, self.n), body.stop or ()
        self.jobs = [Job(ids, dataclasses.replace(settings, seed=seed), stop, rule_param=param) for seed in seeds]
        self.usage = Usage(prompt=len(ids))
        self.readers = [CallReader(self.names, bare=self.forced) for _ in self.jobs] if self.names else []
        self.head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": now(),
            "model": served.name,
            "service_tier": "default",
            "system_fingerprint": served.engine.facts.fingerprint,
        }

    def _rule(self, tools: list[dict[str, Any]], choice: str) -> tuple[Rule | None, str]:
        """What the answer must be, and the parameter that says so."""
        if self.forced:
            return Rule("json", call_schema(tools, choice[1:] if choice.startswith(":") else None)), "tools"
        if self.body.structured_outputs is not None:
            return self.body.structured_outputs.rule, "structured_outputs"
        schema = self.body.response_format.constraint if self.body.response_format else None
        return None if schema is None else Rule("json", schema), "response_format"

    def _read(self, number: int, text: str, final: bool) -> tuple[str, list[Call]]:
        """What of a piece is text and what is a call."""
        if not self.readers:
            return text, []
        known = len(self.readers[number].calls)
        text, calls = self.readers[number].add(text, final=final)
        if self.body.parallel_tool_calls is False:
            calls = calls[: max(0, 1 - known)]
        return text, calls

    def _reason(self, number: int, reason: str) -> str:
        return "tool_calls" if reason == "stop" and self.readers and self.readers[number].calls else reason

    async def whole(self) -> JSONResponse:
        """All choices at once."""
        texts: list[str] = [""] * self.n
        calls: list[list[Call]] = [[] for _ in self.jobs]
        entries: list[list[Entry]] = [[] for _ in self.jobs]
        reasons = ["length"] * self.n
        async with contextlib.aclosing(write_all(self.served, self.caller, self.jobs, self.usage)) as pieces:
            async for number, piece in pieces:
                text, called = self._read(number, piece.text, piece.finish_reason is not None)
                texts[number] += text
                calls[number] += called
                entries[number] += piece.entries
                if piece.finish_reason is not None:
                    reasons[number] = self._reason(number, piece.finish_reason)
        choices = []
        for number in range(self.n):
            content = texts[number] if texts[number] or not calls[number] else None
            message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
            if calls[number]:
                message["tool_calls"] = [call.body for call in calls[number]]
            choices.append(
                {
                    "index": number,
                    "message": message,
                    "logprobs": self._logprobs(entries[number]),
                    "finish_reason": reasons[number],
                }
            )
        head = {**self.head, "object": "chat.completion"}
        return JSONResponse({**head, "choices": choices, "usage": self.usage.body})

    async def stream(self) -> AsyncGenerator[str, None]:
        """The choices as they grow: their role first, then their pieces, then why they end."""
        begun: set[int] = set()
        async with contextlib.aclosing(write_all(self.served, self.caller, self.jobs, self.usage)) as pieces:
            async for number, piece in pieces:
                if number not in begun:
                    begun.add(number)
                    yield self._chunk(number, {"role": "assistant", "content": "", "refusal": None})
                known = len(self.readers[number].calls) if self.readers else 0
                text, calls = self._read(number, piece.text, piece.finish_reason is not None)
                if text or (piece.entries and self.body.logprobs):
                    yield self._chunk(number, {"content": text}, entries=list(piece.entries))
                for index, call in enumerate(calls, start=known):
                    yield self._chunk(number, {"tool_calls": [{"index": index, **call.body}]})
                if piece.finish_reason is not None:
                    yield self._chunk(number, {}, reason=self._reason(number, piece.finish_reason))
        if self.body.include_usage:
            yield self._event([], self.usage.body)
        yield DONE

    def _chunk(
        self, number: int, delta: dict[str, Any], *, entries: list[Entry] | None = None, reason: str | None = None
    ) -> str:
        logprobs = self._logprobs(entries) if entries else None
        return self._event([{"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}], None)

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> str:
        value: dict[str, Any] = {**self.head, "object": "chat.completion.chunk", "choices": choices}
        if self.body.include_usage:
            value["usage"] = usage
        return event(value)

    def _logprobs(self, entries: list[Entry]) -> dict[str, Any] | None:
        return chat_logprobs(self.served.tokenizer, entries, self.top) if self.body.logprobs else None


def chats(models: Models) -> Any:
    """The endpoint."""

    async def create(request: Request) -> Response:
        body = await read_body(request, ChatRequest, models.shared.limits)
        served = models.find(body.model)
        work = await asyncio.to_thread(Chatting, served, request.scope["bimo.caller"], body)
        return await answered(request.receive, work, stream=body.stream)

    return create
