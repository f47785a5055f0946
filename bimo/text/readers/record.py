"""What a reader is given and what it yields: the contract of every file in this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bimo.text.decode import ByteStream


@dataclass(frozen=True, slots=True)
class Options:
    """How to read.

    Attributes:
        text_column: the key or column that holds the text of a record.
        encoding: of files without a byte order mark; ``auto`` finds it out for each.
        template: makes the text of a record from several columns: ``"{title}\\n\\n{body}"``.
        time_column: the key or column that says when the text was written.
        first_line: the number of the line with which the bytes begin.
    """

    text_column: str = "text"
    encoding: str = "auto"
    template: str = ""
    time_column: str = ""
    first_line: int = 1


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
