"""The ledger: one row for every input document, that says what became of it and why.

Bytes are UTF-8 bytes of text; of a file that gave none, those of the file. In every row
``bytes_in == bytes_out + bytes_dropped + sum of the changes``.
"""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bimo.errors import DataError

LEDGER, EXAMPLES = "ledger.parquet", "examples.json"
CHANGED = "changed"  # what the examples call a change
ROWS_AT_ONCE = 20_000
READ = "read"  # the step that drops what no reader could read
DUPLICATES, MIX = "duplicates", "mix"  # the steps that look at all documents together


@dataclass(slots=True)
class Row:
    """What became of one document, or of a file or record that gave none.

    Attributes:
        id: of the document.
        file: that it came from, as the user would name it.
        number: its place among the documents of the file.
        offset: of the byte of the file, decompressed, or of the member of an archive, where it begins; -1: not known.
        hash: 128 bits of BLAKE2b of the text as it was read, in hex.
        bytes_in: of the text as it was read.
        bytes_out: of the text as it was kept, 0 where it was not.
        bytes_dropped: of the text when it was dropped, 0 where it was kept.
        changes: every step that changed the text, and the bytes that it took away (negative: added).
        notes: what readers and steps say that they did.
        step: that dropped it; with ``reason`` and ``evidence``.
        cluster: the same number in all near duplicates of each other, -1 where there are none.
        copy_of: the id of the document that was kept in its place.
        split: ``train``, ``validation``, ``test``, or ``""`` where nothing was held out.
        copies: how often it was written.
    """

    id: str
    file: str
    number: int
    hash: str = ""
    kind: str = ""
    language: str = ""
    time: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_dropped: int = 0
    changes: list[tuple[str, int]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    kept: bool = False
    step: str = ""
    reason: str = ""
    evidence: str = ""
    cluster: int = -1
    copy_of: str = ""
    split: str = ""
    copies: int = 0
    offset: int = -1

    def drop(self, step: str, reason: str, evidence: str) -> None:
        """Leave it out, for a reason."""
        self.kept, self.step, self.reason, self.evidence = False, step, reason, evidence
        self.bytes_dropped, self.bytes_out, self.copies = self.bytes_dropped + self.bytes_out, 0, 0


COLUMNS = tuple(Row.__dataclass_fields__)
DIFFERENT = ("id", "hash")  # columns of which a value hardly comes twice
_values = operator.attrgetter(*COLUMNS)


def schema() -> Any:
    """The columns of a ledger, for pyarrow."""
    import pyarrow as pa

    numbers = ("number", "bytes_in", "bytes_out", "bytes_dropped", "cluster", "copies", "offset")
    types = {name: pa.int64() if name in numbers else pa.string() for name in COLUMNS}
    types["kept"] = pa.bool_()
    types["changes"] = pa.list_(pa.struct([("step", pa.string()), ("bytes", pa.int64())]))
    types["notes"] = pa.list_(pa.string())
    return pa.schema([(name, types[name]) for name in COLUMNS])


def table_of(rows: Sequence[Row]) -> Any:
    """Rows as a table of pyarrow."""
    import pyarrow as pa

    types = schema()
    if not rows:
        return types.empty_table()
    columns: dict[str, Any] = dict(zip(COLUMNS, zip(*map(_values, rows), strict=True), strict=True))
    changes = list(itertools.chain.from_iterable(columns["changes"]))
    steps = pa.array([step for step, _ in changes], pa.string())
    taken = pa.array([taken for _, taken in changes], pa.int64())
    ends = itertools.accumulate(map(len, columns["changes"]), initial=0)
    structs = pa.StructArray.from_arrays([steps, taken], fields=list(types.field("changes").type.value_type))
    columns["changes"] = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), structs)
    return pa.table(columns, schema=types)


