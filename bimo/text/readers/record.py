"""What a reader is given and what it yields: the contract of every file in this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from bimo.text.decode import ByteStream

HIDDEN = "hidden"  # why what begins with a dot is left out, unless the user names it: .git, .venv, .DS_Store


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
        time: when it was written, in ISO 8601, where the file says so; see :func:`iso_time`.
        notes: what the reader did that its owner should know: ``"decoded as gb18030"``.
        offset: of the byte where it begins in the file, decompressed, or in the member of an archive; -1: not known.
    """

    key: str
    text: str
    kind: str = ""
    time: str = ""
    notes: tuple[str, ...] = ()
    offset: int = -1


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that gives no text; equal reasons are counted together, ``where`` names one of them."""

    where: str
    reason: str


Record = Text | Bad
Reader = Callable[[ByteStream, Options], Iterator[Record]]


def with_newlines(text: str) -> str:
    """The text with every line end made a newline character."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def iso_time(moment: datetime | None) -> str:
    """A time as ``2024-01-31T23:59:59Z``: UTC, so that times sort as strings; one without a zone is taken for UTC."""
    if moment is None:
        return ""
    try:
        moment = moment.astimezone(UTC) if moment.tzinfo else moment
    except OverflowError:  # the first or last day of the calendar
        pass
    return moment.replace(tzinfo=None, microsecond=0).isoformat() + "Z"
