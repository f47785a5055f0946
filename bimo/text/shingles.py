"""A text as a row of word hashes, and hashes of every window of them: what finds equal passages and similar texts.

A word is a run of letters, digits and marks, in any case and width; a character of a script that is written without
spaces (Chinese, Japanese kana, Thai, Lao, Khmer, Burmese) is a word of its own, so that one rule serves any mixture of
languages. Everything else separates words.

Shapes: N characters or values, W words or windows.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bimo.text.scripts import UNSPACED

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]

FIRST_IDEOGRAPH = 0x20000  # of those above the basic plane
PICTURES = (0x1F000, 0x1FAFF)  # emoji and other signs: they separate words
BLOCK = 1 << 15  # characters hashed at once, and the longest word that is told from its longer beginnings

_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text, in order.

    Attributes:
        hashes: one for each word (W,), the same on every machine.
        starts: its first character (W,).
        ends: the one after its last (W,).
        unspaced: whether it is a character of a script without spaces (W,).
    """

    hashes: Hashes
    starts: Places
    ends: Places
    unspaced: Marks


def words_of(text: str) -> Words:
    """The words of any string, by a polynomial over their folded characters (Karp & Rabin 1987)."""
    fold, unspaced, fold_ascii = _tables()
    framed = f"\n{text}\n"
    if framed.isascii():
        folded = fold_ascii[np.frombuffer(framed.encode("ascii"), dtype=np.uint8)]  # (N + 2,)
        within = folded != 0
        edges = (within[1:] != within[:-1]).nonzero()[0] + 1
        starts, ends = edges[::2], edges[1::2]
        alone = np.zeros(len(starts), dtype=bool)
    else:
        codes = np.frombuffer(framed.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        low = np.minimum(codes, 0xFFFF)
        folded, single = fold[low], unspaced[low]  # (N + 2,)
        if (high := np.flatnonzero(codes > 0xFFFF)).size:
            picture = (codes[high] >= PICTURES[0]) & (codes[high] <= PICTURES[1])
            folded[high] = np.where(picture, 0, codes[high])
            single[high] = codes[high] >= FIRST_IDEOGRAPH
        within = folded != 0
        single &= within
        apart = (within[1:] != within[:-1]) | single[1:] | single[:-1]  # between a character and the one before
        starts = np.flatnonzero(within[1:] & apart) + 1
        ends = np.flatnonzero(within[:-1] & apart) + 1
        alone = single[starts]
    return Words(_word_hashes(folded, starts, ends), starts - 1, ends - 1, alone)


@functools.cache
def _tables() -> tuple[npt.NDArray[np.uint32], Marks, npt.NDArray[np.uint8]]:
    """What a character of the basic plane is folded to, 0 for separators, and whether it stands alone (65536,) each.

    The third table is the first for ASCII alone (128,). A character is always folded to one, so that places in the text
    stay what they are.
    """
    fold = np.zeros(1 << 16, dtype=np.uint32)
    for code in range(1 << 16):
        character = chr(code)
        if character.isalnum() or unicodedata.category(character) in ("Mn", "Mc", "Cn", "Co"):
            plain = unicodedata.normalize("NFKC", character).casefold()
            fold[code] = ord(plain) if len(plain) == 1 and plain.isalnum() else code
    fold[0xFE00:0xFE10] = 0  # variation selectors, which only choose how a sign looks
    unspaced = np.zeros(1 << 16, dtype=bool)
    for first, last in UNSPACED:
        unspaced[first : last + 1] = True
    return fold, unspaced, fold[:128].astype(np.uint8)


@functools.cache
def _powers() -> tuple[Hashes, Hashes]:
    """The powers of the base modulo 2**64, and their inverses: two of (BLOCK,)."""
    inverse = np.uint64(pow(int(_BASE), -1, 1 << 64))
    both = np.empty((2, BLOCK), dtype=np.uint64)
    both[:, 0] = 1
    for row, base in enumerate((_BASE, inverse)):
        both[row, 1:] = base
        np.multiply.accumulate(both[row], out=both[row])
    return both[0], both[1]


def _word_hashes(folded: npt.NDArray[Any], starts: Places, ends: Places) -> Hashes:
    """A hash of each ``folded[start:end]``: a difference of prefix sums, moved back to the power 0."""
    powers, inverses = _powers()
    hashes = np.empty(len(starts), dtype=np.uint64)
    first = 0
    while first < len(starts):
        begin = int(starts[first])
        after = max(first + 1, int(np.searchsorted(ends, begin + BLOCK, side="right")))
        values = folded[begin : min(int(ends[after - 1]), begin + BLOCK)].astype(np.uint64)
        sums = np.zeros(len(values) + 1, dtype=np.uint64)
        np.cumsum(values * powers[: len(values)], out=sums[1:])
        local = starts[first:after] - begin
        hashes[first:after] = (sums[np.minimum(ends[first:after] - begin, len(values))] - sums[local]) * inverses[local]
        first = after
    return mixed(hashes)


def window_hashes(values: Hashes, length: int) -> Hashes:
    """A hash of every ``length`` values in a row (N - length + 1,), from those of the powers of two it is made of."""
    if len(values) < length:
        return np.zeros(0, dtype=np.uint64)
    total, taken, power, doubled, size = None, 0, int(_BASE), values, 1
    while True:
        if length & size:
            total = doubled if total is None else total[: len(total) - size] * np.uint64(power) + doubled[taken:]
            taken += size
        if size * 2 > length:
            break
        doubled = doubled[:-size] * np.uint64(power) + doubled[size:]
        power, size = power * power % (1 << 64), size * 2
    assert total is not None and taken == length
    return total[: len(values) - length + 1]


def places_of(values: Hashes, known: Hashes) -> Places:
    """Where each of the values (N,) stands in ``known``, which is ascending; -1 where it does not."""
    if not len(known):
        return np.full(len(values), -1)
    places = np.searchsorted(known, values).clip(max=len(known) - 1)
    return np.where(known[places] == values, places, -1)


def mixed(values: Hashes) -> Hashes:
    """Random-looking numbers, one for each value (Steele et al. 2014, SplitMix64)."""
    values = (values + np.uint64(1)) * _BASE
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def covered(first: Places, after: Places, count: int) -> Marks:
    """The places (count,) that lie in any of the spans ``first[i]:after[i]``."""
    edges = np.bincount(first, minlength=count + 1) - np.bincount(after, minlength=count + 1)
    return edges[:count].cumsum() > 0
