"""Words of a text and entities in their labels: English, Chinese, odd labels, and what goes there and back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.entities import Span, are_entities, as_bio, entities, joined, labels_of, parts_of, words_in


def cut(text: str, spans: Sequence[Span]) -> list[str]:
    return [text[slice(*span)] for span in spans]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't pay $3.50 to Jean-Luc...", ["Don't", "pay", "$", "3.50", "to", "Jean-Luc", "..."]),
        ("在１９９８年——中国，OK!", ["在", "１９９８", "年", "——", "中", "国", "，", "OK", "!"]),
        (" \n", []),
    ],
)
def test_words_are_runs_of_letters_single_characters_and_marks(text: str, words: list[str]) -> None:
    assert cut(text, words_in(text)) == words


def test_words_are_joined_as_they_are_written() -> None:
    text, places = joined(["He", "likes", "北京", "烤鸭", ",", "too"])
    assert text == "He likes北京烤鸭, too"
    assert cut(text, places) == ["He", "likes", "北京", "烤鸭", ",", "too"]


@given(st.lists(st.text(min_size=1)))
def test_joined_words_stand_where_it_says(words: list[str]) -> None:
    text, places = joined(words)
    assert cut(text, places) == words


@given(st.text())
def test_every_sign_that_is_no_space_is_in_one_word(text: str) -> None:
    found = words_in(text)
    assert all(one.end <= after.start for one, after in itertools.pairwise(found))
    inside = {place for one in found for place in range(*one)}
    assert inside == {place for place, sign in enumerate(text) if not sign.isspace()}


def test_a_chinese_word_is_its_characters_and_an_english_one_whole() -> None:
    assert cut("１２月底", parts_of("１２月底")) == ["１２", "月", "底"]
    assert parts_of("U.N.") == (Span(0, 4),)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ("B-A I-A O B-A", [(0, 2, "A"), (3, 4, "A")]),
        ("B-A B-A I-A", [(0, 1, "A"), (1, 3, "A")]),
        ("O I-A I-B I-B", [(1, 2, "A"), (2, 4, "B")]),  # as conlleval: another kind, or one after O, begins
        ("B-A I-B I-A", [(0, 1, "A"), (1, 2, "B"), (2, 3, "A")]),
        ("I-A O I-A", [(0, 1, "A"), (2, 3, "A")]),
        ("O O", []),
    ],
)
def test_entities_by_hand(labels: str, found: list[tuple[int, int, str]]) -> None:
    assert entities(labels.split()) == found


@given(st.lists(st.sampled_from(["O", "B-A", "I-A", "B-人", "I-人"]), max_size=9))
def test_entities_are_those_of_seqeval(labels: list[str]) -> None:
    theirs = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities(labels)
    assert entities(labels) == [(begin, end + 1, kind) for kind, begin, end in theirs]


def test_other_letters_say_the_same() -> None:
    assert [as_bio(label) for label in ("S-A", "U-A", "B-A", "E-A", "L-A", "O")] == ["B-A"] * 3 + ["I-A"] * 2 + ["O"]
    assert are_entities(["O", "S-A", "B-a-b"]) and not are_entities(["O"]) and not are_entities(["B-A", "X"])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from("AB")), max_size=6))
def test_spans_of_whole_words_are_found_again(gaps: list[tuple[int, int, str]]) -> None:
    spans, reached = [], 0
    for gap, size, kind in gaps:
        spans.append((reached + gap, reached + gap + size, kind))
        reached += gap + size
    words = words_in("北" * (reached + 1))
    assert entities(labels_of(words, spans)) == spans


def test_a_word_partly_inside_is_inside() -> None:
    words = words_in("the anti-Roman war")
    assert labels_of(words, [(9, 16, "X")]) == ["O", "B-X", "I-X"]
