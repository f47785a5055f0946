"""Rows of packed documents from a token shard, in an order that two integers describe.

Shapes: B rows in a batch, T context length, N ids in the stream, R = ceil(N / T) rows in an epoch.

The stream is a circle: the label of position p is the id at (p + 1) % N. A row may hold the end of one document,
several whole ones and the beginning of another; segment and position ids keep them apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from bimo.batches.shards import Tokens
from bimo.device import seed_for
from bimo.errors import DataError

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """What a model sees in one forward pass.

    Attributes:
        input_ids: (B, T) int64.
        labels: (B, T) int64, the id after each input.
        loss_mask: (B, T) bool, where the label counts.
        position_ids: (B, T) int64, starting again at 0 with each document.
        segment_ids: (B, T) int32, which document of the row, from 0; attention stays inside one.
        positions: (B,) int64, where each row starts in the stream.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    loss_mask: torch.Tensor
    position_ids: torch.Tensor
    segment_ids: torch.Tensor
    positions: torch.Tensor

    @property
    def tokens(self) -> int:
        """The number of labels that count."""
        return int(self.loss_mask.sum())

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return self.each(lambda tensor: tensor.to(device))

    def rows(self, part: int, parts: int) -> Batch:
        """The rows of one of ``parts`` equal parts of the batch."""
        return self.each(lambda tensor: tensor.chunk(parts)[part])

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """The batch, of whatever kind, with every tensor changed in the same way."""
        return dataclasses.replace(self, **{name: change(tensor) for name, tensor in vars(self).items()})


class PackedBatches:
    """Endless batches for training; in each epoch every position of the stream is a label exactly once.

    An epoch cuts the circle into rows at a random offset and shuffles them, both drawn from the seed and the epoch's
    number. Its last row would overlap its first; the overlap is masked. A batch that an epoch cannot fill takes the
    first rows of the next epoch, which then goes on from there.

    Args:
        tokens: the stream, from ``open_tokens``.
        batch_size: B.
        context_length: T.
        seed: the seed of the run.

    Raises:
        DataError: the stream is shorter than one batch.
    """

    def __init__(self, tokens: Tokens, *, batch_size: int, context_length: int, seed: int) -> None:
        if tokens.count < batch_size * context_length:
            raise DataError(
                "The training text is smaller than one batch.",
                expected=f"at least {batch_size} x {context_length} = {batch_size * context_length} tokens",
                got=f"{tokens.count} tokens",
                fix="Add text, or choose a smaller batch size or context length.",
            )
        self._stream, self._eos_id, self._seed = np.asarray(tokens.ids), tokens.eos_id, seed
        self.batch_size, self.context_length = batch_size, context_length
        self.rows_per_epoch = math.ceil(tokens.count / context_length)
        self.batches_per_epoch = math.ceil(self.rows_per_epoch / batch_size)
        self._batch = 0
        self._orders: dict[int, tuple[int, IntArray]] = {}

    def __iter__(self) -> PackedBatches:
        return self

    def __next__(self) -> Batch:
        first = self._batch * self.batch_size
        rows = np.arange(first, first + self.batch_size)
        epochs, within = np.divmod(rows, self.rows_per_epoch)
        parts = [self._rows(int(epoch), within[epochs == epoch]) for epoch in np.unique(epochs)]
        starts, valid = (np.concatenate(part) for part in zip(*parts, strict=True))
        self._batch += 1
        return _gather(self._stream, self._eos_id, starts, valid, self.context_length)

    def _rows(self, epoch: int, within: IntArray) -> tuple[IntArray, IntArray]:
        """Start and number of counting labels of the given rows of an epoch's shuffled order."""
        if epoch not in self._orders:
            kept = {key: order for key, order in self._orders.items() if key == epoch - 1}
            self._orders = {**kept, epoch: self._draw(epoch)}
        offset, order = self._orders[epoch]
        before = order[within] * self.context_length
        count = self._stream.size
        return (offset + before) % count, np.minimum(count - before, self.context_length)

    def _draw(self, epoch: int) -> tuple[int, IntArray]:
        generator = np.random.Generator(np.random.PCG64(seed_for(self._seed, "batches", epoch)))
        return int(generator.integers(self._stream.size)), generator.permutation(self.rows_per_epoch)

    def state(self) -> dict[str, int]:
        """Where the next batch comes from: ``batch`` counts from the start of training, ``epoch`` follows from it."""
        return self._state_at(self._batch)

    def _state_at(self, batch: int) -> dict[str, int]:
        return {"epoch": batch * self.batch_size // self.rows_per_epoch, "batch": batch}

    def load_state(self, state: Mapping[str, int]) -> None:
        """Go on from a saved :meth:`state`.

        Raises:
            DataError: the state belongs to a stream of another length or to another batch shape.
        """
        batch = state.get("batch", 0)
        expected = self._state_at(max(batch, 0))
        if dict(state) != expected:
            problem = "The saved position in the training data does not fit this data."
            raise DataError(problem, expected=str(expected), got=str(dict(state)))
        self._batch = batch


def validation_batches(
    tokens: Tokens, batch_size: int, context_length: int, max_tokens: int | None = None
) -> Iterator[Batch]:
    """Yield the whole stream once in a fixed order; what the last row and the last batch lack is masked.

    Args:
        max_tokens: if the stream is longer, about this many tokens are taken, in whole rows spread evenly over it.
    """
    count = tokens.count
    rows = np.arange(math.ceil(count / context_length))
    if max_tokens is not None and max_tokens < count:
        wanted = max(1, max_tokens // context_length)
        rows = np.linspace(0, rows.size, wanted, endpoint=False).astype(np.int64)
    missing = -rows.size % batch_size
    starts = np.concatenate((rows * context_length, np.zeros(missing, dtype=np.int64)))
    valid = np.minimum(count - starts, context_length)
    valid[rows.size :] = 0
    stream = np.asarray(tokens.ids)
    for first in range(0, starts.size, batch_size):
        chosen = slice(first, first + batch_size)
        yield _gather(stream, tokens.eos_id, starts[chosen], valid[chosen], context_length)


def _gather(
    stream: npt.NDArray[np.unsignedinteger], eos_id: int, starts: IntArray, valid: IntArray, length: int
) -> Batch:
    """Assemble the rows at ``starts`` (B,), of which the first ``valid`` (B,) labels count."""
    steps = np.arange(length + 1)
    window = stream[(starts[:, None] + steps) % stream.size].astype(np.int64)  # (B, T + 1)
    inputs, steps = window[:, :-1], steps[:-1]
    begins = inputs == eos_id  # (B, T)
    segments = np.cumsum(begins, axis=1, dtype=np.int32)
    segments -= segments[:, :1]  # a row that begins with a document and one that begins inside one both start at 0
    last_begin = np.maximum.accumulate(np.where(begins, steps, 0), axis=1)
    return Batch(
        input_ids=torch.from_numpy(np.ascontiguousarray(inputs)),
        labels=torch.from_numpy(np.ascontiguousarray(window[:, 1:])),
        loss_mask=torch.from_numpy(steps < valid[:, None]),
        position_ids=torch.from_numpy(steps - last_begin),
        segment_ids=torch.from_numpy(segments),
        positions=torch.from_numpy(starts.astype(np.int64)),
    )
