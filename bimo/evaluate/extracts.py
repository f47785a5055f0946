"""Sentences of a text that say much of it, which summaries and answers must beat: the first, the central, the fitting.

Shapes: S sentences.
"""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from bimo.evaluate.metrics.answers import answer_words
from bimo.evaluate.metrics.rouge import summary_words
from bimo.text.bag_of_words import CHINESE_STOP_WORDS, ENGLISH_STOP_WORDS

DAMPING, TOLERANCE, ROUNDS = 0.85, 1e-6, 100  # as in PageRank, and when its values have settled
MOST_SENTENCES = 200  # of a text that are compared with each other

_CLOSERS = "\"'”’»)\\]」』》）"
# A stop ends a sentence before a space and no small letter, but not behind an initial or a title; 。 always does.
_END = re.compile(
    rf"(?<=[。！？…])[{_CLOSERS}]*(?![。！？…{_CLOSERS}])\s*"
    rf"|(?<!\b[A-Z])(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bvs)(?<!\betc)[.!?]+[{_CLOSERS}]*\s+(?![a-z])"
    r"|\s*\n\s*\n\s*|\n\s*(?=[-*•] )"
)


def sentences(text: str) -> list[str]:
    """The sentences of an English or Chinese text; blank lines and items of lists part them too."""
    found, begin = [], 0
    for end in _END.finditer(text):
        found.append(text[begin : end.end()])
        begin = end.end()
    return [line for one in [*found, text[begin:]] if (line := " ".join(one.split()))]


def first_sentence(text: str) -> str:
    """The sentence that a text begins with."""
    return next(iter(sentences(text)), "")


def central_sentence(text: str) -> str:
    """The sentence that most of the others speak of: TextRank (Mihalcea & Tarau 2004); of equal ones the first."""
    found = sentences(text)[:MOST_SENTENCES]
    return found[int(ranks(alike(found)).round(9).argmax())] if found else ""


def alike(found: list[str]) -> NDArray[np.float64]:
    """How many words each two sentences share, for their lengths (S, S)."""
    words = [summary_words(one) for one in found]
    known = [frozenset(one) for one in words]
    table = np.zeros((len(found), len(found)))
    for one in range(len(found)):
        for other in range(one):
            if (size := math.log(max(1, len(words[one]))) + math.log(max(1, len(words[other])))) > 0:
                table[one, other] = table[other, one] = len(known[one] & known[other]) / size
    return table


def ranks(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """PageRank on a graph whose edges have weights (S, S): how much each vertex is spoken of (S,), 1 in the mean."""
    total = weights.sum(axis=0)
    shares = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    values = np.ones(len(weights))
    for _ in range(ROUNDS):
        before, values = values, (1 - DAMPING) + DAMPING * shares @ values
        if np.abs(values - before).max(initial=0.0) < TOLERANCE:
            break
    return values


def fitting_sentence(question: str, passage: str) -> str:
    """The sentence of a passage that shares most words with a question, without function words; of equals the first."""
    asked = _telling(question)
    return max(sentences(passage), key=lambda one: len(asked & _telling(one)), default="")


def _telling(text: str) -> frozenset[str]:
    return frozenset(answer_words(text)) - ENGLISH_STOP_WORDS - CHINESE_STOP_WORDS
