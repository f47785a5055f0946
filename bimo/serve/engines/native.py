"""bimo's own engine behind the server: its events, which come on the engine's thread, as coroutines give them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bimo import __version__
from bimo.device import resolve_device
from bimo.errors import Busy, ModelError, UsageError
from bimo.generate import native
from bimo.generate.backend import PAGE, Backend
from bimo.generate.constraints import Constraints
from bimo.generate.engine import Engine
from bimo.generate.language_model import load
from bimo.generate.request import Constraint, End, Event, Prompt, Request, Score
from bimo.generate.request import Token as Drawn
from bimo.generate.sampling import COLDEST, Sampling
from bimo.generate.torch_backend import TorchBackend
from bimo.generate.watermark import Watermark
from bimo.models import llama
from bimo.serve.admission import overloaded
from bimo.serve.engines import Facts, Opened, Settings, Token
from bimo.serve.engines.memory import require_memory
from bimo.serve.errors import wrong
from bimo.train.probe import free_memory

if TYPE_CHECKING:
    from bimo.models import Model
    from bimo.tokenizer.tokenizer import Tokenizer

MOST_WAITING = 1_024  # continuations; requests are bounded before
CONTEXTS = 16  # that the pages hold, where memory allows
SHARE = 0.25  # of the free memory that pages may take
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
            constraint=await self._constraint(settings.json_schema),
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
        return self._thread.is_alive()

    async def close(self) -> None:
        """Stop all work."""
        self._engine.close()
        await asyncio.to_thread(self._thread.join)

    async def _constraint(self, schema: Mapping[str, Any] | None) -> Constraint | None:
        """A compiled JSON schema; the latest are kept.

        Raises:
            ApiError: 400; the schema is wrong, or more than can be enforced.
        """
        if schema is None:
            return None
        assert self._constraints is not None, "facts.constrains says whether schemas may come"
        source = json.dumps(schema)
        if source not in self._compiled:
            try:
                self._compiled[source] = await asyncio.to_thread(self._constraints.json_schema, schema)
            except UsageError as cause:
                raise wrong(str(cause), code="invalid_json_schema") from None
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


def open_engine(folder: Path, *, device: str, dtype: str, watermark: Watermark | None) -> Opened:
    """See :func:`bimo.serve.engines.open_engine`."""
    # On a CPU the weights are read, and packed in the order in which the engine reads them.
    copies = 2 if resolve_device(device).type == "cpu" else 1
    require_memory(folder, free_memory(torch.device("cpu")), copies)
    model = load(folder, device=device, dtype="auto" if dtype == "int8" else dtype)
    engine = native_engine(
        model.model,
        model.tokenizer,
        folder,
        ends=model.conventions.turn_ends,
        dtype=dtype,
        free=free_memory(model.model.output_weight.device),
        watermark=watermark,
    )
    return Opened(engine, model.tokenizer, model.conventions)


def native_engine(
    model: Model,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    ends: Collection[int],
    dtype: str,
    free: float,
    watermark: Watermark | None = None,
) -> NativeEngine:
    """The engine for a loaded model: computed in C on a CPU where the family is known there, else by torch.

    Args:
        ends: tokens that end an answer, after which a JSON schema asks for nothing more.
        dtype: "auto" for the precision of the weights, or one of :class:`bimo.generate.native.NativeBackend`.
        free: bytes of memory that could be used.

    Raises:
        ModelError: there is no such precision for this model, or no C compiler.
    """
    weight, config = model.output_weight, model.config
    precision = str(weight.dtype).removeprefix("torch.") if dtype == "auto" else dtype
    backend: Backend
    if isinstance(model, llama.Model) and weight.device.type == "cpu":
        pages = pages_within(config.max_position_embeddings, native.page_bytes(model.config, precision), free)
        backend = native.NativeBackend(model, pages=pages, dtype=precision)
    elif dtype == "int8":
        expected, got = "a Llama, Mistral, Qwen2 or Qwen3 on a CPU", f"{config.model_type} on {weight.device.type}"
        raise ModelError("int8 cannot be had here.", expected=expected, got=got, fix="Use --dtype bfloat16.")
    else:
        page = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * PAGE * weight.itemsize
        backend = TorchBackend(model, kv_bytes=pages_within(config.max_position_embeddings, page, free) * page)
    facts = Facts(
        engine="native",
        context=config.max_position_embeddings,
        vocab_size=backend.vocab_size,
        width=int(weight.shape[1]),
        precision=precision,
        fingerprint=fingerprint(folder, type(backend).__name__, precision),
    )
    return engine_over(backend, facts, tokenizer, ends, watermark)


def engine_over(
    backend: Backend, facts: Facts, tokenizer: Tokenizer, ends: Collection[int], watermark: Watermark | None
) -> NativeEngine:
    """The engine over whatever computes.

    Args:
        facts: of the backend; what the engine adds is filled in.
        ends: as for :func:`native_engine`.
    """
    engine, constraints = Engine(backend, max_waiting=MOST_WAITING), _constraints(tokenizer, ends)
    facts = dataclasses.replace(facts, context=engine.longest, constrains=constraints is not None)
    return NativeEngine(engine, facts, constraints, watermark)


def pages_within(context: int, page_bytes: int, free: float) -> int:
    """Pages for several whole contexts, if that takes no more than a share of the memory, and at least for one."""
    whole = -(-context // PAGE)
    return max(whole, min(CONTEXTS * whole, int(min(free * SHARE, 1e15) // page_bytes)))


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
