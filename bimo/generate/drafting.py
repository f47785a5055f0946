"""Guesses of the next tokens, so that one pass can verify several: speculative decoding (arXiv:2211.17192).

A guess is accepted only where it is the token that the sampler draws from the model's own logits. So results are those
without guessing, to the bit; only the number of passes differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from bimo.errors import BimoError
from bimo.generate.backend import PAGE, Backend
from bimo.generate.batching import Piece, batch_of
from bimo.generate.pages import Pages
from bimo.generate.sampling import Row, next_token

if TYPE_CHECKING:
    from bimo.generate.job import Job


# Guesses in one step of all requests together: the more are computed together, the less a further row is for nothing.
TOGETHER = 8
TOKENS = 4  # to guess of one text: twice as many are seldom all right


class Drafter(Protocol):
    """Guesses what comes next, from the tokens so far.

    Attributes:
        vocab_size: of the model that guesses, if one does.
    """

    vocab_size: int | None

    def propose(self, jobs: Sequence[Job]) -> list[list[int]]:
        """The guessed next tokens of each job, none or some."""

    def forget(self, number: int) -> None:
        """The job of this number has ended or starts again; it may never have been seen."""


class PromptLookup:
    """Guesses that what followed the last few tokens before follows them again: good where a text quotes its prompt.

    Args:
        tokens: to guess at most of one text.
        match: how many last tokens are looked up.
        together: tokens to guess at most of all texts together.
    """

    vocab_size: int | None = None

    def __init__(self, *, tokens: int = TOKENS, match: int = 3, together: int = TOGETHER) -> None:
        self._tokens, self._match, self._together = tokens, match, together
        self._places: dict[int, dict[tuple[int, ...], int]] = {}  # what followed each run of tokens last, by job
        self._read: dict[int, int] = {}

    def propose(self, jobs: Sequence[Job]) -> list[list[int]]:
        """See :class:`Drafter`."""
        count = min(self._tokens, self._together // max(1, len(jobs)))
        return [self._lookup(job.number, job.tokens, count) if count else [] for job in jobs]

    def _lookup(self, number: int, tokens: list[int], count: int) -> list[int]:
        places = self._places.setdefault(number, {})
        for end in range(self._read.get(number, self._match), len(tokens)):  # runs that something follows
            places[tuple(tokens[end - self._match : end])] = end
        self._read[number] = len(tokens)
        place = places.get(tuple(tokens[-self._match :]))
        if place is None:
            return []
        period = len(tokens) - place  # what is shorter than the guess repeats itself
        return [tokens[place + index % period] for index in range(count)]

    def forget(self, number: int) -> None:
        """See :class:`Drafter`."""
        self._places.pop(number, None)
        self._read.pop(number, None)


class DraftModel:
    """Guesses with a smaller model of the same vocabulary, by the same random numbers, so that the two often agree.

    Args:
        backend: what computes the smaller model; its pages are the drafter's alone. A sequence that has no room there,
            or is longer than its context, is not guessed.
        tokens: to guess of one text.
        chunk: positions computed in one pass.
        together: tokens to guess at most of all texts together.
    """

    def __init__(self, backend: Backend, *, tokens: int = TOKENS, chunk: int = 256, together: int = TOGETHER) -> None:
        self.vocab_size: int | None = backend.vocab_size
        self._backend, self._tokens, self._chunk, self._together = backend, tokens, chunk, together
        self._pages = Pages(backend.pages)
        self._pasts: dict[int, _Past] = {}

    def propose(self, jobs: Sequence[Job]) -> list[list[int]]:
        """See :class:`Drafter`; where the smaller model fails, nothing is guessed."""
        count = min(self._tokens, self._together // max(1, len(jobs)))
        able = [job for job in jobs if count and self._has_room(job)]
        texts = {job.number: list(job.tokens) for job in able}
        try:
            for _ in range(count if able else 0):
                self._extend(able, texts)
        except BimoError:
            for job in able:
                self.forget(job.number)
        return [texts[job.number][len(job.tokens) :] if job.number in texts else [] for job in jobs]

    def _extend(self, jobs: Sequence[Job], texts: Mapping[int, list[int]]) -> None:
        """Guess one more token of each text."""
        logits = self._next_logits(texts)
        for job in jobs:
            tokens, sampling = texts[job.number], job.request.sampling
            assert sampling is not None
            uniform = 0.0 if sampling.greedy else job.uniforms[len(tokens) - len(job.request.prompt)]
            tokens.append(next_token(logits[job.number], sampling, uniform=uniform).token)

    def _has_room(self, job: Job) -> bool:
        """Whether the sequence and its guesses fit; takes the pages."""
        length = len(job.tokens) + self._tokens
        past = self._pasts.setdefault(job.number, _Past())
        missing = -(-length // PAGE) - len(past.pages)
        if length > self._backend.context or missing > self._pages.available:
            self.forget(job.number)
            return False
        past.pages += [self._pages.take() for _ in range(missing)]
        past.keep(job.tokens)
        return True

    def _next_logits(self, texts: Mapping[int, list[int]]) -> dict[int, Row]:
        """Compute what is new of each text; returns the logits (V,) behind it."""
        result: dict[int, Row] = {}
        while len(result) < len(texts):
            pieces, ended, room = [], [], self._chunk
            for number, tokens in texts.items():
                past = self._pasts[number]
                start = len(past.tokens)
                end = min(len(tokens), start + room)
                if start == end:
                    continue
                pieces.append(Piece(tokens[start:end], start, past.pages, range(len(tokens) - 1, end)))
                past.tokens += tokens[start:end]
                room -= end - start
                if end == len(tokens):
                    ended.append(number)
            result |= zip(ended, self._backend.logits(batch_of(pieces)), strict=True)
        return result

    def forget(self, number: int) -> None:
        """See :class:`Drafter`."""
        past = self._pasts.pop(number, None)
        if past is not None:
            self._pages.release(past.pages)


class _Past:
    """What the smaller model has computed of a sequence, guesses included."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.pages: list[int] = []
        self._sure = 0  # how many of the tokens are no guesses

    def keep(self, tokens: Sequence[int]) -> None:
        """Keep what is computed of ``tokens``, its last one excepted."""
        while self._sure < min(len(self.tokens), len(tokens) - 1) and self.tokens[self._sure] == tokens[self._sure]:
            self._sure += 1
        del self.tokens[self._sure :]
