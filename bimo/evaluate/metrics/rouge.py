"""ROUGE-1, ROUGE-2 and ROUGE-L: how much of a summary's words, pairs of words, and order is in the reference.

Lin 2004, "ROUGE: a package for automatic evaluation of summaries"; F1, lower case, no stemming, the mean over examples.
For English this is rouge-score's value. Other letters are words too, and where words are not spaced, as in Chinese,
every character is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from bimo.evaluate.metric import Metric, accepted, mean_of, ratio
from bimo.evaluate.metrics.answers import UNSPACED_CHARACTER
from bimo.evaluate.metrics.bleu import ngrams

_WORD = re.compile(rf"{UNSPACED_CHARACTER}|(?:(?!{UNSPACED_CHARACTER})[^\W_])+")


def summary_words(text: str) -> list[str]:
    """The words that are compared."""
    return _WORD.findall(text.lower())


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest sequence that is in both in this order, with gaps (bit-parallel, Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    everything = (1 << len(first)) - 1
    free = everything  # a 0 at each place of `first` where the sequence grows by one
    for word in second:
        matches = free & places.get(word, 0)
        free = ((free + matches) | (free - matches)) & everything
    return len(first) - free.bit_count()


def _f1(common: int, written: int, wanted: int) -> float:
    return 2 * common / (written + wanted) if common else 0.0


def _rouge_n(order: int) -> Callable[[str, str | Sequence[str]], float]:
    def score(prediction: str, reference: str | Sequence[str]) -> float:
        mine = ngrams(summary_words(prediction), order)
        others = [ngrams(summary_words(one), order) for one in accepted(reference)]
        return max(_f1((mine & theirs).total(), mine.total(), theirs.total()) for theirs in others)

    return score


def _rouge_l(prediction: str, reference: str | Sequence[str]) -> float:
    mine = summary_words(prediction)
    others = [summary_words(one) for one in accepted(reference)]
    return max(_f1(longest_common(mine, theirs), len(mine), len(theirs)) for theirs in others)


METRICS = (
    Metric("rouge1", "text", mean_of(_rouge_n(1)), ratio),
    Metric("rouge2", "text", mean_of(_rouge_n(2)), ratio),
    Metric("rougeL", "text", mean_of(_rouge_l), ratio),
)
