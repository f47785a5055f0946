"""Labels: accuracy, F1 over classes, and which class was taken for which.

Shapes: N examples, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bimo.evaluate.metric import Metric, Sums, mean_of, ratio


def _same(prediction: str, reference: str) -> float:
    return float(prediction == reference)


def _class_counts(predictions: Sequence[str], references: Sequence[str]) -> Sums:
    """True positives, false positives and false negatives of each class (N, 3K), a class after the other."""
    classes = {label: 3 * number for number, label in enumerate(sorted({*predictions, *references}))}
    counts = np.zeros((len(references), 3 * len(classes)))
    for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        if prediction == reference:
            counts[row, classes[reference]] = 1
        else:
            counts[row, classes[prediction] + 1] = 1
            counts[row, classes[reference] + 2] = 1
    return counts


def macro(sums: Sums) -> Sums:
    """The mean of the F1 of the classes that occur as label or as prediction."""
    true, wrong = sums[..., 0::3], sums[..., 1::3] + sums[..., 2::3]  # (..., K)
    doubled = 2 * true + wrong
    f1 = np.divide(2 * true, doubled, out=np.zeros_like(true), where=doubled > 0)
    return f1.sum(-1) / np.maximum(1, (doubled > 0).sum(-1))


def _micro(sums: Sums) -> Sums:
    """F1 of all classes' counts together; of one label an example this is the accuracy."""
    true, wrong = sums[..., 0::3].sum(-1), (sums[..., 1::3] + sums[..., 2::3]).sum(-1)
    return ratio(np.stack([2 * true, 2 * true + wrong], axis=-1))


def confusion(predictions: Sequence[str], references: Sequence[str]) -> tuple[tuple[str, ...], Sums]:
    """The classes, and how often (row: the label) was taken for (column: the prediction), (K, K)."""
    classes = tuple(sorted({*predictions, *references}))
    counts = Counter(zip(references, predictions, strict=True))
    return classes, np.array([[float(counts[row, column]) for column in classes] for row in classes])


METRICS = (
    Metric("accuracy", "label", mean_of(_same), ratio),
    Metric("acc_norm", "label_norm", mean_of(_same), ratio),
    Metric("macro_f1", "label", _class_counts, macro),
    Metric("micro_f1", "label", _class_counts, _micro),
)
