"""tiktoken gives the ids of Hugging Face's library, or is not used."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.tokenizer.extend import extend_tokenizer
from bimo.tokenizer.fast import knows
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer

ENGLISH = "The king's ships, 1,024 of them, sailed to Zürich; the kingdom was theirs.\n\n  'Twas   night.\t" * 3
CHINESE = "话说天下大势，分久必合，合久必分：周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。" * 3
CODE = "def add(a, b):\n    return a + b  # {'x': [1, 2]}\n\n\nprint(add(1, 2))\n" * 3
OWN = train_tokenizer([ENGLISH, CHINESE, CODE, "ababcabcab bcbcab aaaa aaaaa abcabcabc " * 5], 600)

pieces = st.sampled_from(
    ["ab", "bc", "abc", "aaaa", " the", "king", "天下", "分久必合", "，", "\n", "  ", "1024", "'s", "é"]
)
texts = st.lists(pieces | st.text(max_size=5)).map("".join)


def library(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text)  # one text at a time is Hugging Face's library


@settings(max_examples=300, deadline=None)
@given(st.lists(texts, min_size=1, max_size=4))
def test_ids_are_those_of_the_library(given_texts: list[str]) -> None:
    assert OWN._fast is not None
    assert OWN.encode_batch(given_texts) == [library(OWN, text) for text in given_texts]


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, CODE, "<|endoftext|><|im_start|>", "", "a" * 20_000, " " * 999])
def test_real_text(text: str) -> None:
    assert OWN.encode_batch([text, text]) == [library(OWN, text)] * 2


def test_an_extended_tokenizer_is_fast_too() -> None:
    longer = extend_tokenizer(OWN, ["却说曹操引兵追赶，却说曹操大惊。" * 9], 40)
    assert longer._fast is not None and longer.vocab_size > OWN.vocab_size
    text = "却说曹操引兵追赶，the king"
    assert longer.encode_batch([text]) == [library(longer, text)] != OWN.encode_batch([text])


def test_one_text_that_is_left_to_the_library_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Articles of an encyclopedia hold a letter of some rare script every few thousand."""
    asked: list[str] = []
    encode = type(OWN._fast)._encode
    monkeypatch.setattr(type(OWN._fast), "_encode", lambda self, texts: asked.extend(texts) or encode(self, texts))
    given_texts = [ENGLISH, "\u1200", CHINESE, "", "\u1200 king", CODE * 500, *(["king"] * 9)]
    assert OWN.encode_batch(given_texts) == [library(OWN, text) for text in given_texts]
    assert sorted(asked) == sorted(text for text in given_texts if "\u1200" not in text)


def test_characters_that_libraries_may_not_know_are_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    young = "a \U000323b0 b"  # an ideograph of Unicode 15.1
    assert knows("naïve 分久必合 ЖЗ ひらがな 한국어 😀") and not knows(young)
    monkeypatch.setattr(type(OWN._fast), "encode_batch", lambda *_: pytest.fail("tiktoken was asked"))
    assert OWN.encode_batch([young]) == [library(OWN, young)]


def swap_merges(content: dict[str, Any]) -> None:
    merges = content["model"]["merges"]
    merges[10], merges[11] = merges[11], merges[10]


SPACES = {**json.loads(OWN.definition)["added_tokens"][0], "id": 999, "content": "  ", "special": False}
DEVIATIONS: list[Callable[[dict[str, Any]], object]] = [
    swap_merges,
    lambda content: content["model"]["merges"].append(content["model"]["merges"][0]),
    lambda content: content["model"].update(ignore_merges=True),
    lambda content: content["model"].update(dropout=0.1),
    lambda content: content.update(normalizer={"type": "NFC"}),
    lambda content: content["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
    lambda content: content["pre_tokenizer"]["pretokenizers"].pop(0),
    lambda content: content["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"),
    lambda content: content["added_tokens"].append(SPACES),
]


@pytest.mark.parametrize("change", DEVIATIONS)
def test_other_definitions_are_left_to_the_library(change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(OWN.definition)
    change(content)
    other = Tokenizer(json.dumps(content).encode(), OWN.config)
    assert other._fast is None
