"""Each task on its own rows: what it asks, what it learns, and where it ends."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import bimo
from bimo.errors import ConfigError, UsageError
from bimo.tokenizer.answers import Answers
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tune.asking import filled
from bimo.tune.code import Code, fill_prompt
from bimo.tune.examples import Example
from bimo.tune.qa import QA
from bimo.tune.rows import Row
from bimo.tune.task import Refused, Task
from bimo.tune.tasks import TASKS, make_task
from bimo.tune.translate import Translate
from bimo.tune.tune import tune
from tests.tokenizer.chat_templates import TEMPLATES, with_template

ROWS: dict[str, dict[str, Any]] = {
    "chat": {"prompt": "where is the moon?", "answer": "up there"},
    "qa": {"question": "is it up?", "passage": "The moon is up.", "answer": True},
    "summarise": {"document": "The moon is up there, say it again.", "summary": "月亮在天上"},
    "translate": {"source": "the moon", "target": "月亮"},
}
ANSWERS = {"chat": "up there", "qa": "yes", "summarise": "月亮在天上", "translate": "月亮"}


def learned(tokenizer: Tokenizer, one: Example) -> str:
    return tokenizer.decode(one.ids[one.counts].tolist(), skip_special=False)


def only(found: Any) -> Example:
    assert not isinstance(found, Refused), found
    (one,) = found
    return one


@pytest.mark.parametrize("name", sorted(ROWS))
def test_the_answer_and_its_end_are_learned_after_the_question(name: str, tokenizer: Tokenizer):
    task, row = make_task(name, {}), Row(5, "row 6", ROWS[name])
    one = only(task.prepare(row, tokenizer, 200))
    assert learned(tokenizer, one) == f"{ANSWERS[name]}<|im_end|>" and one.row == 5
    question, answer = task.texts(row)  # type: ignore[misc]
    assert answer == ANSWERS[name]
    prompt = one.ids[: int(one.counts.argmax())].tolist()
    assert prompt == tokenizer.encode_chat([{"role": "user", "content": question}])


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_is_a_task(name: str):
    task: Task = make_task(name, {})
    assert task.name == name
    assert all(role.usual for role in task.roles)


def test_what_is_too_long_is_read_in_pieces_and_refused_where_no_answer_fits(tokenizer: Tokenizer):
    task = make_task("chat", {})
    talk = [{"role": ("user", "assistant")[n % 2], "content": f"say it again {n}"} for n in range(8)]
    row = Row(0, "row 1", {"messages": [{"role": "system", "content": "say"}, *talk]})
    whole = only(task.prepare(row, tokenizer, 10_000))
    pieces = task.prepare(row, tokenizer, whole.size // 2)
    assert not isinstance(pieces, Refused) and len(pieces) > 1
    assert "".join(learned(tokenizer, piece) for piece in pieces) == learned(tokenizer, whole)
    for piece in pieces:
        text = tokenizer.decode(piece.ids.tolist(), skip_special=False)
        assert piece.size <= whole.size // 2 and piece.cut == 0
        assert text.startswith("<|im_start|>system\nsay<|im_end|>\n<|im_start|>user\n")
    assert task.prepare(row, tokenizer, 9) == Refused("question and answer are longer than 9 tokens")


def test_an_exchange_that_does_not_fit_is_left_out_and_counted(tokenizer: Tokenizer):
    long = "say it again " * 30
    talk = [{"role": ("user", "assistant")[n % 2], "content": long if n in (2, 5) else "so"} for n in range(8)]
    found = make_task("chat", {}).prepare(Row(0, "", {"messages": talk}), tokenizer, 60)
    assert not isinstance(found, Refused)
    first, last = found
    assert [learned(tokenizer, one) for one in (first, last)] == ["so<|im_end|>"] * 2
    assert (first.cut, last.cut) == (2, 0)


@pytest.mark.parametrize("name", ["chatml", "qwen3", "mistral", "llama2"])
def test_as_many_turns_are_kept_as_fit(name: str, tokenizer: Tokenizer):
    templated, generator = with_template(tokenizer, TEMPLATES[name]), random.Random(0)
    for system in ([], [{"role": "system", "content": "say"}]):
        turns = [["say it again " * generator.randint(0, 4) + str(n), "so"][n % 2] for n in range(15)]
        talk = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
        found = Answers(templated)
        between = {(a, b): found.of([*system, *talk[a:b]]) for b in range(2, 15, 2) for a in range(0, b, 2)}
        last = max(len(stretch.ids) for one in between.values() for stretch in one)
        for longest in range(8, last + 4, 3):
            end, wanted = 14, list[list[int]]()
            while end:
                fits = (a for a in range(0, end, 2) if all(len(one.ids) - 1 <= longest for one in between[a, end]))
                begin = next(fits, None)
                if begin is not None:
                    wanted = [*(one.ids for one in between[begin, end]), *wanted]
                end = end - 2 if begin is None else begin
            made = make_task("chat", {}).prepare(Row(0, "", {"messages": [*system, *talk]}), templated, longest)
            assert wanted == ([] if isinstance(made, Refused) else [example.ids.tolist() for example in made])
        assert wanted == [stretch.ids for stretch in between[0, 14]]


def test_a_template_that_refuses_a_row_does_not_end_the_run(tokenizer: Tokenizer):
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    picky = Tokenizer(tokenizer.definition, tokenizer.config, template + (tokenizer.chat_template or ""))
    found = make_task("chat", {"system": "x"}).prepare(Row(0, "", ROWS["chat"]), picky, 99)
    assert isinstance(found, Refused) and "no system" in found.reason


@pytest.mark.parametrize(
    ("kind", "answer", "wanted"),
    [
        ("auto", True, "yes"), ("auto", "False", "no"), ("auto", "no", "no"), ("yes-no", "是", "yes"),
        ("yes-no", "0", "no"), ("auto", "0", "0"), ("auto", ["up", "high"], "up"), ("free", {"text": ["up"]}, "up"),
        ("yes-no", "maybe", Refused("an answer that is neither yes nor no")),
        ("extractive", "down", Refused("an answer that does not stand in its passage")), ("extractive", "up", "up"),
        ("auto", [], Refused("no answer")),
    ],
)  # fmt: skip
def test_answers_to_questions_come_in_many_forms(kind: Any, answer: Any, wanted: Any):
    found = QA(kind=kind).texts(Row(0, "", {"question": "q", "passage": "it is up", "answer": answer}))
    assert found == wanted if isinstance(wanted, Refused) else found == ("it is up\n\nQuestion: q", wanted)


def test_translation_says_the_language():
    task = Translate(source="en", target="zh")
    assert task.asked("the {language}") == "Translate into Chinese:\nthe {language}"
    assert [role.usual for role in task.roles][:2] == [("en",), ("zh",)]
    with pytest.raises(UsageError, match=r"\{text\} in it"):
        Translate(prompt="Translate").asked("x")
    assert filled("{a}{b}", a="{b}", b="{a}") == "{b}{a}"


def test_code_is_continued_and_filled_in(tokenizer: Tokenizer, model_folder: Path):
    text = "".join(f"say{n} = {n}\n" for n in range(30)) + "# 月亮\n"
    model, extended = Code().open(model_folder, torch.device("cpu"))
    assert model.config.vocab_size == tokenizer.vocab_size + 3 == extended.vocab_size
    row = Row(0, "a.py", {"text": text})
    continued = Code(fill=0.0).prepare(row, extended, 60)
    assert not isinstance(continued, Refused) and all(one.size <= 60 for one in continued)
    assert "".join(learned(extended, one) for one in continued) == text + "<|endoftext|>"
    middles = Code(fill=1.0).prepare(row, extended, 60)
    assert not isinstance(middles, Refused)
    prefix, suffix, middle = (extended.special[name] for name in ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"))
    rebuilt = ""
    for one in middles:
        ids = one.ids.tolist()
        assert ids[0] == prefix and ids[-1] == extended.eos_id and not one.counts[: ids.index(middle) + 1].any()
        before, after = ids[1 : ids.index(suffix)], ids[ids.index(suffix) + 1 : ids.index(middle)]
        inside = ids[ids.index(middle) + 1 : -1]
        assert one.counts[ids.index(middle) + 1 :].all()
        rebuilt += extended.decode(before) + extended.decode(inside) + extended.decode(after)
    assert rebuilt == text
    assert fill_prompt(extended, "a", "b")[-1] == middle
    with pytest.raises(ConfigError, match="cannot fill in"):
        fill_prompt(tokenizer, "a", "b")


@pytest.mark.parametrize("name", ["translate", "code"])
def test_other_tasks_run_to_the_end(name: str, model_folder: Path, tiny: dict[str, Any], tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    if name == "code":
        for number in range(12):
            (data / f"{number}.py").write_text(f"say = {number}\nprint(say + {number})\n" * 3)
    else:
        lines = ["en\tzh", *(f"the moon {number}\t月亮{number}" for number in range(20))]
        (data / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")
    run = tune(name, model_folder, data, tmp_path / "run", config={**tiny, "steps": 4}, quiet=True)
    lineage = run.read_lineage()
    assert lineage["kind"] == name and lineage["status"] == "finished"
    assert lineage["metrics"]["test_bits_per_byte"]["value"] < lineage["before"]["test_bits_per_byte"]["value"]
    assert bimo.load(run.path).generate("say", max_new_tokens=3) is not None
