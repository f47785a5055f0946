"""Archives: every member is read by its own reader, nested archives too. Nothing is unpacked to disk under its name.

A member's key is ``!path/in/archive`` and then its own key: ``mail.zip!inner.tar.gz!a.jsonl:3``. A member that is
refused or damaged is a ``Bad`` record; the others are read all the same.
"""

from __future__ import annotations

import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from bimo.text.decode import CHUNK, EXPANSION, ByteStream, CutShort, Unreadable, decompressed, seekable
from bimo.text.encodings import NotText, detect
from bimo.text.readers.record import HIDDEN, Bad, Options, Record
from bimo.text.readers.salvage import Salvaged

DEPTH = 3  # archives within archives
MEMBERS = 1_000_000
MEMBER_FREE = 1 << 26  # bytes a member may have whatever its size in the archive
ARCHIVE_FREE = 1 << 30  # bytes all members may have together, whatever the size of the archive
LONGEST_HEADER = 1 << 20  # bytes of a name or an extended header in a tar
PIECE = 1 << 14  # what is lost of a member at most where a tar is cut
OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:|(?:.*[/\\])?\.\.(?:[/\\]|$)", re.DOTALL)
ENCRYPTED, UTF8_NAME = 0x1, 0x800  # flags of a zip member
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, OSError, NotImplementedError,
    ValueError, OverflowError, RuntimeError,
)  # fmt: skip


class Bomb(Unreadable):
    """All members together expand beyond reason: the whole archive ends here."""


@dataclass
class Walk:
    """One archive and all within it: how many members and bytes we met."""

    options: Options
    taken: int = 0
    given: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)

    def give(self, count: int) -> None:
        """Count bytes of members.

        Raises:
            Bomb: they are too many for the size of the archive.
        """
        self.given += count
        if self.given > ARCHIVE_FREE + EXPANSION * self.taken:
            raise Bomb(f"an archive bomb: it expands more than {EXPANSION} times")

    def hide(self, key: str) -> Iterator[Bad]:
        """Report a hidden file or folder, once.

        Raises:
            Bomb: there are too many members.
        """
        if key not in self.hidden:
            self.hidden.add(self.meet(key))
            yield Bad(key[1:], HIDDEN)

    def meet(self, key: str) -> str:
        """The key, made unique where an archive has two members of one name.

        Raises:
            Bomb: there are too many members.
        """
        if len(self.seen) >= MEMBERS:
            raise Bomb(f"more than {MEMBERS:,} members: unpack it first")
        self.seen[key] = self.seen.get(key, 0) + 1
        return key if self.seen[key] == 1 else self.meet(f"{key}~{self.seen[key]}")


@dataclass(frozen=True)
class Place:
    """An archive within archives: how its members' keys begin, and how deep it is."""

    key: str = ""
    depth: int = 1


class Counted:
    """A stream whose bytes count as taken."""

    def __init__(self, stream: ByteStream, walk: Walk) -> None:
        self._stream, self._walk = stream, walk

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, ``b""`` at the end."""
        data = self._stream.read(size)
        self._walk.taken += len(data)
        return data


class Member:
    """The bytes of one member, opened when they are needed, with its errors made ours and its size watched."""

    def __init__(self, archive: Any, info: Any, packed: int, walk: Walk) -> None:
        self._archive, self._info, self._walk = archive, info, walk
        self._file: Any = None
        self._left = MEMBER_FREE + EXPANSION * packed

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, ``b""`` at the end.

        Raises:
            Unreadable: the member is damaged, cut short or a bomb.
        """
        try:
            data = self._read(size if size >= 0 else CHUNK)
        except (EOFError, tarfile.ReadError):
            raise CutShort("cut short: the archive ends too early") from None
        except DAMAGE as cause:
            raise Unreadable(f"damaged: {cause}") from None
        self._left -= len(data)
        if self._left < 0:
            raise Unreadable(f"a decompression bomb: it expands more than {EXPANSION} times")
        self._walk.give(len(data))
        return data

    def _read(self, size: int) -> bytes:
        if self._file is None:
            of_tar = isinstance(self._archive, tarfile.TarFile)
            self._file = (self._archive.extractfile if of_tar else self._archive.open)(self._info)
        # read1 loses nothing before an error.
        return cast(bytes, self._file.read1(min(size, PIECE)))


