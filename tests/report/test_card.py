from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from bimo.report.card import plain, render, write_card
from bimo.report.facts import Facts, read_facts
from bimo.run import Run

EVIL = "<script>x</script>\n# Heading\n| a | b |\n---\n```\n"
EVIL += "[link](https://evil.example) ![i](x) **b** www.evil.example @me $x$"


@pytest.fixture
def facts(make_run: Callable[..., Run], lineage: dict[str, Any]) -> Facts:
    return read_facts(make_run(lineage))


def metadata(card: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert found
    return dict(yaml.safe_load(found.group(1)))


def test_the_card_is_written_into_the_run(make_run: Callable[..., Run]) -> None:
    run = make_run()
    write_card(run)
    found = (run.path / "README.md").read_text(encoding="utf-8")
    headings = re.findall("^#+ (.*)$", found, re.MULTILINE)
    assert headings == [
        "shakespeare",
        "Results",
        "Training data",
        "Training",
        "Use",
        "Intended use and limits",
    ]


def test_metadata(facts: Facts) -> None:
    found = metadata(render(facts))
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "text-generation"
    assert found["language"] == "en"
    assert found["tags"] == ["bimo", "qwen3", "base-model"]
    assert "license" not in found  # "public domain" is said of the text, not of the weights
    (result,) = found["model-index"][0]["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == {"bits_per_byte": 1.93815827007675, "perplexity": 54.00457500981623}


def test_the_hub_reads_the_metadata(make_run: Callable[..., Run]) -> None:
    hub = pytest.importorskip("huggingface_hub")
    run = make_run()
    write_card(run)
    data = hub.ModelCard.load(run.path / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("transformers", "text-generation", "shakespeare")
    assert {result.metric_type: result.metric_value for result in data.eval_results}[
        "bits_per_byte"
    ] == 1.93815827007675


@pytest.mark.parametrize(
    ("licence", "name"), [("CC BY-SA 4.0", "cc-by-sa-4.0"), ("MIT", "mit"), ("mine", None), (None, None)]
)
def test_licence(make_run: Callable[..., Run], lineage: dict[str, Any], licence: str | None, name: str | None) -> None:
    lineage["data"]["licence"] = licence
    found = render(read_facts(make_run(lineage)))
    assert metadata(found).get("license") == name
    assert ("No licence is stated for the weights" in found) == (name is None)
    assert f"- licence of the text: {licence or 'not stated'}" in found


def test_numbers_are_the_lineages(facts: Facts) -> None:
    found = render(facts)
    for line in [
        "| bits per byte | 1.938 | 1.925 to 1.952 |",
        "| perplexity of a token | 54.0 | 52.8 to 55.4 |",
        "| xz -9, bits per byte | 2.904 | – |",
        "| n-gram of order 4, bits per byte | 2.152 | 2.141 to 2.163 |",
        "| this model minus the n-gram, in pairs | −0.214 | −0.221 to −0.206 |",
        "| parameters | 2,556,480 |",
        "| train | 38 | 4,554,368 |",
        "| training time, predicted | 3 min 34 s |",
        "| training time, actual | 3 min 41 s |",
        "| `model.width` | `192` | fewest predicted bits per byte for this time |",
        "- notes/cover.png.txt: binary file",
    ]:
        assert f"{line}\n" in found
    assert facts.lineage["data"]["data_hash"] in found


def test_python_in_the_card_is_python(facts: Facts) -> None:
    blocks = re.findall(r"```python\n(.*?)```", render(facts), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        ast.parse(block)
        assert '"shakespeare"' in block


def test_nothing_from_the_run_becomes_markup(make_run: Callable[..., Run], lineage: dict[str, Any]) -> None:
    innocent = render(read_facts(make_run(lineage)))
    lineage["data"] |= {"source": EVIL, "licence": EVIL, "note": EVIL, "data_hash": EVIL}
    lineage["data"]["skipped"] = [{"file": EVIL, "reason": EVIL}, {"file": EVIL, "reason": EVIL}]
    lineage["metrics"]["test_bits_per_byte"]["resampled"] = EVIL
    lineage["machine"]["processor"] = lineage["versions"]["bimo"] = lineage["events"][0] = EVIL
    for choice in lineage["plan"]["choices"]:
        choice |= {"key": EVIL, "value": EVIL, "reason": EVIL}
    found = render(read_facts(make_run(lineage, name=EVIL.replace("/", "∕"))))
    assert metadata(found)["model-index"][0]["results"][0]["dataset"]["type"] == " ".join(EVIL.split())
    body = found.split("\n---\n", 1)[1]
    active = re.sub(r"\\.", "", body)  # what Markdown still acts on
    for mark in ("<script", "](", "**b", "://", "www.", "@me", "$x"):
        assert mark not in active
    assert active.count("```") == innocent.count("```")
    assert len(re.findall("^#", active, re.MULTILINE)) == len(re.findall("^#", innocent, re.MULTILINE))
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3, 4}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a  b\n# c", "a b # c"),
        ("# c", "\\# c"),
        ("a|b", "a\\|b"),
        ("<b>&", "&lt;b>&amp;"),
        ("x-y_z", "x-y\\_z"),
        (None, ""),
    ],
)
def test_plain(value: str | None, shown: str) -> None:
    assert plain(value) == shown


@pytest.mark.parametrize("lineage", [{}, {"status": "interrupted", "metrics": {}, "versions": []}])
def test_a_run_with_little_in_it(make_run: Callable[..., Run], lineage: dict[str, Any]) -> None:
    found = render(read_facts(make_run(lineage, [], None)))
    assert "has not come to its end" in found
    assert "Not measured yet." in found
    assert "model-index" not in metadata(found)
    assert "None" not in found
