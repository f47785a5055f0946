import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.errors import DataError
from bimo.text.bag_of_words import CHINESE_STOP_WORDS, ENGLISH_STOP_WORDS, porter_stem, words

# The examples of Porter's paper, taken through all its steps.
PAIRS = """
caresses caress, ponies poni, ties ti, caress caress, cats cat, feed feed, agreed agre, plastered plaster, bled bled,
motoring motor, sing sing, conflated conflat, troubled troubl, sized size, hopping hop, tanned tan, falling fall,
hissing hiss, fizzed fizz, failing fail, filing file, happy happi, sky sky, relational relat, conditional condit,
rational ration, valenci valenc, hesitanci hesit, digitizer digit, conformabli conform, radicalli radic, differentli
differ, vileli vile, analogousli analog, vietnamization vietnam, predication predic, operator oper, feudalism feudal,
decisiveness decis, hopefulness hope, callousness callous, formaliti formal, sensitiviti sensit, sensibiliti sensibl,
triplicate triplic, formative form, formalize formal, electriciti electr, electrical electr, hopeful hope, goodness
good, revival reviv, allowance allow, inference infer, airliner airlin, gyroscopic gyroscop, adjustable adjust,
defensible defens, irritant irrit, replacement replac, adjustment adjust, dependent depend, adoption adopt, homologou
homolog, communism commun, activate activ, angulariti angular, homologous homolog, effective effect, bowdlerize bowdler,
probate probat, rate rate, cease ceas, controll control, roll roll
"""


@pytest.mark.parametrize("pair", PAIRS.split(","))
def test_stems_are_those_of_the_paper(pair):
    word, stem = pair.split()
    assert porter_stem(word) == stem


@given(st.text())
def test_stemming_never_raises_nor_lengthens_much(word):
    assert len(porter_stem(word)) <= len(word) + 1


def test_english():
    text = "The king's cats weren't RUNNING; naïve_cats ran 42 times, don’t!"
    assert words(text, "en") == [
        "the",
        "king's",
        "cats",
        "weren't",
        "running",
        "naïve",
        "cats",
        "ran",
        "42",
        "times",
        "don’t",
    ]
    assert words("The cats and the relational cat", "en", stop_words=False, stem=True) == ["cat", "relat", "cat"]
    assert words("The cats", "fr", stem=True) == ["the", "cats"]
    assert porter_stem("king's") == "king"


def test_chinese():
    pytest.importorskip("rjieba")
    assert words("我们在北京大学学习，Python 很好。", "zh") == ["我们", "在", "北京大学", "学习", "python", "很", "好"]
    assert words("我们在北京大学学习。", "zh", stop_words=False) == ["北京大学", "学习"]
    assert words("a\ud800b", "zh")  # halves of surrogate pairs do not stop it


def test_japanese_is_cut_into_pairs():
    assert words("東京都は雨。Tokyo", "ja") == ["東京", "京都", "都は", "は雨", "tokyo"]


def test_without_rjieba_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(DataError, match=r"bimo\[text\]"):
        words("中文", "zh")


def test_stop_words_are_words():
    for listed in ENGLISH_STOP_WORDS | CHINESE_STOP_WORDS:
        assert listed == listed.strip().lower()
    assert not {"cat", "king", "love"} & ENGLISH_STOP_WORDS
