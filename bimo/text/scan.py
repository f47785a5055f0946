"""What the cleaning steps ask about a text, found in one pass of C over it: most texts give most of them nothing to do.

``scan.c`` is compiled by this machine's own C compiler (see :mod:`bimo.compiled`). It takes a few microseconds for a
page, where each step by itself would look through the text a few times. The tables it works by are made from what the
steps themselves look for. Without a compiler :func:`facts_of` knows nothing, and every step does all of its work: the
results are the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

from bimo import compiled
from bimo.errors import DataError

LONGEST = 1 << 20  # characters of a text; a longer one is not worth sparing the steps
SOURCE = Path(__file__).with_name("scan.c")
FLAGS = ("-O3",)
PRIVATE, NAMES, BOOK, NOTES, LINES = range(5)  # groups of needles, of pii_secrets.py, gutenberg.py and boilerplate.py
BOOK_NAMED, NOTES_NAMED, LINES_NAMED = 1 << BOOK, 1 << NOTES, 1 << LINES  # in Facts.needles


class Facts(ctypes.Structure):
    """What was found in a text.

    Attributes:
        unspaced: characters of scripts without spaces; with the next four, as in ``measures.py``.
        tokens: words, marks that stand alone, and such characters.
        spaced_words: words of scripts with spaces.
        lettered_words: those with a letter.
        letters_and_digits: of scripts with spaces.
        token_characters: of the tokens that repetition is looked for in.
        repeated_characters: of these, those in runs of five words that have stood before.
        repeated_lines: lines that have stood before, without the spaces around them.
        longest_block: most lines in a row for ``unwrap.py``.
        mark_lines: lines that may be a page number or a running head for ``pages.py``.
        newline_run: most newline characters in a row.
        untidy: not 0: lines end in blanks, or the text begins with a newline or ends in two.
        irregular: not 0: a character may be changed by ``normalise.py``.
        personal: not 0: ``pii.py`` may find something.
        needles: a bit for each group of strings of which one stands in the text.
        stop_words: different ones in its beginning, of the first list that has enough, or of that which has most.
        sample_words: in the parts that tell the language; 0 where one of their letters is not Latin.
        sample_english: those that are English alone.
        sample_mostly: those that are English, and seldom of another language.
        sample_foreign: those that only other languages have.
    """

    unspaced: int
    tokens: int
    spaced_words: int
    lettered_words: int
    letters_and_digits: int
    token_characters: int
    repeated_characters: int
    repeated_lines: int
    longest_block: int
    mark_lines: int
    newline_run: int
    untidy: int
    irregular: int
    personal: int
    needles: int
    stop_words: int
    sample_words: int
    sample_english: int
    sample_mostly: int
    sample_foreign: int


Facts._fields_ = [(name, ctypes.c_int64) for name in Facts.__annotations__]  # in the source's order
KEPT = 1024  # texts whose facts are kept: more than are cleaned together, as steps make new ones
Scanner = Callable[[bytes, int, Facts], bool]  # bytes of a text, its characters, what to fill; False: no memory


def announcement() -> str:
    """What a user must be told before texts are cleaned: that there is no C compiler; else empty."""
    return "" if library() else "Cleaning takes several times as long without a C compiler: install gcc or clang."


@lru_cache(maxsize=KEPT)
def facts_of(text: str) -> Facts | None:
    """The facts of a text; those of the last texts are kept, so that the steps on some documents share them.

    None for a very long text, one with lone surrogates, or where there is no C compiler: then all must be looked for.
    """
    if len(text) > LONGEST or (scan := scanner()) is None:
        return None
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError:
        return None
    facts = Facts()
    return facts if scan(raw, len(text), facts) else None


def folded(text: str) -> str | None:
    """An ASCII text in small letters, with one space between words; None where there is no C compiler."""
    if (found := library()) is None or not text:
        return None
    buffer = bytearray(text, "ascii")
    length = found.fold(ctypes.byref(ctypes.c_char.from_buffer(buffer)), len(buffer))
    return buffer[:length].decode("ascii")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled source; None where it cannot be made."""
    try:
        found = compiled.library(SOURCE, FLAGS, error=DataError)
    except DataError:
        return None
    found.fold.argtypes, found.fold.restype = (ctypes.c_void_p, ctypes.c_int64), ctypes.c_int64
    return found


@cache
def scanner() -> Scanner | None:
    """The compiled function with its tables; None without a compiler."""
    return scanner_of(found) if (found := library()) else None


def scanner_of(library: ctypes.CDLL) -> Scanner:
    """The function of a library with its tables: small ones for ASCII, and once another text comes, all of Unicode."""
    from bimo.text import scan_tables  # made from the steps, which ask for facts themselves

    function = library.scan
    function.argtypes = (ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    function.restype = ctypes.c_int32
    ascii, unicode = scan_tables.ascii(library), cache(lambda: scan_tables.unicode(library))

    def scan(raw: bytes, characters: int, facts: Facts) -> bool:
        tables = ascii if len(raw) == characters else unicode()
        return bool(function(raw, len(raw), characters, tables.address, ctypes.addressof(facts)))

    return scan
