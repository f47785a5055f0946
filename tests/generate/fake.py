"""A backend whose logits are a hash of the tokens it finds in its pages, and what a request should get from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bimo.generate.backend import PAGE, Batch
from bimo.generate.engine import Engine, Handle
from bimo.generate.job import score
from bimo.generate.request import End, Event, Prompt, Request, Token
from bimo.generate.sampling import History, Uniforms, next_token

V = 53

MASK = (1 << 64) - 1


def mix(state: int, token: int) -> int:
    """One step of a chain of hashes (the finaliser of SplitMix64)."""
    state = (state * 6364136223846793005 + token + 1) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    return state ^ (state >> 31)


def hashed_logits(tokens: list[int], size: int, sharp: float = 2.0) -> NDArray[np.float32]:
    """What the fake gives for the token behind ``tokens``."""
    state = 7
    for token in tokens:
        state = mix(state, token)
    return (np.random.Generator(np.random.PCG64(state)).standard_normal(size) * sharp).astype(np.float32)


class FakeBackend:
    """Pages hold the tokens themselves; garbage is what a new page holds, so that a wrong page changes the logits.

    Attributes:
        computed: positions, in all.
        batches: how many.
        forgetful: the hash covers so many last tokens only, so that texts repeat themselves.
    """

    page_bytes = 8 * PAGE

    def __init__(self, *, vocab_size: int = V, context: int = 300, pages: int = 100, forgetful: int = 0) -> None:
        self.vocab_size, self.context, self.pages, self.forgetful = vocab_size, context, pages, forgetful
        self.computed = self.batches = 0
        self._memory = np.full((pages, PAGE), -1, np.int64)

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        rows = [hashed_logits(tokens, self.vocab_size) for tokens in self._compute(batch)]
        return np.array(rows, np.float32).reshape(len(batch.wanted), self.vocab_size)

    def hidden(self, batch: Batch) -> NDArray[np.float32]:
        rows = [hashed_logits(tokens, 5) for tokens in self._compute(batch)]
        return np.array(rows, np.float32).reshape(len(batch.wanted), 5)

    def copy_page(self, source: int, target: int) -> None:
        self._memory[target] = self._memory[source]

    def _compute(self, batch: Batch) -> list[list[int]]:
        self._check(batch)
        self.batches += 1
        self.computed += len(batch.tokens)
        for token, position, sequence in zip(batch.tokens, batch.positions, batch.sequence, strict=True):
            self._memory[batch.pages[sequence, position // PAGE], position % PAGE] = token
        seen = []
        for row in batch.wanted:
            length = batch.positions[row] + 1
            pages = batch.pages[batch.sequence[row]][: -(-length // PAGE)]
            tokens = self._memory[pages].reshape(-1)[:length].tolist()
            seen.append(tokens[-self.forgetful :] if self.forgetful else tokens)
        return seen

    def _check(self, batch: Batch) -> None:
        """What the contract promises to a backend."""
        for part in (batch.tokens, batch.positions, batch.sequence, batch.pages, batch.wanted):
            assert part.dtype == np.int32
        assert len(batch.tokens) == len(batch.positions) == len(batch.sequence) > 0
        assert ((batch.tokens >= 0) & (batch.tokens < self.vocab_size)).all()
        assert (np.diff(batch.sequence) >= 0).all() and (np.diff(batch.wanted) > 0).all()
        assert batch.positions.max() < self.context
        written: dict[int, int] = {}
        for position, sequence in zip(batch.positions, batch.sequence, strict=True):
            page = int(batch.pages[sequence, position // PAGE])
            assert written.setdefault(page, int(sequence)) == sequence, f"page {page} is written to by two sequences"
        same = np.flatnonzero(np.diff(batch.sequence) == 0)
        assert (np.diff(batch.positions)[same] == 1).all()


def alone(request: Request, *, longest: int = 300, forgetful: int = 0) -> list[Event]:
    """What a request should get: no pages, no batch, no engine. Of the first event, ``cached`` is left 0."""

    def logits(tokens: Sequence[int]) -> NDArray[np.float32]:
        return hashed_logits(list(tokens)[-forgetful:], V)

    prompt, sampling = list(request.prompt), request.sampling
    scores = None
    if (asked := request.prompt_logprobs) is not None:
        scores = tuple(score(logits(prompt[:i]), prompt[i], asked) for i in range(1, len(prompt)))
    if sampling is None:
        return [Prompt(0, scores), End("done")]
    events: list[Event] = [Prompt(0, scores)]
    history, uniforms, tokens = History(prompt), Uniforms(request.seed), list(prompt)
    while True:
        row = logits(tokens)
        id, logprob = next_token(row, sampling, history=history, uniform=uniforms[len(tokens) - len(prompt)])
        tokens.append(id)
        history.add(id)
        full = len(tokens) - len(prompt) == sampling.max_new_tokens or len(tokens) == longest
        reason: Any = "stop" if id in request.eos_ids else "length" if full else None
        known = request.logprobs is not None
        events.append(
            Token(id, score(row, id, request.logprobs or 0) if known else None, logprob if known else None, reason)
        )
        if reason is not None:
            return [*events, End(reason)]


def events_of(handle: Handle) -> list[Event]:
    return [Prompt(0, event.scores) if isinstance(event, Prompt) else event for event in handle]


def finish(engine: Engine) -> None:
    steps = 0
    while engine.step():
        steps += 1
        assert steps < 10_000, "the engine goes on for ever"


def pages_in_use(engine: Engine) -> int:
    return engine.stats().pages_used
