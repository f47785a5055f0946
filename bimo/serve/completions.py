"""POST /v1/completions: continue texts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bimo.serve import limits
from bimo.serve.answers import DONE, answered, event
from bimo.serve.bodies import read_body
from bimo.serve.choices import Job, Usage, require_few, seeds_of, settings_of, write_all
from bimo.serve.engines import Token
from bimo.serve.errors import Refusal
from bimo.serve.fields import MOST_TOKENS, Prompts, Sampled
from bimo.serve.served import Models, Served, now
from bimo.serve.token_names import legacy_logprobs
from bimo.serve.writing import Entry, Piece, Writer

DEFAULT_TOKENS = 16  # OpenAI's


class CompletionRequest(Sampled):
    """Texts to continue."""

    refused = {"suffix": "this model continues texts and cannot fill gaps: leave 'suffix' out."}  # noqa: RUF012

    prompt: Prompts | None
    max_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=limits.LOGPROBS)] | None = None
    best_of: Annotated[int, Field(ge=1, le=limits.CHOICES)] | None = None

    @model_validator(mode="after")
    def _best_of_enough(self) -> CompletionRequest:
        best_of, n = self.best_of, self.n or 1
        if best_of is not None and best_of < n:
            raise Refusal(f"it must be at least n, which is {n}, but got {best_of}.", inside="best_of")
        if self.stream and best_of is not None and best_of > n:
            raise Refusal("the best of several cannot be streamed: leave it out, or 'stream'.", inside="best_of")
        return self


class Completing:
    """One request, on its way to its answer."""

    def __init__(self, served: Served, caller: str, body: CompletionRequest) -> None:
        self.served, self.caller, self.body = served, caller, body
        self.n = body.n or 1
        self.drawn = body.best_of or self.n  # of each prompt
        self.usage = Usage()
        prompts = ("",) if body.prompt is None else body.prompt
        require_few(len(prompts) * self.drawn, limits.PROMPTS)
        self.texts = [prompt if isinstance(prompt, str) else None for prompt in prompts]
        self.prompts = [self._ids(prompt) for prompt in prompts]
        self.usage.prompt = sum(map(len, self.prompts))
        wanted = body.max_tokens
        room = min(served.room(len(ids), wanted, "prompt", "max_tokens") for ids in self.prompts)
        if wanted is None:
            wanted = room = min(room, DEFAULT_TOKENS)
        self.top = body.logprobs or 0
        settings = settings_of(
            served, body, max_tokens=max(room, 1), ends=served.conventions.ends, top=self.top, caller=caller,
            rule=body.structured_outputs.rule if body.structured_outputs else None,
        )  # fmt: skip
        seeds, stop = seeds_of(settings, self.drawn), body.stop or ()
        self.jobs = [
            Job(ids, dataclasses.replace(settings, seed=seed), stop, prompt)
            for prompt, ids in enumerate(self.prompts)
            for seed in seeds
            if wanted
        ]
        self.head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": now(),
            "model": served.name,
            "system_fingerprint": served.engine.facts.fingerprint,
        }

    def _ids(self, prompt: str | tuple[int, ...]) -> list[int]:
        if isinstance(prompt, str):
            return self.served.text_ids(self.served.guarded(prompt, self.caller, "prompt"), "prompt")
        self.served.check_ids(prompt, "prompt")
        if self.served.shared.guard is not None:
            text = self.served.tokenizer.decode(prompt)
            if (shown := self.served.guarded(text, self.caller, "prompt")) != text:
                return self.served.text_ids(shown, "prompt")
        return list(prompt)

    async def whole(self) -> JSONResponse:
        """All choices at once."""
        echoes = [await self._echo(ids, text) for ids, text in zip(self.prompts, self.texts, strict=True)]
        texts: list[list[str]] = [[] for _ in self.jobs]
        entries: list[list[Entry]] = [[] for _ in self.jobs]
        reasons = ["length" for _ in self.jobs]
        async with contextlib.aclosing(write_all(self.served, self.caller, self.jobs, self.usage)) as pieces:
            async for number, piece in pieces:
                texts[number].append(piece.text)
                entries[number] += piece.entries
                reasons[number] = piece.finish_reason or reasons[number]
        choices = []
        for prompt, (echo, echoed) in enumerate(echoes):
            if not self.jobs:
                choices += [self._choice(prompt * self.n + place, echo, echoed, "length") for place in range(self.n)]
                continue
            for place, number in enumerate(self._best(prompt, entries)):
                moved = [Entry(entry.token, entry.offset + len(echo)) for entry in entries[number]]
                text, index = echo + "".join(texts[number]), prompt * self.n + place
                choices.append(self._choice(index, text, [*echoed, *moved], reasons[number]))
        return JSONResponse({**self.head, "choices": choices, "usage": self.usage.body})

    def _best(self, prompt: int, entries: Sequence[Sequence[Entry]]) -> list[int]:
        """The jobs of a prompt with the highest mean log-probability of a token, or all of them in their order."""
        numbers = list(range(prompt * self.drawn, (prompt + 1) * self.drawn))
        if self.drawn == self.n:
            return numbers

        def mean(number: int) -> float:
            found = [entry.token.logprob or 0.0 for entry in entries[number]]
            return sum(found) / len(found) if found else 0.0

        return sorted(numbers, key=mean, reverse=True)[: self.n]

    async def stream(self) -> AsyncGenerator[str, None]:
        """The choices as they grow, one chunk a piece."""
        echoes = [await self._echo(ids, text) for ids, text in zip(self.prompts, self.texts, strict=True)]
        begun: set[int] = set()
        sent = [len(echo) for echo, _ in echoes for _ in range(self.n)]
        if not self.jobs:
            for number in range(len(echoes) * self.n):
                echo, echoed = echoes[number // self.n]
                yield self._chunk(self._choice(number, echo, echoed, "length"))
        async with contextlib.aclosing(write_all(self.served, self.caller, self.jobs, self.usage)) as pieces:
            async for number, piece in pieces:
                if self.body.echo and number not in begun:
                    begun.add(number)
                    echo, echoed = echoes[number // self.n]
                    yield self._chunk(self._choice(number, echo, echoed, None))
                if piece.text or piece.entries or piece.finish_reason:
                    yield self._chunk(self._piece(number, piece, sent[number]))
        if self.body.include_usage:
            yield event({**self.head, "choices": [], "usage": self.usage.body})
        yield DONE

    def _piece(self, number: int, piece: Piece, before: int) -> dict[str, Any]:
        entries = [Entry(entry.token, entry.offset + before) for entry in piece.entries]
        return self._choice(number, piece.text, entries, piece.finish_reason)

    def _chunk(self, choice: dict[str, Any]) -> str:
        usage = {"usage": None} if self.body.include_usage else {}
        return event({**self.head, "choices": [choice], **usage})

    def _choice(self, index: int, text: str, entries: list[Entry], reason: str | None) -> dict[str, Any]:
        logprobs = None
        if self.body.logprobs is not None:
            logprobs = legacy_logprobs(self.served.tokenizer, entries, self.top)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    async def _echo(self, ids: Sequence[int], given: str | None) -> tuple[str, list[Entry]]:
        """The text of a prompt and what the model thinks of its tokens; nothing unless it was asked for."""
        if not self.body.echo:
            return "", []
        tokens = [Token(id, None) for id in ids]
        if self.body.logprobs is not None:
            async with self.served.shared.admission.place():
                tokens = await self.served.engine.score(ids, self.top)
        writer = Writer(self.served.tokenizer)
        last = len(tokens) - 1
        pieces = [
            writer.add(token._replace(finish_reason="length" if place == last else None))
            for place, token in enumerate(tokens)
        ]
        entries = [entry for piece in pieces for entry in piece.entries]
        text = "".join(piece.text for piece in pieces)
        if given is None or given == text:
            return text, entries
        extra = len(text) - len(given)  # SentencePiece puts a space before a text
        return given, [Entry(token, max(0, offset - extra)) for token, offset in entries]


def completions(models: Models) -> Any:
    """The endpoint."""

    async def create(request: Request) -> Response:
        body = await read_body(request, CompletionRequest, models.shared.limits)
        served = models.find(body.model)
        work = await asyncio.to_thread(Completing, served, request.scope["bimo.caller"], body)
        return await answered(request.receive, work, stream=body.stream)

    return create
