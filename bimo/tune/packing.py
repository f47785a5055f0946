"""Whole examples packed into rows, each seen alone: best fit, in an order that two integers describe.

Shapes: B rows in a batch, T length of a row, N ids of an example, which takes N - 1 positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from bimo.batches.loader import Batch
from bimo.device import seed_for
from bimo.errors import DataError
from bimo.tune.examples import Example

Rows = list[list[int]]  # the examples of each row, by their places


class PackedExamples:
    """Endless batches for training; each epoch shows every example exactly once, whole and blind to its neighbours.

    An epoch packs the examples anew: those of equal size change places, and the rows are shuffled, both drawn from
    the seed and the epoch's number. A batch that an epoch cannot fill takes the first rows of the next.

    Args:
        examples: none longer than a row.
        batch_size: B.
        length: T.
        seed: the seed of the run.

    Attributes:
        rows_per_epoch: the same in every epoch, as it follows from the sizes alone.
        labels_per_epoch: ids that an epoch teaches.

    Raises:
        DataError: there is no example.
    """

    def __init__(self, examples: Sequence[Example], *, batch_size: int, length: int, seed: int) -> None:
        if not examples:
            raise DataError("There is nothing to learn from.", expected="at least one example", got="none")
        self.examples, self.batch_size, self.length, self._seed = examples, batch_size, length, seed
        self.rows_per_epoch = len(pack([example.size for example in examples], length))
        self.labels_per_epoch = sum(example.learned for example in examples)
        self._batch = 0
        self._orders: dict[int, Rows] = {}

    def __iter__(self) -> PackedExamples:
        return self

    def __next__(self) -> Batch:
        first = self._batch * self.batch_size
        rows = [self._row(number) for number in range(first, first + self.batch_size)]
        self._batch += 1
        return self._laid_out(rows)

    def _laid_out(self, rows: Rows) -> Batch:
        return laid_out(self.examples, rows, self.length)

    def _row(self, number: int) -> list[int]:
        """The examples of a row, counted from the start of training."""
        epoch, within = divmod(number, self.rows_per_epoch)
        if epoch not in self._orders:
            kept = {key: order for key, order in self._orders.items() if key == epoch - 1}
            self._orders = {**kept, epoch: self._draw(epoch)}
        return self._orders[epoch][within]

    def _draw(self, epoch: int) -> Rows:
        generator = np.random.Generator(np.random.PCG64(seed_for(self._seed, "examples", epoch)))
        order = generator.permutation(len(self.examples))
        rows = pack([self.examples[place].size for place in order], self.length)
        return [[int(order[place]) for place in rows[row]] for row in generator.permutation(len(rows))]

    def state(self) -> dict[str, int]:
        """Where the next batch comes from: ``batch`` counts from the start of training, ``epoch`` follows from it."""
        return self._state_at(self._batch)

    def _state_at(self, batch: int) -> dict[str, int]:
        return {"epoch": batch * self.batch_size // self.rows_per_epoch, "batch": batch}

    def load_state(self, state: Mapping[str, int]) -> None:
        """Go on from a saved :meth:`state`.

        Raises:
            DataError: the state belongs to other examples or to another batch shape.
        """
        batch = max(state.get("batch", 0), 0)
        if dict(state) != self._state_at(batch):
            problem = "The saved position in the examples does not fit these examples."
            raise DataError(problem, expected=str(self._state_at(batch)), got=str(dict(state)))
        self._batch = batch


def packed_once(examples: Sequence[Example], batch_size: int, length: int) -> list[Batch]:
    """Every example once, in a fixed order; the last batch may have fewer rows."""
    rows = pack([example.size for example in examples], length)
    return [laid_out(examples, rows[at : at + batch_size], length) for at in range(0, len(rows), batch_size)]


def pack(sizes: Sequence[int], length: int) -> Rows:
    """Put things of these sizes into as few rows of ``length`` as best fit finds, the largest first.

    Equal sizes are taken in the order in which they come. Best-fit decreasing needs at most 11/9 of the fewest rows
    possible (Johnson 1973); for the packing of training text see Ding et al. 2024, Fewer Truncations, §2.
    """
    rows: Rows = []
    with_room: list[list[int]] = [[] for _ in range(length + 1)]  # rows, by what is free in them
    present = 0  # bit n: some row has n positions free
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        size = sizes[place]
        assert size <= length, "an example is longer than a row"
        tightest = present >> size
        if tightest:
            free = size + (tightest & -tightest).bit_length() - 1
            row = with_room[free].pop()
            if not with_room[free]:
                present &= ~(1 << free)
            rows[row].append(place)
        else:
            free, row = length, len(rows)
            rows.append([place])
        with_room[free - size].append(row)
        present |= 1 << (free - size)
    return rows


def laid_out(examples: Sequence[Example], rows: Iterable[Sequence[int]], length: int) -> Batch:
    """The batch of these rows; behind the last example of a row stands padding, in a segment of its own."""
    rows = list(rows)
    shape = (len(rows), length)
    inputs, labels, positions = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    counts, segments = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.int32)
    for row, places in enumerate(rows):
        at = 0
        for segment, place in enumerate(places):
            example = examples[place]
            here = slice(at, at + example.size)
            inputs[row, here] = example.ids[:-1]
            labels[row, here] = example.ids[1:] if example.labels is None else example.labels
            counts[row, here] = example.counts[1:]
            positions[row, here] = np.arange(example.size)
            segments[row, here] = segment
            at += example.size
        segments[row, at:] = len(places)
        positions[row, at:] = np.arange(length - at)
    first = np.array([places[0] if len(places) else 0 for places in rows], dtype=np.int64)
    arrays: tuple[Any, ...] = (inputs, labels, counts, positions, segments, first)
    return Batch(*map(torch.from_numpy, arrays))
