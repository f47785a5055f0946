"""Reward functions: what comes along, a user's own, and every way in which one can fail."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import DataError, TrainingError, UsageError
from bimo.tune.arithmetic import problems
from bimo.tune.rewards import last_number, open_reward

SAID = ["The answer is 12.", "１２", "twelve", "1,012"]
ROWS = [{"answer": "12", "level": 1}, {"answer": 12, "level": 2}, {"answer": "12", "level": 3}, {"answer": "1012.0"}]
STUBBORN = """
    while True:
        try:
            time.sleep(9)
        except Exception:
            pass"""


def call(name: str, said: list[str] = SAID, rows: list[dict[str, Any]] = ROWS, **more: Any) -> list[float]:
    return open_reward(name, ["answer", "level"], **more)(["?"] * len(said), said, rows)


def write(path: Path, body: str, signature: str = "completions") -> str:
    path.write_text(f"import math, time\n\ndef worth({signature}):\n    {body}\n", encoding="utf-8")
    return f"{path}:worth"


def test_those_that_come_along() -> None:
    assert call("number") == [1.0, 1.0, 0.0, 1.0]
    assert call("exact", ["  Ja ", "ＪＡ", "nein", "ja ja"], [{"answer": "ja"}] * 4) == [1.0, 1.0, 0.0, 0.0]
    assert call("json", ['{"a": 1}', "[1]", "{", '{"b": "好"}']) == [1.0, 0.0, 0.0, 1.0]
    assert call(r"regex:\d+|好+", ["12\n", "好好", "12.", ""]) == [1.0, 1.0, 0.0, 0.0]


@given(st.integers(-(10**12), 10**12), st.text("abc 你好.,\n", max_size=9))
def test_the_last_number_is_found_in_any_text(value: int, text: str) -> None:
    assert last_number(f"7 apples, {text} so {value}") == value
    assert last_number(f"{value:,}。") == value


def test_numbers_are_compared_exactly() -> None:
    assert last_number("0.1") == Decimal("0.1") and last_number("no") is None and last_number("−3") == -3
    with pytest.raises(DataError, match="without a number"):
        call("number", ["1"], [{"answer": "one"}])


def test_a_user_s_function_gets_what_it_names(tmp_path: Path) -> None:
    name = write(tmp_path / "mine.py", "return [len(c) * l for c, l in zip(completions, level)]", "completions, level")
    assert call(name, ["a", "bb", "ccc"], [{"level": 1}, {"level": 2}, {"level": 3}]) == [1.0, 4.0, 9.0]
    name = write(tmp_path / "all.py", "return [len(given)] * len(completions)", "completions, **given")
    assert call(name) == [3.0] * 4  # prompts, answer, level
    name = write(tmp_path / "numpy.py", "import numpy\n    return numpy.arange(len(prompts)) / 2", "prompts, other=3")
    assert call(name) == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero, in line 4 of bad.py"),
        ("return [math.nan] * len(completions)", "nan for 'The answer is 12.'"),
        ("return [1.0, math.inf, 0, 0]", "inf for '１２'"),
        ("return [1.0]", "expected 4 numbers, one for each completion; got 1 values"),
        ("return 3", "a list of numbers; got int: 3"),
        ("return 'good'", "a list of numbers; got str: good"),
        ("return ['good'] * 4", "'good' for"),
        ("return None", "got NoneType"),
        ("return {c: 1 for c in completions}", "got dict"),
        ("time.sleep(9)", "took more than 0.2 seconds"),
        (STUBBORN, "took more than"),
    ],
)  # fmt: skip
def test_a_function_that_fails_says_where(tmp_path: Path, body: str, told: str) -> None:
    name = write(tmp_path / "bad.py", body)
    with pytest.raises(TrainingError) as caught:
        call(name, seconds=0.2)
    message = str(caught.value)
    assert told.lower() in message.lower() and "bad.py:worth" in message and "--resume" in message


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nubmer", "Did you mean 'number'"),
        ("missing.py:worth", "cannot be read"),
        ("regex:(", "no regular expression"),
        ("missing.py", "FILE.py:function"),
    ],
)
def test_rewards_that_are_not_there(name: str, told: str) -> None:
    with pytest.raises(UsageError, match=told.replace(".", r"\.")):
        open_reward(name, ["answer"])


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    name = write(tmp_path / "mine.py", "return []", "completions, anwser")
    with pytest.raises(UsageError, match="wants 'anwser'.*Did you mean 'answer'"):
        open_reward(name, ["answer"])
    with pytest.raises(UsageError, match="no function 'wroth'.*Did you mean 'worth'"):
        open_reward(name.replace(":worth", ":wroth"), [])
    (tmp_path / "broken.py").write_text("x = 1\nimport nothing_of_this_name\n")
    with pytest.raises(UsageError, match="cannot be imported.*in line 2"):
        open_reward(f"{tmp_path / 'broken.py'}:worth", [])


def test_sums_have_their_answers() -> None:
    rows = problems(50, largest=9, signs="+-*", wording="zh", seed=3)
    assert len({row["prompt"] for row in rows}) == len(rows) > 30
    for row in rows:
        assert eval(row["prompt"].partition("等于")[0]) == int(row["answer"]) >= 0
    assert problems(50, seed=3) != problems(50, seed=4) and len(problems(10**6, largest=3, signs="+")) == 16
