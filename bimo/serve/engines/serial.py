"""What stands in for the engine where it has no backend: any family on any device, one request after the other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bimo.errors import BimoError, EngineError
from bimo.generate.generate import CHUNK, new_cache, prefill, room_for
from bimo.generate.job import Job, score
from bimo.generate.request import End, Event, Prompt, Request

if TYPE_CHECKING:
    from bimo.models import Model

OnEvent = Callable[[Event], None]


class SerialHandle:
    """A request that waits or runs."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop at the next token."""
        self.cancelled.set()


class SerialEngine:
    """As :class:`bimo.generate.engine.Engine` where requests are submitted, but nothing is computed together.

    Attributes:
        longest: positions of the longest request.
    """

    def __init__(self, model: Model) -> None:
        self.longest = int(model.config.max_position_embeddings)
        self._model = model
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="bimo-engine")
        self._closing = threading.Event()

    def submit(self, request: Request, on_event: OnEvent) -> SerialHandle:
        """Queue a request.

        Raises:
            EngineError: the engine is closed.
        """
        handle = SerialHandle()
        if self._closing.is_set():
            raise EngineError("The engine is closed and takes no more requests.")
        self._worker.submit(self._run, request, handle, on_event)
        return handle

    def close(self) -> None:
        """Stop all work."""
        self._closing.set()
        self._worker.shutdown(cancel_futures=True)

    def _run(self, request: Request, handle: SerialHandle, on_event: OnEvent) -> None:
        with contextlib.suppress(RuntimeError):  # nobody listens any more
            try:
                for event in self._events(request):
                    if handle.cancelled.is_set() or self._closing.is_set():
                        return on_event(End("cancelled"))
                    on_event(event)
            except BimoError as error:
                on_event(End("error", error))

    @torch.inference_mode()
    def _events(self, request: Request) -> Iterator[Event]:
        prompt = request.prompt
        if request.sampling is None:
            yield self._described(request)
            yield End("done")
            return
        room = room_for(self._model, len(prompt), request.sampling.max_new_tokens)
        matcher = request.constraint.start() if request.constraint is not None else None
        job = Job(request, 0, len(prompt) + room, matcher)
        cache = new_cache(self._model, len(prompt) + room)
        logits = prefill(self._model, prompt, cache)  # (1, V)
        yield Prompt(0)
        while True:
            token = job.draw(logits[0].cpu().numpy())
            yield token
            if token.finish_reason is not None:
                yield End(token.finish_reason)
                return
            given = torch.tensor([[token.id]], device=logits.device)
            logits = self._model(given, cache=cache)[:, -1].float()

    def _described(self, request: Request) -> Prompt:
        """The scores or the embedding of a prompt."""
        if request.embed is not None:
            states = np.concatenate([hidden.float().cpu().numpy() for _, hidden in self._hidden(request.prompt)])
            mean: NDArray[np.float32] = states.mean(axis=0, dtype=np.float64).astype(np.float32)
            return Prompt(0, embedding=mean if request.embed == "mean" else states[-1])
        asked, scores = request.prompt_logprobs or 0, []
        for start, hidden in self._hidden(request.prompt[:-1]):
            rows = self._model.logits(hidden).float().cpu().numpy()  # (T, V)
            scores += [score(row, request.prompt[start + place + 1], asked) for place, row in enumerate(rows)]
        return Prompt(0, scores=tuple(scores))

    def _hidden(self, ids: Sequence[int]) -> Iterator[tuple[int, torch.Tensor]]:
        """The hidden states of ``ids`` in pieces (T, C), each with the place of its first id."""
        if not ids:
            return
        cache = new_cache(self._model, len(ids))
        given = torch.tensor([list(ids)], device=self._model.output_weight.device, dtype=torch.long)
        for start in range(0, len(ids), CHUNK):
            yield start, self._model.hidden(given[:, start : start + CHUNK], cache=cache)[0]
