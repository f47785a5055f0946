"""Several choices written at the same time, and what they cost."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from bimo.errors import ConstraintError
from bimo.generate.generate import row_seeds
from bimo.serve.engines import Rule, Settings
from bimo.serve.errors import unsupported, wrong
from bimo.serve.fields import Sampled
from bimo.serve.served import Served
from bimo.serve.writing import GuardedWriter, Piece, Writer


@dataclass(frozen=True)
class Job:
    """One choice to be written.

    Attributes:
        prompt: which of the request's prompts it continues.
        rule_param: the parameter that its rule comes from.
    """

    ids: Sequence[int]
    settings: Settings
    stop: tuple[str, ...]
    prompt: int = 0
    rule_param: str = "structured_outputs"


@dataclass
class Usage:
    """Tokens of one request."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    @property
    def body(self) -> dict[str, Any]:
        """As completions and chats tell it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }


def settings_of(
    served: Served,
    body: Sampled,
    *,
    max_tokens: int,
    ends: frozenset[int],
    top: int = 0,
    rule: Rule | None = None,
    rule_param: str = "structured_outputs",
    caller: str = "",
) -> Settings:
    """How the first choice of a request is drawn; of OpenAI's defaults where the request is silent.

    Raises:
        ApiError: 400; a token of ``logit_bias`` is not in the vocabulary, or the engine knows no rules.
    """
    if rule is not None and not served.engine.facts.constrains:
        raise unsupported(rule_param, "This server's engine cannot hold answers to a rule.")
    bias = body.logit_bias or {}
    served.check_ids(list(bias), "logit_bias")
    return Settings(
        max_tokens=max_tokens,
        seed=secrets.randbelow(2**32) if body.seed is None else body.seed % 2**63,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
        min_p=body.min_p or 0.0,
        repetition_penalty=body.repetition_penalty or 1.0,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=bias,
        ends=ends,
        top=top,
        rule=rule,
        salt=caller.encode(),
    )


def seeds_of(settings: Settings, n: int) -> list[int]:
    """The seed of each choice: the first's is the request's own, so that one choice can be had again alone."""
    return row_seeds(settings.seed, n)


def require_few(choices: int, most: int) -> None:
    """Bound what one request can start.

    Raises:
        ApiError: 400.
    """
    if choices > most:
        message = f"The request asks for {choices} choices in all its prompts together, of at most {most}."
        raise wrong(message, "n", "integer_above_max_value")


async def write_all(
    served: Served, caller: str, jobs: Sequence[Job], usage: Usage
) -> AsyncGenerator[tuple[int, Piece], None]:
    """Write all jobs and yield (number of the job, piece) as they come; ``usage`` counts meanwhile.

    Raises:
        ApiError: 503; there is no place.
    """
    started = time.perf_counter()
    first_of = {job.prompt: number for number, job in reversed(list(enumerate(jobs)))}
    waiting = True
    async with served.shared.admission.place():
        try:
            async with contextlib.aclosing(_merged([_write(served, caller, job) for job in jobs])) as pieces:
                async for number, piece in pieces:
                    if waiting:
                        served.shared.metrics.first_token.add(time.perf_counter() - started)
                        waiting = False
                    if first_of.get(jobs[number].prompt) == number:
                        usage.cached += piece.cached
                        del first_of[jobs[number].prompt]
                    usage.completion += 1
                    if piece.finish_reason is not None:
                        served.shared.metrics.finished[piece.finish_reason] += 1
                    yield number, piece
        finally:
            count(served, caller, usage)


def count(served: Served, caller: str, usage: Usage) -> None:
    """Write down what a request has used."""
    served.shared.quotas.charge(caller, usage.prompt + usage.completion)
    served.shared.metrics.tokens.update(prompt=usage.prompt, cached=usage.cached, drawn=usage.completion)


async def _write(served: Served, caller: str, job: Job) -> AsyncGenerator[Piece, None]:
    try:
        async with contextlib.aclosing(_unblamed(served, caller, job)) as pieces:
            async for piece in pieces:
                yield piece
    except ConstraintError as cause:
        assert job.settings.rule is not None
        raise wrong(str(cause), job.rule_param, job.settings.rule.code) from None


async def _unblamed(served: Served, caller: str, job: Job) -> AsyncGenerator[Piece, None]:
    plain = Writer(served.tokenizer, job.stop)
    writer = plain if served.shared.guard is None else GuardedWriter(plain, served.shared.guard.answer(caller))
    async with contextlib.aclosing(served.engine.generate(job.ids, job.settings)) as tokens:
        async for token in tokens:
            piece = writer.add(token)
            yield piece
            if piece.finish_reason is not None:
                return


async def _merged(streams: Sequence[AsyncGenerator[Piece, None]]) -> AsyncGenerator[tuple[int, Piece], None]:
    """The pieces of all streams as they come."""
    found: asyncio.Queue[tuple[int, Piece] | None] = asyncio.Queue()  # as long as the answers at most

    async def pump(number: int) -> None:
        try:
            async with contextlib.aclosing(streams[number]) as pieces:
                async for piece in pieces:
                    found.put_nowait((number, piece))
        finally:
            found.put_nowait(None)

    tasks = [asyncio.ensure_future(pump(number)) for number in range(len(streams))]
    try:
        running = len(tasks)
        while running:
            item = await found.get()
            if item is not None:
                yield item
                continue
            running -= 1
            await asyncio.sleep(0)  # for the task to end; one that failed ends them all
            for task in tasks:
                if task.done():
                    task.result()
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
