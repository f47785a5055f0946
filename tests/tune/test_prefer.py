"""Preferences and rewards as whole runs: what is learned, shapes that people publish, exact resumption, refusals."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import bimo
from bimo.errors import DataError, UsageError
from bimo.run import Run
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.loop import Progress
from bimo.tune.prefer import Prefer, share, taste
from bimo.tune.rows import Row
from bimo.tune.shapes import Unshaped
from bimo.tune.task import Refused
from bimo.tune.tune import tune

ASKED = [{"role": "user", "content": "where is 月?"}]
GOOD, BAD = "月在天上。", "say it again"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def still(tiny: dict[str, Any]) -> dict[str, Any]:
    """The configuration without dropout, which would make a model differ from itself before training."""
    return {**tiny, "model": {"dropout": 0.0}}


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two answers the Chinese one is better, whatever is asked."""
    generator = random.Random(1)
    rows = []
    for number in range(60):
        who, place = generator.choice("月日星火水木"), generator.choice(("up there", "in town"))
        conversations = [{"from": "human", "value": f"where is {who}{number}?"}]
        chosen, rejected = f"{who}在天上", f"{who} is {place}"
        rows.append(
            {
                "conversations": conversations,
                "chosen": {"from": "gpt", "value": chosen},
                "rejected": {"from": "gpt", "value": rejected},
            }
        )
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", rows)


