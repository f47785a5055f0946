"""Whether a model is right as often as it says: the expected calibration error.

Guo et al. 2017, "On calibration of modern neural networks": the predictions are sorted into 15 bins of equal width by
the probability of the chosen label; the error is the mean distance between accuracy and probability in a bin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bimo.evaluate.metric import Metric, Sums

BINS = 15


def _contributions(predictions: Sequence[Mapping[str, float]], references: Sequence[str]) -> Sums:
    chosen = [max(probabilities.items(), key=lambda item: item[1]) for probabilities in predictions]
    right = [label == reference for (label, _), reference in zip(chosen, references, strict=True)]
    return binned(np.array([confidence for _, confidence in chosen]), np.array(right))


def binned(confidence: Sums, right: NDArray[np.bool_], bins: int = BINS) -> Sums:
    """Of each bin: how many are right, the sum of the probabilities, and how many there are, (N, 3 bins).

    Args:
        confidence: probability of the chosen label, (N,).
        right: whether it is the right one, (N,).
    """
    number = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # a bin has its upper edge
    sums = np.zeros((len(right), 3, bins))
    sums[np.arange(len(right)), :, number] = np.stack((right, confidence, np.ones(len(right))), axis=-1)
    return sums.reshape(len(right), 3 * bins)


def error(sums: Sums) -> Sums:
    """The error, from sums over examples of what :func:`binned` gives."""
    right, confidence, count = np.split(sums, 3, axis=-1)  # (..., BINS) each
    result: Sums = np.abs(right - confidence).sum(-1) / np.maximum(1, count.sum(-1))
    return result


METRICS = (Metric("ece", "probabilities", _contributions, error, best="low"),)
