"""Texts of LibreOffice and OpenOffice (OpenDocument 1.3, ISO/IEC 26300): a zip file with ``content.xml``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from bimo.text.decode import ByteStream, Unreadable
from bimo.text.readers.package import open_package, read_member, read_xml
from bimo.text.readers.record import Options, Record
from bimo.text.readers.sections import joined_blocks, sections
from bimo.text.readers.streams import damage_reported

WHAT = "OpenDocument text"
NAMES = "{urn:oasis:names:tc:opendocument:xmlns:%s:1.0}"
OFFICE, TEXT, TABLE = NAMES % "office", NAMES % "text", NAMES % "table"
BLOCKS = (f"{TEXT}p", f"{TEXT}h")
# What was deleted, comments, readings over Chinese characters, the numbers of notes, tables of contents.
SKIPPED = {f"{TEXT}{name}" for name in ("tracked-changes", "ruby-text", "note-citation", "table-of-content")} | {
    f"{OFFICE}annotation",
    f"{OFFICE}forms",
    *(f"{NAMES % 'svg-compatible'}{name}" for name in ("title", "desc")),  # of pictures
}
MARKS = {f"{TEXT}tab": "\t", f"{TEXT}line-break": "\n"}
MOST_SPACES = 1000  # of one element
DATE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d*)?Z?")


def read_odt(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The paragraphs, headings, lists and tables of a text in their order, then its footnotes and endnotes.

    Headers, footers and comments are left out, tracked changes taken as accepted. Memory: about ten times the XML,
    which may have 64 MB.
    """
    with open_package(stream, WHAT) as package, damage_reported(WHAT):
        if b"encryption-data" in (read_member(package, "META-INF/manifest.xml") or b""):
            raise Unreadable("protected by a password: save a copy without one")
        body = read_xml(package, "content.xml", WHAT).find(f"{OFFICE}body/{OFFICE}text")
        if body is None:
            raise Unreadable(f"no {WHAT}: it has another kind of content")
        notes: list[Element] = []
        yield from sections(joined_blocks(_with_notes(body, notes)), time=_written(read_member(package, "meta.xml")))


def _written(meta: bytes | None) -> str:
    """When it was last changed."""
    found = re.search(rb"<\w+:date\b[^>]*>([^<]*)<", meta or b"")
    moment = DATE.fullmatch(found[1].decode("ascii", "replace").strip()) if found else None
    return f"{moment[1]}Z" if moment else ""


def _with_notes(body: Element, notes: list[Element]) -> Iterator[tuple[str, bool]]:
    yield from _blocks(body, notes)
    for note in notes:  # grows no more, as notes hold no notes
        yield from _blocks(note, [])


def _blocks(parent: Element, notes: list[Element], item: bool = False) -> Iterator[tuple[str, bool]]:
    """Each paragraph and table with its text, and whether it is in a list; from ``notes`` on, what is noted there."""
    for child in parent:
        if child.tag in BLOCKS:
            yield _inline(child, notes).strip("\n"), item
        elif child.tag == f"{TABLE}table":
            yield "\n".join(_rows(child, notes)), False
        elif child.tag not in SKIPPED:
            yield from _blocks(child, notes, item or child.tag == f"{TEXT}list")


def _rows(table: Element, notes: list[Element]) -> Iterator[str]:
    for child in table:
        if child.tag == f"{TABLE}table-row":
            cells = (cell for cell in child if cell.tag == f"{TABLE}table-cell")
            yield "\t".join(" ".join(" ".join(text for text, _ in _blocks(cell, notes)).split()) for cell in cells)
        elif child.tag not in SKIPPED:
            yield from _rows(child, notes)


def _inline(node: Element, notes: list[Element]) -> str:
    """The text of a paragraph; white space in the XML is one blank."""
    pieces = [_collapsed(node.text)]
    for child in node:
        if child.tag == f"{TEXT}s":
            pieces.append(" " * min(int(child.get(f"{TEXT}c", "1")), MOST_SPACES))
        elif child.tag in MARKS:
            pieces.append(MARKS[child.tag])
        elif child.tag == f"{TEXT}note":
            notes.extend(child.iterfind(f"{TEXT}note-body"))
        elif child.tag in BLOCKS:  # in a frame
            pieces.append(f"\n{_inline(child, notes)}\n")
        elif child.tag not in SKIPPED:
            pieces.append(_inline(child, notes))
        pieces.append(_collapsed(child.tail))
    return "".join(pieces)


def _collapsed(text: str | None) -> str:
    return re.sub(r"[ \t\r\n]+", " ", text or "")
