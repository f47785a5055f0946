"""The ledger: one row for every input document, that says what became of it and why.

Bytes are UTF-8 bytes of text; of a file that gave none, those of the file. In every row
``bytes_in == bytes_out + bytes_dropped + sum of the changes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


def schema() -> Any:
    """The columns of a ledger, for pyarrow."""
    import pyarrow as pa

    numbers = ("number", "bytes_in", "bytes_out", "bytes_dropped", "cluster", "copies", "offset")
    types = {name: pa.int64() if name in numbers else pa.string() for name in COLUMNS}
    types["kept"] = pa.bool_()
    types["changes"] = pa.list_(pa.struct([("step", pa.string()), ("bytes", pa.int64())]))
    types["notes"] = pa.list_(pa.string())
    return pa.schema([(name, types[name]) for name in COLUMNS])


class LedgerWriter:
    """Writes rows to a Parquet file, a few at a time."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self._file = parquet.ParquetWriter(path, schema(), compression="zstd")
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Write a row, soon."""
        self._rows.append(row)
        if len(self._rows) == ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write what is left and the end of the file."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = {name: [getattr(row, name) for row in self._rows] for name in COLUMNS}
        columns["changes"] = [[{"step": s, "bytes": b} for s, b in changes] for changes in columns["changes"]]
        self._file.write_table(pa.table(columns, schema=schema()))
        self._rows = []


def read_rows(path: Path, columns: tuple[str, ...] = COLUMNS, first: int = 0) -> Iterator[Row]:
    """The rows of a ledger in order, a few in memory at once; columns that were not asked for have their defaults.

    Args:
        first: rows to leave out at the beginning.

    Raises:
        DataError: there is no ledger, or it is damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    wanted = tuple(dict.fromkeys(("id", "file", "number", *columns)))
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(wanted)):
                if first >= batch.num_rows:
                    first -= batch.num_rows
                    continue
                yield from map(_row, batch.slice(first).to_pylist())
                first = 0
    except (OSError, pa.ArrowException) as cause:
        raise damaged_ledger(path, expected="the ledger of prepared text", got=str(cause)) from None


def rows_at(path: Path, numbers: Iterable[int]) -> list[Row]:
    """The rows of these numbers, in order; only the parts of the file that they are in are read.

    Raises:
        DataError: there is no ledger, or it is damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    found: list[Row] = []
    left = sorted(numbers)
    try:
        with parquet.ParquetFile(path) as file:
            first = 0
            for group in range(file.num_row_groups if left else 0):
                after = first + file.metadata.row_group(group).num_rows
                here = [number - first for number in left if first <= number < after]
                if here:
                    found += map(_row, file.read_row_group(group).take(here).to_pylist())
                first = after
    except (OSError, pa.ArrowException) as cause:
        raise damaged_ledger(path, expected="the ledger of prepared text", got=str(cause)) from None
    return found


def _row(values: dict[str, Any]) -> Row:
    if "changes" in values:
        values["changes"] = [(change["step"], change["bytes"]) for change in values["changes"]]
    return Row(**values)


def damaged_ledger(path: Path, *, expected: str, got: str) -> DataError:
    """The error for a ledger that cannot be read or contradicts itself."""
    fix = "Delete the folder that it is in, and prepare the text again."
    return DataError(f"{path} is damaged.", expected=expected, got=got, fix=fix)
