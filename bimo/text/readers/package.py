"""Formats that are a zip file of XML inside: what they may unpack to is known before anything is unpacked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast
from xml.etree import ElementTree
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from bimo.text.decode import CHUNK, ByteStream, Unreadable, seekable
from bimo.text.readers.streams import DAMAGE, RECORD_BYTES, damage_reported

MOST_MEMBERS = 20_000
TOTAL_BYTES = 1 << 27
ROW_BYTES = 1 << 24
OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
MEDIA = ("/media/", "/embeddings/", "/fonts/")  # pictures, films, sheets behind diagrams: no text of the document


@contextmanager
def open_package(stream: ByteStream, what: str, *, streamed: str = "\0") -> Iterator[ZipFile]:
    """The zip file, once its directory says nothing excessive: 64 MB a member, 128 MB of all, media not counted.

    A member that unpacks to more than is declared ends in an error, not in more memory, where it is read in pieces, as
    the functions here do.

    Args:
        what: names the format in errors: ``"Word file"``.
        streamed: members with this beginning are read piece by piece: of them 4 GB are allowed.

    Raises:
        Unreadable: it is no zip file, damaged, encrypted, or a bomb.
    """
    with seekable(stream) as file:
        if file.read(len(OLD_OFFICE)) == OLD_OFFICE:
            raise Unreadable(
                "protected by a password, or in a format of before 2007: save a copy without, or a newer one"
            )
        try:
            package = ZipFile(file)
        except DAMAGE:
            raise Unreadable(f"damaged {what}, or none") from None
        with package:
            _check_sizes(package, what, streamed)
            yield package


def _check_sizes(package: ZipFile, what: str, streamed: str) -> None:
    members = [member for member in package.infolist() if not is_media(member.filename)]
    if len(members) > MOST_MEMBERS:
        raise Unreadable(f"{len(members)} files inside, at most {MOST_MEMBERS} are read")
    if any(member.flag_bits & 1 for member in members):
        raise Unreadable("protected by a password: save a copy without one")
    if not members:
        raise Unreadable(f"no {what}: there is nothing in it")
    if any(member.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for member in members):
        raise Unreadable(f"damaged {what}: packed in a way that the format does not allow")
    held = [member for member in members if not member.filename.startswith(streamed)]
    for member in held:
        if member.file_size > RECORD_BYTES:
            raise Unreadable(f"a zip bomb, or too large: {member.filename[:80]!r} inside unpacks to more than 64 MB")
    if sum(member.file_size for member in held) > TOTAL_BYTES:
        raise Unreadable("a zip bomb, or too large: it unpacks to more than 128 MB, pictures not counted")
    if sum(member.file_size for member in members) > 1 << 32:
        raise Unreadable("a zip bomb, or too large: it unpacks to more than 4 GB")


def is_media(name: str) -> bool:
    """Whether a member is a picture or the like."""
    return any(part in name for part in MEDIA)


@contextmanager
def without_media(package: ZipFile, *, row: bytes = b"") -> Iterator[BinaryIO]:
    """A copy of the package whose media are empty and whose sizes are true, for libraries that rely on it.

    Args:
        row: what begins a row in a member of more than 64 MB, which is parsed row by row.

    Raises:
        BadZipFile: a member is damaged.
        Unreadable: a row has more than 16 MB.
    """
    with tempfile.TemporaryFile() as file:
        with ZipFile(file, "w") as copy:
            for name in dict.fromkeys(package.namelist()):
                rowless = 0
                with copy.open(name, "w", force_zip64=True) as member:
                    for piece in () if is_media(name) else _pieces(package, name):
                        rowless = 0 if row in piece else rowless + len(piece)
                        if rowless > ROW_BYTES and package.getinfo(name).file_size > RECORD_BYTES:
                            raise Unreadable("a zip bomb, or too large: a row inside has more than 16 MB")
                        member.write(piece)
        file.seek(0)
        yield cast(BinaryIO, file)


def read_member(package: ZipFile, name: str) -> bytes | None:
    """The bytes of a member; None where there is none of this name.

    Raises:
        Unreadable: it is damaged, or larger than 64 MB.
    """
    try:
        if package.getinfo(name).file_size > RECORD_BYTES:
            raise Unreadable("larger than 64 MB")
    except KeyError:
        return None
    with damage_reported("file inside"):
        return b"".join(_pieces(package, name))


def read_xml(package: ZipFile, name: str, what: str) -> ElementTree.Element:
    """The root of a member that is XML; expat, which parses it, limits what entities grow to.

    Raises:
        Unreadable: there is none of this name, or it is damaged; ``what`` names the format.
    """
    data = read_member(package, name)
    if data is None:
        raise Unreadable(f"damaged {what}, or none: no {name[:100]} in it")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as cause:
        raise Unreadable(f"damaged {what}: {name[:100]}: {cause}") from None


def _pieces(package: ZipFile, name: str) -> Iterator[bytes]:
    """The bytes of a member: read at once, zipfile would unpack it whole before it looks at the declared size."""
    with package.open(name) as member:
        while piece := member.read(CHUNK):
            yield piece
