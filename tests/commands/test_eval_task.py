"""``bimo eval --task`` and ``bimo errors`` on a tiny run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

TASK = """\
description: 谁在说话 (who is speaking)
data: rows.jsonl
kind: classify
prompt: "{{ text }}"
answer: "{{ who }}"
between: ""
labels: {"曹操": "曹操", "king": "the king"}
"""
ROWS = [{"text": f"却说 {number}", "who": "曹操"} for number in range(6)]
ROWS += [{"text": f"said {number} of", "who": "king"} for number in range(3)]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))
    (tmp_path / "who.yaml").write_text(TASK, encoding="utf-8")
    return tmp_path / "who.yaml"


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "mine"))


def test_a_task_is_measured_kept_and_its_mistakes_shown(bimo: Any, run: Path, task: Path) -> None:
    called = bimo("eval", run, "--task", task)
    assert called.code == 0, called.err
    assert "who: 谁在说话" in called.out and "accuracy" in called.out
    assert "always 曹操  accuracy 0.667, macro_f1 0.400" in called.out
    assert "none stands in the training text; 9 are too short to look for" in called.out
    assert "label \\ taken for" in called.out
    again = bimo("eval", run, "--task", task, "--json")
    assert "9 of 9 answers are there already" in again.err
    measured = json.loads(again.out)
    assert measured == json.loads((run / "evaluations" / "who" / "result.json").read_text(encoding="utf-8"))
    value = measured["metrics"]["accuracy"]["value"]
    assert value in [count / 9 for count in range(10)]
    shown = bimo("errors", run)
    assert shown.code == 0 and "who: 9 answers, accuracy of each kind of example" in shown.out
    assert shown.out.count("wanted") == 2 * 9
    judged = json.loads(bimo("errors", run, "--task", "who", "--json").out)["who"]
    assert sum(one["score"] for one in judged["answers"]) == pytest.approx(9 * value)


def test_examples_of_the_training_text_are_left_out(bimo: Any, run: Path, task: Path, text_folder: Path) -> None:
    text = (text_folder / "03.txt").read_text(encoding="utf-8")
    rows = [{"text": text[at : at + 300], "who": "king"} for at in (0, 400)] + ROWS
    (task.parent / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    task.write_text(TASK.replace("{{ text }}", "{{ text[:9] }}"), encoding="utf-8")
    held_out = {row["id"] for row in map(json.loads, _documents(run))}
    if {"03.txt"} & held_out:
        pytest.skip("the document is held out")
    measured = json.loads(bimo("eval", run, "--task", task, "--json").out)
    assert sorted(measured["known"]["examples"]) == ["test:1", "test:2"] and measured["examples"] == 9
    called = bimo("eval", run, "--task", task, "--keep-known")
    assert "2 examples stand in the training text;" in called.out and "11 of rows.jsonl" in called.out
    assert "2 examples stand in the training text and are left out" in bimo("eval", run, "--task", task).out
    stranger = Path(shutil.copytree(run, task.parent / "stranger"))  # whose training text is not there
    shutil.rmtree(stranger / "checkpoints")
    compared = json.loads(bimo("eval", stranger, "--task", task, "--compare", run, "--json").out)
    assert compared["known"] is None and compared["examples"] == 9
    (task.parent / "rows.jsonl").write_text(json.dumps(rows[0], ensure_ascii=False) + "\n")
    assert "trust no number here" in bimo("eval", run, "--task", task).err


def _documents(run: Path) -> list[str]:
    names = (run / "checkpoints" / "tokens" / "validation.ids.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.dumps({"id": json.loads(name)}) for name in names]


def test_two_runs_are_compared(bimo: Any, run: Path, task: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    called = bimo("eval", run, "--task", task, "--compare", other)
    assert called.code == 0, called.err
    assert "asking mine" in called.err and "asking other" in called.err
    (line,) = [line for line in called.out.splitlines() if line.startswith("accuracy") and "1.0000" in line]
    assert "0.000 (95%: 0.000 to 0.000)" in line


def test_several_tasks_are_a_list(bimo: Any, run: Path, task: Path) -> None:
    second = task.with_name("again.yaml")
    second.write_text(TASK.replace("kind: classify", "kind: classify\nmetrics: [micro_f1]"), encoding="utf-8")
    found = json.loads(bimo("eval", run, "--task", task, "--task", second, "--limit", 4, "--json").out)
    assert [(one["task"], one["examples"], list(one["metrics"])) for one in found] == [
        ("who", 4, ["accuracy", "macro_f1", "micro_f1", "ece"]),
        ("again", 4, ["micro_f1"]),
    ]
    shown = bimo("errors", run, "--worst", 1)
    assert "who: 4 answers" in shown.out and "again: 4 answers" in shown.out


def test_a_text_is_measured_beside_its_baseline(bimo: Any, run: Path, task: Path) -> None:
    keys = {"data": "rows.jsonl", "prompt": "{{ text }}", "answer": "{{ text }}!", "baseline": "{{ text }}"}
    task.write_text(json.dumps({**keys, "metrics": ["exact_match", "chrf++"], "max_new_tokens": 3}), encoding="utf-8")
    found = json.loads(bimo("eval", run, "--task", task, "--json").out)
    assert found["baselines"]["baseline"]["exact_match"] == 1
    assert found["metrics"]["exact_match"]["value"] < 1
    assert found["metrics"]["chrf++"]["signature"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:2")
    assert "baseline" in bimo("eval", run, "--task", task).out


def test_all_goes_on_without_data_that_are_not_to_be_had(
    bimo: Any, run: Path, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task.parent / "gone.yaml").write_text(TASK.replace("rows.jsonl", "gone.jsonl"), encoding="utf-8")
    monkeypatch.setattr("bimo.evaluate.task.FOLDER", task.parent)
    called = bimo("eval", run, "--task", "all", "--json")
    assert called.code == 0 and "left out gone: There is no data at" in " ".join(called.err.split())
    assert json.loads(called.out)["task"] == "who"
    assert "There is no data at" in bimo("eval", run, "--task", "gone").problem


def test_what_is_said_of_wrong_words(bimo: Any, run: Path, task: Path, tmp_path: Path) -> None:
    assert "Did you mean 'boolq'?" in bimo("eval", run, "--task", "bolq").problem
    assert "A task has its own data." in bimo("eval", run, "--task", task, "--data", "x").problem
    assert "--limit is for tasks." in bimo("eval", run, "--limit", 3).problem
    assert "a number from 1; got 0" in bimo("eval", run, "--task", task, "--limit", 0).problem
    assert "There is no model" in bimo("eval", run, "--task", task, "--compare", tmp_path / "none").problem
    assert "has done no task." in bimo("errors", run).problem
    (run / "evaluations" / "who").mkdir(parents=True)
    (run / "evaluations" / "who" / "predictions.jsonl").write_text("")
    assert "has answered nothing of who" in bimo("errors", run).problem
    assert "Did you mean 'who'?" in bimo("errors", run, "--task", "whoo").problem
