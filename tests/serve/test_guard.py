"""The guard: what is stopped, what is not, and that nothing leaves before it has been judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import ConfigError
from bimo.models import save_model
from bimo.models.heads import new_classifier
from bimo.serve.guard import REFUSAL, Classes, Guard, GuardConfig, Stopped
from bimo.tokenizer.tokenizer import Tokenizer


def guard(folder: Path, text: str) -> Guard:
    (folder / "guard.yaml").write_text(text, encoding="utf-8")
    return Guard.read(folder / "guard.yaml")


def said(guard: Guard, pieces: list[str]) -> tuple[str, Stopped | None]:
    answer = guard.answer("r")
    return "".join([*map(answer.add, pieces), answer.end()]), answer.stopped


@pytest.fixture
def plain(tmp_path: Path) -> Guard:
    return guard(tmp_path, "words: [forbidden fruit, 违禁词, C++]\n")


@pytest.mark.parametrize(
    "text",
    ["the Forbidden  Fruit.", "ＦＯＲＢＩＤＤＥＮ fruit", "这里有违禁词吗", "I write c++ daily", "(forbidden\nfruit)"],
)
def test_listed_words_stop_a_question(plain: Guard, text: str) -> None:
    found = plain.question(text, "r")
    assert isinstance(found, Stopped) and found.rule == "words"
    assert plain.counts == {("input", "words"): 1}


@pytest.mark.parametrize("text", ["unforbidden fruit", "forbidden fruits", "违禁的词", "What is the weather like?", ""])
def test_other_words_pass_unchanged(plain: Guard, text: str) -> None:
    assert plain.question(text, "r") == text
    assert not plain.counts


def test_personal_data_never_reach_the_model_nor_the_reader_nor_the_log(tmp_path: Path) -> None:
    made = guard(tmp_path, f"log: {tmp_path / 'log.jsonl'}\n")
    text = "Write to ann.lee@mail.org or call 13800138000, please. " * 3
    assert made.question(text, "r1") == text.replace("ann.lee@mail.org", "<EMAIL>").replace("13800138000", "<PHONE>")
    got, stopped = said(made, list(text))
    assert stopped is None and "<EMAIL>" in got and "ann.lee" not in got and "1380013" not in got
    log = (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    assert "ann.lee" not in log and "138" not in log
    first = json.loads(log.splitlines()[0])
    assert (first["request"], first["side"], first["rule"]) == ("r1", "input", "personal data")
    assert first["evidence"] == "3 e-mail addresses, 3 phone numbers"


def test_personal_data_may_be_refused_or_kept(tmp_path: Path) -> None:
    text = "身份证号码是11010519491231002X，请保密。"
    assert isinstance(guard(tmp_path, "personal_data: refuse\n").question(text, "r"), Stopped)
    assert guard(tmp_path, "personal_data: keep\n").question(text, "r") == text
    assert guard(tmp_path, "{}\n").question(text, "r") == "身份证号码是<ID_CARD>，请保密。"


def test_an_open_private_key_is_not_let_out_line_by_line(plain: Guard) -> None:
    lines = ["Here is my key:\n", "-----BEGIN RSA PRIVATE KEY-----\n", *["MIIEowIBAAKCAQEA75xQ\n"] * 30]
    answer = plain.answer("r")
    assert "MIIE" not in "".join(map(answer.add, lines))
    answer.add("-----END RSA PRIVATE KEY-----\n")
    assert "MIIE" not in answer.end()


def test_toxic_text_is_stopped_and_its_threshold_is_the_users(tmp_path: Path) -> None:
    text = (
        "You are a worthless idiot and a fucking moron, shut the fuck up, you stupid piece of shit, nobody likes you."
    )
    assert isinstance(guard(tmp_path, "{}\n").question(text, "r"), Stopped)
    assert guard(tmp_path, "toxicity: null\n").question(text, "r") == text
    for wrong in ("0", "1.5"):
        with pytest.raises(ConfigError, match="toxicity"):
            guard(tmp_path, f"toxicity: {wrong}\n")


def test_an_answer_ends_in_the_refusal_where_it_goes_wrong(plain: Guard) -> None:
    begin = "Once upon a time there was a garden with many trees. " * 6
    got, stopped = said(plain, [begin, "In it grew the forbidden fruit", " and it was eaten.", " The end."])
    assert stopped is not None and stopped.rule == "words"
    assert got.endswith("\n\n" + REFUSAL) and "forbidden" not in got
    assert begin.startswith(got.removesuffix("\n\n" + REFUSAL))


@given(
    st.lists(
        st.sampled_from(["a", " ", "，", "词", "fruit", "forbidden", "13800138000", "x@y.org", "\n"]), max_size=150
    )
)
def test_the_cut_into_pieces_makes_no_difference(pieces: list[str]) -> None:
    made = Guard.read(PLAIN)
    text = "".join(pieces)
    got, stopped = said(made, pieces)
    assert (got, stopped) == said(made, [text]) if stopped is None else "forbidden fruit" in " ".join(text.split())
    if stopped is None:
        assert got == made.question(text, "r")


PLAIN = Path(__file__).with_name("guard.yaml")


class Shouting:
    """A classifier that finds texts of capitals rude, and remembers what it was asked."""

    labels = ("calm", "rude", "粗鲁")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def probabilities(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        return np.array([[0.1, 0.5, 0.4] if text.isupper() else [0.9, 0.06, 0.04] for text in texts])


def test_classes_of_a_classifier_stop_questions_and_answers_sentence_by_sentence() -> None:
    judge = Shouting()
    of_two = Guard(GuardConfig(toxicity=None), _classes=Classes(judge, (1, 2), 0.8))
    assert of_two.question("GO AWAY", "r") == Stopped("classifier", "rude 0.50")
    assert of_two.question("Good day. 你好。", "r") == "Good day. 你好。"
    of_one = Guard(GuardConfig(toxicity=None), _classes=Classes(judge, (1,), 0.8))
    assert of_one.question("GO AWAY", "r") == "GO AWAY"
    judge.asked.clear()
    text = "It rains. " + "The sun comes back over 3.5 miles of hills. " * 9
    assert said(of_two, list(text)) == (text, None)
    assert len(judge.asked) <= 11, "not at every word"
    shown, stopped = said(of_two, ["NO! ", "NO MORE! "])
    assert shown == REFUSAL and stopped == Stopped("classifier", "rude 0.50")


def test_a_classifier_is_read_beside_the_file(tmp_path: Path, folder: Path) -> None:
    model = new_classifier(folder, ["calm", "rude"], generator=torch.Generator().manual_seed(0))
    save_model(model, tmp_path / "judge")
    Tokenizer.load(folder).save(tmp_path / "judge")
    wanted = "classifier: judge\ntoxicity: null\n"
    found = guard(tmp_path, wanted + "classes: [calm, rude]\ncertainty: 1.0\n").question("hello", "r")
    assert isinstance(found, Stopped) and found.rule == "classifier", "the two are certain together"
    for more, problem in (
        ("classes: [rud]", "no class 'rud'.*Did you mean 'rude'"),
        ("", "No class is named.*calm"),
        ("classes: [rude]\ncertainty: 2", "certainty is wrong"),
    ):
        with pytest.raises(ConfigError, match=problem):
            guard(tmp_path, wanted + more)
    with pytest.raises(ConfigError, match="classes need a classifier"):
        guard(tmp_path, "classes: [rude]")


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing.txt"):
        guard(tmp_path, "word_files: [missing.txt]\n")
    with pytest.raises(ConfigError, match="toxicity"):
        guard(tmp_path, "toxicty: 0.5\n")
    (tmp_path / "zh.txt").write_text("# 注释\n坏话\n", encoding="utf-8")
    assert isinstance(guard(tmp_path, "word_files: [zh.txt]\n").question("说坏话", "r"), Stopped)
