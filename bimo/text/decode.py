"""Bytes of a file, compressed or not, become decoded chunks of text; memory stays bounded whatever the file holds."""

from __future__ import annotations

import codecs
import io
import re
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol, cast

from bimo.errors import ConfigError
from bimo.text.encodings import FEW_BAD, MOST_BAD, NotText, detect

CHUNK = 1 << 18
FIRST = 1 << 15  # bytes that are asked for first: most files have fewer, and memory for many is slow to get
COMPRESSED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
EXPANSION = 200  # text compresses 3 to 20 times, logs up to 100; deflate can 1,000, bzip2 a million
EXPANSION_FREE = 1 << 28  # bytes that may come out whatever went in
SPOOL_MEMORY, SPOOL_DISK = 1 << 24, 1 << 33
WRONG_SUM = ("CRC check failed", "Incorrect length of data")  # what gzip says once it has given all
AUTO = "auto"
WRONG = "\ufffd"
LINE_END = re.compile(rb"\r\n?|\n")
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Unreadable(Exception):
    """The rest of a file gives no text, for the reason in the message; the source turns it into a ``Skipped``."""


class CutShort(Unreadable):
    """The rest of a file is missing: what was read until here is text; ``note`` says so to the ledger."""

    def __init__(self, reason: str, note: str = "the rest is missing") -> None:
        super().__init__(reason)
        self.note = note


class ByteStream(Protocol):
    """All that the readers need of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, perhaps fewer; ``b""`` at the end."""
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


