"""Keyword arguments as users of bimo and of transformers write them."""

from __future__ import annotations

from typing import Any

import pytest

from bimo.errors import UsageError
from bimo.generate.options import read_options


def test_defaults_and_a_seed_that_can_be_repeated() -> None:
    first, n = read_options({}, 3)
    second, _ = read_options({"n": None, "temperature": None}, 3)
    assert n == 1 and (first.max_new_tokens, first.temperature, first.top_k) == (200, 0.8, None)
    assert first.seed is not None and first.seed != second.seed
    assert read_options({"seed": 0}, 3)[0].seed == 0


def test_names_of_hugging_face() -> None:
    sampling, n = read_options({"max_length": 50, "num_return_sequences": 5, "do_sample": True}, 7)
    assert (sampling.max_new_tokens, n) == (43, 5)
    assert read_options({"do_sample": False}, 7)[0].greedy
    assert read_options({"n": 2, "num_return_sequences": 2}, 7)[1] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temprature": 1}, "Unknown option 'temprature'. Did you mean 'temperature'"),
        ({"n": 2, "num_return_sequences": 3}, "differ.*2 and 3"),
        ({"n": 0}, "n is wrong"),
        ({"n": 1.5}, "n is wrong"),
        ({"n": True}, "n is wrong"),
        ({"n": 2, "temperature": 0}, "all the same.*n = 2"),
        ({"n": 2, "do_sample": False}, "all the same"),
        ({"do_sample": True, "temperature": 0}, "contradict"),
        ({"max_length": 7}, "leaves nothing.*prompt's 7 tokens.*got 7"),
        ({"max_length": "50"}, "leaves nothing.*got '50'"),
        ({"max_length": 50, "max_new_tokens": 9}, "twice"),
        ({"top_p": 2}, "top_p is wrong"),
    ],
)
def test_mistakes_are_explained(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_options(options, 7)
