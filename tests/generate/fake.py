"""A backend whose logits are a hash of all tokens up to a position, as it finds them in the pages it was given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bimo.generate.backend import PAGE, Batch

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

    def __init__(self, *, vocab_size: int = 53, context: int = 300, pages: int = 100, forgetful: int = 0) -> None:
        self.vocab_size, self.context, self.pages, self.forgetful = vocab_size, context, pages, forgetful
        self.computed = self.batches = 0
        self._memory = np.full((pages, PAGE), -1, np.int64)

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        rows = [hashed_logits(tokens, self.vocab_size) for tokens in self._compute(batch)]
        return np.array(rows, np.float32).reshape(len(batch.wanted), self.vocab_size)

    def hidden(self, batch: Batch) -> NDArray[np.float32]:
        rows = [hashed_logits(tokens, 5) for tokens in self._compute(batch)]
        return np.array(rows, np.float32).reshape(len(batch.wanted), 5)

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
