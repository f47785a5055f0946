"""Answers are kept as they come, used again only for the same task and model, and are what the model says alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bimo.errors import DataError, ModelError
from bimo.evaluate.continuations import encode_pair
from bimo.evaluate.harness import Answered, Evaluation, compare_all, measure_all
from bimo.evaluate.mistakes import find_mistakes, length_of, script_of
from bimo.evaluate.task import Task, read_examples
from bimo.evaluate.writing import Prompt, write
from bimo.generate.generate import generate_ids
from bimo.generate.language_model import LanguageModel, load
from bimo.generate.sampling import Sampling
from bimo.generate.scoring import score_ids
from tests.evaluate.test_continuations import write_folder

ROWS = [
    {"text": "To be, or not", "label": "en", "body": "to be"},
    {"text": "话说天下大势", "label": "zh", "body": "分久必合，合久必分。"},
    {"text": "that is the", "label": "en", "body": "question"},
    {"text": "天下", "label": "zh", "body": "大势"},
    {"text": "", "label": "en", "body": "that"},
]
CLASSIFY = Task(
    data="rows.jsonl", kind="classify", prompt="{{ text }}", answer="{{ label }}", labels={"en": "be", "zh": "合"}
)
LIKELY = Task(data="rows.jsonl", kind="likelihood", prompt="{{ text }}", answer="{{ body }}")
PROGRAM = "ok = {{ completion|length }} >= 0\nassert {{ 'False' if label == 'zh' else 'ok' }}"
WRITE = Task(data="rows.jsonl", prompt="{{ text }}", answer="{{ body }}", max_new_tokens=5, metrics=("f1", "rougeL"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = write_folder(tmp_path_factory.mktemp("model"), "llama")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))
    return load(folder)


@pytest.fixture
def run(model: LanguageModel, tmp_path: Path) -> Path:
    """A folder with the weights' bytes, but no answers."""
    (tmp_path / "model.safetensors").write_bytes((model.path / "model.safetensors").read_bytes())
    return tmp_path


def ask(
    run: Path, task: Task, model: LanguageModel, count: int = 5, stop_after: int = 99
) -> tuple[list[Answered], int]:
    """The answers, and how many of them were new."""
    evaluation = Evaluation(run, "mine", task, model.path)
    new = 0

    def done(number: int) -> None:
        nonlocal new
        new += number
        if new >= stop_after:
            raise KeyboardInterrupt

    examples = read_examples(task, model.path, limit=count)
    return evaluation.ask(lambda: model, examples, done=done, warn=pytest.fail), new


def test_an_interrupted_evaluation_goes_on(run: Path, model: LanguageModel) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(run, CLASSIFY, model, stop_after=2)
    path = run / "evaluations" / "mine" / "predictions.jsonl"
    with path.open("a") as file:
        file.write('{"id": "test:9", "pred')  # cut off inside a line
    answers, new = ask(run, CLASSIFY, model)
    assert new == 3
    assert len({one.id for one in answers}) == 5
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()[1:]].count(answers[0].id) == 1
    whole, none = ask(run, CLASSIFY, model)
    assert none == 0 and [one.prediction for one in whole] == [one.prediction for one in answers]


def test_other_answers_for_another_task_or_model(run: Path, model: LanguageModel) -> None:
    assert ask(run, CLASSIFY, model, count=2)[1] == 2
    assert ask(run, CLASSIFY, model, count=4)[1] == 2
    other = Task(**{**CLASSIFY.__dict__, "labels": {"en": "be", "zh": "势"}})
    assert ask(run, other, model, count=4)[1] == 4
    (run / "model.safetensors").write_bytes(b"other weights")
    assert ask(run, other, model, count=4)[1] == 4


def alone(model: LanguageModel, text: str, continuation: str) -> float:
    """Log-probability of a continuation, from the scores of the whole text."""
    context, after = encode_pair(model, text, continuation)
    logprobs, _ = score_ids(model.model, [*context, *after])
    return sum(logprobs[-len(after) :])


