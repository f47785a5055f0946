"""Intervals: what is resampled, how often the truth lies inside, and the values themselves by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bimo.evaluate.intervals import bits_per_byte, bits_per_byte_difference, perplexity
from bimo.evaluate.likelihood import DocumentScore


def score(nats: list[float] | np.ndarray, size: int, name: str = "a") -> DocumentScore:
    return DocumentScore(name, size, np.asarray(nats, dtype=np.float32))


def noisy(seed: int, documents: int, tokens: int, mean: float = 2.0) -> list[DocumentScore]:
    generator = np.random.default_rng(seed)
    return [score(generator.gamma(2, mean / 2, tokens), 3 * tokens, f"{n}") for n in range(documents)]


def test_values_by_hand() -> None:
    scores = [score([math.log(2)] * 3, 5), score([math.log(8)], 1, "b")]  # 3 + 3 bits; 4 tokens; 6 bytes
    assert bits_per_byte(scores).value == pytest.approx(1)
    assert perplexity(scores).value == pytest.approx(2**1.5)


def test_too_little_text_has_no_interval() -> None:
    measured = bits_per_byte([score([1.0, 2.0, 3.0], 5)])
    assert (measured.low, measured.high, measured.resampled) == (None, None, "1 blocks of 1,000 tokens")


def test_blocks_are_resampled_when_documents_are_few() -> None:
    scores = noisy(0, 2, 2_500)
    measured = bits_per_byte(scores)
    assert measured.resampled == "6 blocks of 1,000 tokens"
    assert measured.low is not None and measured.high is not None
    assert measured.low < measured.value < measured.high
    assert bits_per_byte(noisy(0, 30, 50)).resampled == "30 documents"


def test_a_measurement_repeats_and_its_seed_matters() -> None:
    scores = noisy(1, 31, 20)
    assert bits_per_byte(scores, seed=3) == bits_per_byte(scores, seed=3)
    assert bits_per_byte(scores, seed=3) != bits_per_byte(scores, seed=4)


def test_perplexity_bounds_are_perplexities() -> None:
    scores = noisy(2, 40, 70)
    bits, perplexed = bits_per_byte(scores), perplexity(scores)  # 3 bytes a token: one determines the other
    for bound in ("value", "low", "high"):
        assert getattr(perplexed, bound) == pytest.approx(2 ** (3 * getattr(bits, bound)))


def test_the_truth_is_inside_about_95_times_of_100() -> None:
    truth = 2 / math.log(2) / 3
    inside = 0
    for seed in range(200):
        measured = bits_per_byte(noisy(seed, 60, 20))
        assert measured.low is not None and measured.high is not None
        inside += measured.low < truth < measured.high
    assert 178 <= inside <= 199  # the percentile bootstrap of 60 units covers a little less than it says


def test_a_difference_is_paired() -> None:
    baseline = [
        DocumentScore(f"{n}", 50, np.full(20, level, dtype=np.float32))
        for n, level in enumerate(np.random.default_rng(5).gamma(2, 1, 40))
    ]
    better = [DocumentScore(old.id, old.bytes, old.label_nats - np.float32(0.1)) for old in baseline]
    measured = bits_per_byte_difference(better, baseline)
    assert measured.value == pytest.approx(-0.1 * 20 / 50 / math.log(2), rel=1e-4)
    assert measured.low == pytest.approx(measured.value, rel=1e-4), "the documents' own spread cancels"


def test_scores_of_different_documents_cannot_be_paired() -> None:
    with pytest.raises(AssertionError, match="same documents"):
        bits_per_byte_difference([score([1.0], 3, "a")], [score([1.0], 3, "b")])


def test_the_interval_is_as_wide_as_theory_says() -> None:
    scores = noisy(6, 400, 20)
    measured = bits_per_byte(scores)
    assert measured.low is not None and measured.high is not None
    values = [item.nats / math.log(2) / item.bytes for item in scores]
    wanted = 2 * 1.96 * np.std(values) / math.sqrt(len(values))
    assert measured.high - measured.low == pytest.approx(wanted, rel=0.1)  # a 90% interval is 16% narrower


def test_unequal_documents_of_equal_density_leave_no_doubt() -> None:
    scores = [score([0.5] * size, 2 * size, f"{size}") for size in range(1, 42)]
    measured = bits_per_byte(scores)
    assert measured.low == pytest.approx(measured.high)