@pytest.fixture(scope="session")
def preferred(model_folder: Path, pairs: Path, still: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tune("prefer", model_folder, pairs, tmp_path_factory.mktemp("runs") / "dpo", config=still, quiet=True)


def test_held_out_pairs_are_told_apart(preferred: Run) -> None:
    lineage = preferred.read_lineage()
    before, after = lineage["before"], lineage["metrics"]
    assert before["test_accuracy"]["value"] == 0.5 and after["test_accuracy"]["value"] == 1.0
    assert after["test_reward_margin"] > 0.1 and after["test_loss"] < 0.69
    assert not [one for one in lineage["doctor"] if one["ok"] is False] and lineage["kind"] == "prefer"
    records = preferred.read_metrics()
    assert records[0]["reward_margin"] == pytest.approx(0, abs=1e-4) and records[-1]["reward_margin"] > 0.1
    assert "bits_per_byte" not in records[0] and "validation_loss" in records[-1]
    bimo.load(preferred.path).chat(ASKED, max_new_tokens=2)


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    preferred: Run,
    model_folder: Path,
    pairs: Path,
    still: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dying(self: Any, progress: Progress) -> None:
        if progress.step == 13:
            raise MemoryError

    learn = bimo.train.learn  # type: ignore[attr-defined]
    monkeypatch.setattr(learn.Guard, "__call__", dying)
    with pytest.raises(MemoryError):
        tune("prefer", model_folder, pairs, tmp_path / "run", config=still, quiet=True)
    monkeypatch.undo()
    resumed = tune("prefer", model_folder, pairs, tmp_path / "run", config=still, resume=True, quiet=True)
    assert (resumed.path / "model.safetensors").read_bytes() == (preferred.path / "model.safetensors").read_bytes()
    assert resumed.read_metrics()[-1]["loss"] == preferred.read_metrics()[-1]["loss"]


@pytest.mark.parametrize("method", ["ipo", "orpo"])
def test_other_losses_of_pairs(
    method: str, model_folder: Path, pairs: Path, still: dict[str, Any], tmp_path: Path
) -> None:
    run = tune("prefer", model_folder, pairs, tmp_path / "run", options={"method": method}, config=still, quiet=True)
    assert run.read_lineage()["metrics"]["test_likelier"]["value"] > 0.7
    assert (run.checkpoints / "reference").exists() == (method != "orpo")


def test_rated_answers(model_folder: Path, pairs: Path, still: dict[str, Any], tmp_path: Path) -> None:
    rows = []
    for line in pairs.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for side, label in (("chosen", True), ("rejected", False)):
            rows.append({"messages": [*row["conversations"], row[side]], "label": label})
    data = write(tmp_path / "rated.jsonl", rows)
    run = tune("prefer", model_folder, data, tmp_path / "run", options={"method": "kto"}, config=still, quiet=True)
    figures = run.read_lineage()["metrics"]
    assert figures["test_reward_chosen"] > figures["test_reward_rejected"] + 0.1
    assert run.read_metrics()[-1]["kl"] >= 0


def unit(tokenizer: Tokenizer, longest: int = 200, method: str = "dpo", **values: Any) -> list[str] | str:
    """The texts of both sides of what a row gives, learned parts in brackets; or why it gives nothing."""
    row = Row(3, "row 3", values)
    task = Prefer(method=method)  # type: ignore[arg-type]
    found = task.prepare(row, tokenizer, longest)
    assert isinstance(found, Refused) == isinstance(task.texts(row), Refused) or "longer" in found.reason  # type: ignore[union-attr]
    if isinstance(found, Refused):
        return found.reason
    (one,) = found
    sides = getattr(one, "sides", (one,))
    return [
        tokenizer.decode(side.ids[~side.counts], False) + "[" + tokenizer.decode(side.ids[side.counts], False) + "]"
        for side in sides
    ]


def test_every_usual_shape_of_a_pair_is_the_same(model_folder: Path, tokenizer: Tokenizer) -> None:
    _, chatty = Prefer().open(model_folder, torch.device("cpu"))
    answers = [{"role": "assistant", "content": text} for text in (GOOD, BAD)]
    shapes: list[dict[str, Any]] = [
        {"prompt": "where is 月?", "chosen": GOOD, "rejected": BAD},
        {"prompt": ASKED, "chosen": answers[:1], "rejected": answers[1:]},
        {"prompt": "where is 月?", "chosen": [*ASKED, answers[0]], "rejected": [*ASKED, answers[1]]},
        {"messages": ASKED, "chosen": answers[0], "rejected": answers[1]},
        {"chosen": [*ASKED, answers[0]], "rejected": [*ASKED, answers[1]]},
        {
            "messages": [{"from": "human", "value": "where is 月?"}],
            "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD},
        },
    ]
    start = "<|im_start|>user\nwhere is 月?<|im_end|>\n<|im_start|>assistant\n"
    expected = [f"{start}[{GOOD}<|im_end|>]", f"{start}[{BAD}<|im_end|>]"]
    assert [unit(chatty, **values) for values in shapes] == [expected] * len(shapes)


def test_only_the_last_answer_is_learned_and_both_see_the_same(model_folder: Path) -> None:
    _, tokenizer = Prefer().open(model_folder, torch.device("cpu"))
    before = [*ASKED, {"role": "assistant", "content": "up there"}, {"role": "user", "content": "再说一遍"}]
    whole = unit(tokenizer, messages=before, chosen=GOOD, rejected=BAD)
    assert [side.count("up there") for side in whole] == [1, 1] and "up there" not in whole[0].partition("[")[2]
    cut = unit(tokenizer, 90, messages=before, chosen=GOOD, rejected=BAD)
    assert [side.count("up there") for side in cut] == [0, 0] and all("再说一遍" in side for side in cut)
    assert "longer than 20 tokens" in unit(tokenizer, 20, messages=before, chosen=GOOD, rejected=BAD)


def test_rows_that_cannot_be_used(model_folder: Path) -> None:
    _, tokenizer = Prefer().open(model_folder, torch.device("cpu"))
    assert unit(tokenizer, prompt="a", chosen="b", rejected="b") == "both answers are the same"
    assert unit(tokenizer, prompt="a", chosen="b", rejected=" ") == "an empty answer"
    assert unit(tokenizer, chosen="b", rejected="c") == "nobody says anything to the assistant"
    assert "neither true nor false" in unit(tokenizer, method="kto", prompt="a", answer="b", label="so-so")
    assert unit(tokenizer, method="kto", prompt="a", answer="", label=1) == "an empty answer"


@pytest.mark.parametrize(
    ("value", "liked"),
    [(True, True), ("False", False), (1, True), (0.0, False), ("+1", True), (-1, False), ("好", True), ("差", False)],
)
def test_ratings_in_any_form(value: Any, liked: bool) -> None:
    assert taste(value) is liked


@pytest.mark.parametrize("value", [None, "", 2, "maybe", [1]])
def test_ratings_that_say_nothing(value: Any) -> None:
    with pytest.raises(Unshaped, match="neither true nor false"):
        taste(value)


def test_shares_count_ties_by_halves() -> None:

    found = share(torch.tensor([1.0, 0.0, -1.0, 2.0]))
    assert found["value"] == 0.625 and 0 < found["low"] < 0.625 < found["high"] < 1


REWARD = """
def brevity(completions):
    return [1 / (1 + len(said)) for said in completions]
"""


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write(tmp_path / "asked.jsonl", [{"question": f"where is 月{number}?", "n": number} for number in range(30)])


@pytest.mark.parametrize("settings", [{}, {"kl": 0.1, "updates": 2}])
def test_a_reward_is_learned_and_resumed_to_the_same_bytes(
    settings: dict[str, Any],
    model_folder: Path,
    questions: Path,
    still: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "short.py").write_text(REWARD)
    options = {"reward": [f"{tmp_path / 'short.py'}:brevity"], "longest": 8, "answers": 4, **settings}
    config = {**still, "steps": 12}

    def run(name: str, **more: Any) -> Run:
        return tune(
            "reinforce", model_folder, questions, tmp_path / name, options=options, config=config, quiet=True, **more
        )

    whole = run("whole")
    lineage = whole.read_lineage()
    assert lineage["metrics"]["test_reward_drawn"] > lineage["before"]["test_reward_drawn"]
    records = whole.read_metrics()
    assert {"reward", "reward_spread", "answer_tokens", "finished", "undecided", "clipped"} <= set(records[0])
    assert ("kl" in records[0]) == ("kl" in settings)
    if settings:
        assert records[0]["kl"] == pytest.approx(0, abs=1e-6) and records[-1]["kl"] > 0

    def dying(self: Any, progress: Progress) -> None:
        if progress.step == 8:
            raise MemoryError

    monkeypatch.setattr(bimo.train.learn.Guard, "__call__", dying)  # type: ignore[attr-defined]
    with pytest.raises(MemoryError):
        run("cut")
    monkeypatch.undo()
    resumed = run("cut", resume=True)
    assert (resumed.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    assert [record["reward"] for record in resumed.read_metrics()] == [record["reward"] for record in records]


def test_what_reinforce_refuses(model_folder: Path, questions: Path, still: dict[str, Any], tmp_path: Path) -> None:
    def refused(**options: Any) -> str:
        with pytest.raises((UsageError, DataError)) as caught:
            tune("reinforce", model_folder, questions, tmp_path / "no", options=options, config=still, quiet=True)
        assert not (tmp_path / "no" / "model.safetensors").exists()
        return str(caught.value)

    assert "There is no reward" in refused()
    assert "wants 'answer'" in refused(reward=["number"])
    assert "no column 'promt'" in refused(reward=["json"], prompt="promt")
    assert "at least 2" in refused(reward=["json"], answers=1)
    assert "2, one a reward" in refused(reward=["json", "regex:a"], weights=[1.0])
    assert "leaves no room" in refused(reward=["json"], longest=500)
