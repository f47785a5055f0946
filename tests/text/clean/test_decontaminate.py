"""Decontamination: what is planted is cut out with its evidence, near misses stay, and the rest of a text is whole."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import BimoError, ConfigError, DataError
from bimo.text.clean import decontaminate
from bimo.text.clean.decontaminate import Config, Grams, build, collected, fit
from bimo.text.document import Document, Drop, Step
from tests.text.test_signatures import random_text

QUESTION = "Which of the seven small grey birds that live near the old harbour was first to fly over the wall?"
CHINESE = "下列哪一种生活在旧港口附近的灰色小鸟最先飞过那一道高高的石头围墙"
MIXED = "请用Python写一个函数，输入list，返回其中最大的integer，如果list是空的就返回None。"


def prose(seed: int, words: int) -> str:
    return " ".join(random_text(random.Random(seed), words))


def hanzi(seed: int, characters: int) -> str:
    return "".join(random_text(random.Random(seed), characters, chinese=True))


@pytest.fixture
def against(tmp_path: Path) -> str:
    path = tmp_path / "quiz.jsonl"
    texts = ["Too short.", QUESTION, CHINESE, MIXED]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def document(text: str) -> Document:
    return Document("a.txt", text, "a.txt")


def step(against: str, **options: object) -> Step:
    return build(Config(against=(against,), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "question", [QUESTION, QUESTION.upper().replace(" ", "\n"), QUESTION.replace(" the", ", the,")]
)
def test_a_passage_is_cut_out_with_what_is_around(against: str, question: str) -> None:
    before, after = prose(0, 200), prose(1, 200)
    cleaned = step(against)(document(f"{before} {question} {after}"))
    assert isinstance(cleaned, Document)
    first, second = cleaned.text.split("\n\n")
    assert before.startswith(first) and after.endswith(second)
    assert 199 <= len(before) - len(first) <= 207 and 199 <= len(after) - len(second) <= 207
    assert before[len(first)] == " " and after[-len(second) - 1] == " "  # whole words
    (note,) = cleaned.notes
    removed = len(before) + len(question) + len(after) + 2 - len(cleaned.text)
    assert note == f"decontaminate: 20 words of quiz.jsonl:2, cut out with what is around, {removed} characters"


def test_chinese_is_counted_in_characters(against: str) -> None:
    before, after = hanzi(0, 500), hanzi(1, 500)
    cleaned = step(against, around=50)(
        document(before + "，\n".join([CHINESE[:9], CHINESE[9:22], CHINESE[22:]]) + after)
    )
    assert isinstance(cleaned, Document) and cleaned.text == before[:-50] + "\n\n" + after[50:]
    assert f"{len(CHINESE)} words of quiz.jsonl:3" in cleaned.notes[0]
    idiom = document(before + CHINESE[:19] + after)  # 19 in a row may be chance
    assert step(against)(idiom) is idiom
    assert isinstance(step(against)(document(before + CHINESE[:20] + after)), Document)
    assert step(against)(document(before + CHINESE[:20] + after)) is not idiom


def test_chinese_inside_english_and_the_reverse(against: str) -> None:
    for text in (prose(0, 200) + CHINESE + prose(1, 200), hanzi(0, 500) + QUESTION + hanzi(1, 500)):
        cleaned = step(against)(document(text))
        assert isinstance(cleaned, Document) and len(cleaned.text) < len(text) - 400
    cleaned = step(against)(document(hanzi(0, 500) + MIXED + hanzi(1, 500)))
    assert isinstance(cleaned, Document) and "quiz.jsonl:4" in cleaned.notes[0]


def test_twelve_words_are_left_alone(against: str) -> None:
    words = QUESTION.split()
    twelve = document(f"{prose(0, 100)} {' '.join(words[3:15])} {prose(1, 100)}")
    assert step(against)(twelve) is twelve
    thirteen = step(against)(document(f"{prose(0, 100)} {' '.join(words[3:16])} {prose(1, 100)}"))
    assert isinstance(thirteen, Document) and "13 words of quiz.jsonl:2" in thirteen.notes[0]
    assert step(against, threshold=2)(document(" ".join(words[3:16]))) == document(" ".join(words[3:16]))
    assert isinstance(step(against, threshold=2)(document(" ".join(words[3:17]))), Drop)


def test_the_whole_document_goes_where_that_is_asked_or_nothing_is_left(against: str) -> None:
    text = f"{prose(0, 200)} {QUESTION} {CHINESE} {prose(1, 200)}"
    dropped = step(against, action="drop")(document(text))
    count = 20 + len(CHINESE)
    assert dropped == Drop("evaluation text", f"{count} words of quiz.jsonl:3 and 1 other")
    dropped = step(against)(document(QUESTION))
    assert dropped == Drop(
        "evaluation text", "20 words of quiz.jsonl:2; to cut it out leaves no piece of 200 characters"
    )
    many = " ".join(f"{prose(seed, 200)} {QUESTION}" for seed in range(11))
    assert isinstance(step(against, most_pieces=11)(document(many)), Document)
    dropped = step(against)(document(many))
    assert isinstance(dropped, Drop) and dropped.evidence.endswith("to cut it out leaves 11 pieces")


def test_pieces_that_together_hold_another_passage_are_cut_again(against: str) -> None:
    words = QUESTION.split()
    text = f"{' '.join(words[:10])} {CHINESE} {' '.join(words[10:])}"
    cleaned = step(against, around=0, shortest=1)(document(f"{prose(0, 90)} {text} {prose(1, 90)}"))
    assert isinstance(cleaned, Document) and cleaned.text == f"{prose(0, 90)}\n\n{prose(1, 90)}"


PARTS = st.sampled_from(
    [QUESTION, CHINESE, MIXED, *QUESTION.split()[8:12], "。", "\n", prose(3, 20), hanzi(4, 30), "\ud800"]
)


@given(st.lists(PARTS, max_size=9), st.integers(0, 40), st.integers(1, 60), st.integers(1, 3))
def test_the_result_is_clean_and_stays_as_it_is(parts: list[str], around: int, shortest: int, threshold: int) -> None:
    grams = fit([Document(name, name, name) for name in (QUESTION, CHINESE, MIXED)])
    options = Config(against=("x",), around=around, shortest=shortest, threshold=threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decontaminate, "_fit_against", lambda config: grams)
        clean = build(options)
    before = document(" ".join(parts))
    after = clean(before)
    whole = sum(part in (QUESTION, CHINESE, MIXED) for part in parts)
    assert after is not before if whole else True
    if isinstance(after, Document):
        assert clean(after) is after
        assert QUESTION not in after.text and CHINESE not in after.text and MIXED not in after.text
        assert len(after.text) <= len(before.text)


def test_long_texts_are_searched_in_pieces(against: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{prose(0, 300)} {QUESTION} {prose(1, 300)}"
    expected = step(against)(document(text))
    monkeypatch.setattr(decontaminate, "LAPPED", 120)
    for piece in (401, 977, 1501):
        monkeypatch.setattr(decontaminate, "PIECE", piece)
        assert step(against)(document(text)) == expected


def test_workers_load_what_was_collected_once(against: str, tmp_path: Path) -> None:
    config = collected(Config(against=(against,)), tmp_path / "index.npz")
    Path(against).unlink()
    text = document(f"{prose(0, 200)} {QUESTION} {prose(1, 200)}")
    cleaned = build(config)(text)
    assert isinstance(cleaned, Document) and "quiz.jsonl:2" in cleaned.notes[0]
    grams = Grams.load(tmp_path / "index.npz")
    assert grams.too_short == 1 and grams.names == tuple(f"quiz.jsonl:{number}" for number in (1, 2, 3, 4))
    assert (grams.hashes[1:] > grams.hashes[:-1]).all() and len(grams.owner) == len(grams.hashes)
    first = (tmp_path / "index.npz").read_bytes()
    grams.save(tmp_path / "index.npz")
    assert (tmp_path / "index.npz").read_bytes() == first
    (tmp_path / "index.npz").write_bytes(first[: len(first) // 2])
    with pytest.raises(DataError, match="not usable"):
        build(config)
    with pytest.raises(DataError, match="not usable"):
        build(dataclasses.replace(config, index=str(tmp_path / "none.npz")))


def test_without_evaluation_sets_it_is_off() -> None:
    assert not Config().on and Config(against=("x",)).on and not Config(on=False, against=("x",)).on
    assert collected(Config(), Path("nowhere")) == Config()
    text = document(QUESTION)
    assert build(Config())(text) is text


@pytest.mark.parametrize("options", [{"words": 0}, {"words": 21}, {"threshold": 0}, {"around": -1}, {"shortest": 0}])
def test_wrong_numbers_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Config(**options)  # type: ignore[arg-type]


def test_evaluation_sets_without_a_long_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Only five words in here.", encoding="utf-8")
    with pytest.raises(BimoError, match="too short"):
        step(str(tmp_path / "short.txt"))


def test_evaluation_sets_are_read_as_the_user_says(tmp_path: Path) -> None:
    question = "却说曹操引兵追赶刘备，刘备弃了樊城，望襄阳而走。"
    answer = " ".join(f"answer{number}" for number in range(20))
    record = json.dumps({"q": question, "a": answer}, ensure_ascii=False)
    (tmp_path / "held.jsonl").write_bytes(record.encode("gb18030"))
    against = Config(against=(str(tmp_path / "held.jsonl"),), action="drop")
    for config, found in (
        (dataclasses.replace(against, text_column="q"), [True, False]),
        (dataclasses.replace(against, text_column="a", encoding="gb18030"), [False, True]),
        (dataclasses.replace(against, template="{q}\\n{a}"), [True, True]),
    ):
        step = build(config)
        assert [isinstance(step(Document("x", text, "x")), Drop) for text in (question, answer)] == found
    with pytest.raises(DataError, match="no column 'text'"):
        build(against)
    with pytest.raises(ConfigError, match="encoding is unknown"):
        build(dataclasses.replace(against, encoding="klingon"))
