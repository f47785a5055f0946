"""Batches of whole answers, as preferences and rewards look at them, and what the model makes of each answer.

Shapes: B rows, T positions, S answers of the fullest row, N labels that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bimo.batches.loader import Batch
from bimo.tune.examples import Example
from bimo.tune.packing import laid_out


@dataclass(frozen=True)
class AnswerBatch(Batch):
    """A batch in which every segment is a prompt with its answer, whose labels count.

    Attributes:
        answers: bool (B, S), whether a row has so many; its answer s is its segment s.
        whole_tokens: (B,) int64, everywhere the labels that count in the undivided batch.
        whole_answers: (B,) int64, everywhere its answers.
    """

    answers: Tensor
    whole_tokens: Tensor
    whole_answers: Tensor

    def mean(self, values: Tensor, each: int = 1) -> Tensor:
        """The mean of ``values``, one for every ``each`` answers here; of a part, what makes its share of the step.

        ``fit`` adds up the parts of a divided batch by their shares of the labels. This makes the sum of these shares
        the mean over all answers of the undivided batch.
        """
        return self.total(values) * each / self.whole_answers[0]

    def total(self, values: Tensor) -> Tensor:
        """The sum of ``values`` in the same sense."""
        return values.sum() * self.whole_tokens[0] / self.tokens


def answer_batch(examples: Sequence[Example], rows: Sequence[Sequence[int]], length: int) -> AnswerBatch:
    """The batch of these rows, each naming its examples by their places."""
    batch = laid_out(examples, rows, length)
    most = max(map(len, rows))
    answers = torch.tensor([[place < len(row) for place in range(most)] for row in rows])
    tokens, count = (torch.full((len(rows),), int(value)) for value in (batch.tokens, answers.sum()))
    return AnswerBatch(**vars(batch), answers=answers, whole_tokens=tokens, whole_answers=count)


def by_answer(batch: AnswerBatch, values: Tensor) -> Tensor:
    """The sum over each answer (B, S) of values of the labels that count (N,)."""
    B, S = batch.answers.shape
    rows, _ = batch.loss_mask.nonzero(as_tuple=True)
    owners = rows * S + batch.segment_ids[batch.loss_mask]
    return values.new_zeros(B * S).index_add(0, owners, values).view(B, S)


def lengths(batch: AnswerBatch) -> Tensor:
    """The number of labels of each answer, float32 (B, S)."""
    return by_answer(batch, torch.ones(batch.tokens, device=batch.loss_mask.device))
