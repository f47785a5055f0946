"""Ids of conversations part by part: those of the whole text, whatever a tokenizer does around control tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from bimo.tokenizer.parts import LONGEST, Parts

CONTROL = ("<|a|>", "<|b|>")
ALPHABET = " \n\tabeé你<|>\u2581"


def byte_level(**options: Any) -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("\u0120", "a"), ("\u010a", "a"), ("\u0120", "\u0120")]
    vocabulary = {piece: id for id, piece in enumerate([*letters, *("".join(pair) for pair in merges)])}
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, **{"normalized": False, **options}) for name in CONTROL])
    return made


def metaspace(scheme: str, *, normalized: bool, prepending: bool = False) -> Tokenizer:
    pieces = [*ALPHABET.replace(" ", ""), "\u2581a", "ab"]
    made = Tokenizer(models.Unigram([("<unk>", -9.0), *((piece, -2.0 - at / 9) for at, piece in enumerate(pieces))], 0))
    if prepending:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.add_special_tokens([AddedToken(name, normalized=normalized) for name in CONTROL])
    return made


TOKENIZERS = {
    "byte level": byte_level(),
    "byte level, normalized": byte_level(normalized=True),
    "takes white space before it": byte_level(lstrip=True),
    "takes white space behind it": byte_level(rstrip=True),
    "a space at the very beginning": metaspace("first", normalized=False),
    "a space at every beginning": metaspace("always", normalized=False),
    "normalized, a space at the very beginning": metaspace("first", normalized=True),
    "a space by a normalizer": metaspace("never", normalized=False, prepending=True),
    "a space by a normalizer, normalized": metaspace("never", normalized=True, prepending=True),
}  # fmt: skip


def encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def parts_of(tokenizer: Tokenizer, encode: Callable[[str], list[int]]) -> Parts:
    return Parts(encode, {name: tokenizer.token_to_id(name) or 0 for name in CONTROL})


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.lists(st.sampled_from(CONTROL) | st.text(ALPHABET, max_size=6), max_size=9))
def test_ids_are_those_of_the_whole(name: str, pieces: list[str]) -> None:
    encode = encoder(TOKENIZERS[name])
    parts, text = parts_of(TOKENIZERS[name], encode), "".join(pieces)
    assert parts.encode(text) == encode(text) == parts.encode(text)


def test_what_was_said_before_is_not_encoded_again() -> None:
    asked: list[str] = []
    encode = encoder(TOKENIZERS["byte level"])
    parts = parts_of(TOKENIZERS["byte level"], lambda text: asked.append(text) or encode(text))
    text = ""
    for turn in range(40):
        text += f"<|a|>ab {turn}<|b|>\n"
        assert parts.encode(text) == encode(text)
    assert sum(map(len, asked)) < 6 * len(text)
    long = "a" * (LONGEST + 1)
    asked.clear()
    parts.encode(long), parts.encode(long)
    assert asked == [long, long], "which are not kept, so that memory stays small"