def test_choices_are_weighed_as_the_model_weighs_them(run: Path, model: LanguageModel) -> None:
    answers, _ = ask(run, CLASSIFY, model)
    for one in answers:
        said = {"en": "be", "zh": "合"}
        logprobs = [alone(model, str(one.row["text"]), f" {text}") for text in said.values()]
        assert one.prediction["logprobs"] == pytest.approx(logprobs, abs=1e-4)
        assert one.prediction["label"] == ("en", "zh")[logprobs.index(max(logprobs))]
        each = [logprob / len(text) for logprob, text in zip(logprobs, said.values(), strict=True)]
        assert one.prediction["label_norm"] == ("en", "zh")[each.index(max(each))]
        odds = math.exp(logprobs[0] - logprobs[1])
        assert one.prediction["probabilities"]["en"] == pytest.approx(odds / (1 + odds), abs=1e-4)


def test_a_likelihood_is_the_models(run: Path, model: LanguageModel) -> None:
    answers, _ = ask(run, LIKELY, model)
    nats = [-alone(model, str(one.row["text"]), one.reference) for one in answers]
    assert [one.prediction["likelihood"][0] for one in answers] == pytest.approx(nats, abs=1e-4)
    size = sum(len(f" {one.row['body']}".encode()) for one in answers)
    assert measure_all(LIKELY, answers)["bits_per_byte"].value == pytest.approx(sum(nats) / math.log(2) / size)


def test_a_text_longer_than_the_context_is_scored_in_pieces(run: Path, model: LanguageModel, tmp_path: Path) -> None:
    body = "分久必合，合久必分。" * 4
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": "话说", "body": body}))
    task = Task(data="long.jsonl", kind="likelihood", prompt="{{ text }}", answer="{{ body }}", between="")
    (example,) = read_examples(task, tmp_path)
    (one,) = Evaluation(run, "long", task, tmp_path).ask(
        lambda: model, [example], done=lambda _: None, warn=pytest.fail
    )
    nats, tokens = one.prediction["likelihood"]
    context, after = encode_pair(model, "话说", body)
    ids, half = [*context, *after], 12
    expected = 0.0
    for start in range(len(context), len(ids), half):  # each half of the context after as much as fits before it
        end = min(start + half, len(ids))
        logprobs, _ = score_ids(model.model, ids[max(0, end - 25) : end])
        expected -= sum(logprobs[start - end :])
    assert tokens == len(after) > 24
    assert nats == pytest.approx(expected, abs=1e-3)


def test_texts_are_those_the_model_writes_alone(run: Path, model: LanguageModel) -> None:
    answers, _ = ask(run, WRITE, model)
    for one in answers:
        text = model.generate(one.row["text"], temperature=0, max_new_tokens=5)[0]
        assert one.prediction == {"text": text.strip(), "finish_reason": text.finish_reason}


def test_many_prompts_stop_texts_and_samples(model: LanguageModel) -> None:
    warm = Sampling(max_new_tokens=6, temperature=1.0, seed=4)
    prompts = [Prompt(model.prompt_ids(text), warm, 2) for text in ("To be", "天下", "question")]
    found = dict(write(model.model, model.tokenizer, prompts, ends=model.conventions.ends))
    for number, text in enumerate(("To be", "天下", "question")):
        assert found[number] == model.generate(text, n=2, max_new_tokens=6, temperature=1.0, seed=4)
    whole = str(found[0][0])
    stopped = Sampling(max_new_tokens=6, temperature=1.0, seed=4, stop=(whole[2:4],))
    (text,) = dict(write(model.model, model.tokenizer, [Prompt(model.prompt_ids("To be"), stopped)], ends=()))[0]
    assert text == whole[: whole.index(whole[2:4])] and text.finish_reason == "stop"


