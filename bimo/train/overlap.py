"""Text that training and validation share: whole documents, and long spans of them, found by rolling hashes.

Shapes: N ids in a stream, L ids of a span, W = N - L + 1 windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bimo.batches.shards import Tokens
from bimo.text.shingles import Hashes, covered, mixed, places_of, window_hashes

SPAN = 50  # ids in a row that two documents hardly share by chance
SHORTEST_DOCUMENT = 64  # ids below which equal documents are a coincidence
FORMULA = 3  # times in the training text from which a span is a formula (a licence, a refrain), not a leak
BLOCK, MOST_TOKENS = 1 << 18, 20_000_000
TABLE_BITS = 22


@dataclass(frozen=True)
class Overlap:
    """What both texts hold.

    Attributes:
        documents: ids of validation documents that training has too, word for word.
        leaked: validation ids inside spans that training has once or twice.
        formulas: further validation ids, inside spans that training has more often.
        tokens: validation ids in all.
        example: a validation document that shares the most, and a training document it shares with; or "".
        sampled: whether only a part of the training text was compared.
    """

    documents: tuple[str, ...]
    leaked: int
    formulas: int
    tokens: int
    example: str
    sampled: bool


def find_overlap(train: Tokens, validation: Tokens) -> Overlap:
    """Compare every document and span of the validation text with the training text, or an even sample of a long one.

    A span lies inside one document. Hashes have 64 bits (Karp & Rabin 1987), so that chance plays no part.
    """
    documents = _equal_documents(train, validation)
    ids = np.asarray(validation.ids[:MOST_TOKENS])
    windows = _windows(ids, validation.eos_id, salt=1)
    known, times, where = _count(np.unique(windows), train)
    order = places_of(windows, known)
    found = order >= 0
    rare = found.copy()
    rare[found] = times[order[found]] < FORMULA
    leaked, both = _inside(rare, len(ids)), _inside(found, len(ids))
    example = ""
    if rare.any():
        at = int(np.flatnonzero(rare)[0])
        example = f"{validation.document_at(at)} and {train.document_at(int(where[order[at]]))}"
    sampled = max(train.count, validation.count) > MOST_TOKENS
    return Overlap(documents, int(leaked.sum()), int((both & ~leaked).sum()), len(ids), example, sampled)


def _equal_documents(train: Tokens, validation: Tokens) -> tuple[str, ...]:
    """Validation documents of some length that are in the training text, by length and beginning first."""
    wanted: dict[tuple[int, bytes], list[int]] = {}
    for length, start, ids in _long_documents(validation):
        wanted.setdefault((length, ids[:SHORTEST_DOCUMENT].tobytes()), []).append(start)
    known, found = np.asarray(validation.ids), set()
    for length, _, ids in _long_documents(train):
        for start in wanted.get((length, ids[:SHORTEST_DOCUMENT].tobytes()), ()):
            if np.array_equal(ids, known[start : start + length]):
                found.add(start)
    return tuple(validation.document_at(start) for start in sorted(found))


def _long_documents(tokens: Tokens) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """Length, start and ids of the documents that are long enough to be compared."""
    stream, lengths = np.asarray(tokens.ids), np.diff(np.append(tokens.starts, tokens.count))
    long = lengths > SHORTEST_DOCUMENT
    for length, start in zip(lengths[long].tolist(), tokens.starts[long].tolist(), strict=True):
        yield length, start, stream[start : start + length]


def _count(wanted: Hashes, train: Tokens) -> tuple[Hashes, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Those of the sorted hashes that the training text has, how often, and where first."""
    table = np.zeros(1 << TABLE_BITS, dtype=bool)  # tells most windows apart without a search
    mask = np.uint64((1 << TABLE_BITS) - 1)
    table[wanted & mask] = True
    hashes, places = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    for start, ids in _blocks(train):
        windows = _windows(ids, train.eos_id, salt=2)
        near = np.flatnonzero(table[windows & mask])
        near = near[places_of(windows[near], wanted) >= 0]
        hashes.append(windows[near])
        places.append(near + start)
    known, first, times = np.unique(np.concatenate(hashes), return_index=True, return_counts=True)
    return known, times, np.concatenate(places)[first]


def _blocks(tokens: Tokens) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """The stream in overlapping blocks, evenly left out where it is long."""
    starts = np.arange(0, tokens.count, BLOCK)
    if tokens.count > MOST_TOKENS:
        starts = starts[np.linspace(0, len(starts), MOST_TOKENS // BLOCK, endpoint=False).astype(int)]
    for start in starts.tolist():
        yield start, np.asarray(tokens.ids[start : start + BLOCK + SPAN - 1])


def _windows(ids: npt.NDArray[Any], eos_id: int, salt: int) -> Hashes:
    """A hash of every window of L ids (W,); windows across documents have one that equals no other's."""
    values = mixed(ids.astype(np.uint64))  # (N,)
    ends = np.flatnonzero(ids == eos_id)
    values[ends] = mixed(ends.astype(np.uint64) + np.uint64(salt << 40))
    return window_hashes(values, SPAN)


def _inside(found: npt.NDArray[np.bool_], count: int) -> npt.NDArray[np.bool_]:
    """The positions (N,) that lie in any of the marked windows (W,)."""
    starts = np.flatnonzero(found)
    return covered(starts, starts + SPAN, count)
