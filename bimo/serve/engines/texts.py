"""Models that read whole texts and give numbers for each: the probabilities of its classes, or a vector.

One thread computes. Whatever texts wait when it is free, of any requests, become one batch.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from bimo import files
from bimo.device import computed_in, resolve_device
from bimo.errors import BimoError, ModelError
from bimo.generate.conventions import Conventions
from bimo.models import ENCODERS, MODELS
from bimo.models.classifier import load_text_classifier
from bimo.models.heads import has_head
from bimo.models.sentences import load_sentence_encoder
from bimo.models.weights import stored_precision
from bimo.serve.engines import Facts, Feature, Opened, Settings, Token, not_for
from bimo.serve.engines.native import fingerprint

TOGETHER = 64  # texts computed at the same time, of all requests
LACKS: frozenset[Feature] = frozenset({"batch_invariance", "cached_tokens"})
Ids = Sequence[int]
Compute = Callable[[Sequence[Ids]], npt.NDArray[np.float32]]


class _Work(NamedTuple):
    ids: Ids
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[list[float]]


class TextEngine:
    """A :class:`bimo.serve.engines.Engine` that writes nothing.

    Args:
        compute: gives the numbers (N, L) of N texts.
    """

    def __init__(self, compute: Compute, facts: Facts) -> None:
        self.facts, self._compute = facts, compute
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._running = 0
        self._thread = threading.Thread(target=self._run, name="bimo-texts", daemon=True)
        self._thread.start()

    async def numbers(self, ids: Ids) -> list[float]:
        """Those of one text, of which there is at least one token.

        Raises:
            BimoError: the model fails, or has failed.
        """
        if not self.alive():
            raise ModelError("The model has stopped.", fix="Start the server again.")
        loop = asyncio.get_running_loop()
        work = _Work(ids, loop, loop.create_future())
        self._running += 1
        try:
            self._waiting.put(work)
            return await work.answer
        finally:
            self._running -= 1

    async def embed(self, ids: Ids) -> list[float]:
        """The vector of a text; see :class:`bimo.serve.engines.Engine`."""
        return await self.numbers(ids)

    def generate(self, ids: Ids, settings: Settings) -> AsyncGenerator[Token, None]:
        """Nothing is written here."""
        raise not_for(self.facts)

    async def score(self, ids: Ids, top: int = 0) -> list[Token]:
        """Nothing is expected here."""
        raise not_for(self.facts)

    def running(self) -> int:
        """How many texts wait for their numbers."""
        return self._running

    def stats(self) -> None:
        """It has no pages to tell of."""

    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    async def close(self) -> None:
        """Stop once what waits is computed."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        ended = False
        while not ended:
            works = [self._waiting.get()]
            while len(works) < TOGETHER and not self._waiting.empty():
                works.append(self._waiting.get())
            ended = None in works
            self._answer([work for work in works if work is not None and not work.answer.cancelled()])

    def _answer(self, works: Sequence[_Work]) -> None:
        if not works:
            return
        try:
            rows: list[list[float] | BimoError] = [*self._compute([work.ids for work in works]).tolist()]
        except (RuntimeError, MemoryError) as cause:  # torch's, such as too little memory
            rows = [ModelError("The model failed.", got=str(cause))] * len(works)
        for work, row in zip(works, rows, strict=True):
            try:
                work.loop.call_soon_threadsafe(_settle, work.answer, row)
            except RuntimeError:  # its loop has ended
                continue


def _settle(answer: asyncio.Future[list[float]], row: list[float] | BimoError) -> None:
    if answer.done():
        return
    if isinstance(row, BimoError):
        answer.set_exception(row)
    else:
        answer.set_result(row)


def open_texts(folder: Path, *, device: str, dtype: str) -> Opened:
    """Load a classifier, or an encoder of sentences.

    Args:
        dtype: "auto" or "int8" for the precision of the weights.

    Raises:
        BimoError: the folder holds none that can be loaded.
    """
    where, precision = resolve_device(device), precision_of(folder, device=device, dtype=dtype)
    conventions = Conventions((), (), frozenset(), frozenset(), no_chat="it writes no text")
    if has_head(folder):
        model = load_text_classifier(folder, device=where, dtype=precision)
        compute, labels, tokenizer, longest = model.probabilities_of, model.labels, model.tokenizer, model.longest
    else:
        encoder = load_sentence_encoder(folder, device=where, dtype=precision)
        compute, labels, tokenizer, longest = encoder.vectors_of, (), encoder.tokenizer, encoder.longest
    network = model.model if labels else encoder.model
    facts = Facts(
        engine="native",
        context=longest,
        vocab_size=network.config.vocab_size,
        width=len(labels) or network.config.hidden_size,
        precision=str(precision).removeprefix("torch."),
        fingerprint=fingerprint(folder, "texts", str(precision)),
        lacks=LACKS | {"embeddings"} if labels else LACKS,
        purpose="classes" if labels else "vectors",
        labels=labels,
    )
    return Opened(TextEngine(compute, facts), tokenizer, conventions)


def precision_of(folder: Path, *, device: str, dtype: str) -> torch.dtype:
    """The precision in which such a model is computed.

    Raises:
        BimoError: the weights are damaged.
    """
    if dtype in ("auto", "int8"):
        return computed_in(stored_precision(folder), resolve_device(device))
    given: torch.dtype = getattr(torch, dtype)
    return given


def reads_texts(folder: Path) -> bool:
    """Whether a folder holds a classifier or an encoder, which write no text.

    Raises:
        ModelError: it holds no model of a supported family.
    """
    family = str(files.read_json(folder / "config.json", error=ModelError).get("model_type"))
    return family in ENCODERS or (family in MODELS and has_head(folder))
