"""The page and the table of a sweep, from a record written here."""

from __future__ import annotations

import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo import files
from bimo.errors import RunError
from bimo.report.sweep import Scale, gain, markdown_table, render, said_of, summary, write_sweep_page
from bimo.report.sweep_facts import correlation_ratio, lower_front, rank_correlation, ranks, read_sweep

DIVERGED = "Training diverged at step 31: the loss is not finite. Got NaN or infinity on text of 三国.txt#3."


def record(trials: int = 18, *, source: str = "shakespeare") -> dict[str, Any]:
    """A sweep over width, layers, learning rate and a data weight, in which 0.02 and wide models are best."""
    chance = random.Random(5)
    made: list[dict[str, Any]] = []
    for number in range(trials):
        width = 128 if number == 0 else chance.choice([64, 96, 128, 192])
        rate = 0.02 if number == 0 else float(f"{math.exp(chance.uniform(math.log(0.005), math.log(0.05))):.4g}")
        weight = 1.0 if number == 0 else round(chance.uniform(0, 3), 3)
        layers = chance.randint(2, 6)
        value = 2.1 - 0.1 * math.log2(width / 64) + 0.12 * math.log(rate / 0.018) ** 2 + chance.gauss(0, 0.015)
        state = "failed" if number == 7 else "diverged" if number == 11 else "finished"
        state = "pruned" if state == "finished" and number > 4 and value > 2.08 else state
        last = 20 if state == "finished" else 5 + number % 4
        reports = [[share, round(value + 1.3 * (1 / share - 0.04), 6)] for share in range(1, last + 1)]
        finished = state == "finished"
        made.append(
            {
                "number": number,
                "parameters": {
                    "model.width": width,
                    "model.layers": layers,
                    "optimizer.learning_rate": rate,
                    "mix.维基": weight,
                },
                "state": state,
                "value": round(value, 6) if finished else None,
                "reports": reports if state in ("finished", "pruned") else [],
                "reason": {
                    "pruned": f"after {last / 20:.0%} of its budget",
                    "failed": "The model's shape is impossible. Got 96 and 5.",
                    "diverged": DIVERGED,
                }.get(state, ""),
                "size": 12 * layers * width**2 + 4096 * width if state in ("finished", "pruned") else None,
                "steps": 40 * last,
                "seconds": round(70 * last / 20 + chance.gauss(0, 1.5), 1) if state in ("finished", "pruned") else None,
                "wall_seconds": 90.0,
            }
        )
    best = min((one for one in made if one["value"]), key=lambda one: one["value"])
    return {
        "format": "bimo-sweep-1",
        "status": "finished",
        "created": "2026-11-25T19:30:00+00:00",
        "budget": "30m",
        "spent_seconds": 1779.2,
        "best": best["number"],
        "test_bits_per_byte": {"value": 1.9381, "low": 1.9245, "high": 1.9517},
        "settings": {"config": {"data": [source]}, "sweep": {}},
        "plan": {
            "source": source,
            "trials": 16,
            "trial_budget": "96.0s",
            "space": {
                "model.width": [64, 96, 128, 192],
                "model.layers": {"low": 2, "high": 6},
                "optimizer.learning_rate": {"low": 0.005, "high": 0.05, "log": True},
                "mix": {"维基": {"low": 0, "high": 3}},
            },
            "start": {"model.width": 128, "optimizer.learning_rate": 0.02, "mix.维基": 1.0},
        },
        "events": ["every combination has been tried"],
        "trials": made,
    }


