"""Labels of words: their accuracy and F1, and precision, recall and F1 of the entities that B, I and O say.

An entity is right when its words and its kind are (Tjong Kim Sang & De Meulder 2003); all kinds count together, as in
conlleval and seqeval. Shapes: N sequences, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bimo.evaluate.metric import Metric, Sums, ratio
from bimo.evaluate.metrics.classification import macro
from bimo.text.entities import entities

Labels = Sequence[str]  # of one sequence


def _words(predictions: Sequence[Labels], references: Sequence[Labels]) -> Sums:
    """Right words and words (N, 2)."""
    pairs = zip(predictions, references, strict=True)
    return np.array([(sum(map(str.__eq__, *pair)), len(pair[1])) for pair in pairs], np.float64)


def _label_counts(predictions: Sequence[Labels], references: Sequence[Labels]) -> Sums:
    """True positives, false positives and false negatives of each label (N, 3K), a label after the other."""
    names = sorted({label for sequences in (predictions, references) for one in sequences for label in one})
    place = {label: 3 * number for number, label in enumerate(names)}
    counts = np.zeros((len(references), 3 * len(place)))
    for row, (predicted, labels) in enumerate(zip(predictions, references, strict=True)):
        for said, label in zip(predicted, labels, strict=True):
            if said == label:
                counts[row, place[label]] += 1
            else:
                counts[row, place[said] + 1] += 1
                counts[row, place[label] + 2] += 1
    return counts


def _found(predictions: Sequence[Labels], references: Sequence[Labels]) -> Sums:
    """Right entities, entities predicted, entities there are (N, 3)."""
    pairs = [({*entities(said)}, {*entities(labels)}) for said, labels in zip(predictions, references, strict=True)]
    return np.array([(len(said & labels), len(said), len(labels)) for said, labels in pairs], np.float64)


def _precision(sums: Sums) -> Sums:
    return ratio(sums[..., :2])


def _recall(sums: Sums) -> Sums:
    return ratio(sums[..., ::2])


def _f1(sums: Sums) -> Sums:
    return ratio(np.stack([2 * sums[..., 0], sums[..., 1] + sums[..., 2]], axis=-1))


METRICS = (
    Metric("word_accuracy", "labels", _words, ratio),
    Metric("word_macro_f1", "labels", _label_counts, macro),
    Metric("entity_precision", "labels", _found, _precision),
    Metric("entity_recall", "labels", _found, _recall),
    Metric("entity_f1", "labels", _found, _f1),
)