@pytest.mark.parametrize("family", ["gpt2", "llama without a compiler"])
def test_torch_writes_where_c_cannot(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(*_: Any, **__: Any) -> None:
        raise ModelError("There is no C compiler.")

    monkeypatch.setattr("bimo.evaluate.writing.NativeBackend", lacks)
    model = load(write_folder(tmp_path, family.split()[0]))
    told: list[str] = []
    sampling = Sampling(max_new_tokens=5, temperature=0, seed=0)
    found = dict(write(model.model, model.tokenizer, [Prompt([7, 8, 9], sampling)] * 3, ends=(), warn=told.append))
    alone = [step.token for step in generate_ids(model.model, [7, 8, 9], sampling, seeds=[0])]
    assert [found[number][0].ids for number in range(3)] == [tuple(alone)] * 3
    assert told == (
        [] if family == "gpt2" else ["Generating with torch, which is slower here: There is no C compiler."]
    )


def test_nothing_to_write(model: LanguageModel) -> None:
    assert list(write(model.model, model.tokenizer, [], ends=())) == []


def test_a_prompt_that_is_too_long_is_cut_at_its_beginning(model: LanguageModel) -> None:
    ids = model.tokenizer.encode("话说天下大势，分久必合，合久必分。" * 3)
    sampling = Sampling(max_new_tokens=4, temperature=0, seed=0)
    assert len(ids) > 24
    (long,) = dict(write(model.model, model.tokenizer, [Prompt(ids, sampling)], ends=()))[0]
    (cut,) = dict(write(model.model, model.tokenizer, [Prompt(ids[-20:], sampling)], ends=()))[0]
    assert long.ids == cut.ids and len(long.ids) == 4


def test_programs_are_run(run: Path, model: LanguageModel) -> None:
    task = Task(data="rows.jsonl", prompt="{{ text }}", program=PROGRAM, max_new_tokens=4, samples=2, temperature=1.0)
    answers, _ = ask(run, task, model)
    assert {one.row["label"]: one.prediction["passed"] for one in answers} == {"en": [True] * 2, "zh": [False] * 2}
    assert {tuple(one.prediction["reasons"]) for one in answers} == {("", ""), ("AssertionError",) * 2}
    assert measure_all(task, answers)["pass@1"].value == pytest.approx(3 / 5)


def test_runs_are_compared_by_example(run: Path, model: LanguageModel) -> None:
    answers, _ = ask(run, CLASSIFY, model)
    right: dict[str, Any] = {one.id: {**one.prediction, "label": one.reference} for one in answers[::-1]}
    compared = compare_all(CLASSIFY, answers, right)
    assert compared["accuracy"].second == 1
    assert compared["accuracy"].first == measure_all(CLASSIFY, answers)["accuracy"].value
    right.pop(answers[3].id)
    with pytest.raises(DataError, match=f"1 missing, such as {answers[3].id}"):
        compare_all(CLASSIFY, answers, right)


def test_mistakes_by_slice(run: Path, model: LanguageModel) -> None:
    answers, _ = ask(run, Task(**{**CLASSIFY.__dict__, "slices": ("body",)}), model)
    found = find_mistakes(run, "mine")
    right = {one.id: one.prediction["label"] == one.reference for one in answers}
    assert [one.score for one in found.judged] == sorted(map(float, right.values()))
    slices = {(one.kind, one.value): (one.count, one.measured.value) for one in found.slices}
    for label in ("en", "zh"):
        members = [one.id for one in answers if one.reference == label]
        assert slices["label", label] == (len(members), pytest.approx(sum(right[id] for id in members) / len(members)))
    assert slices["script", "Han"][0] == 2 and slices["script", "Latin"][0] == 3
    assert slices["body", "大势"][0] == 1
    assert not any(kind == "length" for kind, _ in slices)  # all are of one length


def test_names_of_slices() -> None:
    assert [length_of("x" * count) for count in (0, 50, 51, 5_000)] == [
        "up to 50 characters",
        "up to 50 characters",
        "51 to 200 characters",
        "over 4,000 characters",
    ]
    assert [script_of(text) for text in ("abc 天下大势", "abcdefgh 天", "123")] == ["Han", "Latin", "none"]
