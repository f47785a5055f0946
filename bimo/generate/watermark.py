"""A mark in generated text that its reader does not see and the owner of a key can find again, with a p-value.

The green list of Kirchenbauer et al. 2023 (arXiv:2301.10226, algorithm 2): the tokens before a place and a secret key
name a share of the vocabulary "green", and green tokens are made a little likelier. Text without the mark is green as
often as chance has it. A pair of context and token counts once, as repetition would else look like a mark (Fernandez et
al. 2023, arXiv:2308.00113, section 4), so that the number of green pairs is binomial and the p-value exact.

Shapes: V vocabulary, N tokens of a text, M distinct pairs of context and token.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bimo.errors import UsageError

SHORTEST_KEY = 8  # characters: who guesses the key can find the mark, and forge it

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Watermark:
    """How text is marked; finding the mark takes the same values.

    Attributes:
        key: the secret.
        gamma: share of the vocabulary that is green.
        delta: what green tokens gain, in nats of their logits after the temperature; 0 would mark nothing.
        width: tokens before a place that choose its green tokens: with more of them the mark is harder to learn from
            texts, and less of it is left where single words are changed.

    Raises:
        UsageError: a value is out of range.
    """

    key: str
    gamma: float = 0.25
    delta: float = 2.0
    width: int = 2

    def __post_init__(self) -> None:
        if len(self.key) < SHORTEST_KEY:
            expected, got = f"a secret of {SHORTEST_KEY} characters or more", f"{len(self.key)} characters"
            raise UsageError("The key of the watermark is too short.", expected=expected, got=got)
        if not 0 < self.gamma < 1:
            raise UsageError("gamma is wrong.", expected="a number between 0 and 1", got=repr(self.gamma))
        if not 0 < self.delta <= 20:
            raise UsageError("delta is wrong.", expected="a number above 0, up to 20", got=repr(self.delta))
        if not 1 <= self.width <= 8:
            raise UsageError("width is wrong.", expected="a whole number from 1 to 8", got=repr(self.width))

    def green(self, before: Sequence[int], vocab_size: int) -> NDArray[np.bool_]:
        """Which tokens (V,) are green after the tokens ``before``; none at the very beginning of a text."""
        if len(before) < self.width:
            return np.zeros(vocab_size, dtype=bool)
        context = np.array([before[len(before) - self.width :]], dtype=np.uint64)  # (1, width)
        return self._is_green(context, np.arange(vocab_size, dtype=np.uint64))

    def bonus(self, before: Sequence[int], vocab_size: int) -> NDArray[np.float32]:
        """What the logits of the next token gain (V,)."""
        return self.green(before, vocab_size) * np.float32(self.delta)

    def _is_green(self, contexts: Words, tokens: Words) -> NDArray[np.bool_]:
        """Of each context (M or 1, width) and the token after it (M,)."""
        state = np.full(len(contexts), _number(self.key), dtype=np.uint64)
        for column in contexts.T:
            state = _mixed(state ^ column)
        return _mixed(state ^ tokens) < np.uint64(int(self.gamma * 2**64))

    def detect(self, ids: Sequence[int]) -> Detection:
        """Look for the mark in the ids of a text, encoded without anything before it."""
        tokens = np.asarray(ids, dtype=np.uint64)
        if len(tokens) <= self.width:
            return Detection(0, 0, self.gamma)
        rows = np.unique(np.lib.stride_tricks.sliding_window_view(tokens, self.width + 1), axis=0)  # (M, width + 1)
        return Detection(len(rows), int(self._is_green(rows[:, :-1], rows[:, -1]).sum()), self.gamma)


@dataclass(frozen=True)
class Detection:
    """What was counted in a text.

    Attributes:
        pairs: distinct pairs of context and token, M.
        green: how many of them are green.
        gamma: the share that chance would make green.
    """

    pairs: int
    green: int
    gamma: float

    @property
    def p_value(self) -> float:
        """The probability that a text without the mark has as many green pairs, or more."""
        if not self.green:
            return 1.0
        M, gamma = self.pairs, self.gamma
        logs = [
            math.lgamma(M + 1) - math.lgamma(k + 1) - math.lgamma(M - k + 1)
            + k * math.log(gamma) + (M - k) * math.log1p(-gamma)
            for k in range(self.green, M + 1)
        ]  # fmt: skip
        largest = max(logs)
        return min(1.0, math.exp(largest) * math.fsum(math.exp(log - largest) for log in logs))

    @property
    def z_score(self) -> float:
        """How many standard deviations there are more green pairs than chance has; 0 for an empty text."""
        deviation = math.sqrt(self.pairs * self.gamma * (1 - self.gamma))
        return (self.green - self.gamma * self.pairs) / deviation if deviation else 0.0


def _number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8"), digest_size=8, person=b"bimo mark").digest(), "little")


def _mixed(values: Words) -> Words:
    """Every bit of the result depends on every bit of the value: SplitMix64 (Steele et al. 2014, figure 16)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
