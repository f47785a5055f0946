from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bimo.report import card
from bimo.report.coach import advise
from bimo.report.facts import Facts, read_facts
from bimo.report.page import render, write_page
from bimo.run import Run

EVIL = "</script><img src=x onerror=alert(1)>\"'><b>{{ 7 * 7 }}{% x %}&lt; ${1} https://evil.example/a"
VOID = {"meta", "link", "input", "br", "img"}
CHINESE = re.compile("[\u4e00-\u9fff]")


class Page(HTMLParser):
    """The parsed page; complains about elements that are not closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []
        self.feed(source)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            name = dict(attrs).get("class") if tag == "span" else None
            self.open.append(f"{tag}.{name}" if name in ("en", "zh") else tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].partition(".")[0] == tag, f"</{tag}> closes {self.open[-1]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((tuple(self.open), data.strip()))

    def values(self) -> list[float]:
        return [float(attributes["value"] or "nan") for tag, attributes in self.tags if tag == "data"]

    def said(self, language: str) -> list[str]:
        return [text for where, text in self.texts if f"span.{language}" in where]

    def shown(self) -> str:
        return " ".join(text for where, text in self.texts if not {"script", "style"} & set(where))


@pytest.fixture
def facts(make_run: Callable[..., Run], lineage: dict[str, Any]) -> Facts:
    return read_facts(make_run(lineage))


def test_the_page_is_written_into_the_run(make_run: Callable[..., Run]) -> None:
    run = make_run()
    write_page(run)
    source = (run.path / "report.html").read_text(encoding="utf-8")
    assert source.startswith("<!DOCTYPE html>")
    headings = [text for where, text in Page(source).texts if "h2" in where and "span.en" in where]
    assert headings == [
        "Against other methods",
        "How it learned",
        "The plan, and what happened",
        "What it was trained on",
        "Machine, cost, versions",
    ]


def test_numbers_are_the_lineages(facts: Facts) -> None:
    shown = set(Page(render(facts)).values())
    metrics = facts.lineage["metrics"]
    for measured in (metrics["test_bits_per_byte"], metrics["test_perplexity"], metrics["difference_to_ngram"]):
        assert {measured["value"], measured["low"], measured["high"]} <= shown
    assert {one["value"] for one in metrics["baselines"].values()} <= shown
    assert {metrics[key] for key in ("validation_bits_per_byte", "best_step", "tokens", "epochs")} <= shown
    assert {287.4, 561.2, 1247053312, 214.3, 221.3, 412.0, 520, 500, 2556480, 1770048, 2048, 2.9694, 3} <= shown
    for part in ("train", "validation", "test"):
        assert set(facts.lineage["data"][part].values()) <= shown


def test_what_the_run_says_is_on_the_page(facts: Facts) -> None:
    shown = Page(render(facts)).shown()
    for choice in facts.lineage["plan"]["choices"]:
        assert choice["key"] in shown and choice["reason"] in shown
    for skipped in facts.lineage["data"]["skipped"]:
        assert skipped["file"] in shown and skipped["reason"] in shown
    for word in [
        *facts.lineage["events"],
        "AMD EPYC",
        "2.13.0+cpu",
        "public domain",
        facts.lineage["data"]["data_hash"],
    ]:
        assert word in shown
    assert "9.9% fewer bits than the best of them, n-gram of order 4" in shown
    assert "3% more time than predicted" in shown


def test_a_model_that_loses_is_said_to_lose(make_run: Callable[..., Run], lineage: dict[str, Any]) -> None:
    lineage["metrics"]["baselines"] = {"xz -9": 1.9}
    shown = Page(render(read_facts(make_run(lineage)))).shown()
    assert "does not beat the best of them: it needs 2.0% more bits than xz -9" in shown


def test_bars_are_in_proportion(facts: Facts) -> None:
    page = Page(render(facts))
    widths = [str(attributes["style"]) for tag, attributes in page.tags if tag == "i" and "width" in str(attributes)]
    shares = [float(width.removeprefix("width: ").removesuffix("%")) for width in widths]
    assert shares[:4] == [100.0, 87.55, 64.88, 58.43]  # 3.317, 2.904, 2.152, 1.938


def test_both_languages_are_complete(facts: Facts) -> None:
    page = Page(render(facts))
    english, chinese = page.said("en"), page.said("zh")
    assert len(english) == len(chinese) > 80
    assert not [text for text in english if CHINESE.search(text)]
    assert not [text for text in chinese if not CHINESE.search(text) and re.search("[a-zA-Z]{2}", text)]
    neutral = [text for where, text in page.texts if not {"span.en", "span.zh", "script", "style", "code"} & set(where)]
    known = {"English", "中文", "SHA-256", "bimo", "shakespeare", "shakespeare · bimo", *facts.lineage["versions"]}
    words = {text for text in neutral if re.search("[a-zA-Z]{3}|[\u4e00-\u9fff]", text)} - known
    values = re.compile(
        r"Linux x86_64|AMD EPYC|bfloat16|cpu|gzip -9|[\d.]+\+cpu|[\d,]+ GFLOP/s|2026-.*UTC|[0-9a-f]{64}|bimo .*", re.S
    )
    assert not {text for text in words if not values.fullmatch(text)}


def test_nothing_is_fetched(facts: Facts) -> None:
    source = render(facts)
    assert not re.search("https?:|url\\((?!#)|@import|@font-face|fetch\\(|XMLHttp|WebSocket", source)
    for tag, attributes in Page(source).tags:
        assert tag not in {"img", "iframe", "object", "embed", "audio", "video", "base", "form"}
        for name in ("src", "href", "action", "poster", "srcset", "xlink:href"):
            assert not attributes.get(name) or str(attributes[name]).startswith(("#", "data:,")), (tag, attributes)
    assert "content=\"default-src 'none';" in source


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in nested mappings and lists, their own included."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from leaves(child, (*path, key))


def replaced(values: dict[str, Any], path: tuple[Any, ...], new: Any) -> dict[str, Any]:
    values = copy.deepcopy(values)
    owner = values
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = new
    return values


def test_everything_from_the_run_is_escaped(make_run: Callable[..., Run], lineage: dict[str, Any]) -> None:
    run = make_run(lineage, name="innocent")
    run.append_sample({"step": 1, "prompt": "a", "text": "b"})
    innocent = Page(render(read_facts(run)))
    for path in leaves(lineage):
        found: Any = lineage
        for key in path:
            found = found[key]
        if isinstance(found, str) and path != ("status",):
            lineage = replaced(lineage, path, EVIL)
    lineage["versions"][EVIL] = EVIL
    lineage["metrics"]["baselines"][EVIL] = 2.5
    lineage["machine"]["matmul_peak"][EVIL] = 5e9
    config = json.dumps({"device": EVIL, "dtype": EVIL, "budget": EVIL, "model": {"family": EVIL}})
    metrics = [{"step": 1, "bits_per_byte": EVIL}, {"step": 2, "seconds": EVIL, "validation_bits_per_byte": 2.0}]
    run = make_run(lineage, metrics, config, name=EVIL.replace("/", "∕"))
    run.append_sample({"step": EVIL, "prompt": EVIL, "text": EVIL, "validation_bits_per_byte": EVIL})
    page = Page(render(read_facts(run)))
    assert not {tag for tag, _ in page.tags} - {tag for tag, _ in innocent.tags}
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert page.shown().count(EVIL) > 20
    assert "49" not in re.findall(r"onerror=alert\(1\)>\"'><b>(\d+)", page.shown())


def test_the_coach_is_on_the_page(facts: Facts) -> None:
    page = Page(render(facts))
    advice = advise(facts.records, facts.lineage, facts.config)
    for words in (advice.headline, advice.action, advice.gap, *advice.evidence):
        assert words.en in page.said("en") and words.zh in page.said("zh")
    without = render(dataclasses.replace(facts, records=()))
    assert 'class="card coach' not in without


def test_a_few_samples_from_first_to_last_are_shown(make_run: Callable[..., Run]) -> None:
    run = make_run()
    for step in range(10, 110, 10):
        text = f" wrote this,\n\nat {step}.\n"
        run.append_sample({"step": step, "prompt": "曹操", "text": text, "validation_bits_per_byte": 2.5, "seconds": 1})
    page = Page(render(read_facts(run)))
    assert [text for _, text in page.texts if "wrote this" in text] == [
        f"wrote this,\nat {step}." for step in (100, 70, 40, 10)
    ]
    assert "What it wrote" not in render(read_facts(make_run(name="none")))


def test_what_the_plan_foretold_is_beside_what_came(make_run: Callable[..., Run], lineage: dict[str, Any]) -> None:
    assert "Bits per byte, held-out text" not in render(read_facts(make_run(lineage)))
    bits = {"value": 2.0, "low": 1.9, "high": 2.1}
    lineage["plan"]["predicted"] = {"seconds": 250, "peak_memory_bytes": 1.5e9, "bits_per_byte": bits}
    page = Page(render(read_facts(make_run(lineage, name="foretold"))))
    assert "Bits per byte, held-out text" in page.said("en") and "2.000（1.900 至 2.100）" in page.said("zh")
    assert "1.50 GB" in page.shown() and "1.25 GB" in page.shown()


@pytest.mark.parametrize(
    ("lineage", "metrics", "config"),
    [
        ({}, [], None),
        ({"status": "running"}, [{"step": 1}], ""),
        ({"status": "interrupted", "metrics": {}, "events": ["interrupted after step 5"]}, None, None),
        (
            {"status": "finished", "metrics": {"test_bits_per_byte": {"value": 2.0, "low": None, "high": None}}},
            [],
            None,
        ),
    ],
)
def test_a_run_with_little_in_it(
    make_run: Callable[..., Run], lineage: dict[str, Any], metrics: list[dict[str, Any]] | None, config: str | None
) -> None:
    page = Page(render(read_facts(make_run(lineage, metrics, config))))
    assert ("--resume" in page.shown()) == (lineage.get("status") != "finished")
    assert "than predicted" not in page.shown()
    assert "None" not in page.shown() and "nan" not in page.shown()


def test_a_long_list_of_skipped_files_is_cut(make_run: Callable[..., Run], lineage: dict[str, Any]) -> None:
    lineage["data"]["skipped"] = [{"file": f"{number}.bin", "reason": "binary file"} for number in range(500)]
    shown = Page(render(read_facts(make_run(lineage)))).shown()
    assert "199.bin" in shown and "200.bin" not in shown
    assert "The others are in lineage.json." in shown


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.just(10**400),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from([[], {}, [None], [{}], [[1]], {"value": "x"}, {"": {"": 1}}, "\ud800"]),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_part_may_be_missing_or_wrong(facts: Facts, data: st.DataObject) -> None:
    lineage: Any = facts.lineage
    config: Any = facts.config
    for _ in range(3):
        lineage = replaced(lineage, data.draw(st.sampled_from([p for p in leaves(lineage) if p])), data.draw(junk))
        config = replaced(config, data.draw(st.sampled_from([p for p in leaves(config) if p])), data.draw(junk))
    records = [{"step": 7, "seconds": data.draw(junk), "bits_per_byte": data.draw(junk)}, *facts.records[7:9]]
    found = Facts(facts.name, lineage, config, tuple(records))
    Page(render(found))
    assert card.render(found).startswith("---\n")


def test_the_page_is_drawn_the_same_twice(facts: Facts) -> None:
    assert render(facts) == render(facts)


def test_the_script_names_what_is_on_the_page(facts: Facts) -> None:
    source = render(facts)
    page = Page(source)
    columns = {attributes["data-column"] for _, attributes in page.tags if "data-column" in attributes}
    points = json.loads(next(text for where, text in page.texts if text.startswith('{"') and "script" in where))
    assert columns <= set(points)
    assert {len(column) for column in points.values()} == {500}
    assert points["validation"][499] == facts.records[-1]["validation_bits_per_byte"]
