"""What a tuned model answers by itself: which questions it is asked, and the figures that come of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import bimo
from bimo.evaluate.metrics import METRICS
from bimo.models import load_model
from bimo.report.facts import Facts, read_facts
from bimo.report.task_figures import task_figures
from bimo.run import Run
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.display import Display
from bimo.tune.answering import ANSWERS, FEWEST, chosen, figures, questions_of, spread
from bimo.tune.examples import Example
from bimo.tune.materials import Materials
from bimo.tune.measure import answer_figures, score_answers
from bimo.tune.qa import QA
from bimo.tune.rows import Row
from bimo.tune.task import Refused, Task
from bimo.tune.tasks import make_task
from bimo.tune.translate import Translate
from bimo.tune.tune import tune
from bimo.tune.tuned import translate

PLACES = ("天上", "城里", "远方")


def materials_of(task: Task, tokenizer: Tokenizer, rows: Sequence[dict[str, Any]]) -> Materials:
    """All rows on every side."""
    numbered = {number: Row(number, f"row {number + 1}", values) for number, values in enumerate(rows)}
    examples: list[Example] = []
    for row in numbered.values():
        found = task.prepare(row, tokenizer, 150)
        assert not isinstance(found, Refused)
        examples += found
    return Materials(tokenizer, examples, examples, examples, numbered)


@pytest.fixture(scope="module")
def run(model_folder: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that learned where things are, in Chinese; asked before and after."""
    folder = tmp_path_factory.mktemp("translated")
    lines = ["en\tzh", *(f"where is {n}? up {n % 3}\t{n}在{PLACES[n % 3]}" for n in range(70))]
    (folder / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")
    config = {**tiny, "steps": 60, "evaluate_every": 30, "reading": {"test": 0.2}, "asked": 9, "asked_before": True}
    options = {"source": "en", "target": "zh"}
    return tune(
        "translate", model_folder, folder / "pairs.tsv", folder / "run", options=options, config=config, quiet=True
    )


def test_the_answers_are_kept_and_the_figures_are_theirs(run: Run) -> None:
    lineage = run.read_lineage()
    kept = [json.loads(line) for line in (run.path / ANSWERS).read_text(encoding="utf-8").splitlines()]
    assert lineage["data"]["asked"] == len(kept) == 9 < lineage["data"]["test"]["documents"]
    model = bimo.load(run.path)
    for one in kept[:3]:
        asked, text = one["question"].split("\n")
        assert asked == "Translate into Chinese:" and text.startswith("where is")
        assert [said.text for said in translate(model, [text])] == [one["answer"]]
    answers, accepted = [one["answer"] for one in kept], [one["accepted"] for one in kept]
    for name in ("bleu_zh", "chrf++"):
        found = lineage["metrics"][f"test_{name}"]
        assert found["value"] == pytest.approx(METRICS[name](answers, accepted))
        assert found["low"] <= found["value"] <= found["high"] and found["signature"].startswith("nrefs:1|")
    before, after = (lineage[when]["test_chrf++"]["value"] for when in ("before", "metrics"))
    assert after > 3 * before


def test_the_card_and_the_terminal_say_it(run: Run) -> None:
    bleu, chrf = task_figures(read_facts(run))
    assert bleu.name == "BLEU (zh)" and chrf.name == "chrF++"
    assert bleu.line.startswith(f"BLEU (zh): {bleu.shown('this model')} (95%: ") and "before tuning" in bleu.line
    card = (run.path / "README.md").read_text(encoding="utf-8")
    assert "|  | BLEU (zh) | 95% interval | chrF++ | 95% interval |" in card
    assert f"| this model | {bleu.shown('this model')} |" in card and "On answers to 9 questions" in card
    assert "| translation memory |" in card and "translation memory" in bleu.line and "by word" in chrf.line
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "What it can do" in page and "翻译记忆" in page and f"<td>{chrf.shown('this model')} <small>" in page
    assert "| bits per byte, before tuning |" in card and "tok:zh" in card and "was not measured here" not in card


def test_a_question_is_asked_once_with_all_its_answers(tokenizer: Tokenizer) -> None:
    rows = [{"source": "the moon", "target": "月亮"}, {"source": "up", "target": "天上"}]
    task = Translate(target="zh")
    found = questions_of(task, materials_of(task, tokenizer, [*rows, {"source": "the moon", "target": "月"}]))
    assert [(one.row, one.accepted) for one in found] == [(0, ("月亮", "月")), (1, ("天上",))]
    prompt = [{"role": "user", "content": "Translate into Chinese:\nup"}]
    assert list(found[1].ids) == tokenizer.encode_chat(prompt)
    told = figures(task, ["月", "上"], [one.accepted for one in found])
    assert told["bleu_zh"]["signature"].startswith("nrefs:var|")
    assert questions_of(make_task("chat", {}), materials_of(task, tokenizer, rows)) == []


@pytest.mark.parametrize(
    ("texts", "name"),
    [(["月亮在天上。", "LibreOffice 的说明"], "bleu_zh"), (["la lune", "月"], "bleu"), (["これは月です"], "bleu")],
)
def test_chinese_is_told_by_its_characters(texts: list[str], name: str) -> None:
    assert Translate().metrics([[one] for one in texts]) == (name, "chrf++")


def test_a_short_budget_asks_fewer(tokenizer: Tokenizer, model_folder: Path) -> None:
    task = make_task("summarise", {})
    materials = materials_of(task, tokenizer, [{"document": f"say it {n}", "summary": f"{n}"} for n in range(30)])
    model, display = load_model(model_folder, dtype=torch.float32), Display(quiet=True)
    assert len(chosen(task, materials, model, display, most=20, seconds=None)[0]) == 20
    few, seconds = chosen(task, materials, model, display, most=20, seconds=1e-6)
    assert len(few) == FEWEST and seconds > 0
    assert len(chosen(task, materials, model, display, most=20, seconds=1e6)[0]) == 20
    assert chosen(task, materials, model, display, most=0, seconds=None) == ([], 0.0)
    assert spread(list("abcdef"), 3) == ["a", "c", "e"] and spread([], 4) == []


def yes_or_no(count: int) -> list[dict[str, Any]]:
    return [{"question": f"is {n} up?", "answer": ("Yes", "no")[n % 2]} for n in range(count)]


def test_yes_or_no_is_decided_by_the_likelier(tokenizer: Tokenizer, model_folder: Path) -> None:
    task = QA(yes="yes, it is").settled([Row(0, "", {"question": "q", "answer": True})])
    assert task.kind == "yes-no" and task.metrics([["no"]]) == ()
    rows = [{**row, "answer": row["answer"].lower() == "yes"} for row in yes_or_no(7)]
    materials = materials_of(task, tokenizer, rows)
    model = load_model(model_folder, dtype=torch.float32)
    figures = task.figures(model, materials.test, tokenizer, length=150)
    found, right = figures["test_accuracy"], 0
    for row in rows:
        nats = []
        for answer in ("yes, it is", "no"):
            talk = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": answer}]
            prompt, whole = tokenizer.encode_chat(talk[:1]), tokenizer.encode_chat(talk, add_generation_prompt=False)
            whole = whole[: len(whole) - whole[::-1].index(tokenizer.special["<|im_end|>"])]
            with torch.no_grad():
                logs = model(torch.tensor([whole]))[0].log_softmax(dim=-1)
            nats.append(-math.fsum(float(logs[at - 1, whole[at]]) for at in range(len(prompt), len(whole))))
        right += (nats[0] < nats[1]) == row["answer"]
    assert found["value"] == pytest.approx(right / 7) and found["resampled"] == "7 examples"
    packed = answer_figures(score_answers(model, materials.test, tokenizer, length=150))
    for name, one in packed.items():
        assert figures[name]["value"] == pytest.approx(one["value"], rel=1e-5)


def test_the_kind_of_question_is_found_out() -> None:
    rows = [Row(n, "", values) for n, values in enumerate(yes_or_no(4))]
    assert QA().settled(rows).kind == "yes-no" and QA(kind="free").settled(rows).kind == "free"
    mixed = [*rows, Row(5, "", {"question": "who?", "answer": "the moon"})]
    assert QA().settled(mixed).kind == "auto" and QA().settled([]).kind == "auto"
    row = Row(0, "", {"question": "where?", "answer": {"text": ["up", "high up"]}})
    assert QA().accepted(row) == ["up", "high up"] and QA().metrics([["up"]]) == ("exact_match", "f1")


def test_only_what_was_measured_is_told() -> None:
    lineage = {"metrics": {"test_f1": {"value": 0.5, "low": None, "high": None}}, "before": {"baselines": {"x": 1}}}
    (one,) = task_figures(Facts("run", lineage, {}, ()))
    assert one.line == "F1: 0.500" and one.interval("this model") == "–" and one.shown("nobody") == "–"


def measured(task: Task, tokenizer: Tokenizer, rows: Sequence[dict[str, Any]], asked: Sequence[dict[str, Any]]) -> Any:
    """The baselines of a task that learned from some rows and is asked others."""
    both = materials_of(task, tokenizer, [*rows, *asked])
    count = len(rows)
    materials = Materials(tokenizer, both.train[:count], [], both.test[count:], both.rows)
    questions = questions_of(task, materials)
    return task.baselines(Materials(tokenizer, materials.train, [], materials.test, both.rows, questions=questions))


def test_what_translations_must_beat(tokenizer: Tokenizer) -> None:
    pytest.importorskip("rjieba")
    pairs = [("the moon", "月亮"), ("moon up", "月亮天上"), ("the town", "城里"), ("up the town", "天上城里")]
    rows = [{"source": source, "target": target} for source, target in pairs * 2]
    found = measured(Translate(), tokenizer, rows, [{"source": "Moon town", "target": "月亮城里"}] * 2)
    assert list(found) == ["translation memory", "dictionary, word by word"]
    memory, dictionary = (one["chrf++"]["value"] for one in found.values())
    assert dictionary == pytest.approx(100) and 0 < memory < 90 and set(found["translation memory"]) == {
        "bleu_zh", "chrf++"
    }  # fmt: skip


def test_what_summaries_must_beat(tokenizer: Tokenizer) -> None:
    document = "Nobody knows. The moon is up there. Say the moon is up there again."
    rows = [{"document": document, "summary": "The moon is up there."}]
    found = measured(make_task("summarise", {}), tokenizer, rows, rows)
    assert found["first sentence"]["rouge1"]["value"] == 0 and found["TextRank"]["rougeL"]["value"] > 0.7


def test_what_answers_must_beat(tokenizer: Tokenizer) -> None:
    passage = "Say it again. The moon is up there."
    rows = [{"question": f"where {n}?", "answer": ("up", "town")[n == 2], "passage": passage} for n in range(3)]
    asked = [{"question": "where is the moon?", "answer": "up", "passage": passage}]
    found = measured(QA(kind="extractive").settled([]), tokenizer, rows[:2], asked)
    assert found["majority"]["exact_match"]["value"] == 1
    assert found["sentence nearest to the question"]["f1"]["value"] == pytest.approx(2 / 5)
    closed = [{key: row[key] for key in ("question", "answer")} for row in rows]
    found = measured(QA(kind="free"), tokenizer, closed, [{"question": "where 2", "answer": "town"}])
    assert found["answer to the nearest question"]["f1"]["value"] == 1 and found["majority"]["f1"]["value"] == 0


def test_what_yes_or_no_must_beat(tokenizer: Tokenizer) -> None:
    rows = [{"question": f"is the {('moon', 'town')[n % 3 == 0]} up?", "answer": n % 3 > 0} for n in range(12)]
    found = measured(QA(kind="yes-no"), tokenizer, rows, rows[:5])
    assert found["majority"]["accuracy"]["value"] == pytest.approx(3 / 5)
    assert found["TF-IDF + logistic regression"]["accuracy"]["value"] == 1
    alone = measured(QA(kind="yes-no"), tokenizer, rows[1:2], rows[:5])
    assert list(alone) == ["majority"]
