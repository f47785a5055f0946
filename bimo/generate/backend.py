"""What computes a model for the engine: new positions of many sequences at once, whose past lies in pages.

Shape legend: N new positions of all sequences together, Q sequences, P pages of the longest of them, R wanted rows,
V vocabulary, C width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PAGE = 32  # positions of one page of keys and values


@dataclass(frozen=True)
class Batch:
    """New positions to compute: of each sequence the next ones, in order, one sequence after the other.

    A position sees all earlier ones of its sequence, those of this batch included, and itself. The caller owns the
    pages: several sequences may share pages that hold the same beginning, but a page that is written to has one owner.

    Attributes:
        tokens: ids, int32 (N,).
        positions: of each in its sequence, from 0, int32 (N,).
        sequence: the row of ``pages`` that each belongs to, int32 (N,), never decreasing.
        pages: numbers of pages, int32 (Q, P); position p lies in page ``pages[q, p // PAGE]``, at ``p % PAGE``.
        wanted: rows of which logits or hidden states are wanted, int32 (R,), increasing.
    """

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    sequence: NDArray[np.int32]
    pages: NDArray[np.int32]
    wanted: NDArray[np.int32]


class Backend(Protocol):
    """Computes batches. What it gives for a row depends on the tokens up to it alone, to the bit.

    That holds whatever else is in the batch, however the tokens before it were cut into batches, and after a restart on
    the same machine.

    Attributes:
        vocab_size: V.
        context: positions of the longest sequence.
        page_bytes: memory of one page.
        pages: how many there are.
    """

    vocab_size: int
    context: int
    page_bytes: int
    pages: int

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Write keys and values of all N positions into their pages; returns the logits of the wanted rows (R, V)."""

    def hidden(self, batch: Batch) -> NDArray[np.float32]:
        """The same, but returns the hidden states after the last norm (R, C): what embeddings are made of."""

    def copy_page(self, source: int, target: int) -> None:
        """Write to one page what another holds."""
