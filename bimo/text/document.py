"""What a piece of text is to every later stage, and the hashes that identify it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)
KINDS = ("prose", "code", "web", "mail", "table")


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    Attributes:
        id: unique and stable within a source: ``hamlet.txt``, ``a.jsonl:17``, ``big.txt#3``.
        text: the text; its lines end with a newline character alone.
        source: the file it came from, relative to what the user named.
        kind: one of ``KINDS``: which rules of ``clean/`` make sense for it.
        language: its ISO 639-1 code where a step has found it out, ``""`` before.
        time: when it was written, in ISO 8601, where the file says so.
        side: ``train``, ``validation`` or ``test`` where the text was split when it was prepared, else ``""``.
        notes: what readers and steps did to it, for the ledger: ``"pii: 2 e-mail addresses, 1 phone number"``.
        offset: of the byte of ``source``, decompressed, where it begins; -1 where that is not known.
    """

    id: str
    text: str
    source: str
    kind: str = "prose"
    language: str = ""
    time: str = ""
    side: str = ""
    notes: tuple[str, ...] = ()
    offset: int = field(default=-1, compare=False)

    def changed(self, text: str, note: str = "") -> Document:
        """This document with another text, and a note on why; itself where the text is the same."""
        if text == self.text:
            return self
        notes = (*self.notes, note) if note else self.notes
        return Document(self.id, text, self.source, self.kind, self.language, self.time, self.side, notes, self.offset)

    def found_in(self, language: str, notes: tuple[str, ...]) -> Document:
        """This document with its language and other notes; ``replace`` would take twice as long."""
        return Document(self.id, self.text, self.source, self.kind, language, self.time, self.side, notes, self.offset)


@dataclass(frozen=True, slots=True)
class Drop:
    """What a cleaning step returns in place of a document that is better left out.

    Attributes:
        reason: one of few, as they are counted: ``"too short"``.
        evidence: what was measured: ``"12 words, expected at least 50"``.
    """

    reason: str
    evidence: str = ""


Step = Callable[[Document], Document | Drop]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, or ``count`` records of a file, that gave no document, and why; ``size``: bytes, where not even tried."""

    file: str
    reason: str
    count: int = 1
    size: int = 0

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


def text_digest(text: str) -> bytes:
    """SHA-256 of the UTF-8 bytes of a text."""
    return hashlib.sha256(text.encode("utf-8")).digest()


class DataHash:
    """The hash of a sequence of texts: SHA-256 over the digests of the texts, in order; ids do not count."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, digest: bytes) -> None:
        """Add the next text, by its :func:`text_digest`."""
        self._hash.update(digest)

    def hex(self) -> str:
        """The hash of what was added so far."""
        return self._hash.hexdigest()


def cut_point(text: str, limit: int) -> int:
    """Where to cut ``text`` so that the head has at most ``limit`` characters.

    The cut is after the last blank line in the second half of the head, else after the last line end there, else after
    the last space there, else at ``limit``.
    """
    if len(text) <= limit:
        return len(text)
    for mark in ("\n\n", "\n", " "):
        found = text.rfind(mark, limit // 2, limit)
        if found >= 0:
            return found + len(mark)
    return limit
