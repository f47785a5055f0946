"""Tables and records: JSON, JSON lines, CSV, TSV, Parquet."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from bimo.errors import did_you_mean
from bimo.text.decode import ByteStream, Unreadable, byte_chunks, text_chunks, text_lines
from bimo.text.readers.record import Bad, Options, Record, Text

RECORD_CHARACTERS = 1 << 26
CSV_CHARACTERS = RECORD_CHARACTERS // 4  # the csv module keeps four bytes a character
PARQUET_ROWS = 64


def read_jsonl(stream: ByteStream, options: Options) -> Iterator[Record]:
    """One JSON string or object a line; a line that is broken or too long is left out, empty lines mean nothing."""
    for number, line in text_lines(text_chunks(stream, options.encoding), RECORD_CHARACTERS):
        where = f"line {number}"
        if line is None:
            yield Bad(where, "larger than 64 MB")
        elif line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                yield Bad(where, "not JSON")
                continue
            yield _record(f":{number}", where, record, options)


def read_json(stream: ByteStream, options: Options) -> Iterator[Record]:
    """A JSON array of strings or objects, parsed item by item."""
    for number, item in enumerate(_array_items(text_chunks(stream, options.encoding))):
        yield _record(f":{number}", f"item {number}", item, options)


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


def read_table(stream: ByteStream, options: Options, *, delimiter: str) -> Iterator[Record]:
    """A CSV or TSV file whose first row names the columns."""
    csv.field_size_limit(CSV_CHARACTERS)
    lines = _table_lines(text_chunks(stream, options.encoding))
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(rows, [])
    except csv.Error as cause:
        raise Unreadable(f"not a table: {cause}") from None
    if options.text_column not in header:
        raise Unreadable(_no_column(options.text_column, header))
    column, number = header.index(options.text_column), 0
    while True:
        number += 1
        where = f"row {number}"
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as cause:
            if "field limit" in str(cause):
                raise Unreadable(f"a field larger than 64 MB at {where}, or a quote that is never closed") from None
            yield Bad(where, f"not a row: {cause}")
            continue
        if column < len(row):
            yield Text(f":{number}", row[column])
        elif row:
            yield Bad(where, "fewer fields than the header")


def _table_lines(chunks: Iterator[str]) -> Iterator[str]:
    for number, line in text_lines(chunks, CSV_CHARACTERS):
        if line is None:
            raise Unreadable(f"line {number} is larger than 64 MB")
        yield line + "\n"


def read_parquet(stream: ByteStream, options: Options) -> Iterator[Record]:
    """One column of a Parquet file, a few rows at a time."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise Unreadable("reading it needs pyarrow: pip install 'bimo[parquet]'") from None
    with ExitStack() as stack:
        if not isinstance(stream, io.BufferedReader):  # the format is read from its end: a compressed stream cannot
            file = stack.enter_context(tempfile.TemporaryFile())
            for chunk in byte_chunks(stream):
                file.write(chunk)
            stream = file
        number = 0
        try:
            table = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
            names = table.schema_arrow.names
            if options.text_column not in names:
                raise Unreadable(_no_column(options.text_column, names))
            for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=[options.text_column]):
                for value in batch.column(0):
                    yield _record(f":{number}", f"row {number}", {options.text_column: value.as_py()}, options)
                    number += 1
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as cause:
            raise Unreadable(f"damaged Parquet file: {str(cause).splitlines()[0]}") from None


def _record(key: str, where: str, record: Any, options: Options) -> Record:
    if isinstance(record, dict):
        if options.text_column not in record:
            return Bad(where, _no_column(options.text_column, record))
        record = record[options.text_column]
    if not isinstance(record, str):
        return Bad(where, f"the text is of type {type(record).__name__}, not a string")
    return Text(key, record.replace("\r\n", "\n").replace("\r", "\n"))


def _no_column(wanted: str, names: Iterable[str]) -> str:
    names = [str(name)[:40] for name in names][:20]
    return f"no column '{wanted}' (see --text-column). {did_you_mean(wanted, names)}"
