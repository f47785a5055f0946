from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from bimo.errors import RunError
from bimo.report.facts import at, change, count, entries, figure, number, read_facts, size, text, whole
from bimo.run import Run


def test_a_run_is_read(make_run: Callable[..., Run], lineage: dict[str, Any]) -> None:
    facts = read_facts(make_run(lineage))
    assert (facts.name, facts.finished, facts.language) == ("shakespeare", True, "en")
    assert (facts.steps, facts.planned_steps, facts.planned_seconds) == (500, 520, 214.3)
    assert facts.training_seconds == 221.3
    assert list(facts.baselines) == ["gzip -9", "xz -9", "n-gram of order 4"]
    assert facts.baselines["xz -9"] == (2.904, None, None)
    assert facts.baselines["n-gram of order 4"].interval == (2.141, 2.163)


def test_a_run_in_progress_is_read_from_its_records(make_run: Callable[..., Run]) -> None:
    metrics = [{"step": 2, "seconds": 5.5}, {"step": 1, "seconds": 3.0}, {"loss": 1}, ["not a record"]]
    facts = read_facts(make_run({"plan": {"step_seconds": 0.5, "training_seconds": None}}, metrics))
    assert [record["step"] for record in facts.records] == [1, 2]
    assert (facts.steps, facts.training_seconds) == (2, 5.5)
    assert facts.planned_seconds == 260.0  # 520 steps of half a second
    assert not facts.finished


def test_baselines_may_be_plain_numbers(make_run: Callable[..., Run]) -> None:
    baselines = {"n-gram": {"value": 2.1, "low": 2.0}, "xz -9": 2.5, "gzip": "unknown", "zip": {"low": 2.0}}
    found = read_facts(make_run({"metrics": {"baselines": baselines}})).baselines
    assert found == {"xz -9": (2.5, None, None), "n-gram": (2.1, 2.0, None)}
    assert found["n-gram"].interval is None


@pytest.mark.parametrize("config", [None, "a: [", "- a list"])
def test_an_unusable_configuration_is_an_empty_one(make_run: Callable[..., Run], config: str | None) -> None:
    assert read_facts(make_run(config=config)).config == {}


def test_a_run_without_a_lineage_is_refused(make_run: Callable[..., Run]) -> None:
    run = make_run()
    run.lineage.unlink()
    with pytest.raises(RunError, match=r"lineage\.json does not exist"):
        read_facts(run)


def test_values_of_the_wrong_type_are_none() -> None:
    assert [number(value) for value in (2, 0.5, True, "2", None, math.nan, math.inf, [1])] == [2, 0.5, *[None] * 6]
    assert [text(value) for value in ("a", 3, 0.25, True, None, ["a"], {})] == ["a", "3", "0.25", "true", "", "", ""]
    assert at({"a": {"b": 3}}, "a.b") == 3
    assert at({"a": 5}, "a.b") is None
    assert entries([{"a": 1}, 2]) == [{"a": 1}]
    assert entries("abc") == []


def test_formats() -> None:
    assert (figure(2.4581, 3), figure(-0.25, 1), figure(None), whole(5057197)) == ("2.458", "−0.2", "–", "5,057,197")
    assert [size(n) for n in (0, 999, 5057197, 1247053312)] == ["0 B", "999 B", "5.06 MB", "1.25 GB"]
    assert [count(n) for n in (7, 725952, 2556480, 35e9)] == ["7", "726k", "2.56M", "35.0B"]
    assert change(90, 100) == pytest.approx(-0.1)
    assert change(90, 0) is None
