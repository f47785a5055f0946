"""The compressors' sizes against the standard library's one-call functions."""

from __future__ import annotations

import gzip
import lzma

import pytest

from bimo.errors import DataError
from bimo.evaluate.compression import compression_bits_per_byte
from bimo.text.document import Document


def documents(*texts: str) -> list[Document]:
    return [Document(f"{number}.txt", text, "") for number, text in enumerate(texts)]


def test_equals_the_size_of_all_documents_in_one_archive() -> None:
    texts = ["To be, or not to be. " * 7, "", "话说天下大势，分久必合，合久必分。" * 5, "that is the question"]
    data = "".join(texts).encode()
    found = compression_bits_per_byte(iter(documents(*texts)))
    assert found == {
        "gzip -9": 8 * len(gzip.compress(data, 9, mtime=0)) / len(data),
        "xz -9": 8 * len(lzma.compress(data, preset=9)) / len(data),
    }


@pytest.mark.parametrize("texts", [[], [""]])
def test_nothing_to_compress_is_refused(texts: list[str]) -> None:
    with pytest.raises(DataError, match="no text"):
        compression_bits_per_byte(documents(*texts))
