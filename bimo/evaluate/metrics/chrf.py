"""chrF++: F2 of runs of 1 to 6 characters and of 1 to 2 words.

Popović 2017, "chrF++: words helping character n-grams"; sacrebleu's value with its default settings. Spaces are left
out of the runs of characters, so it suits Chinese as it is.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from bimo.evaluate.metric import Metric, Sums, accepted
from bimo.evaluate.metrics.bleu import ngrams

CHARACTERS, WORDS, BETA = 6, 2, 2
_PUNCTUATION = frozenset(string.punctuation)


def _words(text: str) -> list[str]:
    """Words, a punctuation mark at one of their ends on its own."""
    words: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in _PUNCTUATION:
            words += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in _PUNCTUATION:
            words += [word[0], word[1:]]
        else:
            words.append(word)
    return words


def _runs(text: str) -> list[Counter[tuple[str, ...]]]:
    """The runs of each order, those of characters first."""
    characters, words = "".join(text.split()), _words(text)
    return [ngrams(characters, order) for order in range(1, CHARACTERS + 1)] + [
        ngrams(words, order) for order in range(1, WORDS + 1)
    ]


def _contributions(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> Sums:
    """Matches, runs written and runs wanted of each order (N, 24), against the reference that is nearest."""
    rows = []
    for prediction, reference in zip(predictions, references, strict=True):
        written = _runs(prediction)
        candidates = []
        for one in accepted(reference):
            wanted = _runs(one)
            found = [(mine & theirs).total() for mine, theirs in zip(written, wanted, strict=True)]
            mine = [mine.total() if theirs else 0 for mine, theirs in zip(written, wanted, strict=True)]
            candidates.append(np.array([*found, *mine, *(theirs.total() for theirs in wanted)], np.float64))
        rows.append(max(candidates, key=lambda sums: float(_chrf(sums))))
    return np.stack(rows)


def _chrf(sums: Sums) -> Sums:
    found, written, wanted = np.split(sums, 3, axis=-1)  # (..., 8) each
    both = (written > 0) & (wanted > 0)
    orders = np.maximum(1, both.sum(-1))
    precision = np.divide(found, written, out=np.zeros_like(found), where=both).sum(-1) / orders
    recall = np.divide(found, wanted, out=np.zeros_like(found), where=both).sum(-1) / orders
    weighed = BETA**2 * precision + recall
    top = (1 + BETA**2) * precision * recall
    return 100 * np.divide(top, weighed, out=np.zeros_like(top), where=weighed > 0)


METRICS = (
    Metric(
        "chrf++",
        "text",
        _contributions,
        _chrf,
        scale="0 to 100",
        signature="nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:as sacrebleu 2.6.0",
    ),
)
