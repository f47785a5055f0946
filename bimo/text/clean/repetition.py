"""Leaves out texts that say the same thing again and again.

The rules are those of Rae et al. 2021 (arXiv 2112.11446), table A1: the share of lines, of paragraphs and of the
characters in them that have stood before; the share of characters that the most frequent n-gram of words covers; the
share of characters in n-grams that have stood before, where characters in several such n-grams count once.

In Chinese, Japanese and their like the n-grams are of characters, and so many more of them as a word has characters:
where English counts five words, eight characters are counted. The profile ``gopher`` has the limits of the table;
``own`` has limits that plays with the names of the speakers, poems with a refrain and tables of manuals pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bimo.config import setting
from bimo.text.document import Document, Drop, Step
from bimo.text.measures import (
    CHARACTERS_A_WORD,
    Measures,
    Rule,
    Tokens,
    first_broken,
    limits_of,
    measures_of,
    repeated_characters,
)

FEWEST_WORDS = 50  # for rules on n-grams: in a short text a phrase that stands twice is a large share
BUCKETS_A_TOKEN = 32
SHORT = 1_500  # characters
MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)
_PARAGRAPH_END = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Config:
    """Which rules a text must pass; a limit that is not set is that of the profile."""

    on: bool = setting(True, "leave out what repeats itself")
    profile: Literal["own", "gopher"] = setting("own", "whose limits to use")
    max_lines: float | None = setting(None, "most lines that have stood before, as a share")
    max_paragraphs: float | None = setting(None, "most paragraphs that have stood before, as a share")
    max_line_characters: float | None = setting(None, "most characters in such lines, as a share")
    max_paragraph_characters: float | None = setting(None, "most characters in such paragraphs, as a share")
    max_top_2gram: float | None = setting(None, "most characters of the most frequent 2-gram, as a share")
    max_top_3gram: float | None = setting(None, "the same for 3-grams")
    max_top_4gram: float | None = setting(None, "the same for 4-grams")
    max_5grams: float | None = setting(None, "most characters in 5-grams that have stood before, as a share")
    max_6grams: float | None = setting(None, "the same for 6-grams")
    max_7grams: float | None = setting(None, "the same for 7-grams")
    max_8grams: float | None = setting(None, "the same for 8-grams")
    max_9grams: float | None = setting(None, "the same for 9-grams")
    max_10grams: float | None = setting(None, "the same for 10-grams")


def build(config: Config) -> Step:
    """The step that drops a document at the first rule it breaks."""
    limits = limits_of(config, RULES, PROFILES)
    of_lines = {name: limit for name, limit in limits.items() if "gram" not in name}
    of_tops = {name: limit for name, limit in limits.items() if "top" in name}
    of_repeated = {name: limit for name, limit in limits.items() if name.endswith("grams")}
    least_top = min(of_tops.values(), default=math.inf)
    least_repeated = min(of_repeated.values(), default=math.inf)

    def step(document: Document) -> Document | Drop:
        if document.kind in ("code", "table"):
            return document
        m = measures_of(document.text)
        drop = None
        if m.repeats_lines:  # without such a line there is no such paragraph
            drop = first_broken(m, RULES, of_lines)
        if drop is None and m.words >= FEWEST_WORDS:
            if of_tops and top_bound(m) > least_top:
                drop = first_broken(m, RULES, of_tops)
            if drop is None and of_repeated and may_repeat(m, least_repeated):
                drop = first_broken(m, RULES, of_repeated)
        return drop or document

    return step


def _share_of(parts: list[str]) -> float:
    return 1 - len(set(parts)) / len(parts) if parts else 0.0


def _paragraphs(m: Measures) -> list[str]:
    return _PARAGRAPH_END.split(m.text.strip())


def _size(m: Measures, n: int) -> int:
    """The tokens of an n-gram of ``n`` words."""
    return round(n * CHARACTERS_A_WORD) if m.is_unspaced else n


def grams(tokens: Tokens, n: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The n-grams of a text: their hashes and their characters; both of shape (tokens - n + 1,)."""
    count = max(len(tokens.hashes) - n + 1, 0)
    hashes = tokens.hashes[:count].copy()
    for i in range(1, n):
        hashes *= MULTIPLIER
        hashes += tokens.hashes[i : i + count]
    return hashes, tokens.edges[n:] - tokens.edges[:count]


