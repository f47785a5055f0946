"""What the rules on quality and repetition measure of a text, each thing once, and the limits they are held to.

A *word* is what spaces set apart, and has a letter or a digit. Chinese, Japanese, Thai and their like write no spaces:
there, ``CHARACTERS_A_WORD`` characters count as a word. A *token* is a word, a mark that stands alone, or one character
of such a script. Characters are counted in UTF-16 units; those beyond the basic plane (emoji) count as symbols.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bimo.text import scripts
from bimo.text.document import Drop
from bimo.text.scan import KEPT, LONGEST, Facts, facts_of

CHARACTERS_A_WORD = 1.6  # jieba's words of modern Chinese prose have 1.5 to 1.7 characters
MOST_TOKENS_OF = 1 << 17  # and the tokens of so many: the longer a text, the more of its phrases come again

BREAK, LETTER, UNSPACED, DIGIT = 1, 2, 4, 8  # bits that say what a character is; 0: a mark inside a word
_BREAK_RANGES = (  # dashes, quotes, marks of Chinese and Japanese: they part words without a space
    (0x2010, 0x2018),
    (0x201A, 0x205E),
    (0x3000, 0x3004),
    (0x3008, 0x3020),
    (0x30FB, 0x30FB),
    (0xFF01, 0xFF0F),
    (0xFF1A, 0xFF20),
    (0xFF3B, 0xFF40),
    (0xFF5B, 0xFF65),
)


@cache
def classes(known: int = 1 << 16) -> npt.NDArray[np.uint8]:
    """The class of each of the first UTF-16 units; shape (known,)."""
    units = "".join(map(chr, range(known)))
    of_category = {"L": LETTER, "M": LETTER, "N": DIGIT}
    found = np.array([of_category.get(unicodedata.category(unit)[0], 0) for unit in units], np.uint8)
    for ranges, kind in ((scripts.UNSPACED, UNSPACED), (_BREAK_RANGES, BREAK)):
        for first, last in ranges:
            found[first : last + 1] = kind
    found[:32] = BREAK
    found[np.fromiter(map(str.isspace, units), bool, known)] = BREAK
    return found


_ASCII_CLASSES = classes(128).tobytes() + bytes(128)


class Tokens(NamedTuple):
    """The tokens of a text, in order.

    Attributes:
        hashes: of each token, 64 bits; equal tokens have equal hashes; shape (tokens,).
        edges: the characters of tokens before each, and of all; shape (tokens + 1,).
    """

    hashes: npt.NDArray[np.uint64]
    edges: npt.NDArray[np.int64]


class Measures:
    """What is measured of a text, computed when first asked for.

    Attributes:
        text: the beginning of the text, at most ``LONGEST`` characters.
        facts: what C has found in it, if it has; without them, numpy finds the same.
    """

    def __init__(self, text: str, facts: Facts | None = None) -> None:
        self.text = text if len(text) <= LONGEST else text[:LONGEST]
        self.facts = facts
        if facts:
            self.unspaced, self.spaced_words, self.marks_and_words = facts.unspaced, facts.spaced_words, facts.tokens
            self.lettered_words, self.letters_and_digits = facts.lettered_words, facts.letters_and_digits

    @cached_property
    def _units(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """The characters, and the class of each; both of shape (characters,)."""
        if self.text.isascii():
            raw = self.text.encode("ascii")
            return np.frombuffer(raw, np.uint8), np.frombuffer(raw.translate(_ASCII_CLASSES), np.uint8)
        units = np.frombuffer(self.text.encode("utf-16-le", "surrogatepass"), "<u2")
        return units, classes()[units]

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        """Where each token starts; shape (tokens,)."""
        classes = self._units[1]
        inside = classes & (BREAK | UNSPACED) == 0  # a word goes on through such characters
        start = inside.copy()
        np.greater(inside[1:], inside[:-1], out=start[1:])
        if self.unspaced:
            start |= classes & UNSPACED != 0
        return np.flatnonzero(start)

    def _tokens_with(self, classes: int) -> int:
        """How many tokens have a character of these classes."""
        if not len(self._starts):
            return 0
        before = _before(self._units[1] & classes != 0, self._starts)
        return int(np.count_nonzero(before[1:] > before[:-1]))

    @cached_property
    def unspaced(self) -> int:
        """Characters of scripts without spaces."""
        return 0 if self.text.isascii() else int(np.count_nonzero(self._units[1] & UNSPACED))

    @cached_property
    def spaced_words(self) -> int:
        """Words of scripts with spaces."""
        return self._tokens_with(LETTER | DIGIT)

    @cached_property
    def lettered_words(self) -> int:
        """Those with a letter."""
        return self._tokens_with(LETTER)

    @cached_property
    def letters_and_digits(self) -> int:
        """Of words of scripts with spaces."""
        return int(np.count_nonzero(self._units[1] & (LETTER | DIGIT)))

    @cached_property
    def marks_and_words(self) -> int:
        """Words of scripts with spaces, marks that stand alone, and characters of scripts without spaces."""
        return len(self._starts)

    @property
    def words(self) -> float:
        """Words, those of scripts without spaces by their characters."""
        return self.spaced_words + self.unspaced / CHARACTERS_A_WORD

    @property
    def is_unspaced(self) -> bool:
        """Whether most of its words are of a script without spaces."""
        return self.unspaced / CHARACTERS_A_WORD > self.spaced_words

    @property
    def alphabetic_share(self) -> float:
        """Words with a letter, as a share of words and of marks that stand alone."""
        numbers = self.spaced_words - self.lettered_words
        alone = self.marks_and_words - self.unspaced - self.spaced_words
        return (self.words - numbers) / max(self.words + alone, 1)

    @property
    def word_length(self) -> float:
        """Letters and digits in a word of scripts with spaces, on average; nan without such words."""
        return self.letters_and_digits / self.spaced_words if self.spaced_words else float("nan")

    @cached_property
    def lines(self) -> list[str]:
        """The lines that are not empty, without the spaces around them."""
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @cached_property
    def repeats_lines(self) -> bool:
        """Whether a line has stood before."""
        return self.facts.repeated_lines > 0 if self.facts else len(set(self.lines)) < len(self.lines)

    @cached_property
    def tokens(self) -> Tokens:
        """The tokens of the first ``MOST_TOKENS_OF`` characters."""
        (units, classes), starts = self._units, self._starts
        if len(units) > MOST_TOKENS_OF:
            units, classes = units[:MOST_TOKENS_OF], classes[:MOST_TOKENS_OF]
            starts = starts[: np.searchsorted(starts, len(units))]
        if not len(starts):
            return Tokens(np.zeros(0, np.uint64), np.zeros(1, np.int64))
        powers, inverses = _powers()
        inside = classes & BREAK == 0
        values = (units * inside) * powers[: len(units)]  # a polynomial in an odd base, modulo 2**64
        return Tokens(
            hashes=np.diff(_before(values, starts)) * inverses[starts],
            edges=_before(inside, starts),
        )


@lru_cache(maxsize=KEPT)
def measures_of(text: str) -> Measures:
    """The measures of a text; those of the last texts are kept, so that the steps on some documents share them."""
    return Measures(text, facts_of(text))


def forget() -> None:
    """Keep no text any longer; to be called when some documents are done, as texts can be long."""
    measures_of.cache_clear()
    facts_of.cache_clear()


def repeated_characters(parts: list[str]) -> float:
    """Characters of the parts that have stood before, as a share of all."""
    different = set(parts)
    if len(different) == len(parts):
        return 0.0
    return 1 - len("".join(different)) / max(len("".join(parts)), 1)


_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2**64


def _before(values: npt.NDArray[Any], starts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The sum of the values before each start, and of all; shape (starts + 1,)."""
    sums = np.add.accumulate(values, dtype=np.uint64 if values.dtype == np.uint64 else np.int64)
    return np.concatenate((sums[starts] - values[starts], sums[-1:]))


