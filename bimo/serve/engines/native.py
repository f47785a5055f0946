"""bimo's own decoding loop behind the server: one continuation at a time, in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bimo import __version__
from bimo.errors import ModelError
from bimo.generate.generate import CHUNK, new_cache, prefill, room_for
from bimo.generate.language_model import LanguageModel
from bimo.generate.sampling import COLDEST, Sampling, next_tokens, uniforms
from bimo.serve.engines import Facts, Settings, Token

T = TypeVar("T")
SAMPLES, SAMPLE_BYTES = 64, 4_096  # of the weights, for the fingerprint


class NativeEngine:
    """An :class:`bimo.serve.engines.Engine` over a loaded model."""

    def __init__(self, language_model: LanguageModel) -> None:
        self._model = model = language_model.model
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="bimo-engine")
        self._closing = threading.Event()
        self._running = 0
        precision = str(model.output_weight.dtype).removeprefix("torch.")
        self.facts = Facts(
            engine="native",
            context=int(model.config.max_position_embeddings),
            vocab_size=int(model.output_weight.shape[0]),
            width=int(model.output_weight.shape[1]),
            precision=precision,
            fingerprint=fingerprint(language_model.path, "native", precision),
        )

    async def generate(self, ids: Sequence[int], settings: Settings) -> AsyncGenerator[Token, None]:
        """Continue ``ids``; see :class:`bimo.serve.engines.Engine`."""
        loop = asyncio.get_running_loop()
        found: asyncio.Queue[Token | None] = asyncio.Queue()
        gone = threading.Event()

        def work() -> None:
            try:
                for token in self._continue(ids, settings):
                    if gone.is_set() or self._closing.is_set():
                        return
                    loop.call_soon_threadsafe(found.put_nowait, token)
            finally:
                loop.call_soon_threadsafe(found.put_nowait, None)

        self._running += 1
        future = asyncio.wrap_future(self._worker.submit(work))
        try:
            while (token := await found.get()) is not None:
                yield token
            await future
        finally:
            self._running -= 1
            gone.set()
            future.cancel()

    async def score(self, ids: Sequence[int], top: int = 0) -> list[Token]:
        """Score ``ids``; see :class:`bimo.serve.engines.Engine`."""
        return await self._compute(lambda: self._score(ids, top))

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """Embed ``ids``; see :class:`bimo.serve.engines.Engine`."""
        return await self._compute(lambda: self._embed(ids))

    def running(self) -> int:
        """How many continuations are computed or wait."""
        return self._running

    async def close(self) -> None:
        """Stop all work."""
        self._closing.set()
        await asyncio.to_thread(self._worker.shutdown, cancel_futures=True)

    async def _compute(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._worker.submit(work))

    @torch.inference_mode()
    def _continue(self, ids: Sequence[int], settings: Settings) -> Iterator[Token]:
        model = self._model
        room = room_for(model, len(ids), settings.max_tokens)
        warm = settings.temperature >= COLDEST
        sampling = Sampling(
            max_new_tokens=room,
            temperature=settings.temperature if warm else 0,
            top_k=settings.top_k or None,
            top_p=settings.top_p if 0 < settings.top_p < 1 else None,
            min_p=settings.min_p or None,
            repetition_penalty=settings.repetition_penalty,
        )
        cache = new_cache(model, len(ids) + room)
        logits = prefill(model, ids, cache)  # (1, V)
        draws = uniforms([settings.seed], room, logits.device) if warm else None
        seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
        seen[:, torch.tensor(ids, device=logits.device)] = True
        counts = torch.zeros_like(logits)
        bias = torch.zeros_like(logits)
        for id, value in settings.logit_bias.items():
            bias[0, id] = value
        for step in range(room):
            penalties = settings.frequency_penalty * counts + settings.presence_penalty * (counts > 0)
            chosen = next_tokens(
                logits + bias - penalties,
                sampling,
                seen=seen if settings.repetition_penalty != 1 else None,
                uniform=None if draws is None else draws[step],
            )
            id = int(chosen)
            finish = "stop" if id in settings.ends else "length" if step == room - 1 else None
            yield _described(id, logits[0].log_softmax(-1), settings.top)._replace(finish_reason=finish)
            if finish is not None:
                return
            seen[0, id] = True
            counts[0, id] += 1
            logits = model(chosen[:, None], cache=cache)[:, -1].float()

    @torch.inference_mode()
    def _score(self, ids: Sequence[int], top: int) -> list[Token]:
        tokens = [Token(ids[0], None)]
        for start, hidden in self._hidden(ids[:-1]):
            logprobs = self._model.logits(hidden).float().log_softmax(-1)  # (T, V)
            following = ids[start + 1 : start + 1 + len(logprobs)]
            tokens += [_described(id, row, top) for id, row in zip(following, logprobs, strict=True)]
        return tokens

    @torch.inference_mode()
    def _embed(self, ids: Sequence[int]) -> list[float]:
        total = sum(hidden.float().sum(0) for _, hidden in self._hidden(ids))
        assert isinstance(total, Tensor)
        unit: list[float] = torch.nn.functional.normalize(total, dim=0).tolist()
        return unit

    def _hidden(self, ids: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """The hidden states of up to a context of ids, in pieces (T, C), each with the place of its first id."""
        cache = new_cache(self._model, max(len(ids), 1))
        given = torch.tensor([list(ids)], device=self._model.output_weight.device, dtype=torch.long)
        for start in range(0, len(ids), CHUNK):
            yield start, self._model.hidden(given[:, start : start + CHUNK], cache=cache)[0]


def _described(id: int, logprobs: Tensor, top: int) -> Token:
    """A token and its likeliest rivals, from the log-probabilities (V,)."""
    logprob = float(logprobs[id])
    if logprob != logprob:
        raise ModelError("The model's output is not a number.", fix="Its weights are damaged.")
    best = logprobs.topk(min(top, len(logprobs)))
    return Token(id, logprob, tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)))


def fingerprint(folder: Path, *parts: Any) -> str:
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
