"""What holds of every metric, found by itself: what is perfect, what order means, and that intervals can be trusted."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bimo.errors import DataError
from bimo.evaluate.metric import Metric
from bimo.evaluate.metrics import METRICS

FAMILIES = sorted(path.stem for path in Path(importlib.import_module("bimo.evaluate.metrics").__path__[0]).glob("*.py"))
TEXTS = [
    "The cat sat on the mat, today.",
    "今天天气很好。",
    "It is 1,000 km & far away",
    "a b c d e f g",
    "猫 sat 在 mat 上",
]
LABELS = ["yes", "no", "是", "yes", "no"]
# By what a metric reads: perfect predictions, others, and the references of both.
CASES: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    "text": (TEXTS, [*TEXTS[1:], "nothing"], TEXTS),
    "label": (LABELS, ["no", "no", "是", "是", "yes"], LABELS),
    "label_norm": (LABELS, ["no", "no", "是", "是", "yes"], LABELS),
    "labels": (
        [["B-X", "I-X", "O"], ["O", "O", "B-人"], ["O", "B-X", "B-X"], ["O"] * 3, ["I-X"] * 3],
        [["B-X", "O", "O"], ["O", "O", "B-人"], ["B-X"] * 3, ["B-人", "O", "O"], ["O", "I-X", "I-X"]],
        [["B-X", "I-X", "O"], ["O", "O", "B-人"], ["O", "B-X", "B-X"], ["O"] * 3, ["I-X"] * 3],
    ),
    "probabilities": (
        [{label: 1.0, "other": 0.0} for label in LABELS],
        [{"yes": 0.7, "no": 0.2, "是": 0.1}] * 5,
        LABELS,
    ),
    "passed": ([[True] * 100] * 5, [[n < 20 * row for n in range(100)] for row in range(5)], TEXTS),
    "likelihood": ([(0.0, 7)] * 5, [(3.0 + row, 4 + row) for row in range(5)], TEXTS),
}
PERFECT = {"ece": 0, "ter": 0, "ter_zh": 0, "bits_per_byte": 0, "bleu": 100, "bleu_zh": 100, "chrf++": 100}


def test_every_family_is_in_the_table() -> None:
    found = [
        metric.name
        for family in FAMILIES
        if family != "__init__"
        for metric in importlib.import_module(f"bimo.evaluate.metrics.{family}").METRICS
    ]
    assert sorted(found) == sorted(METRICS)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
class TestEvery:
    def test_perfect_predictions_have_the_best_value(self, metric: Metric) -> None:
        perfect, others, references = CASES[metric.reads]
        best, worse = metric(perfect, references), metric(others, references)
        assert best == pytest.approx(PERFECT.get(metric.name, 1))
        if not metric.name.startswith("pass@10"):
            assert worse < best - 1e-3 if metric.best == "high" else worse > best + 1e-3

    def test_the_order_of_the_examples_does_not_matter(self, metric: Metric) -> None:
        _, others, references = CASES[metric.reads]
        assert metric(others[::-1], references[::-1]) == pytest.approx(metric(others, references), rel=1e-12)

    def test_weights_are_repetitions(self, metric: Metric) -> None:
        """What the bootstrap relies on: an example that weighs 2 is an example that is there twice."""
        _, others, references = CASES[metric.reads]
        weights = np.array([2, 0, 1, 3, 1])
        rows = np.repeat(np.arange(5), weights)
        each = metric.of_each(others, references)
        again = metric([others[row] for row in rows], [references[row] for row in rows])
        many = metric.combine(np.stack([weights @ each, each.sum(0)]))  # (R,) at once
        assert many == pytest.approx([again, metric(others, references)])

    def test_numbers_that_mean_nothing_are_refused(self, metric: Metric) -> None:
        _, others, references = CASES[metric.reads]
        with pytest.raises(DataError, match="at least one example"):
            metric([], [])
        with pytest.raises(DataError, match=r"5 predictions; got 4"):
            metric(others[:4], references)

    def test_one_example_and_an_empty_text_are_enough(self, metric: Metric) -> None:
        empty = "" if metric.reads == "text" else CASES[metric.reads][1][1]
        assert math.isfinite(metric([empty], CASES[metric.reads][2][:1]))
