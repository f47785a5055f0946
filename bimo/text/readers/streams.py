"""What libraries need of a stream and a stream may not give: all of its bytes at once, or a file to seek in."""

from __future__ import annotations

import io
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast
from zipfile import BadZipFile

from bimo.text.decode import ByteStream, Unreadable, byte_chunks

RECORD_BYTES = 1 << 26
COPIED_BYTES = 1 << 33
# What libraries raise on damaged files, beside errors of their own: they trust what they read and trip over it.
DAMAGE = (
    ArithmeticError, AssertionError, AttributeError, BadZipFile, EOFError, LookupError, NotImplementedError, OSError,
    RecursionError, RuntimeError, SyntaxError, TypeError, ValueError, zlib.error,
)  # fmt: skip


def whole(stream: ByteStream) -> bytes:
    """All bytes of a stream, at most 64 MB.

    Raises:
        Unreadable: it is larger, or damaged.
    """
    pieces, size = [], 0
    for chunk in byte_chunks(stream):
        pieces.append(chunk)
        size += len(chunk)
        if size > RECORD_BYTES:
            raise Unreadable("larger than 64 MB")
    return b"".join(pieces)


@contextmanager
def seekable(stream: ByteStream) -> Iterator[BinaryIO]:
    """The stream itself where it is a plain file, else a temporary copy of at most 8 GB on disk.

    Raises:
        Unreadable: it is larger, or damaged.
    """
    if isinstance(stream, (io.BufferedReader, io.BytesIO)) and stream.seekable():
        yield cast(BinaryIO, stream)
        return
    with tempfile.TemporaryFile() as file:
        size = 0
        for chunk in byte_chunks(stream):
            size += len(chunk)
            if size > COPIED_BYTES:
                raise Unreadable("larger than 8 GB, which is the most that is unpacked of this format")
            file.write(chunk)
        file.seek(0)
        yield cast(BinaryIO, file)


@contextmanager
def damage_reported(what: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn what a library raises, ``errors`` included, into ``Unreadable("damaged {what}: ...")``."""
    expected: tuple[type[Exception], ...] = (*DAMAGE, *errors)
    try:
        yield
    except expected as cause:
        said = str(cause).strip().splitlines()
        raise Unreadable(f"damaged {what}: {said[0][:200] if said else type(cause).__name__}") from None
