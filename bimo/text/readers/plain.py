"""Plain text and source code: the whole file is one document."""

from __future__ import annotations

from collections.abc import Iterator

from bimo.text.decode import ByteStream, text_chunks
from bimo.text.document import cut_point
from bimo.text.readers.record import Options, Record, Text

SECTION_BYTES = 4_000_000


def read_text(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The whole file as one document; a file of more than 4 MB as several, cut at blank lines where it has them."""
    buffer, sections = "", 0
    for chunk in text_chunks(stream, options.encoding):
        buffer += chunk
        while len(buffer) > SECTION_BYTES // 4 and len(encoded := buffer.encode("utf-8")) > SECTION_BYTES:
            fitting = len(encoded[:SECTION_BYTES].decode("utf-8", errors="ignore"))
            cut = cut_point(buffer, fitting)
            yield Text(f"#{sections}", buffer[:cut])
            buffer, sections = buffer[cut:], sections + 1
    if buffer or not sections:
        yield Text(f"#{sections}" if sections else "", buffer)
