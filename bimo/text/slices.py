"""A large file of records is cut into slices that are read side by side and give what the whole file gives.

Only JSON lines whose records do not depend on each other: not compressed, and UTF-8 without anything that a reader of
the whole file would take notice of, so that a reader of a slice needs to know nothing but the number of its first line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import BinaryIO

from bimo.text.decode import AUTO, ByteStream
from bimo.text.encodings import CONTROLS
from bimo.text.listing import File, open_regular
from bimo.text.readers import suffixes_of

SLICED = (".jsonl", ".ndjson")
LONGEST_LINE = 1 << 28  # bytes; a file with a longer one stays whole
SPECIAL = CONTROLS + b"\x1b"  # bytes and characters that encodings are told by, or damage
SPECIAL_CHARACTERS = ("\ufeff".encode(), "\ufffd".encode())


def sliced(listed: Iterable[File], encoding: str, size: int) -> Iterator[File]:
    """The same files in the same order, those of more than four times ``size`` bytes in slices where that is possible.

    Each large file is read once for that.

    Args:
        encoding: in which files are read.
    """
    for file in listed:
        large = file.size > 4 * size and not file.sha256
        if large and suffixes_of(file.path.name) in [(suffix, "") for suffix in SLICED] and encoding in (AUTO, "utf-8"):
            yield from _slices(file, size)
        else:
            yield file


def _slices(file: File, size: int) -> list[File]:
    found: list[File] = []
    begin, line = 0, 1
    try:
        with open_regular(file.path) as raw:
            while data := raw.read(size):
                data += raw.readline(LONGEST_LINE)
                whole_line = data.endswith(b"\n") or begin + len(data) == file.size
                if not (whole_line and _is_plain(data)) or not (found or data.decode("utf-8").strip()):
                    return [file]  # a blank slice is nothing to tell, a blank file is
                found.append(replace(file, size=len(data), begin=begin, line=line))
                begin += len(data)
                line += data.count(b"\n")
                if b"\r" in data:
                    line += data.count(b"\r") - data.count(b"\r\n")
    except OSError:
        return [file]  # whoever reads it says why
    return found if begin == file.size else [file]


def _is_plain(data: bytes) -> bool:
    """Whether a slice is read like this part of the whole file."""
    if len(data.translate(None, SPECIAL)) < len(data):
        return False
    if data.isascii():
        return True
    if any(character in data for character in SPECIAL_CHARACTERS):
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def opened_slice(raw: BinaryIO, file: File) -> ByteStream:
    """The bytes of a slice of the opened file ``raw``."""
    raw.seek(file.begin)
    return _Slice(raw, file.size)


class _Slice:
    def __init__(self, raw: BinaryIO, left: int) -> None:
        self._raw, self._left = raw, left

    def read(self, size: int = -1, /) -> bytes:
        data = self._raw.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data