def top_bound(m: Measures) -> float:
    """A share that no n-gram of two to four words covers more than, quickly computed.

    What covers a share as an n-gram of two, three or four words has two parts of two words, and one of them covers at
    least half as much. All 2-grams that fall into one of few buckets cover at least what one of them does.
    """
    hashes, lengths = grams(m.tokens, _size(m, 2))
    if not len(hashes):
        return 0.0
    most = np.bincount((hashes >> 54).view(np.int64), weights=lengths, minlength=1 << 10).max()
    return float(2 * most / _characters(m))


def repeated_bound(m: Measures) -> float:
    """A share that n-grams of five or more words that have stood before do not cover more than, quickly computed.

    A long one that has stood before is covered by shorter ones that have; and at least as many 5-grams are new as there
    are buckets that one of them falls into. In a short text few words come again at all, which is quicker to see.
    """
    if len(m.text) <= SHORT and m.text.isascii():
        return repeated_characters(m.text.split())
    hashes, lengths = grams(m.tokens, _size(m, 5))
    if not len(hashes):
        return 0.0
    bits = (BUCKETS_A_TOKEN * len(hashes)).bit_length()
    filled = np.zeros(1 << bits, np.bool_)
    filled[(hashes >> (64 - bits)).view(np.int64)] = True
    old = len(hashes) - np.count_nonzero(filled)
    return float(old * lengths.max() / _characters(m))


def may_repeat(m: Measures, limit: float) -> bool:
    """Whether n-grams of five or more words that have stood before may cover more than a share."""
    if m.facts:
        return bool(m.facts.repeated_characters > limit * m.facts.token_characters)
    return repeated_bound(m) > limit and repeated_share(m, 5) > limit


def top_share(m: Measures, n: int) -> float:
    """Characters of the most frequent n-gram of ``n`` words, times how often it stands, as a share of all."""
    hashes, lengths = grams(m.tokens, _size(m, n))
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    often = counts.max(initial=0)
    if often < 2:
        return 0.0
    return float(lengths[first[counts == often]].max() * often / _characters(m))


def repeated_share(m: Measures, n: int) -> float:
    """Characters in n-grams of ``n`` words that have stood before, as a share of all."""
    size = _size(m, n)
    hashes, _ = grams(m.tokens, size)
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    again = order[1:][ordered[1:] == ordered[:-1]]  # where an n-gram starts that has stood before
    if not len(again):
        return 0.0
    starts_less_ends = np.zeros(len(m.tokens.hashes) + 1, np.int64)
    starts_less_ends[again] += 1
    starts_less_ends[again + size] -= 1
    covered = np.cumsum(starts_less_ends[:-1]) > 0
    return float(np.diff(m.tokens.edges)[covered].sum() / _characters(m))


def _characters(m: Measures) -> int:
    return int(m.tokens.edges[-1] - m.tokens.edges[0])


def _top(n: int) -> Callable[[Measures], float]:
    return lambda m: top_share(m, n)


def _repeated(n: int) -> Callable[[Measures], float]:
    return lambda m: repeated_share(m, n)


RULES = {
    "max_lines": Rule("repeated lines", lambda m: _share_of(m.lines)),
    "max_paragraphs": Rule("repeated paragraphs", lambda m: _share_of(_paragraphs(m))),
    "max_line_characters": Rule("repeated lines", lambda m: repeated_characters(m.lines)),
    "max_paragraph_characters": Rule("repeated paragraphs", lambda m: repeated_characters(_paragraphs(m))),
    **{f"max_top_{n}gram": Rule("one phrase again and again", _top(n)) for n in (2, 3, 4)},
    **{f"max_{n}grams": Rule("repeated phrases", _repeated(n)) for n in (5, 6, 7, 8, 9, 10)},
}
_GOPHER = {
    "max_lines": 0.3,
    "max_paragraphs": 0.3,
    "max_line_characters": 0.2,
    "max_paragraph_characters": 0.2,
    "max_top_2gram": 0.2,
    "max_top_3gram": 0.18,
    "max_top_4gram": 0.16,
    **{f"max_{n}grams": 0.2 - n / 100 for n in (5, 6, 7, 8, 9, 10)},
}
PROFILES: dict[str, dict[str, float]] = {
    "own": {"max_line_characters": 0.6, "max_paragraph_characters": 0.6, "max_5grams": 0.6},
    "gopher": _GOPHER,
}
