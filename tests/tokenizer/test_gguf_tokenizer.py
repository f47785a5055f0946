"""Tokenizers from GGUF metadata give the ids of the tokenizers that the metadata were made from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from bimo.errors import TokenizerError
from bimo.tokenizer.gguf_tokenizer import CUTS, read_tokenizer
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.tokenizer.train import train_tokenizer
from tests.models.gguf_file import tokenizer_metadata

TEXTS = [
    "The king's 12345 moons — they'LL see, won't they?\n\n  Indented\tby  tabs   \r\n",
    "却说曹操引兵而来，三国演义第１２回。Ａ½²",
    "def f(x):\n    return x**2 + 10 != -1  # ok\n\n\n",
    "<|im_start|>user\nhi<|im_end|> 🦙🦙 e\u0301 caf\u00e9",
    "",
    " ",
]
OWN = train_tokenizer(TEXTS * 3, 420)


def read(**changes: Any) -> Tokenizer:
    metadata = tokenizer_metadata(OWN) | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return read_tokenizer({key: value for key, value in metadata.items() if value is not None}, "a.gguf", 500)


def words(tokenizer: Tokenizer, text: str) -> list[str]:
    """How a text is cut, before merges."""
    full = tokenizers.Tokenizer.from_str(tokenizer.definition.decode())
    return [word for word, _ in full.pre_tokenizer.pre_tokenize_str(text)]


@given(st.sampled_from(TEXTS) | st.text(max_size=30))
def test_qwens_cut_gives_the_ids_of_the_original(text: str) -> None:
    composed = tokenizers.normalizers.NFC().normalize_str(text)
    assert read().encode(text) == OWN.encode(composed)


ORIGINALS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}


@pytest.mark.parametrize("pre", ORIGINALS)
@given(text=st.sampled_from(TEXTS) | st.text(max_size=30))
def test_texts_are_cut_as_by_the_originals(pre: str, text: str) -> None:
    assert words(read(pre=pre), text) == [word for word, _ in ORIGINALS[pre].pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("pre", "text", "wanted"),
    [
        ("qwen2", "it's 12345", ["it", "'s", "Ġ", "1", "2", "3", "4", "5"]),
        ("llama-bpe", "it'S 12345", ["it", "'S", "Ġ", "123", "45"]),
        ("smollm", "a 12!", ["a", "Ġ", "1", "2", "!"]),
        ("gpt-2", "a 12!", ["a", "Ġ12", "!"]),
        ("default", "a $1234!?", ["a", "Ġ", "$", "123", "4", "!?"]),
    ],
)
def test_numbers_are_cut_as_the_name_says(pre: str, text: str, wanted: list[str]) -> None:
    assert words(read(pre=pre), text) == wanted


@pytest.mark.parametrize("pre", CUTS)
def test_stock_transformers_gives_the_same_ids(tmp_path: Path, pre: str) -> None:
    tokenizer = read(pre=pre)
    tokenizer.save(tmp_path)
    stock = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        if "<|" not in text:  # which it reads as control tokens
            start = [tokenizer.bos_id] if tokenizer.adds_bos else []
            assert stock(text)["input_ids"] == [*start, *tokenizer.encode(text)]
            assert tokenizer.decode_bytes(tokenizer.encode(text)).decode() == (
                tokenizers.normalizers.NFC().normalize_str(text) if CUTS[pre].composed else text
            )
    messages = [{"role": "user", "content": "你好"}]
    ids = stock.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == tokenizer.encode_chat(messages)


@pytest.mark.parametrize(("says", "adds"), [(True, True), (False, False), (None, True)])
def test_the_start_token(tmp_path: Path, says: bool | None, adds: bool) -> None:
    tokenizer = read(pre="llama-bpe", add_bos_token=says, bos_token_id=2)
    tokenizer.save(tmp_path)
    assert tokenizer.adds_bos is adds
    assert AutoTokenizer.from_pretrained(tmp_path)("hi")["input_ids"] == [2] * adds + OWN.encode("hi")


def test_words_that_are_tokens_need_no_merges() -> None:
    pieces = tokenizer_metadata(OWN)["tokenizer.ggml.tokens"]
    word = max((piece for piece in pieces if piece.isascii() and piece.isalpha()), key=len)
    few = tokenizer_metadata(OWN)["tokenizer.ggml.merges"][:20]
    assert len(read(pre="llama-bpe", merges=few).encode(word)) == 1 < len(read(pre="gpt-2", merges=few).encode(word))


def test_kinds_of_tokens() -> None:
    tokens = [*tokenizer_metadata(OWN)["tokenizer.ggml.tokens"], "<tool>", "[PAD1]", "[PAD1]"]
    types = np.array([*tokenizer_metadata(OWN)["tokenizer.ggml.token_type"], 4, 5, 5], "<i4")
    tokenizer = read(tokens=tokens, token_type=types)
    size = OWN.vocab_size
    assert tokenizer.vocab_size == size + 1 and tokenizer.special == OWN.special
    assert tokenizer.token_bytes(size) == b"<tool>" and tokenizer.token_bytes(size + 1) == b""
    with pytest.raises(TokenizerError, match=r"'\[PAD1\]' twice"):
        read(tokens=tokens, token_type=np.array([*types[:-2], 1, 1], "<i4"))


PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]


def sentencepiece_metadata(pieces: list[tuple[str, float]]) -> dict[str, Any]:
    count = len(PIECES)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [*PIECES, *(piece for piece, _ in pieces)],
        "tokenizer.ggml.scores": np.array([0.0] * count + [score for _, score in pieces], "<f4"),
        "tokenizer.ggml.token_type": np.array([2, 3, 3] + [6] * 256 + [1] * len(pieces), "<i4"),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


HI = [("▁h", -1.0), ("hi", -2.0), ("▁hi", -3.0), ("▁", -4.0), ("h", -5.0), ("i", -6.0)]


def test_sentencepiece_joins_the_best_pair_first(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(sentencepiece_metadata(HI), "a.gguf", 400)
    first = len(PIECES)
    assert tokenizer.encode("hi") == [first + 2]
    assert tokenizer.encode("ihi") == [first + 3, first + 5, first + 1]
    assert tokenizer.encode("曹") == [first + 3, *(3 + byte for byte in "曹".encode())]
    assert tokenizer.decode(tokenizer.encode("hi hi 曹")) == "hi hi 曹"
    tokenizer.save(tmp_path)
    stock = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.adds_bos and stock("hi hi 曹</s>")["input_ids"] == [1, *tokenizer.encode("hi hi 曹"), 2]


def test_sentencepiece_itself_gives_the_same_ids() -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((" ".join(TEXTS) + " the king said the thing " * 9).splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=9,
    )
    witness = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [(witness.id_to_piece(id), witness.get_score(id)) for id in range(len(PIECES), witness.vocab_size())]
    assert [witness.id_to_piece(id) for id in range(len(PIECES))] == PIECES
    tokenizer = read_tokenizer(sentencepiece_metadata(pieces), "a.gguf", 420)
    for text in [*TEXTS, "the things  they said", "king 曹操"]:
        assert tokenizer.encode(text) == witness.encode(text), text
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "t5"}, "got 't5'"),
        ({"model": None}, "got None"),
        ({"pre": "smolm"}, "Did you mean 'smollm'"),
        ({"pre": 3}, "Known"),
        ({"tokens": None}, "tokenizer.ggml.tokens"),
        ({"tokens": []}, "1 to 500 tokens"),
        ({"tokens": ["x"] * 501}, "1 to 500 tokens"),
        ({"token_type": np.array([1], "<i4")}, "token_type"),
        ({"token_type": "normal"}, "token_type"),
        ({"merges": None}, "merges"),
        ({"merges": ["Ġ"]}, "merges of two tokens"),
        ({"merges": ["Ġ zzz"]}, "'Ġ zzz'"),
        ({"merges": ["a b c"]}, "'a b c'"),
        ({"eos_token_id": None}, "eos_token_id"),
        ({"eos_token_id": 499}, "got 499"),
        ({"eos_token_id": -1}, "got -1"),
        ({"bos_token_id": "<s>"}, "bos_token_id"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TokenizerError, match=words):
        read(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": np.array([1.0], "<f4")}, "scores"),
        ({"scores": np.array([0.0] * 264 + [np.nan], "<f4")}, "scores that are numbers"),
        ({"tokens": [*PIECES, *(piece for piece, _ in HI[:-1]), "x" * 9999]}, "at most 512"),
    ],
)
def test_what_is_wrong_with_scores_is_named(changes: dict[str, Any], words: str) -> None:
    metadata = sentencepiece_metadata(HI) | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    with pytest.raises(TokenizerError, match=words):
        read_tokenizer(metadata, "a.gguf", 400)


@pytest.mark.parametrize("template", [7, "x" * (1 << 20) + "x"])
def test_a_template_that_is_no_text_is_refused(template: Any) -> None:
    with pytest.raises(TokenizerError, match="chat template of a.gguf"):
        read_tokenizer(tokenizer_metadata(OWN) | {"tokenizer.chat_template": template}, "a.gguf", 500)
