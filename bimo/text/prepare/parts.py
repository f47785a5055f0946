"""What finished parts hold, in the order of the listing, whichever part holds a file and whenever that part was made.

Shapes: D documents that the steps kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bimo.text.decode import ByteStream, ZstdStream
from bimo.text.listing import File
from bimo.text.prepare.ledger import COLUMNS, LEDGER, LedgerReader
from bimo.text.prepare.part import ARRAYS, DOCUMENTS, EXAMPLES, Facts, identity

TOGETHER = 1 << 18  # bytes of lines that are handed on at once


@dataclass(frozen=True)
class Stretch:
    """The documents of one file, or of one slice of a file: where they lie in a part, and where in the whole.

    Attributes:
        before: rows of the slices of the same file before this one.
        lost: bytes of the file, if this is its beginning and no document was in it.
        row: of its first one in the part's ledger, of which it has ``rows``.
        place: among the kept documents of the part; ``first``: among all, of which it has ``kept``.
    """

    part: Path
    file: File
    row: int
    rows: int
    place: int
    kept: int
    first: int
    before: int
    lost: int


class Parts:
    """All finished parts of a listing."""

    def __init__(self, parts: Sequence[Path], listed: Sequence[File]) -> None:
        found: dict[Any, tuple[Path, int, int, int, int, int]] = {}
        self.facts: list[Facts] = []
        for part in parts:
            facts = Facts.read(part)
            self.facts.append(facts)
            row = place = 0
            for name, rows, documents, kept in facts.files:
                found[name] = (part, row, rows, documents, place, kept)
                row, place = row + rows, place + kept
        self.stretches: list[Stretch] = []
        first = 0
        for _, slices in itertools.groupby(listed, key=lambda file: file.path):
            places = [(file, *found[identity(file)]) for file in slices]
            empty = not any(documents for _, _, _, _, documents, _, _ in places)
            lost = sum(file.size for file, *_ in places) if empty else 0
            before = 0
            for file, part, row, rows, _, place, kept in places:
                self.stretches.append(Stretch(part, file, row, rows, place, kept, first, before, lost))
                first, before, lost = first + kept, before + rows, 0 if rows else lost
        self.count = first
        self._runs = _runs(self.stretches)

    def array(self, name: str, folder: Path) -> npt.NDArray[Any]:
        """One of ``ARRAYS`` for all documents (D, ...), in a temporary file of ``folder``."""
        dtype, width = ARRAYS[name]
        size = np.dtype(dtype).itemsize * width
        target = folder / f"{name}.bin"
        with target.open("wb") as out:
            for run in self._runs:
                with (run[0].part / f"{name}.bin").open("rb") as file:
                    file.seek(run[0].place * size)
                    _copy(file, out, sum(one.kept for one in run) * size)
        if not self.count:
            return np.empty((0, width), dtype=dtype)
        return np.memmap(target, dtype=dtype, mode="r", shape=(self.count, width))

    def tables(self, columns: Sequence[str] = COLUMNS) -> Iterator[Any]:
        """The rows of all ledgers as tables of pyarrow, in the order of the listing, a few rows at a time."""
        last = {run[0].part: number for number, run in enumerate(self._runs)}
        opened: dict[Path, LedgerReader] = {}  # parts stay open between their runs
        for number, run in enumerate(self._runs):
            part = run[0].part
            reader = opened.pop(part, None) or LedgerReader(part / LEDGER, columns)
            yield from _corrected(reader.tables(run[0].row, sum(one.rows for one in run)), run)
            if number == last[part]:
                reader.close()
            else:
                opened[part] = reader

    @cached_property
    def _parts(self) -> dict[Path, list[list[Stretch]]]:
        """The runs of each part, in its own order."""
        found: dict[Path, list[list[Stretch]]] = {}
        for run in self._runs:
            found.setdefault(run[0].part, []).append(run)
        return {part: sorted(runs, key=lambda run: run[0].place) for part, runs in found.items()}

    @property
    def in_order(self) -> bool:
        """Whether :meth:`lines` gives the documents in the order of the listing."""
        firsts = [run[0].first for runs in self._parts.values() for run in runs]
        return firsts == sorted(firsts)

    def lines(self) -> Iterator[tuple[int, list[bytes]]]:
        """Kept documents as lines of JSON, some that follow each other with the number of the first; part by part."""
        for part, runs in self._parts.items():
            with (part / DOCUMENTS).open("rb") as raw:
                lines = _Lines(ZstdStream(raw))
                for run in runs:
                    number = run[0].first
                    for some in lines.take(sum(one.kept for one in run)):
                        yield number, some
                        number += len(some)

    def examples(self) -> dict[str, list[dict[str, str]]]:
        """A few documents for everything that a step did."""
        found: dict[str, list[tuple[int, dict[str, str]]]] = {}
        for facts in self.facts:
            for reason, some in facts.examples.items():
                found.setdefault(reason, []).extend((rank, example) for rank, example in some)
        chosen = {
            reason: sorted(some, key=lambda one: (one[0], one[1]["id"]))[:EXAMPLES] for reason, some in found.items()
        }
        return {reason: [example for _, example in chosen[reason]] for reason in sorted(chosen)}


def _runs(stretches: Sequence[Stretch]) -> list[list[Stretch]]:
    """Those together that follow each other in the listing and in a part."""
    runs: list[list[Stretch]] = []
    for stretch in stretches:
        last = runs[-1][-1] if runs else None
        if last and last.part == stretch.part and last.row + last.rows == stretch.row:
            runs[-1].append(stretch)
        else:
            runs.append([stretch])
    return runs


def _copy(source: Any, target: Any, size: int) -> None:
    while size:
        data = source.read(min(size, 1 << 24))
        assert data, "a part is shorter than its facts say"
        target.write(data)
        size -= len(data)


def _corrected(tables: Iterator[Any], run: Sequence[Stretch]) -> Iterator[Any]:
    """The rows of a run, as those of whole files instead of their slices."""
    import pyarrow as pa

    rows = np.array([one.rows for one in run], dtype=np.int64)
    before = np.repeat(np.array([one.before for one in run], dtype=np.int64), rows)
    lost = np.zeros(len(before), dtype=np.int64)
    begins = np.cumsum(rows) - rows
    for one, begin in zip(run, begins.tolist(), strict=True):
        if one.rows:
            lost[begin] = one.lost
    more = {"number": before, "bytes_in": lost, "bytes_dropped": lost}
    more = {name: added for name, added in more.items() if added.any()}
    at = 0
    for table in tables:
        for place, name in enumerate(table.column_names):
            if name in more:
                values = table[name].to_numpy() + more[name][at : at + table.num_rows]
                table = table.set_column(place, name, pa.array(values))
        at += table.num_rows
        yield table


class _Lines:
    """Takes lines with their ends from a stream, as many as are wanted."""

    def __init__(self, stream: ByteStream) -> None:
        self._lists, self._held = _whole_lines(stream), list[bytes]()

    def take(self, count: int) -> Iterator[list[bytes]]:
        """The next ones, some at a time."""
        while count:
            self._held = self._held or next(self._lists)
            some, self._held = self._held[:count], self._held[count:]
            count -= len(some)
            yield some


def _whole_lines(stream: ByteStream) -> Iterator[list[bytes]]:
    held: list[bytes] = []
    size = 0
    while chunk := stream.read(TOGETHER):
        held.append(chunk)
        size += len(chunk)
        if size >= TOGETHER and b"\n" in chunk:
            lines = b"".join(held).splitlines(keepends=True)
            held = [] if lines[-1].endswith(b"\n") else [lines.pop()]
            size = sum(map(len, held))
            yield lines
    if held:
        yield b"".join(held).splitlines(keepends=True)
