"""Plain text and source code: the whole file is one document."""

from __future__ import annotations

from collections.abc import Iterator

from bimo.text.decode import ByteStream, text_chunks
from bimo.text.readers.record import Bad, Options, Record
from bimo.text.readers.sections import sections


def read_text(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The whole file as one document; a file of more than 4 MB as several, cut at blank lines where it has them."""
    chunks, begun = text_chunks(stream, options.encoding), False
    for record in sections(chunks, notes=chunks.notes):
        yield record if begun or isinstance(record, Bad) else record._replace(offset=0)
        begun = True
