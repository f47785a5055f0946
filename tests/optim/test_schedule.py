"""Schedules: shape, bounds, and what a shortened run does."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.optim.schedule import ScheduleConfig, multiplier

NAMES = ("wsd", "linear", "cosine", "constant")


@given(st.sampled_from(NAMES), st.floats(0, 0.5), st.floats(0, 1), st.floats(0, 0.9), st.integers(1, 300), st.data())
def test_every_multiplier_is_above_zero_and_at_most_one(
    name: str, warmup: float, cooldown: float, final: float, steps: int, data: st.DataObject
) -> None:
    step = data.draw(st.integers(0, steps - 1))
    config = ScheduleConfig(name, warmup, cooldown, final)  # type: ignore[arg-type]
    assert 0 < multiplier(config, step, steps) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_rises_and_the_rest_never_does(name: str) -> None:
    config = ScheduleConfig(name, warmup=0.1, cooldown=0.5, final=0.0)  # type: ignore[arg-type]
    values = [multiplier(config, step, 200) for step in range(200)]
    assert values[:20] == sorted(values[:20]) and values[0] > 0
    assert values[20:] == sorted(values[20:], reverse=True) and values[20] == 1.0


def test_values_by_hand() -> None:
    assert multiplier(ScheduleConfig("wsd", 0.0, 0.5, 0.0), 75, 100) == pytest.approx(0.5)
    assert multiplier(ScheduleConfig("linear", 0.0, 0.5, 0.2), 50, 100) == pytest.approx(0.6)
    assert multiplier(ScheduleConfig("cosine", 0.0, 0.5, 0.0), 25, 100) == pytest.approx(
        0.5 + 0.5 * math.cos(math.pi / 4)
    )
    assert multiplier(ScheduleConfig("constant", 0.0), 99, 100) == 1.0
