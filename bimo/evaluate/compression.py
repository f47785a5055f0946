"""What general compressors make of the same held-out bytes: the floor under every language model."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterable
from typing import Protocol

from bimo.errors import DataError
from bimo.text.document import Document

GZIP_CONTAINER = 16 + zlib.MAX_WBITS


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def compression_bits_per_byte(documents: Iterable[Document]) -> dict[str, float]:
    """Bits per byte of all documents one after the other, by compressor: ``gzip -9`` and ``xz -9``.

    Neither has seen other text. The documents are read once and never held in memory together.

    Raises:
        DataError: the documents hold no text.
    """
    compressors: dict[str, _Compressor] = {
        "gzip -9": zlib.compressobj(9, zlib.DEFLATED, GZIP_CONTAINER),
        "xz -9": lzma.LZMACompressor(preset=9),
    }
    sizes = dict.fromkeys(compressors, 0)
    total = 0
    for document in documents:
        data = document.text.encode("utf-8", "surrogatepass")
        total += len(data)
        for name, compressor in compressors.items():
            sizes[name] += len(compressor.compress(data))
    if total == 0:
        raise DataError("There is no text to compress.", expected="documents with text", got="0 bytes")
    return {name: 8 * (sizes[name] + len(compressor.flush())) / total for name, compressor in compressors.items()}
