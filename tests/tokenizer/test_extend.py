"""A tokenizer that grows: old ids keep their meaning, every byte string round-trips, stock tools agree."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from bimo.errors import TokenizerError
from bimo.tokenizer.extend import extend_tokenizer, first_difference, pieces_of
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer

ENGLISH = "The king sees the old sailor. The sailor sees the king's ship, and the ship sees nobody. " * 20
CHINESE = "却说曹操引兵追赶刘备，刘备大败。诸葛亮曰：曹操必来，关羽可伏兵于此。曹操果然引兵而来。" * 20
ADDED = 40


@pytest.fixture(scope="module")
def old() -> Tokenizer:
    return train_tokenizer([ENGLISH], 300)


@pytest.fixture(scope="module")
def new(old: Tokenizer) -> Tokenizer:
    return extend_tokenizer(old, [CHINESE], ADDED)


def test_old_ids_keep_their_meaning_and_new_ones_follow(old: Tokenizer, new: Tokenizer) -> None:
    assert first_difference(old, new) == ""
    assert new.vocab_size == old.vocab_size + ADDED
    assert (new.special, new.eos_id, new.chat_template) == (old.special, old.eos_id, old.chat_template)
    assert len({new.token_bytes(id) for id in range(old.vocab_size, new.vocab_size)}) == ADDED
    assert new.encode(ENGLISH) == old.encode(ENGLISH)


def test_the_new_text_becomes_shorter(old: Tokenizer, new: Tokenizer) -> None:
    assert len(new.encode(CHINESE)) < 0.5 * len(old.encode(CHINESE))
    few = extend_tokenizer(old, [CHINESE], 5)
    assert len(new.encode(CHINESE)) < len(few.encode(CHINESE)) < len(old.encode(CHINESE))


def test_every_byte_string_round_trips(new: Tokenizer) -> None:
    generator = random.Random(0)
    for length in (1, 2, 3, 5, 200):
        for _ in range(50):
            data = generator.randbytes(length)
            assert new.decode_bytes(new.encode_bytes(data)) == data
    for text in (CHINESE, ENGLISH, "曹操\u0000 <|endoftext|> 🙂\r\n\t", "".join(map(chr, range(1, 0x3000)))):
        assert new.decode(new.encode(text)) == text


def test_the_pieces_of_a_new_token_spell_it(old: Tokenizer, new: Tokenizer) -> None:
    pieces = pieces_of(old, new)
    assert pieces.keys() == set(range(old.vocab_size, new.vocab_size))
    for id, parts in pieces.items():
        assert len(parts) > 1 and b"".join(map(old.token_bytes, parts)) == new.token_bytes(id)


def test_the_same_text_gives_the_same_tokenizer(old: Tokenizer, new: Tokenizer) -> None:
    assert extend_tokenizer(old, [CHINESE], ADDED).hash == new.hash
    assert extend_tokenizer(old, iter([CHINESE[:300], CHINESE[300:]]), ADDED).vocab_size == new.vocab_size


def test_no_token_is_learned_from_what_occurs_once(old: Tokenizer) -> None:
    assert extend_tokenizer(old, ["曹操"], 5).vocab_size == old.vocab_size
    assert extend_tokenizer(old, [], 5).vocab_size == old.vocab_size


def test_stock_transformers_gives_the_same_ids(old: Tokenizer, new: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    new.save(tmp_path)
    stock = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (CHINESE, ENGLISH, "曹操 sees 刘备\n\n  12"):
        assert stock(text)["input_ids"] == new.encode(text)
        assert stock.decode(new.encode(text)) == text
    assert stock.eos_token_id == new.eos_id and len(stock) == new.vocab_size


def test_control_tokens_that_are_not_in_the_vocabulary_keep_their_ids(old: Tokenizer, tmp_path: Path) -> None:
    """As in Qwen's folders, whose control tokens come after the pieces and stand beside the vocabulary only."""
    transformers = pytest.importorskip("transformers")
    definition = json.loads(old.definition)
    names = [token["content"] for token in definition["added_tokens"]]
    pieces = [piece for piece in definition["model"]["vocab"] if piece not in names]
    definition["model"]["vocab"] = {piece: id for id, piece in enumerate(pieces)}
    for number, token in enumerate(definition["added_tokens"]):
        token["id"] = len(pieces) + number
    beside = Tokenizer(json.dumps(definition).encode(), old.config, old.chat_template)
    assert beside.eos_id == len(pieces)
    grown = extend_tokenizer(beside, [CHINESE], ADDED)
    assert first_difference(beside, grown) == "" and grown.vocab_size == beside.vocab_size + ADDED
    grown.save(tmp_path)
    stock = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert stock.eos_token_id == beside.eos_id and stock(CHINESE)["input_ids"] == grown.encode(CHINESE)


def test_another_tokenizer_is_told_apart(old: Tokenizer, new: Tokenizer) -> None:
    assert "tokens instead of at least" in first_difference(new, old)
    other = train_tokenizer([CHINESE], old.vocab_size)
    assert "instead of" in first_difference(old, other)


def test_what_is_not_byte_level_is_refused() -> None:
    import tokenizers

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "<end>": 1}, unk_token="<end>"))
    with pytest.raises(TokenizerError, match=r"Only a byte-level BPE tokenizer can be extended.*Got WordLevel"):
        extend_tokenizer(Tokenizer(words.to_str().encode(), {"eos_token": "<end>"}), ["a a"], 3)
