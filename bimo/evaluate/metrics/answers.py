"""Short answers: exact match and the F1 of their words, against the nearest of the accepted answers.

Rajpurkar et al. 2016, "SQuAD: 100,000+ questions": without case, punctuation and English articles. Where words are not
spaced, as in Chinese, a character counts as a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from bimo.evaluate.metric import Metric, accepted, mean_of, ratio
from bimo.text.scripts import UNSPACED

_ARTICLES = re.compile(r"\b(a|an|the)\b")
UNSPACED_CHARACTER = "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED) + "\U00020000-\U0003ffff]"
_UNSPACED = re.compile(f"({UNSPACED_CHARACTER})")


def answer_words(text: str) -> list[str]:
    """The words of an answer that count."""
    text = unicodedata.normalize("NFKC", text) if not text.isascii() else text
    text = "".join(char for char in text.lower() if not _is_mark(char))
    return _UNSPACED.sub(r" \1 ", _ARTICLES.sub(" ", text)).split()


def _is_mark(character: str) -> bool:
    """Punctuation of any script, and the signs of ASCII that SQuAD counts among it."""
    return unicodedata.category(character)[0] == "P" or character in "$+<=>^`|~"


def _exact(prediction: str, reference: str | Sequence[str]) -> float:
    words = answer_words(prediction)
    return float(any(words == answer_words(one) for one in accepted(reference)))


def _f1(prediction: str, reference: str | Sequence[str]) -> float:
    words = answer_words(prediction)
    return max(f1_of(words, answer_words(one)) for one in accepted(reference))


def f1_of(words: Sequence[str], wanted: Sequence[str]) -> float:
    """Harmonic mean of the shares of both that the other has too; of nothing against nothing 1."""
    if not words or not wanted:
        return float(list(words) == list(wanted))
    return 2 * (Counter(words) & Counter(wanted)).total() / (len(words) + len(wanted))


METRICS = (
    Metric("exact_match", "text", mean_of(_exact), ratio),
    Metric("f1", "text", mean_of(_f1), ratio),
)
