"""Pieces of a text, such as pages and chapters, become one document, or several where they are long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from bimo.text.decode import CutShort
from bimo.text.document import cut_point
from bimo.text.readers.record import Bad, Record, Text, with_newlines

SECTION_BYTES = 4_000_000


def sections(
    pieces: Iterable[str | Bad],
    kind: str = "",
    time: str = "",
    notes: Callable[[str], tuple[str, ...]] = lambda text: (),
) -> Iterator[Record]:
    """Put the pieces of a text together: one document, or several of at most 4 MB with the keys ``#0``, ``#1``...

    What is bad passes through; of nothing at all an empty text is made. What there was of a text that is cut short or
    damaged further on is given before the error. Memory: 8 MB and three times a piece.

    Args:
        notes: gives those of a text.
    """
    held: list[str] = []
    size, number, bad = 0, 0, False
    cut_short: CutShort | None = None
    try:
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
                yield Text(f"#{number}", text[:cut], kind, time, notes(text[:cut]))
                held, size, number = [text[cut:]], size - _bytes(text[:cut]), number + 1
    except CutShort as cause:
        cut_short = cause
    text = "".join(held)
    if text or not (number or bad or cut_short):
        missing = (cut_short.note,) if cut_short else ()
        yield Text(f"#{number}" if number else "", text, kind, time, (*notes(text), *missing))
    if cut_short:
        raise cut_short


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


def joined_blocks(blocks: Iterable[tuple[str, bool]]) -> Iterator[str]:
    """Paragraphs and tables, each with whether it is an item of a list: blank lines between all but two items."""
    begun, was_item = False, False
    for text, item in blocks:
        if text.strip():
            yield (("\n" if item and was_item else "\n\n") if begun else "") + with_newlines(text)
            begun, was_item = True, item
