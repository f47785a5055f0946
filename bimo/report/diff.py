"""What changed between two excerpts of a text: words, or single characters where words are not set apart."""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

TOKENS = re.compile("[^\\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|.", re.DOTALL)
CONTEXT = 90  # characters kept on either side of a change
SAME, REMOVED, ADDED, LEFT_OUT = "same", "removed", "added", "left out"


class Piece(NamedTuple):
    """A stretch of text: the ``same``, ``removed``, ``added``, or the same and ``left out`` here."""

    kind: str
    text: str


def diff(before: str, after: str, cut: int) -> list[Piece]:
    """The pieces of both texts in order; joined without those added they are ``before``, as far as they are shown.

    Args:
        cut: length from which an excerpt may go on: what then ends one text alone is no change that is known.
    """
    old, new = TOKENS.findall(before), TOKENS.findall(after)
    found: list[Piece] = []
    codes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    for place, (kind, old_begin, old_end, new_begin, new_end) in enumerate(codes):
        gone, come = "".join(old[old_begin:old_end]), "".join(new[new_begin:new_end])
        at_end = place == len(codes) - 1 and place > 0
        if kind == "equal":
            found.append(Piece(SAME, gone))
            continue
        if gone and not (at_end and not come and len(after) >= cut):
            found.append(Piece(REMOVED, visible(gone)))
        if come and not (at_end and not gone and len(before) >= cut):
            found.append(Piece(ADDED, visible(come)))
    return shortened(found)


def shortened(pieces: list[Piece]) -> list[Piece]:
    """Without the middle of long stretches that are the same."""
    result: list[Piece] = []
    for place, piece in enumerate(pieces):
        head = CONTEXT if place else 0
        tail = CONTEXT if place < len(pieces) - 1 else 0
        if piece.kind != SAME or len(piece.text) <= head + tail + CONTEXT:
            result.append(piece)
            continue
        result.append(Piece(SAME, piece.text[:head]))
        result.append(Piece(LEFT_OUT, " … "))
        result.append(Piece(SAME, piece.text[len(piece.text) - tail :]))
    return [piece for piece in result if piece.text]


def visible(text: str) -> str:
    """A change with its line ends, and the characters that show nothing, written out; a lone space as a dot."""
    shown = "".join("↵\n" if char == "\n" else char if char.isprintable() else f"⟨U+{ord(char):04X}⟩" for char in text)
    return shown.replace(" ", "·") if text.isspace() else shown
