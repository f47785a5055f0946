"""Budgets as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import ConfigError
from bimo.train.budget import Budget, parse_budget


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
    ],
)
def test_what_people_write(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "10", "0m", "-3m", "m", "3 parsecs", "1e3s", "10m10s", "k-tokens", "nan s"])
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError, match="90s, 10m or 2h"):
        parse_budget(text)


@given(st.text(max_size=12))
def test_no_text_breaks_it(text: str) -> None:
    try:
        parse_budget(text)
    except ConfigError:
        pass
