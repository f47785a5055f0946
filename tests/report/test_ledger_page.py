"""The page of a ledger: whole, in both languages, offline, and safe whatever documents say."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.report import ledger_words
from bimo.report.ledger_page import funnel, groups, lengths, render
from bimo.text.clean import quality, repetition
from bimo.text.prepare.funnel import Account, Group, Stage, account
from bimo.text.prepare.prepare import prepare
from bimo.text.prepare.recipe import Clean
from bimo.text.source import open_source

CHINESE = re.compile("[\u4e00-\u9fff]")
EVIL = "</p><script>alert(1)</script><img src=x onerror=alert(2)> that nobody in the old town would ever want to read."


class Checked(HTMLParser):
    """Sees that tags close in order; collects ids, addresses and all tags."""

    VOID = frozenset({"meta", "link", "input", "br", "path", "rect", "stop"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if found.get("id") else []
        self.addresses += [str(found[name]) for name in ("src", "href") if found.get(name)]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(prepared_dirt: Path) -> str:
    return render(account(prepared_dirt))


def test_the_page_is_whole_and_needs_no_network(page: str, prepared_dirt: Path) -> None:
    checked = Checked(page)
    assert len(checked.ids) == len(set(checked.ids))
    assert checked.addresses == ["data:,"] and "@import" not in page and not re.search(r"url\((?!#)", page)
    assert "every byte accounted for" in page and "每个字节都有交代" in page
    assert "<del>" in page and "<ins>&lt;EMAIL&gt;</ins>" in page and "jane.doe" not in page
    assert page.count('class="stream"') == len(account(prepared_dirt).stages) - 1 and 'class="size">3<' in page


def test_both_languages_say_everything(page: str) -> None:
    assert page.count('class="en"') == page.count('class="zh"') > 40
    chinese = re.findall(r'class="zh" lang="zh-Hans">(.*?)</span>', page)
    assert not [text for text in chinese if re.search(r"[a-z]{4,} [a-z]{3,}", text)]


def test_what_documents_say_is_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "<b>in"
    folder.mkdir()
    texts = [
        EVIL,
        EVIL + " ​ And again.",
        "<script>x</script>",
        EVIL.replace("<", "＜") + "\n\n\n\n\n<i>mail a@b.com</i>",
    ]
    lines = [json.dumps({"text": text, "id": "<script>"}, ensure_ascii=False) for text in texts]
    (folder / "<img src=x>.jsonl").write_text("\n".join([*lines, "{"]), encoding="utf-8")
    (folder / "<script>.xyz").write_text("x")
    prepare(open_source(folder), tmp_path / "<out>", workers=1)
    page = render(account(tmp_path / "<out>"))
    checked = Checked(page)
    assert checked.tags.count("script") == 1 and "img" not in checked.tags
    assert "<script>alert" not in page and "<b>in" not in page and "&lt;script&gt;alert" in page


def test_a_folder_where_nothing_happened_makes_a_page_too(tmp_path: Path) -> None:
    text = "The sea was calm, and the gulls were silent over it for the whole of the day."
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    prepare(open_source(tmp_path / "a.txt"), tmp_path / "out", workers=1)
    page = render(account(tmp_path / "out"))
    Checked(page)
    assert "Every document was kept." in page and "100.0%" in page and "<del>" not in page


def test_a_ledger_without_examples_makes_a_page_too(prepared_dirt: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(prepared_dirt, tmp_path / "out"))
    (out / "examples.json").unlink()
    found = account(out)
    Checked(render(found))
    assert all(reason.examples for reason in found.reasons)
    crowds = {**found.manifest, "crowds": ["1,200 documents share a passage but are not similar"]}
    assert "1,200 篇文档有同一段落" in render(replace(found, manifest=crowds))


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(-50, 100), st.booleans()), max_size=9))
def test_the_stream_is_as_wide_as_its_bytes(steps: list[tuple[int, int, bool]]) -> None:
    stages, left = [Stage("found", 9, 1000)], 1000
    for dropped, changed, any_changed in steps:
        dropped = min(dropped, left)
        changed = min(changed, left - dropped) if any_changed else 0
        left -= dropped + changed
        stages.append(Stage("quality", 5, left, int(dropped > 0), dropped, int(any_changed), changed))
    drawn = funnel(tuple(stages))
    assert len(drawn) == len(steps)
    widths = []
    for row, stage in zip(drawn, stages[1:], strict=True):
        low, high = (float(place) for place in re.match(r"M([-\d.]+) 0H([-\d.]+)V", row["stream"]).groups())  # type: ignore[union-attr]
        assert 0 <= low <= high + 0.11 <= 1000
        widths.append((high - low, stage.bytes))
        assert bool(row["taken"]) == bool(stage.changed) and bool(row["dropped"]) == bool(stage.dropped)
        branches = re.findall(r"-?[\d.]+", row["dropped"] + row["taken"])
        assert all(0 <= float(place) <= 1000 for place in branches)
    for (one, one_bytes), (other, other_bytes) in itertools.pairwise(widths):
        assert one * other_bytes == pytest.approx(other * one_bytes, abs=0.5 * max(one_bytes, other_bytes))


def test_lengths_have_a_bar_for_each_power_of_two() -> None:
    drawn = lengths([0, 0, 4, 0, 8], [0, 0, 1, 0, 8])
    assert drawn and [bar[3] for bar in drawn["before"]] == [500, 1000] and len(drawn["after"]) == 2
    assert drawn["x"][0] == (0.0, "2 B") and drawn["y"][-1][0] == 0
    assert lengths([0], [0]) is None


def test_many_languages_are_put_together() -> None:
    found = groups({f"l{n}": Group(1, 100 - n, 1, 50) for n in range(20)}, ledger_words.LANGUAGES)
    assert len(found) == 13 and found[-1]["name"].en == "8 others" and found[-1]["group"].documents == 8
    assert (found[-1]["before"], found[0]["before"], found[0]["after"]) == (100, 14.79, 7.4)


def test_every_step_and_reason_has_its_chinese() -> None:
    missing = {step.name for step in dataclasses.fields(Clean)} - set(ledger_words.STEPS)
    assert not missing, "add them to STEPS"
    reasons = {rule.reason for rules in (quality.RULES, repetition.RULES) for rule in rules.values()}
    reasons |= {"exact duplicate", "near duplicate", "not in the mixture", "nothing left", "personal data"}
    assert not {one for one in reasons if not CHINESE.search(ledger_words.reason(one).zh)}, "add them to REASONS"
    assert ledger_words.reason("92% similar to a.txt").zh == "与 a.txt 相似 92%"


@pytest.mark.parametrize(("pattern", "chinese"), ledger_words.REASONS)
def test_a_reason_is_in_chinese_and_has_a_place_for_each_group(pattern: str, chinese: str) -> None:
    assert CHINESE.search(chinese)
    assert {int(place) for place in re.findall(r"\{(\d)\}", chinese)} == set(range(re.compile(pattern).groups))


def test_the_account_is_what_is_shown(prepared_dirt: Path, page: str) -> None:
    found: Account = account(prepared_dirt)
    for number in (found.totals.bytes_in, found.totals.bytes_out, found.totals.bytes_dropped):
        assert f"<b>{number:,}</b>" in page
    for reason in found.reasons:
        assert f"{reason.documents:,} 篇" in page