def written(folder: Path, values: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    files.write_json(folder / "sweep.json", values)
    return folder


class Checked(HTMLParser):
    """Collects ids and sees that tags close in order."""

    VOID = frozenset({"meta", "link", "input", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []
        self.addresses += [str(found[name]) for name in ("src", "href") if found.get(name)]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_no_network(tmp_path: Path) -> None:
    folder = written(tmp_path / "sweep", record())
    write_sweep_page(folder)
    page = (folder / "sweep.html").read_text(encoding="utf-8")
    checked = Checked(page)
    assert len(checked.ids) == len(set(checked.ids))
    assert checked.addresses == ["data:,"] and "@import" not in page and not re.search(r"url\((?!#)", page)
    best = read_sweep(folder).best
    assert best and f'<p class="big"><data value="{best.value}">{best.value:.3f}</data>' in page
    assert "1.938" in page and page.count('class="point best') == 2 + 4  # both trade-offs, and each key


def test_both_languages_say_everything(tmp_path: Path) -> None:
    page = render(read_sweep(written(tmp_path / "参数", record(source="三国"))))
    assert page.count('class="en"') == page.count('class="zh"') > 40
    chinese = re.findall(r'class="zh" lang="zh-Hans">(.*?)</span>', page)
    untranslated = [text for text in chinese if re.search(r"[a-z]{4,} [a-z]{3,}", text)]
    assert not untranslated


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_trials_make_a_page_too(tmp_path: Path, count: int) -> None:
    values = {**record(count or 1), "status": "running", "test_bits_per_byte": None}
    if not count:
        values.update(trials=[], best=None)
    sweep = read_sweep(written(tmp_path / "a", values))
    Checked(render(sweep))
    assert summary(sweep, tmp_path)


def test_equal_and_missing_values_make_a_page_too(tmp_path: Path) -> None:
    values = record(6)
    for trial in values["trials"]:
        trial.update(value=2.0, size=1000, seconds=60.0, state="finished", reports=[[20, 2.0]])
    values["trials"][1].update(size=None, seconds=None, reports=[])
    Checked(render(read_sweep(written(tmp_path / "a", values))))


def test_what_a_record_says_is_escaped(tmp_path: Path) -> None:
    values = record(source="<script>alert(1)</script>")
    values["trials"][7]["reason"] = "<img src=x onerror=alert(1)>"
    page = render(read_sweep(written(tmp_path / "a", values)))
    assert "<script>alert" not in page and "<img" not in page


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("[", encoding="utf-8")
    with pytest.raises(RunError, match="sweep.json"):
        read_sweep(tmp_path)


def test_the_front_is_what_nothing_smaller_beats(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path / "a", record()))
    for trial in sweep.finished:
        assert trial.size and trial.value
        smaller = [o for o in sweep.finished if o is not trial and o.size and o.value and o.size <= trial.size]
        beaten = any(other.value is not None and other.value <= trial.value for other in smaller)
        assert trial.front == (not beaten)
    assert lower_front([(3, 1.0), (1, 5.0), (2, 6.0), (2, 4.0), (4, 1.0)]) == [(1, 5.0), (2, 4.0), (3, 1.0)]


def test_the_table_is_markdown_with_the_best_first(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path / "a", record()))
    header, rule, *rows = markdown_table(sweep).splitlines()
    assert len(rows) == len(sweep.trials) and header.startswith("|") and set(rule) == set("|-:")
    assert len({line.count("|") for line in (header, rule, *rows)}) == 1
    assert rows[0].rstrip(" |").endswith("best") and sum("failed" in row for row in rows) == 1


def test_four_trials_rank_nothing(tmp_path: Path) -> None:
    keys = read_sweep(written(tmp_path / "a", record(4))).keys
    assert all(key.strength is None and "too few" in said_of(key).en for key in keys)
    assert "strength –" in summary(read_sweep(tmp_path / "a"), tmp_path)


def test_the_gain_is_over_the_first_trial(tmp_path: Path) -> None:
    values = record()
    sweep = read_sweep(written(tmp_path / "a", values))
    assert sweep.best and sweep.best.value and values["trials"][0]["value"]
    assert gain(sweep) == pytest.approx(1 - sweep.best.value / values["trials"][0]["value"])
    values["plan"]["start"] = {}
    assert gain(read_sweep(written(tmp_path / "a", values))) is None


def test_keys_that_matter_are_told_from_those_that_do_not(tmp_path: Path) -> None:
    values = record(40)
    sweep = read_sweep(written(tmp_path / "a", values))
    keys = {key.name: key for key in sweep.keys}
    assert (keys["model.width"].strength or 0) > 2 * (keys["mix.维基"].strength or 0)
    assert keys["model.width"].means[0][0] == "192" and "192 needs" in said_of(keys["model.width"]).en


def test_strengths_against_outside_witnesses() -> None:
    assert ranks([3.0, 1.0, 3.0, 2.0]) == [3.5, 1.0, 3.5, 2.0]
    # scipy.stats.spearmanr([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]).statistic
    assert rank_correlation([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) == pytest.approx(0.8207826816681233)
    # algebra 45 70 29 15 21, geometry 40 20 30 42, statistics 65 95 80 70 85 73: the ratio of the textbooks, 0.8386
    groups = [*["algebra"] * 5, *["geometry"] * 4, *["statistics"] * 6]
    marks = [45, 70, 29, 15, 21, 40, 20, 30, 42, 65, 95, 80, 70, 85, 73]
    assert correlation_ratio(groups, marks) == pytest.approx(0.8386, abs=1e-4)
    assert rank_correlation([1, 2], [1, 2]) is None and correlation_ratio(["a"] * 5, [1, 2, 3, 4, 5]) is None


@given(st.lists(st.floats(1e-4, 1e6), min_size=1, max_size=9), st.booleans())
def test_scales_hold_their_values(values: list[float], log: bool) -> None:
    scale = Scale.around(values, log=log)
    assert all(0 <= scale.share(value) <= 1 for value in values)
    near = 1e-6 * (scale.high - scale.low)
    assert all(scale.low - near <= mark <= scale.high + near for mark in scale.marks(5))
    ordered = sorted(values)
    assert [scale.share(value) for value in ordered] == sorted(scale.share(value) for value in ordered)
