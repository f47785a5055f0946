"""What a tuned model learns from: the ids of one example, and which of them it has to produce itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bimo.tokenizer.answers import Answered

Ids = npt.NDArray[np.int64]
Counts = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Example:
    """One sequence, from its first token to the end of the last answer.

    Attributes:
        ids: (N,) int64.
        counts: (N,) bool, which ids are learned; the first never is, as nothing comes before it.
        row: which row of the data it was made from, as ``Row.number`` counts; several examples may share one.
        target: what else a task has to know: a class, a score, or which of a pair it is.
        cut: what of its row did not fit and is left out: tokens of a text, or answers of a conversation.
        labels: (N - 1,) int64, what is learned at each position where that is not the next id.
    """

    ids: Ids
    counts: Counts
    row: int = 0
    target: float = 0.0
    cut: int = 0
    labels: Ids | None = None

    def __post_init__(self) -> None:
        assert self.ids.shape == self.counts.shape and self.ids.ndim == 1 and not self.counts[:1].any()

    @property
    def size(self) -> int:
        """The positions it takes in a batch: each id but the last is the input to the next."""
        return max(0, len(self.ids) - 1)

    @property
    def learned(self) -> int:
        """The number of ids that are learned."""
        return int(self.counts.sum())


@dataclass(frozen=True)
class Question:
    """What a tuned model is asked, so that what it writes can be measured.

    Attributes:
        ids: as the model sees it, ready for the answer.
        row: the first row of the data that asks it.
        accepted: the right answers of all rows that ask it.
    """

    ids: tuple[int, ...]
    row: int
    accepted: tuple[str, ...]


def example(prompt: list[int], answer: list[int], row: int = 0, target: float = 0.0) -> Example:
    """An example that learns ``answer`` after ``prompt``."""
    counts = np.zeros(len(prompt) + len(answer), dtype=np.bool_)
    counts[max(1, len(prompt)) :] = True
    return Example(np.array([*prompt, *answer], dtype=np.int64), counts, row, target)


def example_of(stretch: Answered, row: int = 0) -> Example:
    """The example that a stretch of a conversation is."""
    counts = np.array(stretch.counts, dtype=np.bool_)
    counts[:1] = False
    return Example(np.array(stretch.ids, dtype=np.int64), counts, row)
