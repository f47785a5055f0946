import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimo.text.document import Drop
from bimo.text.measures import CHARACTERS_A_WORD, MOST_TOKENS_OF, Measures, Rule, first_broken


@given(st.text())
def test_any_text_can_be_measured(text: str) -> None:
    m = Measures(text)
    assert m.words >= 0 and 0 <= m.alphabetic_share <= 1
    assert len(m.tokens.hashes) == len(m.tokens.edges) - 1
    assert all(line == line.strip() != "" for line in m.lines)


@given(st.lists(st.text(st.sampled_from("abcéшλ'-"), min_size=1, max_size=5), min_size=1))
def test_words_are_what_spaces_set_apart(words: list[str]) -> None:
    m = Measures(" \n".join(words))
    assert m.spaced_words == sum(any(letter.isalpha() for letter in word) for word in words)
    hashes = m.tokens.hashes.tolist()
    assert len(hashes) == len(words)
    for one, hash_of_one in zip(words, hashes, strict=True):  # equal exactly where the words are
        assert [word == one for word in words] == [each == hash_of_one for each in hashes]


def test_chinese_is_counted_by_characters() -> None:
    m = Measures("话说天下大势，分久必合，合久必分。")
    assert m.unspaced == 14 and m.spaced_words == 0 and m.is_unspaced
    assert m.words == 14 / CHARACTERS_A_WORD and m.alphabetic_share == 1
    assert len(m.tokens.hashes) == 14 and math.isnan(m.word_length)
    分久, 久 = m.tokens.hashes[6:8].tolist(), m.tokens.hashes[7]
    assert m.tokens.hashes[11] == 久 and m.tokens.hashes[6:8].tolist() == 分久


def test_words_and_characters_mix() -> None:
    m = Measures("用Python写GPT-2，只要300行。かなも、한국어 단어도")
    assert m.spaced_words == 5  # Python, GPT-2, 300, and two of Korean
    assert m.unspaced == 8


def test_the_share_of_words_with_letters() -> None:
    assert Measures("one 2 three 4 -").alphabetic_share == 0.4
    assert Measures("1 2 3").alphabetic_share == 0
    assert Measures("an example, of 1880").word_length == pytest.approx((2 + 7 + 2 + 4) / 4)


def test_an_english_text_measures_the_same_with_a_curly_quote() -> None:
    plain, curly = Measures("It's a fine day. It's late."), Measures("It’s a fine day. It’s late.")
    assert (plain.words, plain.word_length) == (curly.words, curly.word_length)
    assert plain.tokens.edges.tolist() == curly.tokens.edges.tolist()
    assert curly.tokens.hashes[0] == curly.tokens.hashes[4] != curly.tokens.hashes[5]


def test_a_long_text_has_as_many_tokens_as_are_looked_at() -> None:
    m = Measures("abcd " * MOST_TOKENS_OF)
    assert len(m.tokens.hashes) == math.ceil(MOST_TOKENS_OF / 5)
    assert len(set(m.tokens.hashes.tolist())) <= 2  # the last may be cut


def test_a_limit_is_least_or_most_by_its_name_and_nan_breaks_none() -> None:
    rules = {name: Rule(name, lambda m: m.word_length) for name in ("min_length", "max_length")}
    m = Measures("two words")
    assert first_broken(m, rules, {"min_length": 4, "max_length": 4}) is None
    assert first_broken(m, rules, {"min_length": 5}) == Drop("min_length", "min_length: 4, expected at least 5")
    assert first_broken(m, rules, {"max_length": 3}) == Drop("max_length", "max_length: 4, expected at most 3")
    assert first_broken(Measures("没有"), rules, {"min_length": 9, "max_length": 0}) is None
