"""Tables and records: JSON, JSON lines, CSV, TSV, Parquet, Arrow."""

from __future__ import annotations

import csv
import json
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

from bimo.text.decode import ByteStream, Decoded, Unreadable, seekable, text_chunks, text_lines
from bimo.text.readers.columns import Columns
from bimo.text.readers.record import Bad, Options, Record, Text

RECORD_CHARACTERS = 1 << 26
CSV_CHARACTERS = RECORD_CHARACTERS // 4  # the csv module keeps four bytes a character
NEVER_CLOSED = {  # what the csv module says of a quote
    "unexpected end of data": "a quote that is never closed",
    "field larger than field limit": "a field larger than 64 MB, or a quote that is never closed",
}
ROW_LINES = 1 << 20  # held until a row has ended
ROWS = 64  # at a time of a table in columns


def read_jsonl(stream: ByteStream, options: Options) -> Iterator[Record]:
    """One JSON string or object a line; a line that is broken or too long is left out, empty lines mean nothing."""
    columns, chunks = Columns(options), text_chunks(stream, options.encoding, lines=True)
    parsed = json.JSONDecoder().decode
    for number, line in text_lines(chunks, RECORD_CHARACTERS):
        offset = chunks.line_starts.popleft() if chunks.line_starts else -1
        number += options.first_line - 1
        if line is None:
            yield Bad(f"line {number}", "larger than 64 MB")
        elif line.strip():
            try:
                record = parsed(line)
            except (ValueError, RecursionError):
                yield Bad(f"line {number}", "not JSON")
                continue
            yield _noted(columns.text(f":{number}", f"line {number}", record), chunks, offset)


def read_json(stream: ByteStream, options: Options) -> Iterator[Record]:
    """A JSON array of strings or objects, parsed item by item."""
    columns, chunks = Columns(options), text_chunks(stream, options.encoding)
    for number, item in enumerate(_array_items(chunks)):
        yield _noted(columns.text(f":{number}", f"item {number}", item), chunks)


def _noted(record: Record, chunks: Decoded, offset: int = -1) -> Record:
    """A record with the notes of the decoder, and where it begins."""
    if isinstance(record, Bad):
        return record
    return Text(record.key, record.text, record.kind, record.time, chunks.notes(record.text) + record.notes, offset)


def _array_items(chunks: Iterator[str]) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    buffer = ""
    while not buffer:
        buffer = next(chunks, "?").lstrip()
    if not buffer.startswith("["):
        raise Unreadable("not a JSON array of texts")
    at, count = 1, 0
    while True:
        at = _after_spaces(buffer, at)
        if buffer.startswith("]", at) and not count:
            return
        try:
            item, end = decoder.raw_decode(buffer, at)
            end = _after_spaces(buffer, end)
        except (ValueError, RecursionError):
            end = len(buffer)
        if buffer.startswith((",", "]"), end):
            yield item
            if buffer[end] == "]":
                return
            at, count = end + 1, count + 1
        elif len(buffer) - at > RECORD_CHARACTERS:
            raise Unreadable(f"item {count} is larger than 64 MB, or broken JSON")
        else:  # an item is parsed again only when twice as much of it is there
            grown = _grown(buffer[at:], chunks)
            if len(grown) == len(buffer) - at:
                raise Unreadable(f"broken JSON at item {count}")
            buffer, at = grown, 0


