"""Whether a model is right as often as it says: the expected calibration error.

Guo et al. 2017, "On calibration of modern neural networks": the predictions are sorted into 15 bins of equal width by
the probability of the chosen label; the error is the mean distance between accuracy and probability in a bin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bimo.evaluate.metric import Metric, Sums

BINS = 15


def _binned(predictions: Sequence[Mapping[str, float]], references: Sequence[str]) -> Sums:
    """Of each bin: how many are right, the sum of the probabilities, and how many there are, (N, 3 BINS)."""
    sums = np.zeros((len(references), 3, BINS))
    for row, (probabilities, reference) in enumerate(zip(predictions, references, strict=True)):
        chosen, confidence = max(probabilities.items(), key=lambda item: item[1])
        number = min(BINS - 1, max(0, int(np.ceil(confidence * BINS)) - 1))  # a bin has its upper edge
        sums[row, :, number] = chosen == reference, confidence, 1
    return sums.reshape(len(references), 3 * BINS)


def _error(sums: Sums) -> Sums:
    right, confidence, count = np.split(sums, 3, axis=-1)  # (..., BINS) each
    result: Sums = np.abs(right - confidence).sum(-1) / np.maximum(1, count.sum(-1))
    return result


METRICS = (Metric("ece", "probabilities", _binned, _error, best="low"),)
