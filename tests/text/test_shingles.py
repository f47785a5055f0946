"""Words and the hashes of windows, against slow definitions of the same."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text import shingles
from bimo.text.shingles import UNSPACED, covered, mixed, places_of, window_hashes, words_of


def spans(text: str) -> list[str]:
    words = words_of(text)
    return [text[start:end] for start, end in zip(words.starts.tolist(), words.ends.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" .,\n— “” 。、", []),
        ("Don't stop, 3.14!", ["Don", "t", "stop", "3", "14"]),
        ("naïve Ärger; ἀρχή", ["naïve", "Ärger", "ἀρχή"]),
        ("我有3个apple，真的。", ["我", "有", "3", "个", "apple", "真", "的"]),
        ("東京タワー", list("東京タワー")),
        ("𠀀𠀁 and 𝒳𝒴 😀x", ["𠀀", "𠀁", "and", "𝒳𝒴", "x"]),
        ("한국어 글", ["한국어", "글"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("red \u2764\ufe0f heart", ["red", "heart"]),
        ("half \ud800 a pair", ["half", "a", "pair"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert spans(text) == expected


@pytest.mark.parametrize("pair", ["Hello hELLO", "Ｗｉｄｅ wide", "ΟΔΟΣ οδος", "ΟΔΟΣ οδοσ", "ﾀ タ"])
def test_case_and_width_do_not_count(pair: str) -> None:
    first, second = words_of(pair).hashes.tolist()
    assert first == second


def test_the_hashes_are_the_same_everywhere() -> None:
    """Written down once: they are stored in prepared folders, which travel."""
    assert words_of("The 汉 é").hashes.tolist() == [3882002896426826593, 16687479136458999815, 10715399672343484120]


def slow_words(text: str) -> list[str]:
    """The definition: character by character."""

    def alone(character: str) -> bool:
        return ord(character) >= 0x20000 or any(first <= ord(character) <= last for first, last in UNSPACED)

    found, open_word = [], False
    for character in text:
        within = unicodedata.category(character)[0] in "LN" or unicodedata.category(character) in ("Mn", "Mc")
        if within and open_word and not alone(character):
            found[-1] += character
        elif within:
            found.append(character)
        open_word = within and not alone(character)
    return found


ALPHABET = "ab Zß9.,\n_—é́我们ター、𠀀ก"


@given(st.text(ALPHABET, max_size=60))
def test_any_text_is_cut_as_defined(text: str) -> None:
    assert spans(text) == slow_words(text)
    hashes = words_of(text).hashes.tolist()
    folded = [unicodedata.normalize("NFKC", word).casefold() if len(word) == 1 else word for word in spans(text)]
    folded = [word.lower() for word in folded]
    for first, one in zip(folded, hashes, strict=True):
        for second, other in zip(folded, hashes, strict=True):
            assert (first == second) == (one == other)


@given(st.text(max_size=40))
def test_no_string_is_refused(text: str) -> None:
    words = words_of(text)
    assert len(words.hashes) == len(words.starts) == len(words.ends) == len(words.unspaced)
    assert (words.starts < words.ends).all() and (words.ends[:-1] <= words.starts[1:]).all()


@given(st.text("ab 我", min_size=20, max_size=90))
def test_blocks_do_not_show(text: str) -> None:
    whole = words_of(text)
    longest = int((whole.ends - whole.starts).max(initial=0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shingles, "BLOCK", max(7, longest))
        shingles._powers.cache_clear()
        parts = words_of(text)
    shingles._powers.cache_clear()
    assert parts.hashes.tolist() == whole.hashes.tolist()


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 14))
def test_windows_are_equal_where_their_values_are(values: list[int], length: int) -> None:
    hashes = window_hashes(mixed(np.array(values, dtype=np.uint64)), length).tolist()
    slices = [tuple(values[at : at + length]) for at in range(len(values) - length + 1)]
    assert len(hashes) == len(slices)
    assert len(set(zip(hashes, slices, strict=True))) == len(set(hashes)) == len(set(slices))


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 5))))
def test_covered_places_lie_in_a_span(ends: list[tuple[int, int]]) -> None:
    first = np.array([start for start, _ in ends], dtype=np.int64)
    after = first + np.array([length for _, length in ends], dtype=np.int64)
    expected = {place for start, length in ends for place in range(start, start + length)}
    assert set(np.flatnonzero(covered(first, after, 17)).tolist()) == expected


@given(st.lists(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_values_are_found_where_they_stand(values: list[int], known: set[int]) -> None:
    ascending = sorted(known)
    found = places_of(np.array(values, dtype=np.uint64), np.array(ascending, dtype=np.uint64))
    assert found.tolist() == [ascending.index(value) if value in known else -1 for value in values]
