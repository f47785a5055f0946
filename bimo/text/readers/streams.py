"""What libraries need of a stream: all of its bytes at once, and somebody to catch what they raise on damaged ones."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from zipfile import BadZipFile

from bimo.text.decode import ByteStream, Unreadable, byte_chunks

RECORD_BYTES = 1 << 26
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
def damage_reported(what: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn what a library raises, ``errors`` included, into ``Unreadable("damaged {what}: ...")``."""
    expected: tuple[type[Exception], ...] = (*DAMAGE, *errors)
    try:
        yield
    except expected as cause:
        said = str(cause).strip().splitlines()
        raise Unreadable(f"damaged {what}: {said[0][:200] if said else type(cause).__name__}") from None
