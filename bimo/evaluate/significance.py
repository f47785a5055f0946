"""How far a metric may lie from its value on all such examples, and whether two runs differ by more than chance.

Shapes: N examples, S numbers that one example contributes, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bimo.device import seed_for
from bimo.evaluate.intervals import CONFIDENCE, RESAMPLES, Measured
from bimo.evaluate.metric import Metric, Sums

SWAPS = 10_000
BLOCK = 2_000_000  # numbers of weights at once


@dataclass(frozen=True, slots=True)
class Compared:
    """A run and another one on the same examples.

    Attributes:
        difference: the first minus the second, with its 95% interval from a paired bootstrap (Koehn 2004).
        p: how likely a difference at least as large is when the two runs are the same, by approximate randomisation
            (Noreen 1989; Riezler & Maxwell 2005 for BLEU).
    """

    first: float
    second: float
    difference: Measured
    p: float


def measure(metric: Metric, predictions: Sequence[Any], references: Sequence[Any], *, seed: int = 0) -> Measured:
    """The metric with its 95% percentile interval over resampled examples (Efron 1979).

    Raises:
        DataError: there are no examples.
    """
    each = metric.of_each(predictions, references)
    value = float(metric.combine(each.sum(axis=0)))
    return _interval(value, [metric.combine(weights @ each) for weights in _resamples(len(each), seed)], len(each))


def compare(
    metric: Metric, first: Sequence[Any], second: Sequence[Any], references: Sequence[Any], *, seed: int = 0
) -> Compared:
    """Compare the predictions of two runs for the same examples, in the same order.

    Raises:
        DataError: there are no examples, or not as many predictions.
    """
    both = metric.of_each([*first, *second], [*references, *references])  # together, so that the columns mean the same
    one, other = both[: len(references)], both[len(references) :]
    first_value, second_value = (float(metric.combine(each.sum(axis=0))) for each in (one, other))
    difference = first_value - second_value
    resampled = [
        metric.combine(weights @ one) - metric.combine(weights @ other) for weights in _resamples(len(references), seed)
    ]
    extreme, total = 0, 0
    for swapped in _swaps(len(references), seed):
        moved = swapped @ (other - one)
        by_chance = metric.combine(one.sum(axis=0) + moved) - metric.combine(other.sum(axis=0) - moved)
        extreme += int((np.abs(by_chance) >= abs(difference) - 1e-12).sum())
        total += len(by_chance)
    measured = _interval(difference, resampled, len(references))
    return Compared(first_value, second_value, measured, (extreme + 1) / (total + 1))


def _interval(value: float, resampled: Sequence[Sums], count: int) -> Measured:
    if count < 2:
        return Measured(value, None, None, "1 example")
    low, high = np.quantile(np.concatenate(resampled), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Measured(value, float(low), float(high), f"{count:,} examples")


def _resamples(count: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each example was drawn, in blocks of (R, N)."""
    even = np.full(count, 1 / count)
    return _blocks(count, RESAMPLES, seed, lambda random, rows: random.multinomial(count, even, size=rows))


def _swaps(count: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Which examples are exchanged between two runs, in blocks of (R, N)."""
    return _blocks(count, SWAPS, seed, lambda random, rows: random.integers(2, size=(rows, count)))


def _blocks(
    count: int, total: int, seed: int, draw: Callable[[np.random.Generator, int], NDArray[Any]]
) -> Iterator[NDArray[np.float64]]:
    random = np.random.Generator(np.random.PCG64(seed_for(seed, "examples")))
    rows = max(1, BLOCK // count)
    for start in range(0, total, rows):
        yield draw(random, min(rows, total - start)).astype(np.float64)