class Decompressed:
    """The bytes behind a compression, as long as they are not suspiciously many."""

    def __init__(self, raw: ByteStream, suffix: str) -> None:
        self._raw, self._taken, self._given = raw, 0, 0
        self._damage: type[Exception] = OSError
        counted = cast(BinaryIO, _Calling(self._count))
        if suffix == ".zst":
            self._read = ZstdStream(counted).read
        elif suffix == ".gz":
            import gzip

            self._read = gzip.GzipFile(fileobj=counted).read1  # unlike read, it loses nothing before an error
        elif suffix == ".bz2":
            import bz2

            self._read = bz2.BZ2File(counted).read1
        else:
            import lzma

            self._damage = lzma.LZMAError
            self._read = lzma.LZMAFile(counted).read1  # noqa: SIM115 (the file is not ours to close)

    def _count(self, size: int) -> bytes:
        data = self._raw.read(size)
        self._taken += len(data)
        return data

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` decompressed bytes, ``b""`` at the end.

        Raises:
            EOFError: the file ends too early.
            OSError: the bytes are not of this format.
            CutShort: what follows is damaged or not of this format, or a checksum is wrong.
            Unreadable: they expand beyond reason.
        """
        try:
            data = self._read(size if size >= 0 else CHUNK)
        except (self._damage, zlib.error) as cause:
            if not self._given:
                raise OSError(str(cause)) from None
            if "Not a gzipped file" in str(cause):
                raise CutShort("followed by bytes that are not compressed") from None
            if str(cause).startswith(WRONG_SUM):
                raise CutShort("damaged: its checksum is wrong", "the checksum of the file is wrong") from None
            raise CutShort(f"damaged: {cause}", "the rest is damaged") from None
        self._given += len(data)
        if self._given > EXPANSION_FREE + EXPANSION * self._taken:
            raise Unreadable(f"a decompression bomb: it expands more than {EXPANSION} times")
        return data


class _Calling:
    """A file that reads by calling a function."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


def decompressed(raw: ByteStream, suffix: str) -> ByteStream:
    """The bytes behind one of ``COMPRESSED_SUFFIXES``; any other suffix gives ``raw`` itself."""
    return Decompressed(raw, suffix) if suffix in COMPRESSED_SUFFIXES else raw


def byte_chunks(stream: ByteStream) -> Iterator[bytes]:
    """Yield the bytes of a stream.

    Raises:
        CutShort: the compressed bytes end too early.
        Unreadable: they are damaged, or the disk cannot be read.
    """
    size = first = min(FIRST, CHUNK)
    while True:
        try:
            chunk = stream.read(size)
        except EOFError:
            raise CutShort("cut short: the compressed data end too early") from None
        except (OSError, zlib.error) as cause:
            raise Unreadable(f"damaged or unreadable: {cause}") from None
        if not chunk:
            return
        yield chunk
        if len(chunk) == size:
            size = (CHUNK - first if size == first else CHUNK) or CHUNK


@contextmanager
def seekable(stream: ByteStream) -> Iterator[BinaryIO]:
    """The same bytes in a file that can be read from anywhere: itself, or a temporary copy in memory or on disk.

    Raises:
        Unreadable: the stream is damaged, or larger than 8 GB where it has to be copied.
    """
    if isinstance(stream, (io.BufferedReader, io.BytesIO)) and stream.seekable():
        yield cast(BinaryIO, stream)
        return
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY) as file:
        for chunk in byte_chunks(stream):
            file.write(chunk)
            if file.tell() > SPOOL_DISK:
                raise Unreadable(f"larger than {SPOOL_DISK >> 30} GB: decompress or unpack it first")
        file.seek(0)
        yield cast(BinaryIO, file)


class Decoded:
    """An iterator over the decoded pieces of a stream, which can say what had to be done to them.

    Attributes:
        line_starts: where each line begins, in bytes, of those that were not taken from here yet; empty where a line
            end is more than a byte.
    """

    def __init__(self, stream: ByteStream, encoding: str, *, lines: bool = False) -> None:
        self.line_starts: deque[int] = deque([0] if lines else [])
        self._lines, self._returned = lines, False
        self._strict = encoding != AUTO
        self._encoding, self._decoder, self._detected = encoding, codecs.getincrementaldecoder("ascii")(), ""
        self._chosen, self._fed = False, 0
        self._wrong, self._recent = 0.0, 0.0  # undecodable places and characters, the older the less they count
        self._pieces = self._decode(stream)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def notes(self, text: str) -> tuple[str, ...]:
        """What was done to ``text``, which is a part of what was decoded."""
        notes = [f"decoded as {self._detected}"] if self._detected else []
        if self._wrong and (count := text.count(WRONG)):
            notes.append(f"undecodable places replaced: {count}")
        return tuple(notes)

    def _decode(self, stream: ByteStream) -> Iterator[str]:
        newlines = io.IncrementalNewlineDecoder(None, translate=True)
        for block, last in _blocks(stream):
            if not self._chosen:
                self._choose(block, last)
            text = self._exact(block, last) if self._strict else self._tolerant(block, last)
            if self._lines:
                self._find_lines(block)
            self._fed += len(block)
            if text := newlines.decode(text, last):
                yield text

    def _find_lines(self, block: bytes) -> None:
        begin = int(self._returned and block.startswith(b"\n"))
        if begin:  # the line end was cut in two
            self.line_starts[-1] += 1
        self.line_starts.extend(self._fed + end for end in _line_ends(block, begin))
        self._returned = block.endswith(b"\r") if block else self._returned

    def _choose(self, block: bytes, last: bool) -> None:
        """Set the decoder; while everything is ASCII, the choice can wait."""
        marked = "" if self._fed else next((name for mark, name in BYTE_ORDER_MARKS if block.startswith(mark)), "")
        if not self._strict and not marked:
            if self._fed:
                block = block.replace(b"\0", b"")  # a hole in a text, as its beginning is one
            if block.isascii() and b"\0" not in block and b"\x1b$" not in block:
                return
            try:
                name = detect(block, first=not self._fed, last=last)
            except NotText:
                raise Unreadable("binary file") from None
            if name is None:
                raise Unreadable("its encoding cannot be told: convert it or pass --encoding, such as gb18030")
        else:
            name = marked or self._encoding
        if codecs.lookup(name).name == "utf-8":
            name = "utf-8-sig" if not self._fed else "utf-8"
        elif not self._strict and not name.startswith("utf-8"):
            self._detected = name
        self._encoding, self._chosen = name, True
        if not name.startswith("utf-8") and "\n".encode(name) != b"\n":
            self._lines, self.line_starts = False, deque()
        self._decoder = codecs.getincrementaldecoder(name)("strict" if self._strict else "replace")

    def _exact(self, block: bytes, last: bool) -> str:
        wide = codecs.lookup(self._encoding).name.startswith(("utf-16", "utf-32"))
        try:
            text = self._decoder.decode(block, last)
        except UnicodeDecodeError as cause:
            offset = self._fed - (len(cause.object) - len(block)) + cause.start
            found = f"byte 0x{cause.object[cause.start]:02x} at offset {offset}"
            named = "UTF-8" if self._encoding.startswith("utf-8") else self._encoding
            raise Unreadable(f"not {named} ({found}): convert it, or pass another --encoding or auto") from None
        if ("\0" in text) if wide else (b"\0" in block):
            raise Unreadable("binary file")
        return text

    def _tolerant(self, block: bytes, last: bool) -> str:
        text = self._decoder.decode(block, last)
        wrong = text.count(WRONG)
        if wrong and self._encoding.startswith("utf-8"):
            wrong -= min(wrong, block.count(WRONG.encode()))
        if "\0" in text:  # such as the holes that a crash leaves in a log
            text, holes = re.subn("\0+", WRONG, text)
            wrong += holes
        self._wrong, self._recent = self._wrong / 2 + wrong, self._recent / 2 + len(text)
        if self._wrong > FEW_BAD + MOST_BAD * self._recent:
            near = f"near offset {self._fed}" if self._fed else "at its beginning"
            named = "UTF-8" if self._encoding.startswith("utf-8") else self._encoding
            raise Unreadable(f"damaged, or in several encodings: too many bytes {near} are not {named}")
        return text


def text_chunks(stream: ByteStream, encoding: str, *, lines: bool = False) -> Decoded:
    """Decode a stream, with every line end made a newline and a byte order mark obeyed and dropped.

    With the encoding ``auto``, it is found out, and what cannot be decoded becomes U+FFFD as long as it is little.

    Args:
        lines: whether to find out where each line begins.

    Raises:
        Unreadable: the bytes are binary, or not in this encoding; the message says where. Raised while iterating.
    """
    return Decoded(stream, encoding, lines=lines)


def _line_ends(block: bytes, begin: int) -> Iterator[int]:
    """Where each line of a block ends, its end included."""
    if b"\r" in block:
        yield from (found.end() for found in LINE_END.finditer(block, begin))
        return
    while begin := block.find(b"\n", begin) + 1:  # ten times as fast
        yield begin


def _blocks(stream: ByteStream) -> Iterator[tuple[bytes, bool]]:
    """Blocks of at least ``CHUNK`` bytes, and whether the stream ends here; what precedes an error comes first."""
    held: list[bytes] = []
    chunks, problem = byte_chunks(stream), None
    while True:
        try:
            chunk = next(chunks, b"")
        except Unreadable as cause:
            chunk, problem = b"", cause
        held.append(chunk)
        if not chunk or sum(map(len, held)) >= CHUNK:
            yield b"".join(held), not chunk and not problem
            held.clear()
        if problem:
            raise problem
        if not chunk:
            return


def text_lines(chunks: Iterable[str], limit: int) -> Iterator[tuple[int, str | None]]:
    """Yield (line number from 1, line without its end); None stands for a line of more than ``limit`` characters."""
    number, length = 1, 0
    held: list[str] = []
    for chunk in chunks:
        *ended, rest = chunk.split("\n")
        for piece in ended:
            if length:
                length, piece = length + len(piece), "".join((*held, piece))
                held.clear()
            yield number, piece if max(length, len(piece)) <= limit else None
            number, length = number + 1, 0
        length += len(rest)
        if length <= limit:
            held.append(rest)
        else:
            held.clear()
    if length:
        yield number, "".join(held) if length <= limit else None


def check_encoding(encoding: str) -> None:
    """Refuse a name that is no text encoding and not ``auto``.

    Raises:
        ConfigError: Python knows no text encoding of this name.
    """
    try:
        _ = encoding == AUTO or "".encode(encoding)
    except (LookupError, ValueError):
        fix = "Common ones: utf-8, gb18030, big5, shift_jis, latin-1, utf-16-le."
        raise ConfigError("The encoding is unknown.", got=repr(encoding), fix=fix) from None
