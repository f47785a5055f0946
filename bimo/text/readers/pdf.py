"""PDF: the text layer, page by page (pypdfium2)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from bimo.text.decode import ByteStream, Unreadable, seekable
from bimo.text.readers.record import Bad, Options, Record, iso_time, with_newlines
from bimo.text.readers.sections import apart, sections
from bimo.text.readers.streams import damage_reported

PAGE_BREAK = "\n\f"  # as other tools write it; a step that drops control characters leaves a line end
NO_TEXT_LAYER = "no text layer: a scan or drawing, which OCR could read first"
WRONG_PASSWORD, UNKNOWN_PROTECTION = 4, 5
DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:Z|([+-]\d\d)'?(\d\d)?)?")


def read_pdf(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The pages as one document, a form feed before each but the first; pages without a text layer are reported.

    Lines end as on the page, and a word may be hyphenated at their ends. Memory: a page at a time, and of the file what
    PDFium keeps; a stream packed into a page may unpack to 1 GB in it.

    Raises:
        Unreadable: it is damaged, or its owner has protected it by a password.
    """
    try:
        import pypdfium2
    except ImportError:
        raise Unreadable("reading it needs pypdfium2: pip install 'bimo[text]'") from None
    with seekable(stream) as file:
        try:
            pdf = pypdfium2.PdfDocument(file)
        except pypdfium2.PdfiumError as cause:
            if cause.err_code == WRONG_PASSWORD:
                raise Unreadable("protected by a password: save a copy without one") from None
            if cause.err_code == UNKNOWN_PROTECTION:
                raise Unreadable("protected in a way that cannot be undone: save a copy without protection") from None
            raise Unreadable("damaged PDF file, or none") from None
        try:
            yield from sections(apart(_pages(pdf), PAGE_BREAK), time=_time(pdf))
        finally:
            pdf.close()


def _pages(pdf: Any) -> Iterator[str | Bad]:
    for number in range(len(pdf)):
        where = f"page {number + 1}"
        try:
            with damage_reported("page"):
                text = _page_text(pdf, number)
        except Unreadable as cause:
            yield Bad(where, str(cause))
            continue
        yield Bad(where, NO_TEXT_LAYER) if text is None else text


def _page_text(pdf: Any, number: int) -> str | None:
    """The text of a page; None where it shows something that is no text."""
    page = pdf[number]
    try:
        found = page.get_textpage()
        # PDFium puts a mark for the hyphen at the end of a line, and joins the line with the next.
        text: str = found.get_text_bounded().replace("\x02", "-\n").replace("\ufffe", "-\n")
        found.close()
        blank = not text.strip()
        return None if blank and next(page.get_objects(max_depth=1), None) is not None else with_newlines(text)
    finally:
        page.close()


def _time(pdf: Any) -> str:
    """When the file says that it was made, a string such as ``D:20240131235959+08'00'``."""
    found = DATE.match(pdf.get_metadata_value("CreationDate"))
    if not found:
        return ""
    year, month, day, hour, minute, second, zone_hours, zone_minutes = found.groups()
    zone = f"{zone_hours}:{zone_minutes or '00'}" if zone_hours else "+00:00"
    written = f"{year}-{month or '01'}-{day or '01'}T{hour or '00'}:{minute or '00'}:{second or '00'}{zone}"
    try:
        return iso_time(datetime.fromisoformat(written))
    except ValueError:
        return ""
