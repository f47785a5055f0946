"""bimo's own engine behind the server: its events, which come on the engine's thread, as coroutines give them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bimo import __version__
from bimo.errors import Busy, ConstraintError, UsageError
from bimo.generate import native, torch_backend
from bimo.generate.backend import Backend
from bimo.generate.constraints import Constraints
from bimo.generate.drafting import Drafter
from bimo.generate.engine import Engine, Stats
from bimo.generate.request import Constraint, End, Event, Prompt, Request, Score
from bimo.generate.request import Token as Drawn
from bimo.generate.sampling import COLDEST, Sampling
from bimo.generate.torch_backend import TorchBackend
from bimo.generate.watermark import Watermark
from bimo.models import llama
from bimo.serve.admission import overloaded
from bimo.serve.engines import Facts, Feature, Rule, Settings, Token

if TYPE_CHECKING:
    from bimo.generate.language_model import LanguageModel
    from bimo.models import Model
    from bimo.tokenizer.tokenizer import Tokenizer

MOST_WAITING = 1_024  # continuations; requests are bounded before
SAMPLES, SAMPLE_BYTES = 64, 4_096  # of the weights, for the fingerprint
KEPT = 32  # compiled schemas


class NativeEngine:
    """An :class:`bimo.serve.engines.Engine`.

    Args:
        constraints: compile JSON schemas; None where there are none.
        watermark: the mark that all continuations carry.
    """

    def __init__(
        self,
        engine: Engine,
        facts: Facts,
        constraints: Constraints | None = None,
        watermark: Watermark | None = None,
    ) -> None:
        self._engine, self.facts, self._constraints, self._watermark = engine, facts, constraints, watermark
        self._compiled: OrderedDict[str, Constraint] = OrderedDict()
        self._running = 0
        self._thread = threading.Thread(target=engine.run, name="bimo-engine", daemon=True)
        self._thread.start()

    async def generate(self, ids: Sequence[int], settings: Settings) -> AsyncGenerator[Token, None]:
        """Continue ``ids``; see :class:`bimo.serve.engines.Engine`."""
        request = Request(
            ids,
            _sampling(settings),
            seed=settings.seed,
            eos_ids=settings.ends,
            logprobs=settings.top,
            constraint=await self._constraint(settings.rule),
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

    def stats(self) -> Stats:
        """The engine's numbers."""
        return self._engine.stats()

    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    async def close(self) -> None:
        """Stop all work."""
        self._engine.close()
        await asyncio.to_thread(self._thread.join)

    async def _constraint(self, rule: Rule | None) -> Constraint | None:
        """A compiled rule; the latest are kept.

        Raises:
            ConstraintError: the rule is wrong, or more than can be enforced.
        """
        if rule is None:
            return None
        assert self._constraints is not None, "facts.constrains says whether rules may come"
        known = self._constraints
        compile: dict[str, Callable[[Any], Constraint]] = {
            "json": known.json_schema, "regex": known.regex, "choice": known.choice, "grammar": known.grammar
        }  # fmt: skip
        source = json.dumps(rule)
        if source not in self._compiled:
            try:
                self._compiled[source] = await asyncio.to_thread(compile[rule.kind], rule.source)
            except UsageError as cause:
                raise ConstraintError(str(cause)) from None
            if len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        return self._compiled[source]

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


def backend_of(model: Model, *, pages: int, dtype: str) -> Backend:
    """What computes a loaded model: C on a CPU where the family is known there, else torch.

    Args:
        dtype: one of :class:`bimo.generate.native.NativeBackend` where it is C; else the weights keep theirs.

    Raises:
        ModelError: there is no such precision for this model, no C compiler, or too little memory.
    """
    weight, config = model.output_weight, model.config
    if isinstance(model, llama.Model) and weight.device.type == "cpu":
        return native.NativeBackend(model, pages=pages, dtype=dtype)
    return TorchBackend(model, kv_bytes=pages * torch_backend.page_bytes(config, weight.dtype))


def native_engine(
    model: LanguageModel, *, pages: int, dtype: str, drafter: Drafter | None = None, watermark: Watermark | None = None
) -> NativeEngine:
    """The engine for a loaded model.

    Args:
        pages, dtype: as for :func:`backend_of`.
        drafter: guesses tokens ahead; the answers stay the same.
        watermark: the mark that all continuations carry.

    Raises:
        BimoError: as :func:`backend_of`, or the drafter has another vocabulary.
    """
    backend = backend_of(model.model, pages=pages, dtype=dtype)
    return engine_over(backend, model, name="native", dtype=dtype, drafter=drafter, watermark=watermark)


def engine_over(
    backend: Backend,
    model: LanguageModel,
    *,
    name: str,
    dtype: str,
    drafter: Drafter | None = None,
    watermark: Watermark | None = None,
    lacks: frozenset[Feature] = frozenset(),
) -> NativeEngine:
    """The engine over whatever computes ``model``; the arguments are those of :func:`native_engine` and ``Facts``."""
    engine = Engine(backend, max_waiting=MOST_WAITING, drafter=drafter)
    constraints = _constraints(model.tokenizer, model.conventions.turn_ends)
    facts = Facts(
        engine=name,
        context=engine.longest,
        vocab_size=backend.vocab_size,
        width=int(model.model.output_weight.shape[1]),
        precision=dtype,
        fingerprint=fingerprint(model.path, type(backend).__name__, dtype),
        constrains=constraints is not None,
        lacks=lacks,
    )
    return NativeEngine(engine, facts, constraints, watermark)


def _constraints(tokenizer: Tokenizer, ends: Collection[int]) -> Constraints | None:
    """What compiles JSON schemas; None where its library is not installed."""
    try:
        return Constraints(tokenizer, ends)
    except UsageError:
        return None


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
