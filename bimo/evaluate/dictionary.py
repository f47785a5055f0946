"""What a translator must beat that knows words but no grammar: each word is translated alone, by a learned dictionary.

The dictionary is IBM Model 1 (Brown et al. 1993, "The mathematics of statistical machine translation"), by expectation
maximisation from pairs of texts. Chinese words are jieba's, where rjieba is installed, else single characters.

Shapes: L links, each of a word with a word of the other text; K different ones; N words of all translations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bimo.errors import DataError
from bimo.evaluate.metrics.answers import UNSPACED_CHARACTER
from bimo.evaluate.metrics.bleu import tokens_zh
from bimo.text.bag_of_words import segmented

ROUNDS = 8  # of expectation maximisation; the best translations hardly change after five
MOST_LINKS = 4_000_000  # beyond, pairs are left out evenly: time and memory stay a few seconds and 200 MB
LONGEST = 100  # words of a text: of longer ones the links say little and are many
NOTHING = ""  # stands in every text, for words of the translation that none has brought about

_UNSPACED = re.compile(UNSPACED_CHARACTER)
_SPACE_BETWEEN = re.compile(r"(?<=[^\x00-\u02ff]) (?=[^\x00-\u02ff])")
Pair = tuple[Sequence[str], Sequence[str]]


class Dictionary:
    """The likeliest translation of each word.

    Args:
        pairs: words of a text, and those of its translation.
    """

    def __init__(self, pairs: Iterable[Pair], *, rounds: int = ROUNDS) -> None:
        kept = _kept([([NOTHING, *map(str.lower, text)], other) for text, other in pairs])
        known = _numbers(word for text, _ in kept for word in text)
        others = _numbers(word for _, other in kept for word in other)
        links, owners, first = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)], 0
        for text, other in kept:
            mine = np.array([known[word] for word in text])
            theirs = np.array([others[word] for word in other])
            links.append((mine[:, None] * len(others) + theirs).ravel())
            owners.append(np.tile(np.arange(first, first + len(other)), len(text)))
            first += len(other)
        keys, link = np.unique(np.concatenate(links), return_inverse=True)  # (K,), (L,)
        self._keys, self._width = keys, max(1, len(others))
        self._known, self._others = known, others
        self._likely = _maximised(keys // self._width, link, np.concatenate(owners), rounds)  # (K,)
        words, names = list(known), list(others)
        order = np.lexsort((keys, self._likely))  # the likeliest of each word comes last
        best = dict(zip((keys[order] // self._width).tolist(), (keys[order] % self._width).tolist(), strict=True))
        self._best = {words[word]: names[other] for word, other in best.items()}

    def probability(self, word: str, translation: str) -> float:
        """How likely a word is to bring about this one; 0 where they never stood in one pair."""
        if word not in self._known or translation not in self._others:
            return 0.0
        key = self._known[word] * self._width + self._others[translation]
        place = int(np.searchsorted(self._keys, key))
        return float(self._likely[place]) if place < len(self._keys) and self._keys[place] == key else 0.0

    def translate(self, words: Sequence[str]) -> list[str]:
        """Every word's likeliest translation, in the order of the words; what is not known stays as it is."""
        return [self._best.get(word.lower(), word) for word in words]


def _kept(pairs: Sequence[Pair]) -> list[Pair]:
    """As many pairs as there may be links, evenly from first to last, without the longest."""
    short = [pair for pair in pairs if pair[1] and max(map(len, pair)) <= LONGEST]
    links = sum(len(text) * len(other) for text, other in short)
    count = len(short) if links <= MOST_LINKS else int(len(short) * MOST_LINKS / links)
    return [short[place * len(short) // count] for place in range(count)]


def _numbers(words: Iterable[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(dict.fromkeys(words))}


def _maximised(
    words: NDArray[np.int64], link: NDArray[np.int64], owners: NDArray[np.int64], rounds: int
) -> NDArray[np.float64]:
    """The probability of each kind of link (K,), given its word.

    Args:
        words: of each kind (K,).
        link: the kind of each link (L,).
        owners: the word of a translation that each link belongs to (L,), below N.
    """
    likely = np.ones(len(words))
    for _ in range(rounds if len(link) else 0):
        share = likely[link]
        share /= np.bincount(owners, share)[owners]
        counts = np.bincount(link, share, minlength=len(words))
        likely = counts / np.bincount(words, counts)[words]
    return likely


def words_and_marks(text: str) -> list[str]:
    """The words of a text and its punctuation, in their order."""
    if not _UNSPACED.search(text):
        return tokens_zh(text)
    try:
        return [word for word in segmented(text) if word.strip()]
    except DataError:
        return tokens_zh(text)


def parts_named(text: str) -> str:
    """What :func:`words_and_marks` makes of such a text: "word" or "character"."""
    try:
        segmented("")
    except DataError:
        return "character" if _UNSPACED.search(text) else "word"
    return "word"


def together(words: Sequence[str]) -> str:
    """Words as a text: with spaces, but not between characters of a script without any."""
    return _SPACE_BETWEEN.sub("", " ".join(words))
