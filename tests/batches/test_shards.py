from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimo.batches.shards import EncodedDocument, Tokens, encode_documents, open_tokens, write_tokens
from bimo.errors import DataError
from bimo.text.document import Document
from bimo.tokenizer.train import train_tokenizer

EOS = 2
DOCUMENTS: list[EncodedDocument] = [("甲.txt", 11, [3, 5, 7]), ("empty", 0, []), ('a"b\n.txt', 5, [0, 9])]


def write(folder: Path, documents: list[EncodedDocument] = DOCUMENTS, vocab_size: int = 10) -> Tokens:
    hashes = {"tokenizer_hash": "t" * 64, "data_hash": "d" * 64}
    return write_tokens(folder, "train", documents, **hashes, vocab_size=vocab_size, eos_id=EOS)


def test_what_is_written_is_read(tmp_path: Path):
    write(tmp_path)
    tokens = open_tokens(tmp_path, "train", tokenizer_hash="t" * 64, data_hash="d" * 64)
    assert tokens.ids.tolist() == [EOS, 3, 5, 7, EOS, EOS, 0, 9]
    assert (tokens.count, tokens.documents, tokens.bytes, tokens.eos_id) == (8, 3, 16, EOS)
    assert [tokens.document_at(position) for position in range(8)] == ["甲.txt"] * 4 + ["empty"] + ['a"b\n.txt'] * 3
    assert tokens.starts.tolist() == [0, 4, 5] and tokens.document_bytes.tolist() == [11, 0, 5]
    assert isinstance(tokens.ids, np.memmap) and not tokens.ids.flags.writeable


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "<u2"), (65_537, "<u4")])
def test_the_narrowest_type_that_holds_the_vocabulary(tmp_path: Path, vocab_size: int, dtype: str):
    tokens = write(tmp_path, [("a", 1, [vocab_size - 1])], vocab_size)
    assert tokens.ids.dtype == np.dtype(dtype) and tokens.ids.tolist() == [EOS, vocab_size - 1]
    assert (tmp_path / "train.bin").read_bytes() == np.array([EOS, vocab_size - 1], dtype=dtype).tobytes()


@settings(max_examples=20)  # each example waits for the disk
@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=13))
def test_every_position_knows_its_document(tmp_path_factory: pytest.TempPathFactory, lengths: list[int]):
    documents = [(f"{number}.txt", length, [3] * length) for number, length in enumerate(lengths)]
    tokens = write(tmp_path_factory.mktemp("shard"), documents)
    wanted = [id for id, _, ids in documents for _ in range(1 + len(ids))]
    assert [tokens.document_at(position) for position in range(tokens.count)] == wanted


@pytest.mark.parametrize("ids", [[10], [-1], [3, EOS]])
def test_ids_of_another_tokenizer_are_refused_and_leave_nothing(tmp_path: Path, ids: list[int]):
    with pytest.raises(DataError, match=r"Document b was not encoded"):
        write(tmp_path, [("a", 1, [3]), ("b", 1, ids)])
    assert list(tmp_path.iterdir()) == []


def test_no_documents_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no text for 'train'"):
        write(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replacement_leaves_no_shard(tmp_path: Path):
    write(tmp_path)

    def documents() -> Iterator[EncodedDocument]:
        yield DOCUMENTS[0]
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write(tmp_path, documents())
    with pytest.raises(DataError, match=r"train\.json does not exist"):
        open_tokens(tmp_path, "train")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["train.bin", "train.index.bin", "train.ids.jsonl"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str):
    write(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "truncated" else content[:-2] + b"\x01" + content[-1:])
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        open_tokens(tmp_path, "train")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "other"),
        ("dtype", "int8"),
        ("dtype", ["uint16"]),
        ("count", 7),
        ("count", "8"),
        ("count", 0),
        ("documents", 2),
        ("documents", None),
        ("sha256", {}),
        ("eos_id", 3),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, key: str, value: object):
    write(tmp_path)
    path = tmp_path / "train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DataError, match="train"):
        open_tokens(tmp_path, "train")


def test_another_tokenizer_or_text_is_said(tmp_path: Path):
    write(tmp_path)
    with pytest.raises(DataError, match=r"another tokenizer.*tokenizer_hash xxx.*ttt"):
        open_tokens(tmp_path, "train", tokenizer_hash="x" * 64, data_hash="d" * 64)
    with pytest.raises(DataError, match=r"another text.*data_hash yyy.*ddd"):
        open_tokens(tmp_path, "train", tokenizer_hash="t" * 64, data_hash="y" * 64)


@pytest.mark.parametrize("batch_bytes", [1, 20, 1000])
def test_documents_are_encoded_in_order_and_in_bounded_groups(batch_bytes: int):
    tokenizer = train_tokenizer(["a cat 分久必合 "] * 2, 270)
    texts = ["a cat", "", "分久必合", "cat " * 5, "a"]
    read = 0

    def documents() -> Iterator[Document]:
        nonlocal read
        for number, text in enumerate(texts):
            read += 1
            yield Document(id=f"{number}.txt", text=text, source="x")

    encoded = encode_documents(documents(), tokenizer, batch_bytes)
    first = next(encoded)
    assert read == {1: 2, 20: 4, 1000: 5}[batch_bytes]
    wanted = [(f"{number}.txt", len(text.encode()), tokenizer.encode(text)) for number, text in enumerate(texts)]
    assert [first, *encoded] == wanted
