"""Continues many prompts at once, token by token or by beam search; when one has ended, the next takes its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from bimo.errors import BimoError, ModelError
from bimo.generate.backend import Backend
from bimo.generate.beam import BeamSearch, pages_needed
from bimo.generate.completion import Completion, Row
from bimo.generate.engine import Engine
from bimo.generate.generate import Step, row_seeds
from bimo.generate.native import NativeBackend, is_plain
from bimo.generate.request import End, Event, Request, Token
from bimo.generate.sampling import Sampling
from bimo.generate.torch_backend import TorchBackend, page_bytes

if TYPE_CHECKING:
    from bimo.models import Model
    from bimo.tokenizer.tokenizer import Tokenizer

TOGETHER = 16  # texts
PAGES_BYTES = 1 << 31  # for keys and values, at most


class Prompt(NamedTuple):
    """Ids to continue, ``n`` times; ``sampling`` holds a seed."""

    ids: Sequence[int]
    sampling: Sampling
    n: int = 1


def write(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    ends: Collection[int],
    num_beams: int = 1,
    warn: Callable[[str], object] = lambda _: None,
) -> Iterator[tuple[int, list[Completion]]]:
    """Continue every prompt; they come as they end, each with its number.

    A prompt that leaves too little room in the model's context is cut at its beginning.

    Args:
        ends: tokens that end a text.
        num_beams: texts that :mod:`bimo.generate.beam` follows for each prompt, where nothing is drawn; 1 = no search.
        warn: told of a fallback.

    Raises:
        BimoError: the engine or the model fails.
    """
    if not prompts:
        return
    context = int(model.config.max_position_embeddings)
    cut = [prompt.ids[-max(1, context - prompt.sampling.max_new_tokens) :] for prompt in prompts]
    longest = max(len(ids) + one.sampling.max_new_tokens for ids, one in zip(cut, prompts, strict=True))
    backend = _backend(model, min(longest, context), num_beams, warn)
    if num_beams > 1:
        room = [
            (ids, min(one.sampling.max_new_tokens, context - len(ids))) for ids, one in zip(cut, prompts, strict=True)
        ]
        search = BeamSearch(backend, num_beams=num_beams, ends=ends, most_together=TOGETHER)
        for number, likeliest in search.run(room):
            yield number, [likeliest.completion(tokenizer, ends)]
        return
    engine = Engine(backend, max_running=TOGETHER, max_waiting=sum(prompt.n for prompt in prompts))
    texts = [_Texts(tokenizer, prompt.n) for prompt in prompts]
    for number, (prompt, ids) in enumerate(zip(prompts, cut, strict=True)):
        assert prompt.sampling.seed is not None
        for place, seed in enumerate(row_seeds(prompt.sampling.seed, prompt.n)):
            request = Request(ids, prompt.sampling, seed=seed, eos_ids=frozenset(ends))
            texts[number].begin(engine, request, place, prompt.sampling.stop)
    left = set(range(len(prompts)))
    while left:
        busy = engine.step()
        for number in sorted(left):
            if (found := texts[number].finished()) is not None:
                left.remove(number)
                yield number, found
        assert busy or not left, "the engine has nothing to do, but texts have not ended"


class _Texts:
    """The texts of one prompt while they grow."""

    def __init__(self, tokenizer: Tokenizer, n: int) -> None:
        self._tokenizer, self._open = tokenizer, n
        self._error: BimoError | None = None
        self._written: list[Row | None] = [None] * n

    def begin(self, engine: Engine, request: Request, place: int, stop: Sequence[str]) -> None:
        row = self._written[place] = Row(self._tokenizer, request.seed, stop)

        def take(event: Event) -> None:
            if isinstance(event, Token) and row.finish_reason is None:
                row.add(Step(place, event.id, 0.0, event.finish_reason))
                if row.finish_reason is not None and event.finish_reason is None:
                    handle.cancel()  # a stop text
            elif isinstance(event, End):
                self._open -= 1
                self._error = event.error or self._error

        handle = engine.submit(request, take)

    def finished(self) -> list[Completion] | None:
        """All of them, once they have ended."""
        if self._error is not None:
            raise self._error
        if self._open:
            return None
        return [row.completion() for row in self._written if row is not None]


def _backend(model: Model, longest: int, num_beams: int, warn: Callable[[str], object]) -> Backend:
    """C on a CPU where the family is known there, else torch; with pages for texts of ``longest`` positions."""
    weight = model.output_weight
    dtype = model.compute_dtype or weight.dtype
    page = page_bytes(model.config, dtype)
    each = pages_needed(longest, num_beams)
    pages = max(each, min(TOGETHER * each, PAGES_BYTES // page))
    if is_plain(model) and weight.device.type == "cpu" and dtype != torch.float16:
        try:
            return NativeBackend(model, pages=pages, dtype=str(dtype).removeprefix("torch."))
        except ModelError as cause:
            warn(f"Generating with torch, which is slower here: {cause}")
    return TorchBackend(model, kv_bytes=pages * page, sequences=TOGETHER * num_beams)