class LedgerWriter:
    """Writes rows to a Parquet file, always as many at a time, however they come."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        repeated = [name for name in COLUMNS if name not in DIFFERENT]
        self._file = parquet.ParquetWriter(path, schema(), compression="zstd", use_dictionary=repeated)
        self._rows: list[Row] = []
        self._tables: list[Any] = []
        self._held = 0  # rows in the tables

    def add(self, row: Row) -> None:
        """Write a row, soon."""
        self._rows.append(row)
        if len(self._rows) == ROWS_AT_ONCE:
            self.extend(schema().empty_table())

    def extend(self, table: Any) -> None:
        """Write the rows of a table of this schema, soon."""
        self._tables += [table_of(self._rows), table]
        self._held += len(self._rows) + table.num_rows
        self._rows = []
        if self._held >= ROWS_AT_ONCE:
            self._flush(ROWS_AT_ONCE)

    def close(self) -> None:
        """Write what is left and the end of the file."""
        self.extend(schema().empty_table())
        self._flush(1)
        self._file.close()

    def _flush(self, least: int) -> None:
        """Write groups of rows, until fewer than ``least`` are left."""
        import pyarrow as pa

        table = pa.concat_tables(self._tables)
        while table.num_rows >= least:
            self._file.write_table(table.slice(0, ROWS_AT_ONCE).combine_chunks())
            table = table.slice(ROWS_AT_ONCE)
        self._tables, self._held = [table], table.num_rows


class LedgerReader:
    """Reads rows of a ledger from any place on; the group of rows that was read last is kept.

    Args:
        columns: those that are read.

    Raises:
        DataError: there is no ledger, or it is damaged; so do the methods.
    """

    def __init__(self, path: Path, columns: Sequence[str] = COLUMNS) -> None:
        from pyarrow import parquet

        self._path, self._columns = path, list(columns)
        with _damage_told(path):
            self._file = parquet.ParquetFile(path)
            groups = map(self._file.metadata.row_group, range(self._file.num_row_groups))
            self._ends = list(itertools.accumulate(group.num_rows for group in groups))
        self._group, self._table = -1, None

    @property
    def count(self) -> int:
        """Rows of the ledger."""
        return self._ends[-1] if self._ends else 0

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def tables(self, first: int, count: int) -> Iterator[Any]:
        """``count`` rows from the number ``first`` on, as tables."""
        while count > 0 and first < self.count:
            group = bisect.bisect_right(self._ends, first)
            if group != self._group:
                with _damage_told(self._path):
                    self._group, self._table = group, self._file.read_row_group(group, self._columns)
            assert self._table is not None, "it was read just now"
            some = self._table.slice(first - (self._ends[group] - self._table.num_rows), count)
            yield some
            first, count = first + some.num_rows, count - some.num_rows


def read_rows(path: Path, columns: tuple[str, ...] = COLUMNS, first: int = 0) -> Iterator[Row]:
    """The rows of a ledger in order, a few in memory at once; columns that were not asked for have their defaults.

    Args:
        first: rows to leave out at the beginning.

    Raises:
        DataError: there is no ledger, or it is damaged.
    """
    with LedgerReader(path, tuple(dict.fromkeys(("id", "file", "number", *columns)))) as reader:
        for table in reader.tables(first, reader.count - first):
            yield from map(_row, table.to_pylist())


def rows_at(path: Path, numbers: Iterable[int]) -> list[Row]:
    """The rows of these numbers, in order; only the parts of the file that they are in are read.

    Raises:
        DataError: there is no ledger, or it is damaged.
    """
    with LedgerReader(path) as reader:
        return [
            _row(row) for number in sorted(numbers) for table in reader.tables(number, 1) for row in table.to_pylist()
        ]


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as cause:
        raise damaged_ledger(path, expected="the ledger of prepared text", got=str(cause)) from None


def _row(values: dict[str, Any]) -> Row:
    if "changes" in values:
        values["changes"] = [(change["step"], change["bytes"]) for change in values["changes"]]
    return Row(**values)


def damaged_ledger(path: Path, *, expected: str, got: str) -> DataError:
    """The error for a ledger that cannot be read or contradicts itself."""
    fix = "Delete the folder that it is in, and prepare the text again."
    return DataError(f"{path} is damaged.", expected=expected, got=got, fix=fix)
