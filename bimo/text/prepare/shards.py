"""Documents are written in their order, as compressed shards.

Shapes: D documents that the steps kept, in the order of the listing; R documents as they are written, with repeats.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bimo.text import store
from bimo.text.arrange import Integers
from bimo.text.document import DataHash
from bimo.text.prepare.assemble import Decided
from bimo.text.prepare.parts import Parts

SPOOLED = 1 << 26  # bytes of lines that wait in memory for their shards
DIGESTS = 1 << 16  # that are hashed at once
TOGETHER = 256  # lines that are joined


def write_shards(parts: Parts, decided: Decided, folder: Path) -> dict[str, Any]:
    """Write the documents in their order, and return what the manifest says of them.

    Lines are spooled to a file for each shard as the parts give them, then each shard is sorted in memory; where the
    parts give all lines of the only side in their order, they are written as they come.
    """
    order, sizes = decided.order, decided.sizes[decided.order]
    shard_of, sides = _shards(sizes, decided.sides)
    shards: list[dict[str, Any]] = []
    in_order = parts.in_order and bool((order[1:] > order[:-1]).all())
    pieces = _as_they_come(parts, order, shard_of) if in_order else _sorted(parts, order, shard_of, folder)
    for number, data in itertools.groupby(pieces, key=lambda piece: piece[0]):
        shard = store.write_shard(folder, number, (lines for _, lines in data))
        shards.append(shard | ({"split": sides[number]} if sides[number] else {}))
    data_hash = DataHash()
    for begin in range(0, len(order), DIGESTS):
        data_hash.add(decided.digests[order[begin : begin + DIGESTS]].tobytes())
    return {
        "format": store.FORMAT,
        "documents": len(order),
        "bytes": int(sizes.sum()),
        "data_hash": data_hash.hex(),
        "shards": shards,
    }


def _shards(sizes: Integers, sides: dict[str, int]) -> tuple[Integers, list[str]]:
    """The shard of every written document (R,), and the side that each shard belongs to."""
    shard_of, begin = np.zeros(len(sizes), dtype=np.int64), 0
    names: list[str] = []
    for name, count in sides.items():
        ends = np.cumsum(sizes[begin : begin + count])
        own = (ends - sizes[begin : begin + count]) // store.SHARD_BYTES
        _, own = np.unique(own, return_inverse=True)
        shard_of[begin : begin + count] = own + len(names)
        names += [name] * (int(own[-1]) + 1 if count else 0)
        begin += count
    return shard_of, names


def _as_they_come(parts: Parts, order: Integers, shard_of: Integers) -> Iterator[tuple[int, bytes]]:
    """Shards and lines of them, of documents that are written in the order in which the parts give them."""
    place = 0
    for number, lines in parts.lines():
        end = int(np.searchsorted(order, number + len(lines)))
        if end - place < len(lines):
            lines = [lines[one] for one in (order[place:end] - number).tolist()]
        cuts = np.flatnonzero(np.diff(shard_of[place:end])) + 1
        for first, after in itertools.pairwise([0, *cuts.tolist(), end - place]):
            if after > first:
                yield int(shard_of[place + first]), b"".join(lines[first:after])
        place = end


def _sorted(parts: Parts, order: Integers, shard_of: Integers, folder: Path) -> Iterator[tuple[int, bytes]]:
    """Shards and lines of them, of documents in any order and number."""
    by_document = np.argsort(order, kind="stable")  # places (R,), those of a document together
    ordered = order[by_document]
    spools = _Spools(folder)
    for number, lines in parts.lines():
        begin, end = np.searchsorted(ordered, [number, number + len(lines)]).tolist()
        places, which = by_document[begin:end], ordered[begin:end] - number
        shards = shard_of[places]
        for shard in np.unique(shards).tolist():
            here = shards == shard
            spools.add(shard, places[here], [lines[one] for one in which[here].tolist()])
    for shard in range(int(shard_of[-1]) + 1 if len(shard_of) else 0):
        yield from ((shard, some) for some in spools.sorted_lines(shard))


class _Spools:
    """Lines for many shards, each with its place; no file stays open, as there may be more than a process may have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[int, list[bytes]] = {}
        self._size = 0

    def add(self, shard: int, places: Integers, lines: list[bytes]) -> None:
        """Keep lines."""
        lengths = np.fromiter(map(len, lines), dtype=np.int64, count=len(lines))
        head = np.concatenate(([len(lines)], places, lengths)).astype("<i8").tobytes()
        self._held.setdefault(shard, []).extend((head, *lines))
        self._size += len(head) + int(lengths.sum())
        if self._size > SPOOLED:
            self._flush()

    def _flush(self) -> None:
        for shard, records in self._held.items():
            with self._path(shard).open("ab") as file:
                file.writelines(records)
        self._held, self._size = {}, 0

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard}.spool"

    def sorted_lines(self, shard: int) -> Iterator[bytes]:
        """The lines of a shard in the order of their places, many at once; they are forgotten here."""
        self._flush()
        data = memoryview(self._path(shard).read_bytes())
        self._path(shard).unlink()
        places, begins, ends = [], [], []
        at = 0
        while at < len(data):
            count = int(np.frombuffer(data, "<i8", 1, at)[0])
            head = np.frombuffer(data, "<i8", 2 * count, at + 8)
            after = np.cumsum(head[count:]) + at + 8 + head.nbytes
            places.append(head[:count])
            begins.append(after - head[count:])
            ends.append(after)
            at = int(after[-1])
        by_place = np.argsort(np.concatenate(places))
        first, after = np.concatenate(begins)[by_place], np.concatenate(ends)[by_place]
        for some in np.array_split(np.arange(len(by_place)), len(by_place) // TOGETHER + 1):
            yield b"".join([data[a:b] for a, b in zip(first[some].tolist(), after[some].tolist(), strict=True)])
