"""Pieces of a text, such as pages and chapters, become one document, or several where they are long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bimo.text.document import cut_point
from bimo.text.readers.plain import SECTION_BYTES
from bimo.text.readers.record import Bad, Record, Text


def sections(pieces: Iterable[str | Bad], kind: str = "", time: str = "") -> Iterator[Record]:
    """Put pieces together: one document, or several of at most 4 MB with the keys ``#0``, ``#1``...

    What is bad passes through; of nothing at all an empty text is made. Memory: 8 MB and three times a piece.
    """
    held: list[str] = []
    size, number, bad = 0, 0, False
    for piece in pieces:
        if isinstance(piece, Bad):
            bad = True
            yield piece
            continue
        held.append(piece)
        size += _bytes(piece)
        while size > SECTION_BYTES:
            text = "".join(held)
            fitting = len(text[:SECTION_BYTES].encode("utf-8")[:SECTION_BYTES].decode("utf-8", errors="ignore"))
            cut = cut_point(text, fitting)
            yield Text(f"#{number}", text[:cut], kind, time)
            held, size, number = [text[cut:]], size - _bytes(text[:cut]), number + 1
    text = "".join(held)
    if text or not (number or bad):
        yield Text(f"#{number}" if number else "", text, kind, time)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8"))


def apart(pieces: Iterable[str | Bad], separator: str = "\n\n") -> Iterator[str | Bad]:
    """The pieces that are not blank, with a separator between each two."""
    before = ""
    for piece in pieces:
        if isinstance(piece, Bad):
            yield piece
        elif piece.strip():
            yield before + piece
            before = separator