@cache
def _powers() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The powers of the base and those of its inverse, modulo 2**64; both of shape (MOST_TOKENS_OF,)."""

    def powers(base: int) -> npt.NDArray[np.uint64]:
        values = np.full(MOST_TOKENS_OF, base, np.uint64)
        values[0] = 1
        return np.cumprod(values, dtype=np.uint64)

    return powers(_BASE), powers(pow(_BASE, -1, 1 << 64))


@dataclass(frozen=True)
class Rule:
    """One thing that is measured and has a limit.

    Attributes:
        reason: of the drop, as the ledger counts it.
        measure: its value for a text; nan where the rule makes no sense for it.
    """

    reason: str
    measure: Callable[[Measures], float]


def limits_of(config: Any, rules: Mapping[str, Rule], profiles: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The limit of each rule: that of the configuration where it has one, else of its profile; in the rules' order."""
    own = {name: getattr(config, name) for name in rules}
    chosen = {**profiles[config.profile], **{name: limit for name, limit in own.items() if limit is not None}}
    return {name: chosen[name] for name in rules if name in chosen}


def first_broken(measures: Measures, rules: Mapping[str, Rule], limits: Mapping[str, float]) -> Drop | None:
    """The first limit that a text breaks: below one whose name begins with ``min_``, above another."""
    for name, limit in limits.items():
        value = rules[name].measure(measures)
        least = name.startswith("min_")
        if value < limit if least else value > limit:
            expected = f"expected at {'least' if least else 'most'} {limit:g}"
            return Drop(rules[name].reason, f"{name}: {value:.4g}, {expected}")
    return None
