"""A language model whose texts the engine writes: for those who ask again and again, as in a conversation.

On a CPU it reads and writes several times as fast as with torch, and what a prompt has in common with an earlier one is
not computed again. It takes a second to lay the weights out anew and, once on a machine, some more to compile.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bimo.device import computed_in, free_memory, resolve_device
from bimo.errors import ModelError
from bimo.generate.backend import PAGE, Backend
from bimo.generate.engine import Engine
from bimo.generate.generate import Step, room_for
from bimo.generate.language_model import LanguageModel, load
from bimo.generate.native import NativeBackend, bytes_needed, is_plain, page_bytes
from bimo.generate.request import End, Event, Request, Token
from bimo.generate.sampling import Sampling

CONTEXTS = 2  # whose keys and values are kept
LARGE = 30_000_000  # parameters from which a single text is worth laying the weights out
PAGES_BYTES = 1 << 31  # for them, at most
SHARE = 0.9  # of the free memory that it may take


class EngineModel(LanguageModel):
    """Draws the same tokens for the same seeds as its base class, but for the rounding of the backend.

    The engine has a thread of its own, so that Ctrl-C never interrupts a step; :meth:`close` ends it.

    Attributes:
        engine: what computes; others may ask it too.
    """

    def __init__(self, model: LanguageModel, backend: Backend) -> None:
        super().__init__(model.model, model.tokenizer, model.path, model.conventions)
        self.engine = Engine(backend)
        self._thread = threading.Thread(target=self.engine.run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Break off what is being written, and end the thread."""
        self.engine.close()
        self._thread.join()

    def steps(
        self,
        ids: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int],
        ends: Collection[int],
        stopped: Collection[int] = (),
    ) -> Iterator[Step]:
        room_for(self.model, len(ids), sampling.max_new_tokens)
        events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
        handles = []
        try:
            for row, seed in enumerate(seeds):
                request = Request(ids, sampling, seed=seed, eos_ids=frozenset(ends), logprobs=0)
                handles.append(self.engine.submit(request, functools.partial(_put, events, row)))
            left = len(handles)
            while left:
                row, event = events.get()
                if isinstance(event, End):
                    left -= 1
                    if event.error is not None:
                        raise event.error
                elif row in stopped:
                    handles[row].cancel()
                elif isinstance(event, Token):
                    assert event.score is not None
                    yield Step(row, event.id, event.score.logprob, event.finish_reason)
        finally:
            for handle in handles:
                handle.cancel()


def _put(events: queue.SimpleQueue[tuple[int, Event]], row: int, event: Event) -> None:
    events.put((row, event))


@contextmanager
def load_engaged(
    path: str | Path,
    device: str = "auto",
    warn: Callable[[str], object] = lambda _: None,
    *,
    least: int = 0,
) -> Iterator[LanguageModel]:
    """As :func:`bimo.generate.language_model.load`, but on a CPU the engine writes, where its kernels know the family.

    Args:
        warn: told of a fallback.
        least: parameters of a model that the engine writes for; torch does for smaller ones.

    Raises:
        BimoError: as there.
    """
    where = resolve_device(device)
    model = load(path, device, dtype="stored")
    small = sum(parameter.numel() for parameter in model.model.parameters()) < least
    backend = None if small else _backend(model, warn)
    if backend is None:
        stored = model.model.output_weight.dtype
        yield model if computed_in(stored, where) == stored else load(path, device)
        return
    engaged = EngineModel(model, backend)
    try:
        yield engaged
    finally:
        engaged.close()


def _backend(model: LanguageModel, warn: Callable[[str], object]) -> Backend | None:
    """The C backend for a model; None where torch has to do."""
    network = model.model
    if not is_plain(network) or network.output_weight.device.type != "cpu":
        return None
    dtype = str(network.output_weight.dtype).removeprefix("torch.")
    if dtype == "float16":
        dtype = "float32"  # CPUs are slow at it
    page = page_bytes(network.config, dtype)
    pages = CONTEXTS * -(-int(network.config.max_position_embeddings) // PAGE)
    pages = max(1, min(pages, PAGES_BYTES // page))
    try:
        needed, free = bytes_needed(network.config, dtype, pages), SHARE * free_memory(network.output_weight.device)
        if needed > free:
            raise ModelError("There is too little memory for its weights laid out anew.")
        return NativeBackend(network, pages=pages, dtype=dtype)
    except ModelError as cause:
        warn(f"Generating with torch, which is slower here: {cause}")
        return None
