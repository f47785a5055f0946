"""Which examples a model has read in training: 13 words in a row of theirs stand in its training text.

The measure of Brown et al. 2020, appendix C, as in ``bimo.text.clean.decontaminate``: of unspaced scripts 20
characters.

Shapes: G n-grams of the examples.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bimo.batches.shards import Tokens
from bimo.text.clean.decontaminate import grams_of
from bimo.text.shingles import Hashes, places_of
from bimo.tokenizer.tokenizer import Tokenizer

IDS = 1 << 16  # decoded at once
LAPPED = 200  # ids that are decoded with the next part again, so that an n-gram across both is found
MOST_IDS = 50_000_000
ROWS = 1_000  # compared at once


@dataclass(frozen=True, slots=True)
class Shared:
    """What examples and training text share.

    Attributes:
        examples: whether each is in the training text.
        too_short: how many have no n-gram and cannot be looked for.
        searched: share of the training text that was searched.
    """

    examples: tuple[bool, ...]
    too_short: int
    searched: float


def find_shared(
    texts: Sequence[str],
    train: Tokens,
    tokenizer: Tokenizer,
    progress: Callable[[int, int], object] | None = None,
    most: int = MOST_IDS,
) -> Shared:
    """Look for the texts of examples in the text that a model was trained on.

    Args:
        progress: called with ids done and in all.
        most: ids that are searched.
    """
    each = [grams_of(text) for text in texts]
    total = min(train.count, most)
    inside = _inside(each, _parts(train, tokenizer, total), total, progress)
    return Shared(inside, sum(not len(grams) for grams in each), total / max(1, train.count))


def find_shared_rows(
    texts: Sequence[str],
    wholes: Sequence[str],
    rows: Sequence[tuple[str, str]],
    progress: Callable[[int, int], object] | None = None,
) -> Shared:
    """Look for examples in the rows that a model was tuned on.

    Args:
        texts: all the text of each example, of which n-grams are looked for.
        wholes: of each, a text that also counts as read where a row asks the very same; empty where there is none.
        rows: question and answer of each row.
    """
    each = [grams_of(text) for text in texts]
    texts_of = [["\n".join(row) for row in rows[at : at + ROWS]] for at in range(0, len(rows), ROWS)]
    parts = ((documents, min(len(rows), number * ROWS)) for number, documents in enumerate(texts_of, 1))
    inside = _inside(each, parts, len(rows), progress)
    asked = {_folded(question) for question, _ in rows}
    same = [bool(whole) and _folded(whole) in asked for whole in wholes]
    too_short = sum(not (len(grams) or whole) for grams, whole in zip(each, wholes, strict=True))
    return Shared(tuple(map(operator.or_, inside, same)), too_short, 1.0)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _inside(
    each: Sequence[Hashes],
    parts: Iterable[tuple[list[str], int]],
    total: int,
    progress: Callable[[int, int], object] | None,
) -> tuple[bool, ...]:
    """Whether any n-gram of each example stands in the texts of the parts."""
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *each]))  # (G,)
    found = np.zeros(len(known), dtype=bool)
    for documents, done in parts if len(known) else ():
        places = places_of(np.concatenate([grams_of(text) for text in documents]), known)
        found[places[places >= 0]] = True
        if progress:
            progress(done, total)
    return tuple(bool(found[np.searchsorted(known, grams)].any()) for grams in each)


def _parts(train: Tokens, tokenizer: Tokenizer, total: int) -> Iterator[tuple[list[str], int]]:
    """The documents of each part of the text, and how many ids are done."""
    for start in range(0, total, IDS):
        ids = np.asarray(train.ids[start : min(total, start + IDS + LAPPED)])
        documents = np.split(ids, np.flatnonzero(ids == train.eos_id))
        pieces = [tokenizer.decode_bytes(part[part != train.eos_id].tolist()) for part in documents]
        yield [piece.decode("utf-8", "replace") for piece in pieces], min(total, start + IDS)
