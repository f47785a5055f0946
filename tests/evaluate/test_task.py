"""Tasks: those that come with bimo, what a YAML file may say, and what is said of one that is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bimo.errors import BimoError, ConfigError, DataError
from bimo.evaluate.metrics import METRICS
from bimo.evaluate.task import Example, Task, find_task, fingerprint, names, read_examples
from bimo.text.labelled import SETS

ROWS = [
    {"frage": "2+3", "wahl": ["4", "5", "1"], "richtig": 1, "text": "five", "namen": ["fünf", "五"]},
    {"frage": "天空", "wahl": ["1", "0"], "richtig": 0, "text": "蓝", "namen": ["蓝色"]},
    {"frage": "c", "wahl": ["x", "y"], "richtig": "1", "text": "y", "namen": ["z"]},
]
CHOICES = {"kind": "choices", "prompt": "Q: {{ frage }}\nA:", "choices": "wahl", "answer_number": "richtig"}


def written(folder: Path, rows: list[dict[str, Any]] | str = ROWS, name: str = "rows.jsonl", **keys: Any) -> Path:
    text = rows if isinstance(rows, str) else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / name).write_text(text, encoding="utf-8")
    path = folder / "mine.yaml"
    path.write_text(json.dumps({"data": name, **keys}, ensure_ascii=False), encoding="utf-8")  # JSON is YAML
    return path


def examples(path: Path, **options: Any) -> dict[str, Example]:
    _, task, folder = find_task(str(path))
    return {example.id: example for example in read_examples(task, folder, **options)}


@pytest.mark.parametrize("name", names())
def test_every_task_that_comes_with_bimo_is_sound(name: str) -> None:
    found, task, _ = find_task(name)
    assert found == name and task.description and task.data in SETS
    assert task.measured_by
    assert all(label and said for label, said in task.labels.items())


def test_the_page_names_every_key_task_and_metric() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    wanted = {*names(), *METRICS, *(field.name for field in dataclasses.fields(Task))}
    assert not {name for name in wanted if f"`{name}`" not in page}


def test_choices(tmp_path: Path) -> None:
    found = examples(written(tmp_path, **CHOICES))
    assert sorted(found) == ["test:1", "test:2", "test:3"]
    one = found["test:1"]
    assert (one.prompt, one.choices, one.reference) == ("Q: 2+3\nA:", ("4", "5", "1"), "5")
    assert found["test:2"].reference == "1"  # the number 0, not the text "0"
    assert one.own_text.splitlines() == ["2+3", "4", "5", "1", "1", "five", "fünf", "五"]


def test_labels_and_what_says_them(tmp_path: Path) -> None:
    keys = {"kind": "classify", "labels": {"五": "five", "蓝": "blue", "z": "why"}, "prompt": "{{ frage }}"}
    found = examples(written(tmp_path, ROWS[1:2], **keys, answer="{{ text }}"))
    assert found["test:1"].choices == ("five", "blue", "why")
    assert found["test:1"].names == ("五", "蓝", "z")
    assert found["test:1"].reference == "蓝"
    with pytest.raises(DataError, match=r"The answer of row 3 is none of the choices\. Expected one of 五, 蓝, z"):
        examples(written(tmp_path, [*ROWS[1:2] * 2, ROWS[0]], **keys, answer="{{ text }}"))


def test_a_limit_takes_a_part_of_a_larger_one(tmp_path: Path) -> None:
    path = written(tmp_path, [{"q": str(number), "a": "a"} for number in range(50)], prompt="{{ q }}", answer="{{ a }}")
    some, more = list(examples(path, limit=7)), list(examples(path, limit=20))
    assert some == more[:7] and len(more) == 20
    assert some != [f"test:{number + 1}" for number in range(7)]


def test_examples_before_a_prompt(tmp_path: Path) -> None:
    path = written(tmp_path, **CHOICES, shots=1, separator="##", shots_split="test")
    found = examples(path)
    assert len(found) == 2  # the one that is shown is not asked
    (one, other) = found.values()
    before, _, own = one.prompt.partition("##")
    assert own == f"Q: {one.row['frage']}\nA:"
    assert before in ("Q: 2+3\nA: 5", "Q: 天空\nA: 1", "Q: c\nA: y")
    assert other.prompt.startswith(before)


def test_several_answers_and_files_of_other_kinds(tmp_path: Path) -> None:
    found = examples(written(tmp_path, prompt="{{ frage }}", answers="namen"))
    assert found["test:1"].reference == ["fünf", "五"]
    table = 'frage\tnamen\n你好\t["a", "b"]\n'
    found = examples(written(tmp_path, table, "rows.tsv", prompt="{{ frage }}", answers="namen"))
    assert found["test:1"].reference == ["a", "b"] and found["test:1"].prompt == "你好"
    found = examples(
        written(tmp_path, json.dumps(ROWS), "rows.json", prompt="{{ frage }}", answer="{{ text }}", id="text")
    )
    assert sorted(found) == ["five", "y", "蓝"]


def test_a_likelihood_is_of_what_stands_between_too(tmp_path: Path) -> None:
    found = examples(written(tmp_path, ROWS[:1], kind="likelihood", prompt="{{ frage }}", answer="{{ text }}"))
    assert found["test:1"].reference == " five"


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"promt": "x"}, "unknown key 'promt'. Did you mean 'prompt'?"),
        ({"kind": "choice"}, "Did you mean 'choices'?"),
        ({"prompt": "x"}, "A task of kind generate needs 'answer'."),
        ({"answer": "x", "kind": "choices", "prompt": "x"}, "needs 'choices'"),
        ({"answer": "x", "metrics": ["blue"]}, "There is no metric 'blue'. Did you mean 'bleu'?"),
        ({"answer": "x", "metrics": ["accuracy"]}, "accuracy does not fit a task of kind generate. Expected bleu"),
        ({"answer": "x", "samples": 3}, "Several samples without chance are all the same."),
        ({"answer": "x", "shots": -1}, "A number of the task is wrong."),
        ({"answer": "{{ frage"}, "The template 'answer' of the task is wrong."),
        ({"answer": "{{ farge }}"}, "does not fit row 1. Got 'farge' is undefined. Columns: frage, wahl"),
        ({"answer": "{{ ''.__class__.__mro__ }}"}, "does not fit row 1."),
        ({"answer": "{% for i in range(99999999) %}x{% endfor %}"}, "does not fit row 1."),
        ({"answer": "x", "baseline": "{{ no }}"}, "The template 'baseline' does not fit row 1."),
        ({"answers": "nammen"}, "a list in the column 'nammen'; got None. Did you mean 'namen'?"),
        ({"answer": "x", "data": "rows.parquet"}, "no such file"),
    ],
)
def test_what_is_said_of_a_wrong_task(tmp_path: Path, keys: dict[str, Any], problem: str) -> None:
    path = written(tmp_path, ROWS[:1], **keys) if "data" not in keys else tmp_path / "mine.yaml"
    if "data" in keys:
        path.write_text(json.dumps(keys))
    with pytest.raises(BimoError) as error:
        examples(path)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"richtig": 7}, "Expected a number from 0 to 1 in the column 'richtig'; got 7."),
        ({"wahl": ["a", "a"]}, "The choices of row 1 cannot be told apart."),
        ({"wahl": ["a"]}, "cannot be told apart"),
        ({"wahl": "a"}, "Expected a list in the column 'wahl'; got 'a'."),
    ],
)
def test_what_is_said_of_a_wrong_row(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError) as error:
        examples(written(tmp_path, [{**ROWS[2], **row}], **CHOICES))
    assert problem in str(error.value)


def test_names_that_repeat(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"The column 'text' does not name the rows\. Expected each once; got y 2 times"
    ):
        examples(written(tmp_path, [*ROWS, ROWS[2]], prompt="{{ frage }}", answer="x", id="text"))


@pytest.mark.parametrize(("text", "name"), [("{", "a.jsonl"), ("", "a.jsonl"), ("[1]", "a.json"), ("\ud800", "a.csv")])
def test_what_is_said_of_a_damaged_file(tmp_path: Path, text: str, name: str) -> None:
    path = written(tmp_path, "", name, prompt="x", answer="y")
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=name):
        examples(path)


def test_a_task_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'boolq'\? A task of your own is a YAML file"):
        find_task("bolq")
    with pytest.raises(ConfigError, match="cannot be read"):
        find_task("nowhere.yaml")


def test_a_fingerprint_knows_task_data_and_model(tmp_path: Path) -> None:
    _, task, folder = find_task(str(written(tmp_path, **CHOICES)))
    known = {fingerprint(task, folder, "a"), fingerprint(task, folder, "b")}
    known.add(fingerprint(Task(**{**task.__dict__, "between": ""}), folder, "a"))
    assert fingerprint(task, folder, "a") in known
    written(tmp_path, ROWS[:2], **CHOICES)
    known.add(fingerprint(task, folder, "a"))
    assert len(known) == 4
