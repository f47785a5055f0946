"""Intervals and tests between runs: against sacrebleu and a sign test worked out exactly, and how often they err."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from bimo.evaluate.metrics import METRICS
from bimo.evaluate.significance import compare, measure

ACCURACY = METRICS["accuracy"]


def test_an_interval_holds_the_truth_about_95_times_of_100() -> None:
    inside = 0
    for seed in range(200):
        right = np.random.default_rng(seed).uniform(size=120) < 0.7
        found = measure(ACCURACY, ["y" if one else "n" for one in right], ["y"] * 120, seed=seed)
        assert found.low is not None and found.high is not None
        inside += found.low <= 0.7 <= found.high
    assert 180 <= inside <= 198


def test_an_interval_repeats_and_one_example_has_none() -> None:
    written, wanted = ["a", "b", "a", "c"], ["a", "a", "a", "c"]
    assert measure(ACCURACY, written, wanted) == measure(ACCURACY, written, wanted)
    found = measure(ACCURACY, ["a"], ["b"])
    assert (found.value, found.low, found.high, found.resampled) == (0, None, None, "1 example")


def test_the_probability_is_that_of_a_sign_test() -> None:
    """The runs differ in 12 examples, 10 times for the first: exactly 2 P(at least 10 of 12 coins)."""
    wanted = ["y"] * 40
    first = ["y"] * 38 + ["n"] * 2
    second = ["n"] * 10 + ["y"] * 30
    found = compare(ACCURACY, first, second, wanted)
    exact = 2 * sum(comb(12, heads) for heads in range(10, 13)) / 2**12
    assert found.difference.value == pytest.approx(8 / 40)
    assert found.p == pytest.approx(exact, abs=0.006)
    back = compare(ACCURACY, second, first, wanted)
    assert back.difference.value == -found.difference.value


def test_equal_runs_do_not_differ() -> None:
    texts = ["今天天气很好啊", "the cat sat on the mat"] * 8
    found = compare(METRICS["bleu_zh"], texts, texts, texts)
    assert (found.difference.value, found.difference.low, found.difference.high, found.p) == (0, 0, 0, 1)


def test_classes_of_both_runs_are_told_apart() -> None:
    wanted = ["a", "b"] * 20
    found = compare(METRICS["macro_f1"], ["a", "b"] * 20, ["z", "b"] * 20, wanted)
    assert found.first == 1
    assert found.second == pytest.approx(1 / 3)
    assert found.p < 0.001


@pytest.mark.parametrize("name", ["bleu", "chrf++"])  # of "ter", whole numbers, sacrebleu does not count equals
def test_sacrebleu_finds_the_same(name: str) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    significance = pytest.importorskip("sacrebleu.significance")
    chance = np.random.default_rng(3)
    words = np.array(["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "big", "small"])
    wanted = [" ".join(chance.choice(words, 9)) for _ in range(60)]

    def spoilt(text: str, share: float) -> str:
        return " ".join(word if chance.uniform() > share else "x" for word in text.split())

    first, second = [spoilt(one, 0.2) for one in wanted], [spoilt(one, 0.23) for one in wanted]
    metric = {"bleu": sacrebleu.BLEU(), "chrf++": sacrebleu.CHRF(word_order=2)}[name]
    tested = significance.PairedTest([("second", second), ("first", first)], {name: metric}, [wanted], "ar", 2_000)
    _, results = tested()
    theirs = next(values for key, values in results.items() if key != "System")
    found = compare(METRICS[name], first, second, wanted)
    assert found.first == pytest.approx(theirs[1].score)
    assert found.p == pytest.approx(theirs[1].p_value, abs=0.04)
