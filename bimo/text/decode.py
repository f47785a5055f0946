"""Bytes of a file, compressed or not, become decoded chunks of text; memory stays bounded whatever the file holds."""

from __future__ import annotations

import codecs
import io
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Protocol

from bimo.errors import ConfigError

CHUNK = 1 << 18
COMPRESSED_SUFFIXES = (".gz", ".zst")
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Unreadable(Exception):
    """The rest of a file gives no text, for the reason in the message; the source turns it into a ``Skipped``."""


class ByteStream(Protocol):
    """All that the readers need of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes; ``b""`` at the end."""
        ...


class ZstdStream:
    """Decompresses zstd frames; unlike the library's own reader, it tells a file that is cut short."""

    _SLICE = 1 << 10  # a slice grows to 32 MB at most, the block limit of the format

    def __init__(self, raw: ByteStream) -> None:
        import zstandard

        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._raw, self._frame = raw, self._new_frame()
        self._waiting, self._out, self._between = memoryview(b""), memoryview(b""), True

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` decompressed bytes, ``b""`` at the end.

        Raises:
            EOFError: the file ends inside a frame.
            OSError: the bytes are not zstd.
        """
        while not self._out:
            if not self._waiting:
                self._waiting = memoryview(self._raw.read(1 << 16))
                if not self._waiting:
                    if self._between:
                        return b""
                    raise EOFError("the file ends before its zstd frame does")
            self._decompress(self._waiting[: self._SLICE])
        size = len(self._out) if size < 0 else size
        head, self._out = self._out[:size], self._out[size:]
        return bytes(head)

    def _decompress(self, data: memoryview) -> None:
        try:
            self._out = memoryview(self._frame.decompress(data))
        except self._error as cause:
            raise OSError(str(cause)) from None
        used, self._between = len(data), self._frame.eof
        if self._frame.eof:
            used -= len(self._frame.unused_data)
            self._frame = self._new_frame()
        self._waiting = self._waiting[used:]


def decompressed(raw: BinaryIO, suffix: str) -> ByteStream:
    """The bytes behind ``.gz`` or ``.zst``; any other suffix gives ``raw`` itself."""
    if suffix == ".gz":
        import gzip

        return gzip.GzipFile(fileobj=raw)
    return ZstdStream(raw) if suffix == ".zst" else raw


def byte_chunks(stream: ByteStream) -> Iterator[bytes]:
    """Yield the bytes of a stream.

    Raises:
        Unreadable: the compressed bytes are damaged or cut short, or the disk cannot be read.
    """
    while True:
        try:
            chunk = stream.read(CHUNK)
        except EOFError:
            raise Unreadable("cut short: the compressed data end too early") from None
        except (OSError, zlib.error) as cause:
            raise Unreadable(f"damaged or unreadable: {cause}") from None
        if not chunk:
            return
        yield chunk


def text_chunks(stream: ByteStream, encoding: str) -> Iterator[str]:
    """Decode a stream, with every line end made a newline and a byte order mark obeyed and dropped.

    Raises:
        Unreadable: the bytes are binary, or not in this encoding; the message says where.
    """
    decoder: Any = None
    wide, fed = False, 0
    for chunk in _framed(byte_chunks(stream)):
        if decoder is None:
            name = next((name for mark, name in BYTE_ORDER_MARKS if chunk.startswith(mark)), encoding)
            name = "utf-8-sig" if codecs.lookup(name).name == "utf-8" else name
            wide = codecs.lookup(name).name.startswith(("utf-16", "utf-32"))
            decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(name)(), translate=True)
        if not wide and b"\0" in chunk:
            raise Unreadable("binary file")
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as cause:
            offset = fed - (len(cause.object) - len(chunk)) + cause.start
            named, other = ("UTF-8", "--encoding gb18030") if name == "utf-8-sig" else (name, "another --encoding")
            found = f"byte 0x{cause.object[cause.start]:02x} at offset {offset}"
            raise Unreadable(f"not {named} ({found}): convert it or pass {other}") from None
        if wide and "\0" in text:
            raise Unreadable("binary file")
        fed += len(chunk)
        if text:
            yield text


def _framed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks, the first long enough for any byte order mark, and an empty one that tells the end."""
    beginning = b""
    while len(beginning) < 4 and (chunk := next(chunks, b"")):
        beginning += chunk
    if beginning:
        yield beginning
    yield from chunks
    yield b""


def text_lines(chunks: Iterable[str], limit: int) -> Iterator[tuple[int, str | None]]:
    """Yield (line number from 1, line without its end); None stands for a line of more than ``limit`` characters."""
    number, length = 1, 0
    held: list[str] = []
    for chunk in chunks:
        *ended, rest = chunk.split("\n")
        for piece in ended:
            yield number, "".join((*held, piece)) if length + len(piece) <= limit else None
            held.clear()
            number, length = number + 1, 0
        length += len(rest)
        if length <= limit:
            held.append(rest)
        else:
            held.clear()
    if length:
        yield number, "".join(held) if length <= limit else None


def check_encoding(encoding: str) -> None:
    """Refuse a name that is no text encoding.

    Raises:
        ConfigError: Python knows no text encoding of this name.
    """
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        fix = "Common ones: utf-8, gb18030, big5, shift_jis, latin-1, utf-16-le."
        raise ConfigError("The encoding is unknown.", got=repr(encoding), fix=fix) from None
