"""bimo translate, summarise and ask: where questions come from, and how answers are printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bimo.config import to_yaml
from bimo.tokenizer.train import train_tokenizer
from bimo.tune.config import TuneConfig
from tests.commands.conftest import Called
from tests.tune.chat_folder import chat_folder

Bimo = Callable[..., Called]
PASSAGE = "the moon is up there. 月亮在天上。"
SHORT = ["--max-new-tokens", "5"]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model that nobody has tuned."""
    return chat_folder(tmp_path_factory.mktemp("runs") / "chat", train_tokenizer([PASSAGE] * 9, 320))


@pytest.fixture(scope="module")
def qa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was tuned to say yes or no."""
    folder = chat_folder(tmp_path_factory.mktemp("runs") / "qa", train_tokenizer([PASSAGE] * 9, 320))
    (folder / "bimo.yaml").write_text(to_yaml(TuneConfig(task="qa", options={"kind": "yes-no"})), encoding="utf-8")
    return folder


def lines(called: Called) -> list[Any]:
    assert called.code == 0, called.err
    return [json.loads(line) for line in called.out.splitlines()]


def test_texts_files_and_standard_input(bimo: Bimo, chat: Path, tmp_path: Path):
    (tmp_path / "letter.txt").write_text(PASSAGE, encoding="utf-8")
    words = ["the moon", tmp_path / "letter.txt", "-"]
    called = bimo("translate", chat, *words, "--target", "zh", "--json", *SHORT, stdin="月亮".encode())
    assert [one["source"] for one in lines(called)] == ["the moon", PASSAGE, "月亮"]
    assert [line for line in called.err.splitlines() if "was not tuned to translate" in line] == [
        f"! {chat} was not tuned to translate: it is asked as any chat model is. "
        f"Tune it first: bimo tune translate --model {chat} --data FILE."
    ]
    plain = bimo("translate", chat, "--target", "zh", *words, *SHORT, stdin="月亮".encode())
    assert plain.code == 0 and plain.out.count("\n") == 3
    alone = bimo("summarise", chat, tmp_path / "letter.txt", *SHORT)
    assert alone.code == 0 and "broken off; --max-new-tokens" in alone.err


def test_rows_in_their_order(bimo: Bimo, qa: Path, tmp_path: Path):
    rows = [{"frage": f"is it up {number}?", "context": PASSAGE} for number in range(7)]
    rows[3]["frage"] = ""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{", encoding="utf-8")
    given = ["--data", tmp_path / "rows.jsonl", "--columns", "question=frage"]
    called = bimo("ask", qa, *given, "--json")
    found = lines(called)
    assert [one["row"] for one in found] == [*range(7)]
    where = {"row": 3, "where": "rows.jsonl line 4"}
    assert found[3] == {
        **where, "question": None, "answer": None, "finish_reason": "refused", "reason": "no question",
    }  # fmt: skip
    assert {one["answer"] for one in found if one["row"] != 3} <= {"yes", "no"}
    assert all(0.5 <= one["probability"] <= 1 for one in found if one["row"] != 3)
    assert "1 of 8 rows cannot be read" in called.err and "rows.jsonl line 4: not answered: no question" in called.err
    plain = bimo("ask", qa, *given)
    assert plain.out.splitlines()[3] == "" and plain.out.splitlines()[0].split("\t")[0] in ("yes", "no")
    other = bimo("ask", qa, "is it up 0?", "--passage", PASSAGE)
    assert other.code == 0 and other.out.endswith("%)\n") and other.out.split()[0] == found[0]["answer"]
    assert not other.err


def test_a_passage_from_a_file_and_where_the_answer_stands(bimo: Bimo, chat: Path, tmp_path: Path):
    (tmp_path / "page.html").write_text(f"<p>{PASSAGE}</p>", encoding="utf-8")
    from bimo.commands.answering import text_or_file, told_as
    from bimo.tune.qa import QA
    from bimo.tune.tuned import Answer

    assert text_or_file(str(tmp_path / "page.html")).strip() == PASSAGE
    answer = Answer("月亮", "stop", start=22, end=24)
    assert told_as(QA(), answer) == {"answer": "月亮", "finish_reason": "stop", "start": 22, "end": 24}
    called = bimo("ask", chat, "up?", "--passage", tmp_path / "page.html", "--kind", "yes-no")
    assert called.code == 0 and called.out.split()[0] in ("yes", "no")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "texts, or --data FILE; got neither"),
        (["x", "--data", "rows.csv"], "got both"),
        (["nosuch.txt"], "There is no file nosuch.txt"),
        (["x"], "language to translate into is not known"),
        ([" ", "--target", "zh"], "This cannot be answered. Got no source"),
        (["x", "--target", "zh", "--temperature", "-1"], "temperature is wrong"),
        (["x", "--target", "zh", "--max-new-tokens", "160"], "no room for a question"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], problem: str, bimo: Bimo, chat: Path):
    assert problem in bimo("translate", chat, *words).problem


def test_a_table_is_not_a_text_and_a_classifier_no_language_model(bimo: Bimo, chat: Path, tmp_path: Path):
    (tmp_path / "rows.csv").write_text("text\nx\n", encoding="utf-8")
    assert "--data" in bimo("summarise", chat, tmp_path / "rows.csv").problem
    (tmp_path / "other.csv").write_text("a,b\nx,y\n", encoding="utf-8")
    problem = bimo("summarise", chat, "--data", tmp_path / "other.csv").problem
    assert "called like the document" in problem and "document=NAME" in problem
