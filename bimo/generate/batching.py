"""Pieces of several sequences as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bimo.generate.backend import Batch


class Piece(NamedTuple):
    """The next positions of one sequence.

    Attributes:
        tokens: new ids.
        start: position of the first of them.
        pages: those of the sequence, in order, enough for the last position.
        wanted: positions whose logits or states are wanted, all of them new.
    """

    tokens: Sequence[int]
    start: int
    pages: Sequence[int]
    wanted: range


def batch_of(pieces: Sequence[Piece]) -> Batch:
    """One batch of all pieces, which must not be empty; its wanted rows stand in their order."""
    counts = [len(piece.tokens) for piece in pieces]
    firsts = np.cumsum([0, *counts])  # the row of each piece's first position
    pages = np.zeros((len(pieces), max(len(piece.pages) for piece in pieces)), np.int32)
    for row, piece in zip(pages, pieces, strict=True):
        row[: len(piece.pages)] = piece.pages
    wanted = [
        first + position - piece.start
        for first, piece in zip(firsts, pieces, strict=False)
        for position in piece.wanted
    ]
    return Batch(
        tokens=np.array([token for piece in pieces for token in piece.tokens], np.int32),
        positions=np.concatenate(
            [np.arange(len(piece.tokens), dtype=np.int32) + piece.start for piece in pieces], dtype=np.int32
        ),
        sequence=np.repeat(np.arange(len(pieces), dtype=np.int32), counts),
        pages=pages,
        wanted=np.array(wanted, np.int32),
    )
