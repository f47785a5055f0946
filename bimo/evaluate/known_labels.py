"""What labels of words must beat: the commonest label, each word's commonest, and the longest entity that is known."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from bimo.text.entities import OUTSIDE, entities

Labelled = tuple[Sequence[str], Sequence[str]]  # the words of a sequence, and their labels


def commonest_label(known: Sequence[Labelled], asked: Sequence[Sequence[str]]) -> list[list[str]]:
    """The commonest label of all, for every word of the sequences ``asked``."""
    label = _commonest(Counter(label for _, labels in known for label in labels))
    return [[label] * len(words) for words in asked]


def commonest_of_word(known: Sequence[Labelled], asked: Sequence[Sequence[str]]) -> list[list[str]]:
    """Each word's commonest label; that of all words for one that is not known."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for words, labels in known:
        for word, label in zip(words, labels, strict=True):
            counts[word][label] += 1
    label_of = {word: _commonest(count) for word, count in counts.items()}
    usual = _commonest(Counter(label for _, labels in known for label in labels))
    return [[label_of.get(word, usual) for word in words] for words in asked]


def longest_known(known: Sequence[Labelled], asked: Sequence[Sequence[str]]) -> list[list[str]]:
    """From left to right the longest known entity, of its commonest kind (Tjong Kim Sang & De Meulder 2003, §3).

    Of Chinese words it is their segmentation by forward maximum matching, each with its commonest label.
    """
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for words, labels in known:
        for one in entities(labels):
            counts[tuple(words[one.start : one.end])][one.kind] += 1
    kind_of = {words: _commonest(count) for words, count in counts.items()}
    longest = max(map(len, kind_of), default=0)
    return [_matched(words, kind_of, longest) for words in asked]


def _matched(words: Sequence[str], kind_of: dict[tuple[str, ...], str], longest: int) -> list[str]:
    labels: list[str] = []
    while (at := len(labels)) < len(words):
        sizes = range(min(longest, len(words) - at), 0, -1)
        size = next((size for size in sizes if tuple(words[at : at + size]) in kind_of), 0)
        kind = kind_of.get(tuple(words[at : at + size]), "")
        labels += [f"B-{kind}", *[f"I-{kind}"] * (size - 1)] if size else [OUTSIDE]
    return labels


def _commonest(counts: Counter[str]) -> str:
    """Of equally common ones the first in the alphabet, so that the order of the data says nothing."""
    return min(counts, key=lambda label: (-counts[label], label))
