"""What a metric is: a sum of what each example contributes, and a function of that sum.

This is why every metric here has an interval and a test against another run: examples are resampled by weighing their
contributions anew, without looking at a text again.

Shapes: N examples, S numbers that one example contributes, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bimo.errors import DataError

Sums = NDArray[np.float64]
# What of an example's outcome a metric reads: the text written, the label chosen (by likelihood as it is, or for each
# character), the labels of its words, the probability of every label, which of several programs passed, the bits of
# the text.
Reads = Literal["text", "label", "label_norm", "labels", "probabilities", "passed", "likelihood"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric; call it with predictions and references for its value.

    Attributes:
        name: as a task's YAML names it.
        reads: what the predictions are.
        contributions: predictions and references, N each, as an array (N, S); S may depend on them.
        combine: sums (..., S) as values (...).
        best: "high" or "low" values are better.
        scale: of the values.
        signature: what settles the value beside the texts, as sacrebleu writes it; else empty.
    """

    name: str
    reads: Reads
    contributions: Callable[[Sequence[Any], Sequence[Any]], Sums]
    combine: Callable[[Sums], Sums]
    best: Literal["high", "low"] = "high"
    scale: str = "0 to 1"
    signature: str = ""

    def __call__(self, predictions: Sequence[Any], references: Sequence[Any]) -> float:
        """The value over all examples.

        Raises:
            DataError: there are none, or not as many of both.
        """
        return float(self.combine(self.of_each(predictions, references).sum(axis=0)))

    def of_each(self, predictions: Sequence[Any], references: Sequence[Any]) -> Sums:
        """What each example contributes, (N, S); otherwise as calling it."""
        if len(predictions) != len(references):
            expected, got = f"{len(references):,} predictions", f"{len(predictions):,}"
            raise DataError(f"{self.name} needs a prediction for each reference.", expected=expected, got=got)
        if not len(references):
            raise DataError(f"{self.name} of nothing is no number.", expected="at least one example", got="none")
        return self.contributions(predictions, references)


def mean_of(score: Callable[[Any, Any], float]) -> Callable[[Sequence[Any], Sequence[Any]], Sums]:
    """Contributions (N, 2) of a metric that is the mean of a score of each example; combined by :func:`ratio`."""

    def contributions(predictions: Sequence[Any], references: Sequence[Any]) -> Sums:
        scores = [score(*pair) for pair in zip(predictions, references, strict=True)]
        return np.stack([np.array(scores, np.float64), np.ones(len(scores))], axis=1)

    return contributions


def ratio(sums: Sums) -> Sums:
    """The first of two sums (..., 2) divided by the second."""
    return np.divide(sums[..., 0], sums[..., 1], out=np.zeros(sums.shape[:-1]), where=sums[..., 1] != 0)


def accepted(reference: str | Sequence[str]) -> Sequence[str]:
    """The references of one example, of which a task may give several."""
    return (reference,) if isinstance(reference, str) else reference
