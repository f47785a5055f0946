"""How much of a text is copied: where its last few tokens stood shortly before, and what followed them there.

A Transformer soon learns to look for such places (Olsson et al. 2022, In-context Learning and Induction Heads); an
n-gram that was counted in other text does not see them. They tell tables and code from prose.

Shapes: N ids of a stream, M kinds of matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bimo.text.shingles import mixed, window_hashes

MATCHES = (1, 2, 3, 5, 8, 12)  # tokens in a row that are the same; the most that are found count
REACH = 256  # tokens back

Ids = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Copies:
    """What copying says of every label of a stream.

    Attributes:
        kinds: (N,) which of ``MATCHES`` ends before the label, from 1; 0 where none does.
        right: (N,) whether the label is what followed the last such place.
    """

    kinds: NDArray[np.int8]
    right: NDArray[np.bool_]

    def trust(self) -> NDArray[np.float64]:
        """(M + 1,) how often each kind was right; 0 for no match."""
        matched = np.bincount(self.kinds, minlength=len(MATCHES) + 1)
        right = np.bincount(self.kinds, weights=self.right, minlength=len(MATCHES) + 1)
        shares = (right + 0.5) / (matched + 1)  # as if each had been half right once: never quite sure
        shares[0] = 0.0
        return shares

    def log_probs(self, others: NDArray[np.float64], trust: NDArray[np.float64]) -> NDArray[np.float64]:
        """Natural log-probabilities (N,) of the labels where a copy is trusted that much, and ``others`` (N,) else."""
        share = trust[self.kinds]
        return np.log(share * self.right + (1 - share) * np.exp(others))


def find_copies(ids: Ids, eos_id: int) -> Copies:
    """Look for every label of a stream, the closing ``eos_id`` included, in what stands before it in its document.

    Args:
        ids: (N,) one or more documents, each begun by ``eos_id``.
    """
    labels, document = np.append(ids[1:], ids[:1]), np.cumsum(ids == eos_id)
    values, beginnings = mixed(ids.astype(np.uint64)), np.flatnonzero(ids == eos_id)
    values[beginnings] = mixed(beginnings.astype(np.uint64) + np.uint64(1 << 40))  # no window equals one across these
    kinds, right = np.zeros(len(ids), dtype=np.int8), np.zeros(len(ids), dtype=bool)
    for kind, length in enumerate(MATCHES, start=1):
        if length > len(ids):
            break
        windows = window_hashes(values, length)
        order = np.argsort(windows, kind="stable")
        same = windows[order[1:]] == windows[order[:-1]]
        before, after = order[:-1][same] + length - 1, order[1:][same] + length - 1
        near = (after - before <= REACH) & (document[after] == document[before])
        before, after = before[near], after[near]
        kinds[after], right[after] = kind, labels[before] == labels[after]
    return Copies(kinds, right)
