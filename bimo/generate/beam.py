"""Beam search: of each prompt a few continuations grow side by side, and the likeliest that ends is the answer.

The likelihood of a finished one is the mean of its tokens' log-probabilities, else short ones would win (Wu et al.
2016, §7, with an exponent of 1). What grows, what ends and when to stop is as in Hugging Face's ``num_beams``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bimo.generate.backend import PAGE, Backend
from bimo.generate.batching import Piece, batch_of
from bimo.generate.completion import Completion, Row
from bimo.generate.generate import Step
from bimo.generate.pages import Pages
from bimo.generate.sampling import largest, normaliser, require_numbers

if TYPE_CHECKING:
    from bimo.tokenizer.tokenizer import Tokenizer


class Found(NamedTuple):
    """A continuation: its tokens, an end token included, and the log-probability of each."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    def completion(self, tokenizer: Tokenizer, ends: Collection[int]) -> Completion:
        """The same as a text."""
        row = Row(tokenizer, seed=0, stop=())
        for place, (token, logprob) in enumerate(zip(*self, strict=True), 1):
            ended = None if place < len(self.ids) else "stop" if token in ends else "length"
            row.add(Step(0, token, logprob, ended))
        return row.completion()

    def then(self, token: int, logprob: float) -> Found:
        """This and one token more."""
        return Found((*self.ids, token), (*self.logprobs, logprob))


@dataclass
class _Beam:
    """A continuation that grows; ``pages`` hold the prompt and all its tokens but the last."""

    found: Found
    total: float
    pages: list[int]


@dataclass
class _Search:
    """One prompt."""

    number: int
    prompt: Sequence[int]
    most: int
    beams: list[_Beam]
    finished: list[tuple[float, Found]] = field(default_factory=list)  # by their mean log-probability, the best first


def pages_needed(longest: int, num_beams: int) -> int:
    """Pages that a search takes at most whose prompt and answer together have ``longest`` tokens."""
    return num_beams * -(-longest // PAGE)


class BeamSearch:
    """Searches for many prompts at once on one backend, whose pages are its alone.

    Args:
        num_beams: continuations of a prompt that grow side by side.
        ends: tokens that end one.
        most_together: prompts that are searched for at once.
    """

    def __init__(self, backend: Backend, *, num_beams: int, ends: Collection[int], most_together: int) -> None:
        self._backend, self._num_beams, self._ends = backend, num_beams, frozenset(ends)
        self._most_together, self._pages = most_together, Pages(backend.pages)

    def run(self, prompts: Sequence[tuple[Sequence[int], int]]) -> Iterator[tuple[int, Found]]:
        """The likeliest continuation of each prompt, with its number, as soon as it is known.

        Args:
            prompts: ids of each, and how many tokens may follow.

        Raises:
            ModelError: the logits are not numbers.
        """
        waiting = list(enumerate(prompts))[::-1]
        searches: list[_Search] = []
        while waiting or searches:
            while waiting and len(searches) < self._most_together:
                number, (ids, most) = waiting[-1]
                search = _Search(number, ids, most, [_Beam(Found((), ()), 0.0, [])])
                if searches and sum(map(self._needed, [*searches, search])) > self._backend.pages:
                    break
                waiting.pop()
                searches.append(search)
            for search, logits in zip(searches, self._computed(searches), strict=True):
                self._grow(search, logits)
            for search in [one for one in searches if self._is_over(one)]:
                searches.remove(search)
                for beam in search.beams:
                    self._pages.release(beam.pages)
                yield search.number, search.finished[0][1]

    def _needed(self, search: _Search) -> int:
        return pages_needed(len(search.prompt) + search.most, self._num_beams)

    def _computed(self, searches: Sequence[_Search]) -> list[NDArray[np.float32]]:
        """The logits (beams, V) of what comes next, for each search."""
        pieces = [self._piece(search, beam) for search in searches for beam in search.beams]
        logits = self._backend.logits(batch_of(pieces))
        return np.split(logits, np.cumsum([len(search.beams) for search in searches])[:-1])

    def _piece(self, search: _Search, beam: _Beam) -> Piece:
        """The positions of a beam that have not been computed: the prompt, or the last token."""
        end = len(search.prompt) + len(beam.found.ids)
        tokens = beam.found.ids[-1:] or search.prompt
        while len(beam.pages) * PAGE < end:
            beam.pages.append(self._pages.take())
        return Piece(tokens, end - len(tokens), beam.pages, range(end - 1, end))

    def _grow(self, search: _Search, logits: NDArray[np.float32]) -> None:
        """Choose the beams of the next step among all tokens that could follow, and put those that end aside."""
        for row in logits:
            require_numbers(row)
        logprobs = logits - np.array([[normaliser(row)] for row in logits])  # (beams, V), float64
        totals = (logprobs + np.array([[beam.total] for beam in search.beams])).ravel()
        best = largest(totals, (1 + len(self._ends)) * self._num_beams)  # enough if all ends were among them
        length, grown = len(search.beams[0].found.ids) + 1, list[tuple[int, Found, float]]()
        for rank, place in enumerate(best.tolist()):
            parent, token = divmod(place, logits.shape[1])
            found = search.beams[parent].found.then(token, float(logprobs[parent, token]))
            if token in self._ends or length == search.most:
                if rank < self._num_beams:
                    search.finished.append((totals[place] / length, found))
            elif len(grown) < self._num_beams:
                grown.append((parent, found, float(totals[place])))
        search.finished = sorted(search.finished, key=lambda one: -one[0])[: self._num_beams]
        self._replace(search, grown)

    def _replace(self, search: _Search, grown: Sequence[tuple[int, Found, float]]) -> None:
        """The new beams, each with pages that it may write to: the first child of a beam takes its parent's."""
        parents, taken = search.beams, set[int]()
        for number in set(range(len(parents))) - {parent for parent, _, _ in grown}:
            self._pages.release(parents[number].pages)
        search.beams = []
        for parent, found, total in grown:
            pages = parents[parent].pages
            if parent in taken:
                full = (len(search.prompt) + len(found.ids) - 1) // PAGE  # pages that nobody writes to any more
                copies = [self._pages.take() for _ in pages[full:]]
                for source, target in zip(pages[full:], copies, strict=True):
                    self._backend.copy_page(source, target)
                self._pages.hold(pages[:full])
                pages = [*pages[:full], *copies]
            taken.add(parent)
            search.beams.append(_Beam(found, total, pages))

    def _is_over(self, search: _Search) -> bool:
        """Whether nothing that grows can still be better than the worst of as many finished ones as there are beams."""
        if not search.beams:
            return True
        best = max(beam.total for beam in search.beams) / len(search.beams[0].found.ids)
        return len(search.finished) == self._num_beams and search.finished[-1][0] >= best
