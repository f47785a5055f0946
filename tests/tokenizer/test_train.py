from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tokenizers

from bimo.errors import ConfigError, DataError
from bimo.tokenizer.train import END_OF_TEXT, LONGEST, PATTERN, SMALLEST, SPECIAL, THREADS, train_tokenizer


def test_vocabulary_holds_special_tokens_first_and_all_bytes(tokenizer):
    assert tokenizer.vocab_size == 400
    assert tokenizer.special == {name: id for id, name in enumerate(SPECIAL)}
    assert tokenizer.eos_id == tokenizer.special[END_OF_TEXT] == 0
    assert {tokenizer.token_bytes(id) for id in range(3, 259)} == {bytes([byte]) for byte in range(256)}


def test_the_same_texts_give_the_same_bytes(tmp_path: Path):
    texts = ["the cat and the hat", "the bat and the mat"]
    for name in ("one", "two"):
        train_tokenizer(iter(texts), 270).save(tmp_path / name)
    assert (tmp_path / "one/tokenizer.json").read_bytes() == (tmp_path / "two/tokenizer.json").read_bytes()
    assert train_tokenizer(["quite another text, quite another"], 270).hash != train_tokenizer(texts, 270).hash


@pytest.mark.parametrize("before", [None, "true", "false"])
def test_how_many_threads_learn_changes_nothing_and_stays_as_it_was(monkeypatch, before: str | None):
    texts = ["the cat and the hat", "曹操大怒。曹操大喜。"] * 50
    expected = train_tokenizer(texts, 290).hash
    monkeypatch.delenv(THREADS, raising=False)
    if before is not None:
        monkeypatch.setenv(THREADS, before)
    assert train_tokenizer(texts, 290).hash == expected
    assert os.environ.get(THREADS) == before
    with pytest.raises(ZeroDivisionError):
        train_tokenizer((texts[0][1 // 0 :] for _ in range(2)), 290)
    assert os.environ.get(THREADS) == before


def test_chinese_and_indentation_are_merged():
    tokenizer = train_tokenizer(["玄德，玄德，玄德\n        return\n        return\n"] * 2, 300)
    assert [tokenizer.token_bytes(id).decode() for id in tokenizer.encode("玄德        return")] == [
        "玄德",
        "       ",
        " return",
    ]


def test_little_text_gives_fewer_tokens_and_no_text_none_beyond_the_bytes():
    assert SMALLEST < train_tokenizer(["aaaa aaaa"], 5000).vocab_size < 270
    assert train_tokenizer([], 5000).vocab_size == SMALLEST


def test_too_small_a_vocabulary_is_refused():
    assert train_tokenizer(["ab ab"], SMALLEST).vocab_size == SMALLEST
    with pytest.raises(ConfigError, match=r"at least 259 .* got 258"):
        train_tokenizer(["ab ab"], SMALLEST - 1)


def test_an_error_of_the_stream_comes_through():
    def texts() -> Iterator[str]:
        yield "some text"
        raise DataError("The file ends early.")

    with pytest.raises(DataError, match="ends early"):
        train_tokenizer(texts(), 300)


def test_a_lone_surrogate_in_the_text_does_not_stop_training():
    assert train_tokenizer(["ab \ud83d ab"], 300).encode("\ud83d") == train_tokenizer(["ab \ufffd ab"], 300).encode(
        "\ufffd"
    )


def test_the_library_reads_the_definition_without_bimo(tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path)
    stock = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "To be, 分争 add(2, 35)\n\n  'tis"
    assert stock.encode(text).ids == tokenizer.encode(text)
    assert stock.decode(stock.encode(text).ids) == text
    assert json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["normalizer"] is None


def test_long_words_are_learnt_in_parts_and_encoded_whole():
    tokenizer = train_tokenizer(["a" * 50_000], 300)
    lengths = [len(tokenizer.token_bytes(id)) for id in range(3, tokenizer.vocab_size)]
    assert 50 <= max(lengths) <= LONGEST
    text = "a" * 1234 + "b"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    split = json.loads(tokenizer._definition)["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    assert split == {"Regex": PATTERN}
