"""What is left of a zip archive whose directory, which is written last, is missing: members found by their headers."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

SIGNATURE = b"PK\x03\x04"
HEADER = struct.Struct("<4s5H3L2H")  # APPNOTE.TXT 4.3.7
SIZES_FOLLOW, UTF8_NAME = 0x8, 0x800
UNKNOWN = 0xFFFFFFFF  # the true size is in an extension
PIECE = 1 << 16


class Salvaged:
    """Stands for a :class:`zipfile.ZipFile`, as far as reading members goes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def infolist(self) -> Iterator[zipfile.ZipInfo]:
        """The members one after the other, the last of them perhaps cut short."""
        at = 0
        while (at := self._find(at)) >= 0:
            header = self._read(at, HEADER.size)
            if len(header) < HEADER.size:
                return
            _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = HEADER.unpack(header)
            name = self._read(at + HEADER.size, name_length)
            info = zipfile.ZipInfo(name.decode("utf-8" if flags & UTF8_NAME else "cp437", "replace"))
            info.flag_bits, info.compress_type, info.CRC = flags, method, crc
            info.header_offset = at + HEADER.size + name_length + extra_length  # here: where the data begin
            info.compress_size, info.file_size = packed, size
            yield info
            at = self._end(info)

    def open(self, info: zipfile.ZipInfo) -> Piece:
        """The bytes of a member."""
        return Piece(self._file, info)

    def _find(self, at: int) -> int:
        while window := self._read(at, PIECE):
            if (found := window.find(SIGNATURE)) >= 0:
                return at + found
            at += max(1, len(window) - len(SIGNATURE) + 1)
        return -1

    def _end(self, info: zipfile.ZipInfo) -> int:
        if not info.flag_bits & SIZES_FOLLOW and info.compress_size != UNKNOWN:
            return info.header_offset + info.compress_size
        piece = self.open(info)
        try:
            while piece.read1(PIECE):
                pass
        except (EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError):
            pass
        return max(piece.at, info.header_offset)

    def _read(self, at: int, size: int) -> bytes:
        self._file.seek(at)
        return self._file.read(size)


class Piece:
    """The decompressed bytes of one member; ``at`` is where in the file it stands."""

    def __init__(self, file: BinaryIO, info: zipfile.ZipInfo) -> None:
        self.at = info.header_offset
        self._file, self._info = file, info
        self._inflate, self._crc = zlib.decompressobj(-zlib.MAX_WBITS), 0

    def read1(self, size: int) -> bytes:
        """Return some bytes, at most ``size``, ``b""`` at the end.

        Raises:
            EOFError: the file ends before the member does.
            zlib.error, zipfile.BadZipFile, NotImplementedError: it is damaged, or compressed in a rare way.
        """
        if self._info.compress_type == zipfile.ZIP_DEFLATED:
            data = self._inflated(size)
        elif self._info.compress_type == zipfile.ZIP_STORED and not self._info.flag_bits & SIZES_FOLLOW:
            left = self._info.header_offset + self._info.compress_size - self.at
            data = self._taken(min(size, left)) if left else b""
        else:
            raise NotImplementedError("a compression that only a whole archive explains")
        self._crc = zlib.crc32(data, self._crc)
        if not data and not self._info.flag_bits & SIZES_FOLLOW and self._crc != self._info.CRC:
            raise zipfile.BadZipFile("wrong checksum")
        return data

    def _inflated(self, size: int) -> bytes:
        data = b""
        while not data and not self._inflate.eof:
            taken = self._inflate.unconsumed_tail or self._taken(PIECE)
            data = self._inflate.decompress(taken, size)
            self.at -= len(self._inflate.unused_data) if self._inflate.eof else 0
        return data

    def _taken(self, size: int) -> bytes:
        self._file.seek(self.at)
        data = self._file.read(size)
        self.at += len(data)
        if not data:
            raise EOFError
        return data
