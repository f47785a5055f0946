"""What a piece of text is to every later stage, and the hashes that identify it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    Attributes:
        id: unique and stable within a source: ``hamlet.txt``, ``a.jsonl:17``, ``big.txt#3``.
        text: the text; its lines end with a newline character alone.
        source: the file it came from, relative to what the user named.
    """

    id: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, or ``count`` records of a file, that gave no document, and why."""

    file: str
    reason: str
    count: int = 1

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
