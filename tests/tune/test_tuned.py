"""Tuned models at work: asked as in training, many at once; what they weigh, where answers stand, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import bimo
from bimo.config import to_yaml
from bimo.errors import RunError, UsageError
from bimo.evaluate.writing import write
from bimo.generate.language_model import LanguageModel
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.doctor import no_doctor
from bimo.tune.config import TuneConfig
from bimo.tune.qa import QA
from bimo.tune.rows import Row
from bimo.tune.task import Refused
from bimo.tune.tasks import make_task
from bimo.tune.tune import tune
from bimo.tune.tuned import Answer, _asked, answers, ask, open_task, summarise, translate, tuned_options

TUNED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # settings of a run, and a row it could have learned from
    "translate": (
        {"source": "en", "target": "zh", "prompt": "{language}，请翻译：{text}", "system": "你是译者。"},
        {"source": "where is the moon? {language}", "target": "月亮在哪里？"},
    ),
    "summarise": ({"prompt": "In short: {document}"}, {"document": "月亮在天上。\n再说一遍。", "summary": "月亮"}),
    "qa": (
        {"kind": "yes-no", "yes": "是", "no": "不", "prompt": "{passage}。{question}？"},
        {"question": "月亮在天上吗", "passage": "The moon is up there.", "answer": "yes"},
    ),
}
PASSAGE = "where is the moon? the moon is up there, say it again. 月亮在哪里？月亮在天上。"


@pytest.fixture
def model(model_folder: Path) -> LanguageModel:
    """A chat model that nobody has tuned."""
    return bimo.load(model_folder, device="cpu", dtype="float32")


def tuned(folder: Path, out: Path, name: str, **options: Any) -> LanguageModel:
    """The same weights as a run that says how it was tuned."""
    shutil.copytree(folder, out)
    (out / "bimo.yaml").write_text(to_yaml(TuneConfig(task=name, options=options)), encoding="utf-8")
    return bimo.load(out, device="cpu", dtype="float32")


def logprobs(model: LanguageModel, ids: list[int], begin: int) -> torch.Tensor:
    """Of ``ids`` from ``begin`` on, by one plain pass."""
    with torch.no_grad():
        scores = model.model.logits(model.model.hidden(torch.tensor([ids])))[0].log_softmax(-1)
    return scores[torch.arange(begin - 1, len(ids) - 1), ids[begin:]]


@pytest.mark.parametrize("name", sorted(TUNED))
def test_a_run_is_asked_as_it_was_tuned(name: str, model_folder: Path, tmp_path: Path, tokenizer: Tokenizer):
    options, row = TUNED[name]
    told: list[str] = []
    model = tuned(model_folder, tmp_path / "run", name, **options)
    task = open_task(model, name, {}, told.append)
    learned = make_task(name, options).prepare(Row(0, "", row), tokenizer, 160)
    assert not isinstance(learned, Refused) and not told
    (example,) = learned
    (role,) = [role for role in row if role in ("target", "summary", "answer")]
    shown = _asked(model, task, {key: value for key, value in row.items() if key != role}, 8)
    assert not isinstance(shown, Answer)
    assert shown.ids == example.ids[: int(example.counts.argmax())].tolist()


@pytest.mark.slow
def test_a_tuned_model_says_what_it_has_learned(model_folder: Path, tmp_path: Path, tiny: dict[str, Any]):
    pairs = {"the moon": "月亮", "up there": "天上", "say it again": "再说一遍"}
    data = tmp_path / "pairs.tsv"
    data.write_text("en\tzh\n" + "".join(f"{en}\t{zh}\n" for en, zh in pairs.items()), encoding="utf-8")
    config = {**tiny, "steps": 80, "reading": {"test": 0, "validation": 0}, "evaluate_every": 80, "averaging": 0.0}
    config |= {"model": {"dropout": 0.0}, "patience": 0, "checkpoint_every": 80, "samples": False}
    said = {"source": "en", "target": "zh"}
    run = tune(
        "translate", model_folder, data, tmp_path / "run", options=said, columns=said, config=config,
        doctor=no_doctor, quiet=True,
    )  # fmt: skip
    told: list[str] = []
    found = translate(bimo.load(run.path), list(pairs), warn=told.append)
    assert [str(one) for one in found] == list(pairs.values()) and not told
    assert all(one.finish_reason == "stop" for one in found)


def test_answers_come_in_order_and_are_those_of_the_model_alone(model: LanguageModel):
    texts = [PASSAGE[: 7 * number] + str(number) for number in (9, 1, 6, 3, 8)]
    rows = [{"question": text} for text in texts]
    rows.insert(2, {"question": " "})
    found = list(answers(model, QA(), rows, max_new_tokens=9))
    assert found.pop(2) == Answer("", "refused", reason="no question")
    alone = [model.chat([{"role": "user", "content": text}], temperature=0, max_new_tokens=9) for text in texts]
    assert [one.text for one in found] == [one.strip() for one in alone]
    assert [one.finish_reason for one in found] == [one.finish_reason for one in alone]
    drawn = [
        [str(one) for one in ask(model, texts, temperature=1.0, seed=seed, max_new_tokens=9)] for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_likeliest_is_searched_for_as_the_run_says_and_where_nothing_else_decides(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    beams: list[int] = []

    def watched(*given: Any, num_beams: int, **named: Any) -> Any:
        beams.append(num_beams)
        return write(*given, num_beams=num_beams, **named)

    monkeypatch.setattr("bimo.tune.tuned.write", watched)
    model = tuned(model_folder, tmp_path / "run", "translate", target="zh", num_beams=3)
    token_by_token, searched = (translate(model, ["the moon"], num_beams=n, max_new_tokens=9)[0] for n in (1, None))
    for drawing in ({"temperature": 0.5}, {"repetition_penalty": 1.2}, {"stop": "月"}):
        translate(model, ["the moon"], max_new_tokens=3, **drawing)
    assert beams == [1, 3, 1, 1, 1] and token_by_token.text and searched.text
    assert make_task("translate", {}).num_beams == 4 and make_task("summarise", {}).num_beams == 1  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="num_beams"):
        translate(model, ["the moon"], num_beams=0)


@pytest.mark.parametrize("passage", [None, PASSAGE])
def test_yes_and_no_are_weighed_with_the_end_of_their_turn(passage: str | None, model: LanguageModel):
    questions = ["the moon is up there?", "月亮在天上？", "say"]
    found = ask(model, questions, [passage] * 3, kind="yes-no")
    for question, answer in zip(questions, found, strict=True):
        prompt = model.chat_ids(QA().conversation(QA().asked(question, passage)))
        end = model.tokenizer.special["<|im_end|>"]
        said = [[*model.tokenizer.encode(text), end] for text in ("yes", "no")]
        nats = torch.stack([logprobs(model, [*prompt, *ids], len(prompt)).sum() for ids in said])
        shares = F.softmax(nats, dim=0)
        assert answer.text == ("yes", "no")[int(shares.argmax())] and answer.finish_reason == "choice"
        assert answer.probability == pytest.approx(float(shares.max()), rel=1e-4)


def test_an_answer_says_where_it_stands(model: LanguageModel):
    row = {"question": "x", "passage": PASSAGE}
    begin = PASSAGE.index("月亮在天上")
    assert QA().place(row, "月亮在天上") == (begin, begin + 5)
    assert QA().place(row, "Mars") is QA().place(row, "") is QA(kind="free").place(row, "moon") is None
    assert QA().place({"question": "x"}, "x") is None


def test_the_end_of_a_passage_that_is_too_long_is_left_out(model: LanguageModel):
    whole = PASSAGE * 9
    for kind, reserve in (("free", 40), ("yes-no", 9)):
        task = QA(kind=kind)  # type: ignore[arg-type]
        shown = _asked(model, task, {"question": "say it again", "passage": whole}, reserve)
        assert not isinstance(shown, Answer) and len(shown.ids) <= 160 - reserve
        kept = whole[: len(whole) - shown.cut]
        assert shown.values["passage"] == kept
        longer = model.chat_ids(task.conversation(task.asked("say it again", whole[: len(kept) + 1])))
        assert shown.ids == model.chat_ids(task.conversation(task.asked("say it again", kept)))
        assert len(longer) > 160 - reserve
        (answer,) = ask(model, ["say it again"], [whole], kind=kind)
        assert answer.cut > 0 and answer.finish_reason != "refused"
    (refused,) = ask(model, [whole], kind="yes-no")
    assert refused.finish_reason == "refused" and "longer than" in refused.reason


def test_an_answer_has_all_the_room_that_is_left(model: LanguageModel):
    (short,), (long,) = (summarise(model, [text], temperature=0, logit_bias=no_end(model)) for text in ("say", PASSAGE))
    assert short.finish_reason == long.finish_reason == "length"
    with pytest.raises(UsageError, match="max_new_tokens below the model's 160"):
        summarise(model, ["say"], max_new_tokens=160)


def no_end(model: LanguageModel) -> dict[int, float]:
    return dict.fromkeys(model.conventions.turn_ends, -100.0)


def test_the_settings_of_a_run_are_found_through_those_made_of_it(model_folder: Path, tmp_path: Path):
    tuned(model_folder, tmp_path / "first", "qa", kind="yes-no")
    last = tuned(model_folder, tmp_path / "last", "prefer")
    (tmp_path / "last" / "lineage.json").write_text(json.dumps({"parent": {"folder": str(tmp_path / "first")}}))
    assert tuned_options(tmp_path / "last", "qa") == {"kind": "yes-no"}
    assert tuned_options(tmp_path / "last", "translate") is None
    assert [one.finish_reason for one in ask(last, ["say?"])] == ["choice"]


def test_what_was_not_tuned_says_so(model: LanguageModel, model_folder: Path, tmp_path: Path):
    told: list[str] = []
    assert len(summarise(model, ["say"], warn=told.append, max_new_tokens=2)) == 1
    assert len(told) == 1 and "was not tuned to summarise" in told[0] and "bimo tune summarise" in told[0]
    assert translate(model, [], target="fr") == []
    assert open_task(model, "translate", {"target": "fr"}, told.append).num_beams == 1
    into_zh = tuned(model_folder, tmp_path / "run", "translate", source="en", target="zh")
    told.clear()
    translate(into_zh, ["say"], target="fr", warn=told.append, max_new_tokens=2)
    assert "not tuned to translate into fr" in told[0]
    with pytest.raises(UsageError, match="language to translate into"):
        translate(model, ["say"])
    with pytest.raises(UsageError, match="a list of texts"):
        summarise(model, "say")
    with pytest.raises(UsageError, match="one for each of 2 questions"):
        ask(model, ["say?", "say?"], ["say"])
    with pytest.raises(UsageError, match="temprature"):
        ask(model, ["say?"], temprature=1)
    (tmp_path / "base").mkdir()
    shutil.copytree(model_folder, tmp_path / "base", dirs_exist_ok=True)
    (tmp_path / "base" / "lineage.json").write_text('{"kind": "base"}')
    with pytest.raises(RunError, match="not tuned to answer questions, and cannot chat.*bimo tune qa --model"):
        ask(bimo.load(tmp_path / "base"), ["say?"])