def read_zip(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The members of a zip archive."""
    with seekable(stream) as file:
        yield from _zip(file, Walk(options, taken=file.seek(0, io.SEEK_END)), Place())


def read_tar(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The members of a tar archive, in one pass."""
    walk = Walk(options)
    yield from _tar(Counted(stream, walk), walk, Place())


def _zip(file: BinaryIO, walk: Walk, place: Place) -> Iterator[Record]:
    archive: zipfile.ZipFile | Salvaged
    members, damage = 0, ""
    try:
        archive = zipfile.ZipFile(file)
    except DAMAGE as cause:
        archive, damage = Salvaged(file), str(cause)
    size = file.seek(0, io.SEEK_END)
    for info in archive.infolist():
        members += 1
        if info.filename.endswith("/"):  # is_dir fails on an empty name
            continue
        name = info.filename if info.flag_bits & UTF8_NAME else _name(info.filename.encode("cp437", "replace"))
        mode = stat.S_IFMT(info.external_attr >> 16)
        refused = ""
        if info.flag_bits & ENCRYPTED:
            refused = "encrypted: unpack it with its password first"
        elif mode not in (0, stat.S_IFREG):
            refused = "a link" if mode == stat.S_IFLNK else "not a regular file"
        member = Member(archive, info, min(info.compress_size, size), walk)
        yield from _member(name, member, refused, walk, place)
    if isinstance(archive, Salvaged):
        if not members:
            raise Unreadable(f"damaged or no zip archive: {damage}")
        raise CutShort("cut short: the directory at the end of the archive is missing")


class _Header(tarfile.TarInfo):
    """A header of a tar that reports damage, over which the library would pass in silence."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tarfile)
        except InvalidHeader:
            cast(_Tar, tarfile).broken = True
            raise

    def _proc_member(self, tarfile: tarfile.TarFile) -> Any:
        if self.type not in REGULAR and self.size > LONGEST_HEADER:
            raise ValueError(f"a header of {self.size:,} bytes")
        return super()._proc_member(tarfile)  # type: ignore[misc]


class _Tar(tarfile.TarFile):
    tarinfo = _Header
    broken = False


DAMAGED_HEADER = "a damaged header in the archive: members may be missing"
InvalidHeader = tarfile.InvalidHeaderError  # type: ignore[attr-defined]
REGULAR = (*tarfile.REGULAR_TYPES, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE)


def _tar(stream: ByteStream, walk: Walk, place: Place) -> Iterator[Record]:
    archive: _Tar | None = None
    for archive, info in _headers(stream):
        if archive.broken:
            yield Bad(place.key[1:], DAMAGED_HEADER)
        archive.broken = False
        if info.isdir():
            continue
        refused = "" if info.isreg() else "a link" if info.issym() or info.islnk() else "not a regular file"
        name = _name(info.name.encode("utf-8", "surrogateescape"))
        yield from _member(name, Member(archive, info, info.size, walk), refused, walk, place)
    if archive is not None and archive.broken:
        yield Bad(place.key[1:], DAMAGED_HEADER)


def _headers(stream: ByteStream) -> Iterator[tuple[_Tar, tarfile.TarInfo]]:
    try:
        # Zeros are ignored so that members after a damaged header, or after the end of a first tar, are found.
        archive = _Tar.open(fileobj=cast(BinaryIO, stream), mode="r|", bufsize=CHUNK, ignore_zeros=True)
        info = archive.firstmember  # type: ignore[attr-defined]  # after its end, a stream cannot be asked again
        if info is None and archive.broken:
            raise Unreadable("not a tar archive")
        while info is not None and (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # they would all be kept
            yield archive, info
    except (EOFError, tarfile.ReadError):
        raise CutShort("cut short: the archive ends too early") from None
    except DAMAGE as cause:
        raise Unreadable(f"damaged: {cause}") from None


def _member(name: str, stream: ByteStream, refused: str, walk: Walk, place: Place) -> Iterator[Record]:
    """The records of one member, or why there are none."""
    from bimo.text.readers import READERS, kind_of, suffixes_of

    outside = OUTSIDE.match(name)
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    hidden = next((at for at, part in enumerate(parts, 1) if part.startswith(".") or part == "__MACOSX"), 0)
    if hidden and not outside:
        where = "/".join(parts[:hidden]) + ("/" if hidden < len(parts) else "")
        yield from walk.hide(f"{place.key}!{where}")
        return
    key = walk.meet(f"{place.key}!{name if outside else '/'.join(parts)}")
    suffix, compression = suffixes_of(name)
    nested = {".zip": _nested_zip, ".tar": _tar}.get(suffix)
    if outside:
        yield Bad(key[1:], "a name that leads out of the archive")
    elif refused:
        yield Bad(key[1:], refused)
    elif suffix not in READERS:
        yield Bad(key[1:], f"unknown suffix {suffix}{compression}")
    elif nested and place.depth == DEPTH:
        yield Bad(key[1:], f"archives nested more than {DEPTH} deep")
    else:
        try:
            bytes_of = decompressed(stream, compression)
            if nested:
                yield from nested(bytes_of, walk, Place(key, place.depth + 1))
            else:
                for record in READERS[suffix](bytes_of, walk.options):
                    if isinstance(record, Bad):
                        yield Bad(f"{key[1:]} {record.where}".rstrip(), record.reason)
                    else:
                        yield record._replace(key=key + record.key, kind=record.kind or kind_of(name))
        except Bomb:
            raise
        except Unreadable as cause:
            yield Bad(key[1:], str(cause))


def _nested_zip(stream: ByteStream, walk: Walk, place: Place) -> Iterator[Record]:
    with seekable(stream) as file:
        yield from _zip(file, walk, place)


def _name(raw: bytes) -> str:
    """The name of a member that does not say its encoding: archives made in China are full of GB18030."""
    try:
        encoding = detect(raw, first=False, last=True) or "utf-8"
    except NotText:
        encoding = "utf-8"
    return raw.decode(encoding, "backslashreplace")
