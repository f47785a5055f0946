"""Plain text and source code: the whole file is one document."""

from __future__ import annotations

from collections.abc import Iterator

from bimo.text.decode import ByteStream, text_chunks
from bimo.text.readers.record import Options, Record
from bimo.text.readers.sections import sections


def read_text(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The whole file as one document; a file of more than 4 MB as several, cut at blank lines where it has them."""
    chunks = text_chunks(stream, options.encoding)
    return sections(chunks, notes=chunks.notes)