def _after_spaces(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\n":
        at += 1
    return at


def _grown(text: str, chunks: Iterator[str]) -> str:
    pieces, wanted = [text], len(text)
    for chunk in chunks:
        pieces.append(chunk)
        wanted -= len(chunk)
        if wanted <= 0:
            break
    return "".join(pieces)


def read_table(stream: ByteStream, options: Options, *, delimiters: str) -> Iterator[Record]:
    """A CSV or TSV file whose first row names the columns.

    Where a quote is opened and not closed, or closed too early, only its line is lost.

    Args:
        delimiters: those to try, the likeliest first; the header decides.
    """
    csv.field_size_limit(CSV_CHARACTERS)
    columns, chunks = Columns(options), text_chunks(stream, options.encoding, lines=True)
    lines = _table_lines(chunks)
    beginning = next(lines, (0, ""))
    delimiter = _delimiter(beginning[1], columns, delimiters)
    rows = _Rows(chain([beginning], lines), delimiter)
    try:
        header = next(rows, [])
    except csv.Error as cause:
        raise Unreadable(f"not a table: {cause}") from None
    needed = {name: header.index(name) for name in columns.needed(header)}
    fields, number = max(needed.values()) + 1, 0
    while True:
        number += 1
        where = f"row {number}"
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as cause:
            yield Bad(where, f"not a row: {NEVER_CLOSED.get(str(cause).partition(' (')[0], cause)}")
            continue
        if len(row) >= fields:
            record = {name: row[at] for name, at in needed.items()}
            yield _noted(columns.text(f":{number}", where, record), chunks, rows.offset)
        elif row:
            yield Bad(where, "fewer fields than the header")


class _Rows:
    """The rows of a table; after one that is broken, reading goes on with the line after its first."""

    def __init__(self, lines: Iterator[tuple[int, str]], delimiter: str) -> None:
        self._lines, self._delimiter = lines, delimiter
        self._of_row: list[tuple[int, str]] = []
        self._again: deque[tuple[int, str]] = deque()
        self._reader = self._begin()

    def __iter__(self) -> Iterator[list[str]]:
        return self

    @property
    def offset(self) -> int:
        """Where the row begins that was given last."""
        return self._of_row[0][0]

    def __next__(self) -> list[str]:
        self._of_row.clear()
        try:
            return next(self._reader)
        except csv.Error:
            self._again.extendleft(reversed(self._of_row[1:]))
            self._reader = self._begin()
            raise

    def _begin(self) -> Iterator[list[str]]:
        return csv.reader(self._fed(), delimiter=self._delimiter, strict=True)

    def _fed(self) -> Iterator[str]:
        while (line := self._again.popleft() if self._again else next(self._lines, None)) is not None:
            self._of_row.append(line)
            if len(self._of_row) > ROW_LINES:
                raise csv.Error(f"more than {ROW_LINES:,} lines, or a quote that is never closed")
            yield line[1]


def _delimiter(line: str, columns: Columns, delimiters: str) -> str:
    """The first delimiter with which a header names the columns that are needed, else the one it has most of."""
    for delimiter in delimiters:
        try:
            columns.needed(next(csv.reader([line], delimiter=delimiter), []))
        except (Unreadable, csv.Error):
            continue
        return delimiter
    unquoted = re.sub(r'"[^"]*"', "", line)
    return max(delimiters, key=unquoted.count)


def _table_lines(chunks: Decoded) -> Iterator[tuple[int, str]]:
    """Where each line begins, and the line with its end."""
    for number, line in text_lines(chunks, CSV_CHARACTERS):
        offset = chunks.line_starts.popleft() if chunks.line_starts else -1
        if line is None:
            raise Unreadable(f"line {number} is larger than 64 MB")
        yield offset, line + "\n"


def read_parquet(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The columns that are needed of a Parquet file, a few rows at a time."""
    from pyarrow import parquet

    columns = Columns(options)
    with seekable(stream) as file, _damaged("Parquet"):
        table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
        needed = columns.needed(table.schema_arrow.names)
        yield from _rows(table.iter_batches(batch_size=ROWS, columns=needed), columns)


def read_arrow(stream: ByteStream, options: Options) -> Iterator[Record]:
    """The columns that are needed of an Arrow (or Feather 2) file or stream, such as those of Hugging Face datasets."""
    from pyarrow import ipc

    columns = Columns(options)
    with seekable(stream) as file, _damaged("Arrow"):
        in_file = file.read(6) == b"ARROW1"
        file.seek(0)
        table = ipc.open_file(file) if in_file else ipc.open_stream(file)
        needed = columns.needed(table.schema.names)
        batches = map(table.get_batch, range(table.num_record_batches)) if in_file else table
        yield from _rows((part for batch in batches for part in _slices(batch.select(needed))), columns)


def _slices(batch: Any) -> Iterator[Any]:
    batch.validate(full=True)  # a damaged offset would crash the whole process
    for start in range(0, len(batch), ROWS):
        yield batch.slice(start, ROWS)


def _rows(batches: Iterator[Any], columns: Columns) -> Iterator[Record]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            yield columns.text(f":{number}", f"row {number}", row)
            number += 1


@contextmanager
def _damaged(kind: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as cause:
        raise Unreadable(f"damaged {kind} file: {str(cause).splitlines()[0]}") from None
