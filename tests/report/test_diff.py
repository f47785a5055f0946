"""What changed between two excerpts."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from bimo.report.diff import ADDED, LEFT_OUT, REMOVED, SAME, Piece, diff, visible

CUT = 10_000


def test_words_and_chinese_characters() -> None:
    assert diff("the old king said", "the young king said", CUT) == [
        Piece(SAME, "the "),
        Piece(REMOVED, "old"),
        Piece(ADDED, "young"),
        Piece(SAME, " king said"),
    ]
    assert diff("曹操引兵而来", "曹操而来", CUT) == [Piece(SAME, "曹操"), Piece(REMOVED, "引兵"), Piece(SAME, "而来")]


def test_what_cannot_be_seen_is_written_out() -> None:
    assert visible("a\x07\u200b\n") == "a⟨U+0007⟩⟨U+200B⟩↵\n"
    assert visible("  ") == "··" and visible("a b") == "a b"
    assert diff("a\n\n\nb", "a\nb", CUT)[1] == Piece(REMOVED, "↵\n↵\n")


def test_the_end_of_an_excerpt_is_no_change() -> None:
    before, after = "menu " + "word " * 20, "word " * 20 + "more"
    assert diff(before, after, 50) == [Piece(REMOVED, "menu "), *diff(before, after, 50)[1:]]
    assert not any(piece.kind == ADDED for piece in diff(before, after, 50))
    assert diff(before, after, CUT)[-1] == Piece(ADDED, "more")
    assert diff("gone", "", 3) == [Piece(REMOVED, "gone")]


def test_long_stretches_are_shortened() -> None:
    pieces = diff("x" * 3 + " same" * 200 + " end", "y" * 3 + " same" * 200 + " ende", CUT)
    assert [piece.kind for piece in pieces][2:5] == [SAME, LEFT_OUT, SAME]
    assert sum(len(piece.text) for piece in pieces) < 250


@given(st.text(max_size=60), st.text(max_size=60))
def test_both_texts_are_in_the_pieces(before: str, after: str) -> None:
    pieces = diff(before, after, CUT)
    for text, other in ((before, ADDED), (after, REMOVED)):
        shown = "".join(piece.text for piece in pieces if piece.kind != other)
        plain = re.sub("⟨U\\+([0-9A-F]+)⟩", lambda found: chr(int(found[1], 16)), shown.replace("↵\n", "\n"))
        if not set("⟨↵·") & set(text):
            assert plain.replace("·", " ") == text
    assert all(piece.text for piece in pieces)
    assert (before == after) == all(piece.kind == SAME for piece in pieces)
