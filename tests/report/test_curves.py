from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.report.curves import MOST_POINTS, SIDE, Axis, draw, path, smoothed, thin, ticks

reals = st.floats(-1e6, 1e6)


def test_a_straight_line_is_drawn_from_corner_to_corner() -> None:
    assert path([0, 5, 10], [1.0, 2.0, 3.0], Axis(0, 10), Axis(1, 3)) == "M0.0 1000.0h0L500.0 500.0L1000.0 0.0"


def test_a_missing_value_breaks_the_line() -> None:
    drawn = path([0, 1, 2, 3], [1.0, None, 1.0, 1.0], Axis(0, 3), Axis(0, 2))
    assert re.findall("[ML]", drawn) == ["M", "M", "L"]


def test_the_last_validation_is_at_the_right_edge_and_at_its_height() -> None:
    records = [{"step": step, "bits_per_byte": 2.0 + 1 / step} for step in range(1, 8)]
    records[-1]["validation_bits_per_byte"] = 2.5
    curves = draw(records)
    assert curves
    (x, y), *others = [tuple(map(float, dot)) for dot in re.findall(r"M([\d.]+) ([\d.]+)h0", curves.bits.dots)]
    assert not others
    assert x == SIDE
    low, high = curves.bits.y[0], curves.bits.y[-1]
    value = low.value + (low.place - y / 10) / (low.place - high.place) * (high.value - low.value)
    assert value == pytest.approx(2.5, abs=1e-3)
    assert curves.points["validation"] == [*[None] * 6, 2.5]


@pytest.mark.parametrize("records", [[], [{"step": 0}]])
def test_nothing_to_draw(records: list[dict[str, float]]) -> None:
    assert draw(records) is None


@pytest.mark.parametrize(
    "records", [[{"step": 1}], [{"step": 3, "bits_per_byte": 2.0}], [{"step": 1, "loss": "x"}] * 2]
)
def test_little_to_draw(records: list[dict[str, float]]) -> None:
    curves = draw(records, held_out=2.0, clip=1.0)
    assert curves
    assert "nan" not in repr(curves)


def test_marks_carry_the_time_of_their_step() -> None:
    curves = draw([{"step": step, "seconds": 3.0 * step} for step in range(1, 11)])
    assert curves
    assert [mark.value for mark in curves.bits.x] == [0, 2, 4, 6, 8, 10]
    assert curves.times[4] == 12.0


@given(st.integers(1, 3000))
def test_thinned_rows_keep_the_end_and_the_mean(rows: int) -> None:
    steps = [float(step) for step in range(1, rows + 1)]
    found = thin({"step": steps, "train": steps, "rate": [None] * rows})
    assert len(found["step"]) <= MOST_POINTS
    assert found["step"][-1] == rows
    assert set(found["rate"]) == {None}
    width = -(-rows // MOST_POINTS)
    assert found["train"][0] == (1 + width) / 2


@given(st.lists(st.one_of(st.none(), reals), min_size=1, max_size=300))
def test_smoothing_stays_between_the_extremes(values: list[float | None]) -> None:
    known = [value for value in values if value is not None]
    for value in smoothed(values):
        assert value is None or min(known) - 1e-6 <= value <= max(known) + 1e-6


@given(reals, st.floats(1e-6, 1e6), st.integers(3, 9))
def test_marks_are_round_even_and_inside(low: float, span: float, most: int) -> None:
    high = low + span
    found = ticks(low, high, most)
    assert 1 <= len(found) <= most
    slack = 1e-6 * span + 1e-9 * abs(high)
    assert low - slack <= found[0] and found[-1] <= high + slack
    gaps = {f"{b - a:.3e}" for a, b in pairwise(found) if abs(low) < 1e3 * span}
    assert len(gaps) <= 1
    assert all(re.fullmatch(r"[125]\.000e[+-]\d+", gap) for gap in gaps)


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=True)), min_size=1, max_size=20))
def test_any_numbers_can_be_drawn(values: list[float | None]) -> None:
    keys = ("bits_per_byte", "validation_bits_per_byte", "learning_rate_multiplier", "gradient_norm", "seconds")
    curves = draw([{"step": step, **dict.fromkeys(keys, value)} for step, value in enumerate(values, 1)])
    assert curves
    assert not re.search(r"nan|inf", repr(curves))
