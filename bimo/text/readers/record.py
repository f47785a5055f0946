"""What a reader is given and what it yields: the contract of every file in this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bimo.text.decode import ByteStream


@dataclass(frozen=True, slots=True)
class Options:
    """How to read: the key of the text in records, and the encoding of files without a byte order mark."""

    text_column: str = "text"
    encoding: str = "utf-8"


class Text(NamedTuple):
    """One text of a file.

    Attributes:
        key: completes the document's id: ``""``, ``"#3"``, ``":17"``, ``"!member.html"``.
        text: its lines end with a newline character alone.
        kind: what rules may assume of it, one of ``KINDS``; ``""`` for what the file's suffix says.
        time: when it was written, in ISO 8601, where the file says so.
        notes: what the reader did that its owner should know: ``"decoded as gb18030"``.
    """

    key: str
    text: str
    kind: str = ""
    time: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that gives no text; equal reasons are counted together, ``where`` names one of them."""

    where: str
    reason: str


Record = Text | Bad
Reader = Callable[[ByteStream, Options], Iterator[Record]]
