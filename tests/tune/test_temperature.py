"""Calibration: against figures worked out by hand, and the temperature that was put in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bimo.tune.temperature import best_temperature, calibration_error, fitted_temperature


def test_calibration_error_by_hand() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.62, 0.38]], dtype=torch.double)
    labels = torch.tensor([0, 1, 1, 0])
    # Bins of a fifth: 0.9 and 0.9 with half right; 0.7 and 0.62, both right.
    expected = (abs(1 - 1.8) + abs(2 - 1.32)) / 4
    assert calibration_error(probabilities.log(), labels, bins=5) == pytest.approx(expected)


@given(st.floats(0.2, 0.8) | st.floats(1.25, 5.0), st.integers(0, 99))
def test_the_temperature_that_was_put_in_is_found(temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    honest = 2 * torch.randn(4000, 3, generator=generator, dtype=torch.double)
    labels = torch.multinomial(honest.softmax(dim=-1), 1, generator=generator)[:, 0]
    found = best_temperature(honest * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.12)
    nats = [float(F.cross_entropy(honest * temperature / one, labels)) for one in (found, found * 0.97, found * 1.03)]
    assert nats[0] <= min(nats[1:])
    assert calibration_error(honest * temperature / found, labels) < calibration_error(honest * temperature, labels)


def test_a_few_honest_scores_are_left_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(50, 3, generator=generator, dtype=torch.double)
    labels = torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)[:, 0]
    assert best_temperature(scores, labels) == 1.0


def test_extremes_stay_finite() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 20)
    assert best_temperature(scores, torch.tensor([0, 1] * 20)) == pytest.approx(0.05, rel=1e-3)
    assert best_temperature(scores, torch.tensor([1, 0] * 20)) == pytest.approx(20, rel=1e-3)
    assert best_temperature(scores[:2], torch.tensor([0, 1])) == 1.0, "two texts say nothing"
    assert best_temperature(scores[:0], torch.zeros(0, dtype=torch.long)) == 1.0


def test_a_temperature_is_fitted_to_few_texts_too() -> None:
    scores, labels = torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1, 1])
    found = fitted_temperature(scores, labels)
    assert float((scores[0] / found).softmax(dim=-1)[0]) == pytest.approx(2 / 3, rel=1e-4)
