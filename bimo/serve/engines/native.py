"""bimo's own engine behind the server: its events, which come on the engine's thread, as coroutines give them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bimo import __version__
from bimo.errors import Busy
from bimo.generate import native
from bimo.generate.backend import PAGE
from bimo.generate.engine import Engine
from bimo.generate.request import Constraint, End, Event, Prompt, Request, Score
from bimo.generate.request import Token as Drawn
from bimo.generate.sampling import COLDEST, Sampling
from bimo.generate.watermark import Watermark
from bimo.models import llama
from bimo.serve.admission import overloaded
from bimo.serve.engines import Facts, Settings, Token
from bimo.serve.engines.serial import SerialEngine

if TYPE_CHECKING:
    from bimo.models import Model

MOST_WAITING = 1_024  # continuations; requests are bounded before
CONTEXTS = 16  # that the pages hold, where memory allows
SHARE = 0.25  # of the free memory that pages may take
SAMPLES, SAMPLE_BYTES = 64, 4_096  # of the weights, for the fingerprint
Compile = Callable[[Mapping[str, Any]], Constraint]


class Cancellable(Protocol):
    """A request under way."""

    def cancel(self) -> None:
        """Stop it."""


class Submits(Protocol):
    """What computes: :class:`bimo.generate.engine.Engine`, or what stands in for it."""

    longest: int

    def submit(self, request: Request, on_event: Callable[[Event], None]) -> Cancellable:
        """Queue a request, whose events come on another thread."""

    def close(self) -> None:
        """End everything."""


class NativeEngine:
    """An :class:`bimo.serve.engines.Engine`.

    Args:
        compile_schema: makes a constraint of a JSON schema; None where there are none.
        watermark: the mark that all continuations carry.
    """

    def __init__(
        self,
        engine: Submits,
        facts: Facts,
        compile_schema: Compile | None = None,
        watermark: Watermark | None = None,
    ) -> None:
        self._engine, self.facts, self._compile, self._watermark = engine, facts, compile_schema, watermark
        self._running = 0
        self._thread: threading.Thread | None = None
        if isinstance(engine, Engine):
            self._thread = threading.Thread(target=engine.run, name="bimo-engine", daemon=True)
            self._thread.start()

    async def generate(self, ids: Sequence[int], settings: Settings) -> AsyncGenerator[Token, None]:
        """Continue ``ids``; see :class:`bimo.serve.engines.Engine`."""
        constraint = None
        if settings.json_schema is not None and self._compile is not None:
            constraint = await asyncio.to_thread(self._compile, settings.json_schema)
        request = Request(
            ids,
            _sampling(settings),
            seed=settings.seed,
            eos_ids=settings.ends,
            logprobs=settings.top,
            constraint=constraint,
            watermark=self._watermark,
            salt=settings.salt,
        )
        cached = 0
        async with contextlib.aclosing(self._events(request)) as events:
            async for event in events:
                if isinstance(event, Prompt):
                    cached = event.cached
                elif isinstance(event, Drawn):
                    reason = event.finish_reason
                    yield _token(event.id, event.score)._replace(finish_reason=reason, cached=cached)

    async def score(self, ids: Sequence[int], top: int = 0) -> list[Token]:
        """Score ``ids``; see :class:`bimo.serve.engines.Engine`."""
        prompt = await self._prompt(Request(ids, None, prompt_logprobs=top))
        scores = prompt.scores or ()
        return [Token(ids[0], None), *(_token(id, score) for id, score in zip(ids[1:], scores, strict=True))]

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """Embed ``ids``; see :class:`bimo.serve.engines.Engine`."""
        found = (await self._prompt(Request(ids, None, embed="mean"))).embedding
        assert found is not None
        unit: list[float] = (found / max(float(np.linalg.norm(found)), 1e-12)).tolist()
        return unit

    def running(self) -> int:
        """How many requests the engine has."""
        return self._running

    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is None or self._thread.is_alive()

    async def close(self) -> None:
        """Stop all work."""
        await asyncio.to_thread(self._engine.close)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def _prompt(self, request: Request) -> Prompt:
        async with contextlib.aclosing(self._events(request)) as events:
            async for event in events:
                if isinstance(event, Prompt):
                    return event
        raise overloaded("The server is shutting down.", code="shutting_down")

    async def _events(self, request: Request) -> AsyncGenerator[Event, None]:
        """What a request gives; it is cancelled if nobody wants more.

        Raises:
            ApiError: 503; the engine is busy or ends.
            BimoError: the request is wrong, or failed.
        """
        loop, found = asyncio.get_running_loop(), asyncio.Queue[Event]()

        def tell(event: Event) -> None:
            loop.call_soon_threadsafe(found.put_nowait, event)

        try:
            handle = self._engine.submit(request, tell)
        except Busy:
            raise overloaded("The engine has as many requests waiting as it may.") from None
        self._running += 1
        try:
            while not isinstance(event := await found.get(), End):
                yield event
            if event.error is not None:
                raise event.error
            if event.reason == "cancelled":
                raise overloaded("The server is shutting down.", code="shutting_down")
        finally:
            self._running -= 1
            handle.cancel()


def _sampling(settings: Settings) -> Sampling:
    warm = settings.temperature >= COLDEST and settings.top_p > 0
    return Sampling(
        max_new_tokens=settings.max_tokens,
        temperature=settings.temperature if warm else 0,
        top_k=settings.top_k or None,
        top_p=settings.top_p if 0 < settings.top_p < 1 else None,
        min_p=settings.min_p or None,
        repetition_penalty=settings.repetition_penalty,
        presence_penalty=settings.presence_penalty,
        frequency_penalty=settings.frequency_penalty,
        logit_bias=tuple(settings.logit_bias.items()),
    )


def _token(id: int, score: Score | None) -> Token:
    return Token(id, None) if score is None else Token(id, score.logprob, score.top)


def native_engine(
    model: Model,
    folder: Path,
    *,
    dtype: str,
    free: float,
    compile_schema: Compile | None = None,
    watermark: Watermark | None = None,
) -> NativeEngine:
    """The engine for a loaded model: the batching one on a CPU, for the families that its backend computes.

    Args:
        dtype: "auto" for the precision of the weights, or a precision of the backend.
        free: bytes of memory that could be used.

    Raises:
        ModelError: the backend lacks the precision, or there is no C compiler.
    """
    stored = str(model.output_weight.dtype).removeprefix("torch.")
    context, width = int(model.config.max_position_embeddings), int(model.output_weight.shape[1])
    engine: Submits
    if isinstance(model, llama.Model) and model.output_weight.device.type == "cpu":
        precision = stored if dtype == "auto" else dtype
        page = native.page_bytes(model.config, precision)
        whole = -(-context // PAGE)
        affordable = int(min(free * SHARE, 1e15) // page)
        pages = max(whole, min(CONTEXTS * whole, affordable))
        engine, name = (
            Engine(native.NativeBackend(model, pages=pages, dtype=precision), max_waiting=MOST_WAITING),
            "native",
        )
    else:
        precision, engine, name = stored, SerialEngine(model), "serial"
    facts = Facts(
        engine=name,
        context=engine.longest,
        vocab_size=int(model.output_weight.shape[0]),
        width=width,
        precision=precision,
        fingerprint=fingerprint(folder, name, precision),
        constrains=compile_schema is not None,
    )
    return NativeEngine(engine, facts, compile_schema, watermark)


def fingerprint(folder: Path, *parts: str) -> str:
    """A short name for the weights in ``folder`` and whatever else decides about the output."""
    digest = hashlib.sha256(json.dumps([__version__, *parts]).encode())
    for path in sorted([folder / "config.json", folder / "tokenizer.json", *folder.glob("*.safetensors")]):
        if not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for place in range(SAMPLES):
                file.seek(size * place // SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
    return "fp_" + digest.hexdigest()[:12]
