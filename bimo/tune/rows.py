"""A person's own data as rows: csv, tsv, json, jsonl and parquet, compressed or not, or a folder of texts.

What is broken is left out and named, by line or row; nothing that can be read is lost.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from bimo.errors import DataError
from bimo.text.decode import COMPRESSED_SUFFIXES, ByteStream, Unreadable, decompressed, text_chunks, text_lines
from bimo.text.document import Progress
from bimo.text.labelled import SETS, file_of
from bimo.text.listing import File, list_inputs, open_regular
from bimo.text.readers.record import Bad
from bimo.text.readers.streams import damage_reported, whole
from bimo.text.source import open_source

LINE_CHARACTERS = 1 << 26
CSV_FIELD = 1 << 24  # characters
SHOWN = 3  # broken rows that are named
TABLES = (".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True)
class Row:
    """One record.

    Attributes:
        number: from 0, over all files.
        where: what to call it, as its owner counts: ``reviews.csv row 7``.
        values: by column; for a task, by role.
    """

    number: int
    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Rows:
    """All rows of some data.

    Attributes:
        name: what the user called it.
        columns: every key that a row has, in order of appearance.
        broken: what gave no row, and why.
        hash: SHA-256 of the values of all rows, in order.
    """

    name: str
    rows: list[Row]
    columns: list[str] = field(default_factory=list)
    broken: list[Bad] = field(default_factory=list)
    hash: str = ""

    def told(self) -> str:
        """What was left out, in a sentence; empty where nothing was."""
        if not self.broken:
            return ""
        named = "; ".join(f"{bad.where}: {bad.reason}" for bad in self.broken[:SHOWN])
        more = f"; and {len(self.broken) - SHOWN} more" if len(self.broken) > SHOWN else ""
        return f"{len(self.broken):,} of {len(self.broken) + len(self.rows):,} rows cannot be read: {named}{more}"


def read_rows(
    names: Iterable[str | Path],
    *,
    encoding: str = "auto",
    documents: bool = False,
    tested: bool = False,
    progress: Progress | None = None,
) -> Rows:
    """Read files, folders and labelled sets (``bimo.text.labelled``), one after the other.

    Args:
        encoding: of files without a byte order mark; ``auto`` finds it out for each.
        documents: every file is one text, with the columns ``text`` and ``path``.
        tested: of sets, the rows to measure on, not those to learn from.

    Raises:
        DataError: a name is not there, or there is no row that can be read.
    """
    wanted, broken = [str(name) for name in names], list[Bad]()
    sets = [name for name in wanted if name in SETS and not Path(name).exists()]
    paths = [str(file_of(name, tested=tested)) if name in sets else name for name in wanted]
    found = _documents(paths, encoding, broken) if documents else _records(paths, encoding, broken, progress)
    rows, columns, digest = list[Row](), dict[str, None](), hashlib.sha256()
    for where, values in found:
        rows.append(Row(len(rows), where, values))
        columns.update(dict.fromkeys(values))
        content = json.dumps(values, ensure_ascii=False, default=str, sort_keys=True)
        digest.update(content.encode("utf-8", "surrogatepass") + b"\n")
    made = Rows(", ".join(wanted), rows, list(columns), broken, digest.hexdigest())
    if not rows:
        expected = "rows in .csv, .tsv, .json, .jsonl or .parquet"
        raise DataError(f"There is nothing to learn from in {made.name}.", expected=expected, got=made.told() or "none")
    return made


Found = Iterator[tuple[str, Mapping[str, Any]]]


def _documents(names: list[str], encoding: str, broken: list[Bad]) -> Found:
    source = open_source(*names, encoding=encoding)
    for document in source:
        yield document.id, {"text": document.text, "path": document.id}
    broken += [Bad(skipped.file, skipped.reason) for skipped in source.skipped]


def _records(names: list[str], encoding: str, broken: list[Bad], progress: Progress | None) -> Found:
    listing = list_inputs(names, progress)
    broken += [Bad(skipped.file, skipped.reason) for skipped in listing.skipped]
    for file in listing.files:
        suffixes = [suffix.lower() for suffix in PurePath(file.name).suffixes]
        packed = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSED_SUFFIXES else ""
        suffix = suffixes[-1] if suffixes else ""
        if suffix not in TABLES:
            broken.append(Bad(file.name, "not a table: .csv, .tsv, .json, .jsonl and .parquet are read"))
            continue
        try:
            with open_regular(file.path) as raw:
                yield from _read(file, suffix, decompressed(raw, packed), encoding, broken)
        except OSError as cause:
            broken.append(Bad(file.name, f"cannot be opened: {cause.strerror or cause}"))
        except Unreadable as cause:
            broken.append(Bad(file.name, str(cause)))


def _read(file: File, suffix: str, stream: ByteStream, encoding: str, broken: list[Bad]) -> Found:
    name = PurePath(file.name).name
    if suffix == ".parquet":
        found: Iterator[tuple[str, Any]] = _parquet(stream)
    elif suffix == ".json":
        found = _json("".join(text_chunks(stream, encoding)))
    elif suffix in (".jsonl", ".ndjson"):
        found = _jsonl(stream, encoding)
    else:
        found = _table(stream, encoding, tabs=suffix != ".csv")
    for where, record in found:
        if isinstance(record, Bad):
            broken.append(Bad(f"{name} {where}", record.reason))
        elif isinstance(record, Mapping):
            yield f"{name} {where}", record
        else:
            broken.append(Bad(f"{name} {where}", f"a JSON {type(record).__name__}, not an object with keys"))


def _jsonl(stream: ByteStream, encoding: str) -> Iterator[tuple[str, Any]]:
    for number, line in text_lines(text_chunks(stream, encoding), LINE_CHARACTERS):
        if line is None:
            yield f"line {number}", Bad("", "larger than 64 MB")
        elif line.strip():
            yield f"line {number}", _parsed(line)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as cause:
        return Bad("", f"broken JSON at character {cause.pos + 1}: {cause.msg}")
    except (ValueError, RecursionError) as cause:
        return Bad("", f"broken JSON: {cause}")


def _json(text: str) -> Iterator[tuple[str, Any]]:
    """A list of objects; or an object that holds one list of them, as many data sets are published."""
    content = _parsed(text)
    if isinstance(content, Bad):
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) > 1 and not isinstance(_parsed(lines[0]), Bad):  # lines of JSON under another name
            yield from ((f"line {n}", _parsed(line)) for n, line in enumerate(text.split("\n"), 1) if line.strip())
            return
        raise Unreadable(content.reason)
    if isinstance(content, Mapping):
        lists = [value for value in content.values() if isinstance(value, list) and value]
        values = list(content.values())
        if len(lists) == 1 and isinstance(lists[0][0], Mapping):
            content = lists[0]
        elif values and all(isinstance(value, Mapping) for value in values):
            content = [{"key": key, **value} for key, value in content.items()]
        else:
            content = [content]
    if not isinstance(content, list):
        raise Unreadable(f"a JSON {type(content).__name__}, not a list of objects")
    yield from ((f"item {number}", item) for number, item in enumerate(content, 1))


def _table(stream: ByteStream, encoding: str, *, tabs: bool) -> Iterator[tuple[str, Any]]:
    lines = (line for _, line in text_lines(text_chunks(stream, encoding), LINE_CHARACTERS))
    whole_lines = ("" if line is None else line for line in lines)
    rows = _tabbed(whole_lines) if tabs else _quoted(whole_lines)
    header: list[str] | None = None
    number = 0
    for cells in rows:
        if isinstance(cells, Bad):
            yield f"row {number + 1}", cells
            number += 1
        elif header is None:
            header = [cell.strip() for cell in cells]
            if repeated := next((name for name in header if name and header.count(name) > 1), ""):
                raise Unreadable(f"two columns are called '{repeated}'")
        elif any(cell.strip() for cell in cells):
            number += 1
            if len(cells) != len(header):
                yield f"row {number}", Bad("", f"{len(cells)} fields, where the header has {len(header)}")
            else:
                yield f"row {number}", {name: cell for name, cell in zip(header, cells, strict=True) if name}


def _tabbed(lines: Iterator[str]) -> Iterator[list[str] | Bad]:
    """Tab-separated lines, in which a quote is a character like any other unless it encloses the whole field."""
    for line in lines:
        cells = line.split("\t")
        yield [
            cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell for cell in cells
        ]


def _quoted(lines: Iterator[str]) -> Iterator[list[str] | Bad]:
    """Comma-separated rows; after one that is broken, reading goes on with the line after its first."""
    csv.field_size_limit(CSV_FIELD)
    waiting: list[str] = []
    first = next(lines, None)
    if first is None:
        return
    delimiter = max(",;\t|", key=re.sub(r'"[^"]*"', "", first).count)
    waiting.append(first)
    of_row: list[str] = []

    def fed() -> Iterator[str]:
        while True:
            line = waiting.pop(0) if waiting else next(lines, None)
            if line is None:
                return
            of_row.append(line)
            yield line + "\n"

    reader = csv.reader(fed(), delimiter=delimiter, strict=True)
    while True:
        of_row.clear()
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as cause:
            never = "unexpected end of data" in str(cause) or "field limit" in str(cause)
            yield Bad("", "a quote that is never closed" if never else str(cause))
            waiting[:0] = of_row[1:]
            reader = csv.reader(fed(), delimiter=delimiter, strict=True)


def _parquet(stream: ByteStream) -> Iterator[tuple[str, Any]]:
    import io

    from pyarrow import ArrowException, parquet

    with damage_reported("Parquet file", ArrowException):
        table = parquet.ParquetFile(io.BytesIO(whole(stream)))
        number = 0
        for batch in table.iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                number += 1
                yield f"row {number}", {key: _whole_number(value) for key, value in record.items()}


def _whole_number(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
