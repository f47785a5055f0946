"""Metrics of labels and probabilities against scikit-learn, pass@k against every choice there is."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from bimo.errors import DataError
from bimo.evaluate.metrics import METRICS
from bimo.evaluate.metrics.classification import confusion


def drawn(seed: int, count: int = 60) -> tuple[list[str], list[str]]:
    chance = random.Random(seed)
    wanted = [chance.choice(["好", "坏", "neutral"]) for _ in range(count)]
    return [one if chance.random() < 0.6 else chance.choice(["好", "坏", "odd"]) for one in wanted], wanted


@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_gives_the_same(seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    written, wanted = drawn(seed)
    assert METRICS["accuracy"](written, wanted) == pytest.approx(sklearn.accuracy_score(wanted, written))
    for average in ("macro", "micro"):
        theirs = sklearn.f1_score(wanted, written, average=average)
        assert METRICS[f"{average}_f1"](written, wanted) == pytest.approx(theirs)
    classes, table = confusion(written, wanted)
    assert table.tolist() == sklearn.confusion_matrix(wanted, written, labels=classes).tolist()


def test_f1_by_hand() -> None:
    # a: 1 true, 1 wrong as b. b: 1 true, 1 taken from a. Both 2/3. c: never right.
    assert METRICS["macro_f1"](["a", "b", "b", "a"], ["a", "a", "b", "c"]) == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    assert METRICS["micro_f1"](["a", "b", "b", "a"], ["a", "a", "b", "c"]) == 0.5


def test_the_calibration_error_is_scikit_learns_bins_weighed() -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    chance = np.random.default_rng(7)
    confidence = chance.uniform(0.5, 1, 300)
    right = chance.uniform(size=300) < confidence**2
    predictions = [{"yes": float(one), "no": float(1 - one)} for one in confidence]
    true, said = calibration.calibration_curve(right, confidence, n_bins=15, strategy="uniform")
    counts = np.histogram(confidence, np.linspace(0, 1, 16))[0]
    weights = counts[counts > 0] / 300
    ours = METRICS["ece"](predictions, ["yes" if one else "no" for one in right])
    assert ours == pytest.approx(float((weights * np.abs(true - said)).sum()))


def test_the_calibration_error_by_hand() -> None:
    # Two of four right at 0.9: 0.4 off. One right at 0.5: 0.5 off.
    sure, unsure = {"a": 0.9, "b": 0.1}, {"b": 0.5, "c": 0.3, "d": 0.2}
    assert METRICS["ece"]([sure] * 4 + [unsure], ["a", "a", "b", "b", "b"]) == pytest.approx(0.8 * 0.4 + 0.2 * 0.5)


def test_pass_at_k_is_the_share_of_choices_with_a_program_that_passes() -> None:
    for passed in itertools.product([False, True], repeat=6):
        choices = list(itertools.combinations(passed, 5))
        assert METRICS["pass@5"]([passed], [""]) == pytest.approx(sum(map(any, choices)) / len(choices))
    assert METRICS["pass@1"]([[True, False, False], [True]], ["", ""]) == pytest.approx((1 / 3 + 1) / 2)


def test_too_few_programs_are_no_estimate() -> None:
    with pytest.raises(DataError, match=r"Expected 10 a problem; got 3\. Set samples"):
        METRICS["pass@10"]([[True] * 3], [""])


def test_likelihood_by_hand() -> None:
    nats = np.log(2) * 8
    assert METRICS["bits_per_byte"]([(nats, 2), (0.0, 2)], ["笔", "a"]) == pytest.approx(8 / 4)
    assert METRICS["perplexity"]([(nats, 2), (0.0, 2)], ["笔", "a"]) == pytest.approx(4)
