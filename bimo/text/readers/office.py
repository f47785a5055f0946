"""Word, PowerPoint and Excel files of 2007 and later (python-docx, python-pptx, openpyxl)."""

from __future__ import annotations

import datetime
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

from bimo.text.decode import ByteStream, Unreadable
from bimo.text.readers.columns import Columns
from bimo.text.readers.package import open_package, without_media
from bimo.text.readers.record import Bad, Options, Record, Text, iso_time, with_newlines
from bimo.text.readers.sections import apart, joined_blocks, sections
from bimo.text.readers.streams import damage_reported

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
MATH_TEXT = "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"
# Properties, what was deleted or moved away, readings over Chinese characters, and second copies for older versions.
SKIPPED = {f"{W}{name}" for name in ("pPr", "rPr", "tblPr", "tcPr", "trPr", "sectPr", "del", "moveFrom", "rt")} | {
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
}
MARKS = {f"{W}tab": "\t", f"{W}br": "\n", f"{W}cr": "\n", f"{W}noBreakHyphen": "-"}
MOST_ROWS, MOST_CELLS = 1 << 20, 1 << 27  # of a sheet: the first by the format, both to end the reading of a bomb


def read_docx(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The paragraphs and tables of a Word file in their order, then its footnotes and endnotes.

    A blank line between paragraphs, none between items of a list; a table as a line of tab-separated cells for each
    row. Headers, footers and comments are left out, tracked changes taken as accepted. Memory: about ten times the
    document's XML, which may have 64 MB.
    """
    try:
        import docx
        from docx.opc.exceptions import OpcError
    except ImportError:
        raise Unreadable("reading it needs python-docx: pip install 'bimo[text]'") from None
    with (
        open_package(stream, "Word file") as package,
        damage_reported("Word file", OpcError),
        without_media(package) as file,
    ):
        document = docx.Document(file)
        parts = document.part.rels.values()
        notes = [part.target_part for part in parts if part.reltype.endswith(("/footnotes", "/endnotes"))]
        pieces = itertools.chain(_blocks(document.element.body), *map(_notes, notes))
        written = document.core_properties
        yield from sections(joined_blocks(pieces), time=iso_time(written.modified or written.created))


def _blocks(parent: Any) -> Iterator[tuple[str, bool]]:
    """Each paragraph and table with its text, and whether it is an item of a list."""
    for child in parent:
        if child.tag == f"{W}p":
            style = child.find(f"{W}pPr/{W}pStyle")
            named = style is not None and style.get(f"{W}val", "").startswith("List")
            yield _inline(child).strip("\n"), named or child.find(f"{W}pPr/{W}numPr") is not None
        elif child.tag == f"{W}tbl":
            yield _table(child), False
        elif child.tag not in SKIPPED and isinstance(child.tag, str):
            yield from _blocks(child)


def _table(table: Any) -> str:
    rows = (_found(row, f"{W}tc") for row in _found(table, f"{W}tr"))
    return "\n".join("\t".join(" ".join(_inline(cell).split()) for cell in row) for row in rows)


def _found(node: Any, tag: str) -> Iterator[Any]:
    """The elements of a kind that stand in a node or in content controls in it, but not in each other."""
    for child in node:
        if child.tag == tag:
            yield child
        elif child.tag not in SKIPPED:
            yield from _found(child, tag)


def _inline(node: Any) -> str:
    pieces = []
    for child in node:
        if child.tag in (f"{W}t", MATH_TEXT):
            pieces.append(child.text or "")
        elif child.tag in MARKS:
            pieces.append(MARKS[child.tag])
        elif child.tag not in SKIPPED:
            pieces.append(_inline(child))
            if child.tag == f"{W}p":  # in a text box or a cell
                pieces.append("\n")
    return "".join(pieces)


def _notes(part: Any) -> Iterator[tuple[str, bool]]:
    from docx.oxml import parse_xml

    for note in parse_xml(part.blob):
        if note.get(f"{W}type", "normal") == "normal":  # the others are the lines between text and notes
            yield from _blocks(note)


def read_pptx(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The slides of a presentation: the text and tables of each in the order of its shapes, then the speaker's notes.

    Memory: about ten times the presentation's XML, which may have 128 MB.
    """
    try:
        import pptx
        from pptx.exc import PythonPptxError
    except ImportError:
        raise Unreadable("reading it needs python-pptx: pip install 'bimo[text]'") from None
    with (
        open_package(stream, "PowerPoint file") as package,
        damage_reported("PowerPoint file", PythonPptxError),
        without_media(package) as file,
    ):
        presentation = pptx.Presentation(file)
        slides = (text for slide in presentation.slides for text in _slide(slide))
        written = presentation.core_properties
        yield from sections(apart(slides), time=iso_time(written.modified or written.created))


def _slide(slide: Any) -> Iterator[str]:
    yield from _shapes(slide.shapes)
    if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) is not None:
        yield _frame(frame)


