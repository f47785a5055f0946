"""Budgets as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import ConfigError
from bimo.train.budget import Budget, parse_budget, seconds_in


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90s", Budget(seconds=90)),
        ("10m", Budget(seconds=600)),
        ("1.5h", Budget(seconds=5400)),
        ("1d", Budget(seconds=86400)),
        ("200k-tokens", Budget(tokens=200_000)),
        ("2M-tokens", Budget(tokens=2_000_000)),
        ("77-tokens", Budget(tokens=77)),
        ("3-epochs", Budget(epochs=3)),
        ("0.5-epoch", Budget(epochs=0.5)),
        ("1.6-bpb", Budget(bits_per_byte=1.6)),
        ("2 BPB", Budget(bits_per_byte=2)),
    ],
)
def test_what_people_write(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize(
    "text", ["", "10", "0m", "-3m", "m", "3 parsecs", "1e3s", "10m10s", "k-tokens", "nan s", "0-bpb", "-1-bpb"]
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError, match="90s, 10m or 2h"):
        parse_budget(text)


@given(st.text(max_size=12))
def test_no_text_breaks_it(text: str) -> None:
    try:
        parse_budget(text)
    except ConfigError:
        pass


@given(st.floats(0.01, 1e6), st.sampled_from(["s", "m", "h", "d", "-tokens", "k-tokens", "-epochs", "-bpb"]))
def test_one_of_the_four_is_set_whatever_the_number(number: float, unit: str) -> None:
    budget = parse_budget(f"{number:.4f}{unit}")
    values = [value for value in (budget.seconds, budget.tokens, budget.epochs, budget.bits_per_byte) if value]
    assert len(values) == 1 and values[0] > 0


def test_only_a_time_has_seconds_whatever_else_a_budget_may_be() -> None:
    assert [seconds_in(text) for text in ("90s", " 1.5M", "2h")] == [90, 90, 7200]
    assert {seconds_in(text) for text in (None, "500-examples", "200k-tokens", "3-epochs", "1.6-bpb")} == {math.inf}
