"""Web archives: the pages in WARC files, and the texts in WET files (fastwarc)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

from bimo.text.decode import ByteStream, Unreadable, byte_chunks
from bimo.text.readers.charset import decoded
from bimo.text.readers.record import Bad, Options, Record, Text, iso_time, with_newlines
from bimo.text.readers.streams import RECORD_BYTES
from bimo.text.readers.web import declared_charset, page_text

if TYPE_CHECKING:
    from fastwarc.warc import WarcRecord

PAGES = ("text/html", "application/xhtml+xml")
PLAIN = "text/plain"


def read_warc(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The pages and plain texts that servers sent with success, one document a record.

    Keys are ``:number!address``, as an archive may hold a page more than once. Requests and other records without
    content mean nothing; a page of more than 64 MB, packed or not, is left out. Memory: a record, and about eight
    times its page.

    Raises:
        Unreadable: it is damaged, or no archive.
    """
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    content = (WarcRecordType.response, WarcRecordType.resource, WarcRecordType.conversion)
    number, given = 0, 0
    try:
        records = ArchiveIterator(cast(BinaryIO, _Counted(stream)), parse_http=False, stream_detect=False)
        for number, record in enumerate(records, 1):
            if record.record_type in content:
                given += 1
                yield _page(number, record, options)
    except OSError as cause:
        raise Unreadable(f"damaged WARC file: {str(cause)[:200]}") from None
    if not given:
        raise Unreadable("no pages in it" if number else "no WARC records in it")


def _page(number: int, record: WarcRecord, options: Options) -> Record:
    address = record.headers.get("WARC-Target-URI") or ""
    where = address or f"record {number}"
    if record.content_length > RECORD_BYTES:
        return Bad(where, "larger than 64 MB")
    kind, charset = (record.headers.get("Content-Type") or "").partition(";")[0].strip().lower(), None
    data = record.reader.read(record.content_length)
    if len(data) < record.content_length:
        return Bad(where, "cut short: the file ends inside it")
    try:
        if record.is_http:
            answer = _answer(data)
            if answer.http_headers is None or answer.http_headers.status_code not in range(200, 300):
                return Bad(where, "the server sent an error or a redirection, not a page")
            kind, charset = (answer.http_content_type or "").lower(), answer.http_charset
            data = answer.reader.read(RECORD_BYTES + 1) if kind in (*PAGES, PLAIN) else b""
        if kind not in (*PAGES, PLAIN):
            return Bad(where, "neither HTML nor plain text")
    except OSError as cause:
        return Bad(where, f"damaged HTTP response: {str(cause)[:60]}")
    if len(data) > RECORD_BYTES:
        return Bad(where, "larger than 64 MB")
    text, notes = decoded(data, charset, declared_charset(data) if kind in PAGES else None, options.encoding)
    try:
        text = page_text(text) if kind in PAGES else with_newlines(text)
    except Unreadable as cause:
        return Bad(where, str(cause))
    return Text(f":{number}!{address}", text, "web", iso_time(record.record_date), notes)


def _answer(data: bytes) -> WarcRecord:
    """An HTTP response, alone in an archive of its own: a damaged one would end the reading of all after it."""
    from fastwarc.warc import ArchiveIterator

    header = f"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\nContent-Length: {len(data)}\r\n\r\n"
    return next(ArchiveIterator(io.BytesIO(header.encode() + data), auto_decode="all", stream_detect=False))


class _Counted:
    """The stream as fastwarc wants it: it also asks for the position."""

    def __init__(self, stream: ByteStream) -> None:
        self._chunks, self._left, self._position = byte_chunks(stream), b"", 0

    def read(self, size: int = -1, /) -> bytes:
        left = self._left or next(self._chunks, b"")
        size = len(left) if size < 0 else size
        given, self._left = left[:size], left[size:]
        self._position += len(given)
        return given

    def tell(self) -> int:
        return self._position
