"""Book texts without what Project Gutenberg put around them: header, licence, credits, transcriber's notes.

The markers are those of its files since 1993: ``*** START OF THE PROJECT GUTENBERG EBOOK``, ``*END*THE SMALL PRINT!``
and their ends. A file may hold several books; one that was cut into sections may hold one of two markers. Gerlach and
Font-Clos 2020 (A standardized Project Gutenberg corpus) cut at the same lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bimo.config import setting
from bimo.text.document import Document, Step
from bimo.text.scan import BOOK_NAMED, NOTES_NAMED, facts_of

MARKER = re.compile(
    r"""^[ \t]*(?:
        (?P<start> \*{3}[ ]?START\ OF\ (?:TH(?:E|IS)\ )?PROJECT\ GUTENBERG[^*]{0,300}\*{3}[^\n]*
        | \*END[ ]?\*?[ ]?THE\ SMALL\ PRINT[^\n]*
        | [^\n]*\ (?:email\ )?newsletter\ to\ hear\ about\ new\ eBooks\.[^\n]* )  # the last line of the licence
      | (?P<end> \*{3}[ ]?END\ OF\ (?:TH(?:E|IS)\ )?PROJECT\ GUTENBERG[^\n]*
        | End\ of\ (?:(?:the|this)\ )?Project\ Gutenberg[^\n]* )
    )$""",
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)
CREDIT = re.compile(  # a block of lines: Produced by ..., E-text prepared by ..., (Additional editing by ...)
    r"""\(?(?:this\ )?
        (?:produced|e-?(?:text|book)\ (?:was\ )?(?:prepared|produced|scanned)|transcribed|scanned|digiti[sz]ed|proofed
           |additional\ (?:editing|proofreading))
        \b[^\n]*\b(?:by|from)\b[^\n]*(?:\n[^\n]+)*(?:\n+|\Z)""",
    re.IGNORECASE | re.VERBOSE,
)
NOTE = re.compile(
    r"^\[Transcriber['’]?s?['’]? notes?\b[^\]]{0,3000}\][ \t]*\n*"
    r"|^<<THIS ELECTRONIC VERSION[^>]{0,2000}>>[ \t]*\n*",  # in every act of its first Shakespeare
    re.MULTILINE | re.IGNORECASE,
)
LAST_NOTES = re.compile(r"^[ \t\[]*Transcriber['’]?s?['’]? notes?\b[:.]?[ \t\]]*$", re.MULTILINE | re.IGNORECASE)
BOOK = ("GUTENBERG", "Gutenberg", "SMALL PRINT")  # one of them is in every marker
NOTES = ("ranscriber", "RANSCRIBER", "ELECTRONIC VERSION")  # and of these in every note
LAST_NOTES_WITHIN = 10_000  # characters from the end of a book


@dataclass(frozen=True, slots=True)
class Config:
    """Whether it is done."""

    on: bool = setting(True, "remove Project Gutenberg's header, licence, credits and transcriber's notes")


def build(config: Config) -> Step:
    """The step."""

    def step(document: Document) -> Document:
        text = document.text
        if document.kind not in ("prose", "web"):
            return document
        if (facts := facts_of(text)) and not facts.needles & (BOOK_NAMED | NOTES_NAMED):
            return document
        if any(map(text.__contains__, BOOK)):
            text = _books(text)
        if any(map(text.__contains__, NOTES)):
            text = _without_notes(text)
        return document.changed(text, f"gutenberg: {len(document.text) - len(text)} characters around the book removed")

    return step


def _books(text: str) -> str:
    """What stands between a start and an end; a start that follows a start ends a header."""
    books, begin = [], 0
    found = False
    for marker in MARKER.finditer(text):
        if marker["end"] is not None and begin >= 0:
            books.append(text[begin : marker.start()])
        begin = -1 if marker["end"] is not None else marker.end()
        found = True
    if not found:
        return text
    if begin >= 0:
        books.append(text[begin:])
    books = [_without_credits(book.strip("\n")) for book in books if not book.isspace()]
    return "\n\n\n".join(book for book in books if book)


def _without_credits(book: str) -> str:
    while credit := CREDIT.match(book):
        book = book[credit.end() :]
    return book


def _without_notes(text: str) -> str:
    text = NOTE.sub("", text)
    while found := LAST_NOTES.search(text, max(0, len(text) - LAST_NOTES_WITHIN)):
        if found.start() == 0:  # nothing but notes: whoever wrote them may want them
            break
        text = text[: found.start()].rstrip()
    return text