def _shapes(shapes: Any) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)
        elif shape.has_text_frame:
            yield _frame(shape.text_frame)
        elif getattr(shape, "has_table", False):
            rows = ((" ".join(cell.text.split()) for cell in row.cells) for row in shape.table.rows)
            yield "\n".join("\t".join(row) for row in rows)


def _frame(frame: Any) -> str:
    return with_newlines(frame.text.replace("\v", "\n"))


def read_xlsx(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The sheets of a workbook, row by row: formulas give the value that was last computed.

    A sheet whose first row names the text column, or all of the template, gives a document for each row, with the key
    ``!Sheet:7``; where the user has named columns, the other sheets are left out. Without one, a sheet is one
    tab-separated text (kind ``table``). Memory: a row, the texts that cells share, of at most 64 MB; a copy on disk.
    """
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError:
        raise Unreadable("reading it needs openpyxl: pip install 'bimo[text]'") from None
    with (
        open_package(stream, "Excel file", streamed="xl/worksheets/") as package,
        damage_reported("Excel file", InvalidFileException),
        without_media(package, row=b"row") as file,
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of each feature that it would not write again
            book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        written = iso_time(book.properties.modified or book.properties.created)
        empty = True
        columns = Columns(options, usual=False)
        for record in (record for sheet in book.worksheets for record in _sheet(sheet, columns, written)):
            empty = False
            yield record
        if empty:
            yield Bad("", "empty")


def _sheet(sheet: Any, columns: Columns, written: str) -> Iterator[Record]:
    rows = _rows(sheet)
    header = next(rows, (0, []))[1]
    missing = columns.missing(header)
    if not missing:
        places = {name: header.index(name) for name in columns.needed(header)}
        for number, row in rows:
            where = f"{sheet.title}, row {number}"
            values = {name: row[at] if at < len(row) else "" for name, at in places.items()}
            found = columns.text(f"!{sheet.title}:{number}", where, values)
            if any(row):
                blank = isinstance(found, Text) and not found.text.strip()
                yield Bad(where, "empty") if blank else _at(found, written)
    elif columns.named:
        yield Bad(f"sheet {sheet.title}", f"in its first row: {missing}")
    elif header:
        filled = itertools.chain([header], (row for _, row in rows if any(row)))
        lines = ("\t".join(" ".join(cell.split()) for cell in row).rstrip() + "\n" for row in filled)
        for record in sections(lines, "table", written):
            yield record._replace(key=f"!{sheet.title}{record.key}") if isinstance(record, Text) else record


def _at(record: Record, written: str) -> Record:
    """A record with the time at which its file was written, where it says none itself."""
    return record if isinstance(record, Bad) or record.time else record._replace(time=written)


def _rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows from the first that is not empty, with their numbers."""
    begun, seen = False, 0
    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
        seen += len(row)
        if number > MOST_ROWS or seen > MOST_CELLS:
            raise Unreadable(f"sheet {sheet.title} has more than {MOST_ROWS} rows or {MOST_CELLS} cells")
        cells = [_cell(value) for value in row]
        begun = begun or any(cells)
        if begun:
            yield number, cells


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    return with_newlines(str(value))
