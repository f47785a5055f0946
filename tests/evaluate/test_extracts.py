"""Sentences that stand for a text: where they end, TextRank against networkx, and what fits a question."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.evaluate.extracts import alike, central_sentence, first_sentence, fitting_sentence, ranks, sentences

TEXT = """The moon goes round the earth. Cheese is made of milk. The earth goes round the sun, and the moon with it.
Nobody knows why the sun shines!"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It is up. Dr. Who said so (etc. and e.g. often)! Really? Yes", 4),
        ("月亮在天上。他说：“真的？”是的！好…", 4),
        ("0 A.D. (a game) is free. It has J. Smith in it", 2),
        ("Version 3.5 is out.\n\nA paragraph\n * one\n * two", 4),
        ("no stop at all", 1), ("", 0), (" \n\n ", 0), ("混合 text. 中文。 English", 3),
    ],
)  # fmt: skip
def test_sentences_end_where_they_should(text: str, wanted: int) -> None:
    assert len(sentences(text)) == wanted
    assert "".join(" ".join(sentences(text)).split()) == "".join(text.split())


@given(st.text(alphabet=".!。？ \nAb月”)*-", max_size=60))
def test_no_character_is_lost(text: str) -> None:
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split()) and all(found)


def test_the_first_sentence() -> None:
    assert first_sentence(TEXT) == "The moon goes round the earth."
    assert first_sentence("月亮在天上。它很亮。") == "月亮在天上。" and first_sentence("") == ""


def test_ranks_are_those_of_networkx() -> None:
    networkx = pytest.importorskip("networkx")
    generator = np.random.default_rng(0)
    weights = np.triu(generator.uniform(0.1, 2, (7, 7)), 1)
    weights += weights.T
    witness = networkx.pagerank(networkx.from_numpy_array(weights), alpha=0.85, tol=1e-12)
    assert ranks(weights) == pytest.approx([7 * witness[n] for n in range(7)], abs=1e-4)


def test_the_central_sentence_is_the_one_that_others_speak_of() -> None:
    assert central_sentence(TEXT) == "The earth goes round the sun, and the moon with it."
    assert central_sentence("月亮很亮。奶酪好吃。月亮和太阳都很亮。太阳很大。") == "月亮和太阳都很亮。"
    assert (
        central_sentence("One. Two.") == "One." and central_sentence("alone") == "alone" and central_sentence("") == ""
    )


def test_sentences_are_alike_by_the_words_they_share() -> None:
    table = alike(["the moon is up", "the moon is down there", "x"])
    assert table[0, 1] == table[1, 0] == pytest.approx(3 / (np.log(4) + np.log(5)))
    assert table[0, 2] == 0 and not table.diagonal().any()
    assert alike(["a", "a"]).sum() == 0 and ranks(alike(["a", "b"])).tolist() == pytest.approx([0.15, 0.15])


def test_the_sentence_that_fits_a_question() -> None:
    assert fitting_sentence("What is cheese made of?", TEXT) == "Cheese is made of milk."
    assert fitting_sentence("月亮在哪里？", "太阳很大。月亮在天上。") == "月亮在天上。"
    assert fitting_sentence("Who?", "") == "" and fitting_sentence("zzz", "One. Two.") == "One."
