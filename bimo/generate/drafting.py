"""Guesses of the next tokens, so that one pass can verify several: speculative decoding (arXiv:2211.17192).

A guess is accepted only where it is the token that the sampler draws from the model's own logits. So results are those
without guessing, to the bit; only the number of passes differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bimo.generate.job import Job


class Drafter(Protocol):
    """Guesses what comes next, from the tokens so far."""

    def propose(self, jobs: Sequence[Job]) -> list[list[int]]:
        """The guessed next tokens of each job, none or some."""

    def forget(self, number: int) -> None:
        """The job of this number has ended or starts again; it may never have been seen."""


class PromptLookup:
    """Guesses that what followed the last few tokens before follows them again: good where a text quotes its prompt.

    Args:
        tokens: to guess at most.
        match: how many last tokens are looked up.
    """

    def __init__(self, *, tokens: int = 8, match: int = 3) -> None:
        self._tokens, self._match = tokens, match
        self._places: dict[int, dict[tuple[int, ...], int]] = {}  # what followed each run of tokens last, by job
        self._read: dict[int, int] = {}

    def propose(self, jobs: Sequence[Job]) -> list[list[int]]:
        """See :class:`Drafter`."""
        return [self._lookup(job.number, job.tokens) for job in jobs]

    def _lookup(self, number: int, tokens: list[int]) -> list[int]:
        places = self._places.setdefault(number, {})
        for end in range(self._read.get(number, self._match), len(tokens)):  # runs that something follows
            places[tuple(tokens[end - self._match : end])] = end
        self._read[number] = len(tokens)
        place = places.get(tuple(tokens[-self._match :]))
        if place is None:
            return []
        period = len(tokens) - place  # what is shorter than the guess repeats itself
        return [tokens[place + index % period] for index in range(self._tokens)]

    def forget(self, number: int) -> None:
        """See :class:`Drafter`."""
        self._places.pop(number, None)
        self._read.pop(number, None)
