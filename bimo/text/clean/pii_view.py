"""A text as the PII detectors read it: folded to ASCII where that keeps the length, with the places worth a look.

Personal data with a number in it (and nearly all of it has one) is found by looking around digits: numpy finds all
digits of a text in one pass, and the regular expressions of ``pii_numbers.py`` and ``pii_secrets.py`` only see the
chains of digits and the words that hold some. Plain prose costs that one pass.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Span = tuple[int, int]  # (start, end)

HIDDEN = "\u00ad\u180e\u200b\u200c\u200d\u2060\u2063\ufeff"  # invisible: soft hyphen, zero-width spaces and joiners
DASHES = "".join(map(chr, (*range(0x2010, 0x2016), 0x2212)))  # read as "-"
GAP = 4  # digits of one number are at most this far apart: ") -" stands between them at the most


@dataclass(frozen=True)
class View:
    """A folded text and where its numbers are.

    Attributes:
        text: full-width forms as ASCII, every dash as ``-``, every space and escaped line end as spaces, invisible
            characters left out.
        kind: the kind of the document, one of ``bimo.text.document.KINDS``.
        chains: spans of digits with at most three other characters between two of them: at least seven digits, or four
            with three separators.
        words: spans between white space with a digit and at least eight ASCII characters.
        places: for each character of ``text`` where it stands in the original; None where it is the same place.
    """

    text: str
    kind: str
    chains: list[Span]
    words: list[Span]
    places: npt.NDArray[np.int64] | None

    def original(self, start: int, end: int) -> Span:
        """The span of the original text that became ``text[start:end]``."""
        if self.places is None:
            return start, end
        return int(self.places[start]), int(self.places[end - 1]) + 1


def view(text: str, kind: str) -> View:
    """Look at a text once; any str will do, lone surrogates included."""
    places = None
    if "\\" in text:  # line ends and tabs as JSON and source code write them
        text = text.replace("\\n", "  ").replace("\\r", "  ").replace("\\t", "  ")
    if text.isascii():
        codes: npt.NDArray[np.unsignedinteger] = np.frombuffer(text.encode("ascii"), np.uint8)
    else:
        codes = _folds().take(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4"))
        if any(character in text for character in HIDDEN):
            places = np.flatnonzero(~np.isin(codes, [ord(character) for character in HIDDEN]))
            codes = codes[places]
        text = codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    digits = (codes - codes.dtype.type(ord("0")) < 10).nonzero()[0]  # unsigned: what is below "0" wraps around
    if not len(digits):
        return View(text, kind, [], [], places)
    return View(text, kind, _chains(digits) if len(digits) >= 4 else [], _words(codes, digits), places)


@functools.cache
def _folds() -> npt.NDArray[np.uint32]:
    """For every code point the one it is read as."""
    table = np.arange(0x110000, dtype=np.uint32)
    table[0xFF01:0xFF5F] = np.arange(ord("!"), ord("~") + 1)  # full-width forms
    table[list(map(ord, DASHES))] = ord("-")
    table[[0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000]] = ord(" ")
    return table


def _chains(digits: npt.NDArray[np.int64]) -> list[Span]:
    breaks = (digits[1:] - digits[:-1] > GAP).nonzero()[0]
    first, last = np.concatenate(([0], breaks + 1)), np.concatenate((breaks, [len(digits) - 1]))
    starts, ends, counts = digits[first], digits[last] + 1, last - first + 1
    kept = (counts >= 7) | ((counts >= 4) & (ends - starts - counts >= 3))
    return list(zip(starts[kept].tolist(), ends[kept].tolist(), strict=True))


def _words(codes: npt.NDArray[np.unsignedinteger], digits: npt.NDArray[np.int64]) -> list[Span]:
    edges = (codes - codes.dtype.type(ord("!")) >= 94).nonzero()[0]
    after = edges.searchsorted(digits)
    after = after[np.concatenate(([True], after[1:] != after[:-1]))]
    bounded = np.concatenate(([-1], edges, [len(codes)]))
    starts, ends = bounded[after] + 1, bounded[after + 1]
    kept = ends - starts >= 8
    return list(zip(starts[kept].tolist(), ends[kept].tolist(), strict=True))
