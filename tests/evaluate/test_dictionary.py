"""The word-by-word translator: its probabilities against nltk's IBM Model 1, and by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bimo.errors import DataError
from bimo.evaluate import dictionary
from bimo.evaluate.dictionary import NOTHING, Dictionary, together, words_and_marks

PAIRS = [
    ("the house", "la maison"), ("the book", "le livre"), ("a book", "un livre"),
    ("the small house", "la petite maison"), ("a small book here", "un petit livre"),
]  # fmt: skip
SPLIT = [(one.split(), other.split()) for one, other in PAIRS]


@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_probabilities_are_nltks(rounds: int) -> None:
    nltk = pytest.importorskip("nltk.translate")
    witness = nltk.IBMModel1([nltk.AlignedSent(other, text) for text, other in SPLIT], rounds).translation_table
    ours = Dictionary(SPLIT, rounds=rounds)
    for text, other in SPLIT:
        for word in other:
            assert ours.probability(NOTHING, word) == pytest.approx(witness[word][None], abs=1e-9)
            for one in text:
                assert ours.probability(one, word) == pytest.approx(witness[word][one], abs=1e-9)
    assert ours.probability("here", "maison") == ours.probability("moon", "livre") == 0


def test_two_rounds_by_hand() -> None:
    # Of the first round: every word of a text brings about an equal part of each word of the other.
    first = Dictionary([(["a", "b"], ["x", "y"]), (["a"], ["x"])], rounds=1)
    assert first.probability("a", "x") == pytest.approx((1 / 3 + 1 / 2) / (1 / 3 + 1 / 2 + 1 / 3))
    assert first.probability("b", "y") == pytest.approx(1 / 2)
    second = Dictionary([(["a", "b"], ["x", "y"]), (["a"], ["x"])], rounds=2)
    x, y = 5 / 7, 2 / 7  # of a, and of nothing, which stands beside it everywhere
    counts = (x / (2 * x + 1 / 2) + 1 / 2, y / (2 * y + 1 / 2))
    assert second.probability("a", "x") == pytest.approx(counts[0] / sum(counts))


def test_words_are_translated_and_others_stay() -> None:
    ours = Dictionary(SPLIT)
    assert ours.translate(["The", "small", "Moon", "book"])[2:] == ["Moon", "livre"]
    assert Dictionary([]).translate(["a"]) == ["a"]
    assert Dictionary([(["a"], [])]).translate(["a"]) == ["a"]


def test_many_pairs_are_thinned_and_long_ones_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [([f"w{n}"], [f"t{n}"]) for n in range(40)]
    monkeypatch.setattr(dictionary, "MOST_LINKS", 20)  # two a pair, with nothing
    known = [n for n in range(40) if Dictionary(pairs).translate([f"w{n}"]) == [f"t{n}"]]
    assert len(known) == 10 and known[0] == 0 and known[-1] > 30
    monkeypatch.setattr(dictionary, "LONGEST", 3)
    assert Dictionary([(["a", "b", "c"], ["x"]), (["a"], ["y"])]).translate(["a", "b"]) == ["y", "b"]


def test_chinese_words_are_jiebas_or_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rjieba")
    assert words_and_marks("Save the file, now.") == ["Save", "the", "file", ",", "now", "."]
    assert words_and_marks("保存 Writer 文件。") == ["保存", "Writer", "文件", "。"]

    def lacks(text: str) -> Any:
        raise DataError("Finding the words of Chinese needs rjieba.")

    monkeypatch.setattr(dictionary, "segmented", lacks)
    assert words_and_marks("保存文件。") == ["保", "存", "文", "件", "。"]


def test_words_become_a_text_again() -> None:
    assert together(["保存", "文件", "，", "a", "Writer", "file", "é", "了"]) == "保存文件， a Writer file é 了"
    assert together(["un", "été", "."]) == "un été ."
