"""Finished parts become one prepared folder: duplicates left out, documents arranged, shards and ledger written.

Everything here follows the order of the listing, whichever part holds a file and whenever that part was made.

Shapes: D documents that the steps kept, in the order of the listing; R documents as they are written, with repeats.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bimo.text import store
from bimo.text.arrange import NO_SIDE, Mix, arrange, check_mix, id_hashes, numbers_by_source, split
from bimo.text.decode import ZstdStream
from bimo.text.document import DataHash, Skipped
from bimo.text.duplicates import Duplicates, copy_scores, find_duplicates
from bimo.text.listing import File
from bimo.text.prepare.ledger import COLUMNS, DUPLICATES, LEDGER, MIX, READ, LedgerWriter, Row, read_rows
from bimo.text.prepare.part import ARRAYS, DOCUMENTS, EXAMPLES, Facts, identity
from bimo.text.prepare.recipe import Arrangement, Recipe
from bimo.text.source import MOST_REASONS, skipped_records
from bimo.text.split import SIDES, TRAIN

Integers = npt.NDArray[np.int64]
SPOOLED = 1 << 26  # bytes of lines that wait in memory for their shards


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
        found: dict[str, tuple[Path, int, int, int, int, int]] = {}
        self.facts: list[Facts] = []
        for part in parts:
            facts = Facts.read(part)
            self.facts.append(facts)
            row = place = 0
            for name, rows, documents, kept in facts.files:
                found[json.dumps(name)] = (part, row, rows, documents, place, kept)
                row, place = row + rows, place + kept
        self.stretches: list[Stretch] = []
        first = 0
        for _, slices in itertools.groupby(listed, key=lambda file: file.path):
            places = [(file, *found[json.dumps(identity(file))]) for file in slices]
            empty = not any(documents for _, _, _, _, documents, _, _ in places)
            lost = sum(file.size for file, *_ in places) if empty else 0
            before = 0
            for file, part, row, rows, _, place, kept in places:
                self.stretches.append(Stretch(part, file, row, rows, place, kept, first, before, lost))
                first, before, lost = first + kept, before + rows, 0 if rows else lost
        self.count = first

    def array(self, name: str, folder: Path) -> npt.NDArray[Any]:
        """One of ``ARRAYS`` for all documents (D, ...), in a temporary file of ``folder``."""
        dtype, width = ARRAYS[name]
        size = np.dtype(dtype).itemsize * width
        target = folder / f"{name}.bin"
        with target.open("wb") as out:
            for part, run in itertools.groupby(self.stretches, key=lambda one: one.part):
                with (part / f"{name}.bin").open("rb") as file:
                    for stretch in run:
                        file.seek(stretch.place * size)
                        _copy(file, out, stretch.kept * size)
        if not self.count:
            return np.empty((0, width), dtype=dtype)
        return np.memmap(target, dtype=dtype, mode="r", shape=(self.count, width))

    def rows(self, columns: tuple[str, ...] = COLUMNS) -> Iterator[Row]:
        """The rows of all ledgers, in the order of the listing."""
        last = {stretch.part: stretch for stretch in self.stretches}
        opened: dict[Path, tuple[Iterator[Row], int]] = {}  # parts stay open between their stretches, at a row
        for stretch in self.stretches:
            rows, at = opened.pop(stretch.part, (iter(()), stretch.row + 1))
            if at > stretch.row:
                rows, at = read_rows(stretch.part / LEDGER, columns, first=stretch.row), stretch.row
            lost = stretch.lost
            for row in itertools.islice(rows, stretch.row - at, stretch.row - at + stretch.rows):
                row.number += stretch.before
                row.bytes_in, row.bytes_dropped, lost = row.bytes_in + lost, row.bytes_dropped + lost, 0
                yield row
            if stretch is not last[stretch.part]:
                opened[stretch.part] = rows, stretch.row + stretch.rows

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Every kept document as its line of JSON and its number among all, part by part."""
        by_part: dict[Path, list[Stretch]] = {}
        for stretch in self.stretches:
            by_part.setdefault(stretch.part, []).append(stretch)
        for part, stretches in by_part.items():
            with (part / DOCUMENTS).open("rb") as raw:
                lines = _lines(ZstdStream(raw))
                at = 0
                for stretch in sorted(stretches, key=lambda one: one.place):
                    for number, line in enumerate(
                        itertools.islice(lines, stretch.place - at, stretch.place - at + stretch.kept)
                    ):
                        yield stretch.first + number, line
                    at = stretch.place + stretch.kept

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


def _copy(source: Any, target: Any, size: int) -> None:
    while size:
        data = source.read(min(size, 1 << 24))
        assert data, "a part is shorter than its facts say"
        target.write(data)
        size -= len(data)


def _lines(stream: Any) -> Iterator[bytes]:
    rest: list[bytes] = []
    while chunk := stream.read(1 << 18):
        *ended, last = chunk.split(b"\n")
        for piece in ended:
            yield b"".join((*rest, piece)) + b"\n" if rest else piece + b"\n"
            rest = []
        rest = [*rest, last] if last else rest


@dataclass
class Decided:
    """What becomes of the documents that the steps kept.

    Attributes:
        sizes: UTF-8 bytes (D,).
        digests: of their texts (D, 32).
        order: numbers of documents as they are written (R,), those of one side together.
        sides: how many of them are on each side, by name; one nameless side where nothing is held out.
        side: of each document (D,): an index of ``SIDES`` or ``NO_SIDE``.
    """

    ids: list[str]
    sizes: Integers
    digests: npt.NDArray[np.uint8]
    duplicates: Duplicates
    order: Integers
    sides: dict[str, int]
    side: npt.NDArray[np.uint8]


def mixture(arrangement: Arrangement, names: Sequence[str]) -> Mix | None:
    """The mixture of inputs that is wanted, if any.

    Raises:
        ConfigError: it makes no sense for inputs with these names.
    """
    if not (arrangement.mix or arrangement.most_epochs or arrangement.target_bytes):
        return None
    numbers = _numbers("--mix", arrangement.mix), _numbers("--most-epochs", arrangement.most_epochs)
    mix = Mix(*numbers, arrangement.target_bytes)
    check_mix(names, mix)
    return mix


def decide(parts: Parts, recipe: Recipe, inputs: Sequence[str], folder: Path) -> Decided:
    """Find the duplicates, hold documents out, and bring the rest in order.

    Args:
        inputs: the name of the input that each file of the listing belongs to.
        folder: for temporary files.

    Raises:
        ConfigError: the mixture or the shares make no sense.
        DataError: there is too little text to hold some out.
    """
    ids, times = [], []
    read, sizes = np.zeros(parts.count, dtype=np.int64), np.zeros(parts.count, dtype=np.int64)
    for number, row in enumerate(row for row in parts.rows(("bytes_in", "bytes_out", "kept", "time")) if row.kept):
        ids.append(row.id)
        times.append(row.time)
        read[number], sizes[number] = row.bytes_in, row.bytes_out
    duplicates = _duplicates(parts, recipe, copy_scores(read, sizes), sizes, folder)
    kept, arrangement = duplicates.kept, recipe.arrangement
    hashes = id_hashes(ids)
    names = list(dict.fromkeys(inputs))
    per_file = np.array([stretch.kept for stretch in parts.stretches], dtype=np.int64)
    source = np.repeat(np.array([names.index(name) for name in inputs], dtype=np.int64), per_file)
    side = np.where(kept, np.uint8(TRAIN), np.uint8(NO_SIDE))
    if arrangement.split_by != "none":
        key = hashes
        if arrangement.split_by == "source":
            key = id_hashes(names)[source]
        if arrangement.split_by == "file":
            key = np.repeat(id_hashes(stretch.file.name for stretch in parts.stretches), per_file)
        side = split(
            key, sizes, kept, duplicates.cluster, seed=arrangement.seed,
            validation=arrangement.validation, test=arrangement.test,
            times=times if arrangement.split_by == "time" else None,
        )  # fmt: skip
    mix = mixture(arrangement, names)
    parts_of: dict[str, Integers] = {}
    for number, name in enumerate(SIDES):
        if number == TRAIN or (side == number).any():
            parts_of[name] = arrange(
                hashes, side == number, seed=arrangement.seed, shuffle=arrangement.shuffle,
                mix=mix if number == TRAIN else None, source=source, names=names, sizes=sizes,
            )  # fmt: skip
    sides = {name if arrangement.split_by != "none" else "": len(order) for name, order in parts_of.items()}
    order, digests = np.concatenate(list(parts_of.values())), parts.array("digest", folder)
    return Decided(ids, sizes, digests, duplicates, order, sides, side)


def _numbers(option: str, given: Sequence[str]) -> dict[str, float]:
    return numbers_by_source(option, ",".join(given)) if given else {}


def _duplicates(
    parts: Parts, recipe: Recipe, scores: npt.NDArray[np.float64], sizes: Integers, folder: Path
) -> Duplicates:
    exact, wanted = parts.array("exact", folder), recipe.duplicates
    check = np.empty((len(exact), 0), dtype=np.uint8)
    columns: Iterator[npt.NDArray[np.uint64]] = iter(())
    if wanted.near:
        check, bands = parts.array("check", folder), parts.array("bands", folder)
        columns = (bands[:, number] for number in range(bands.shape[1]))
    if not wanted.exact:  # every document gets a hash of its own
        exact = np.stack([np.arange(len(exact), dtype=np.uint64)] * 2, axis=1)
    return find_duplicates(exact, columns, check, scores, sizes, least=wanted.similarity)


def write_shards(parts: Parts, decided: Decided, folder: Path) -> dict[str, Any]:
    """Write the documents in their order, and return what the manifest says of them.

    Lines are spooled to a file for each shard as the parts give them, then each shard is sorted in memory.
    """
    sizes = decided.sizes[decided.order]
    shard_of, sides = _shards(sizes, decided.sides)
    by_document = np.argsort(decided.order, kind="stable")
    begins = np.searchsorted(decided.order[by_document], np.arange(parts.count + 1))
    count = int(shard_of[-1]) + 1 if len(shard_of) else 0
    shards: list[dict[str, Any]] = []
    spools = _Spools(folder)
    for number, line in parts.lines():
        for place in by_document[begins[number] : begins[number + 1]].tolist():
            spools.add(int(shard_of[place]), place, line)
    for number in range(count):
        shard = store.write_shard(folder, number, spools.sorted_lines(number))
        shards.append(shard | ({"split": sides[number]} if sides[number] else {}))
    data_hash = DataHash()
    for number in decided.order.tolist():
        data_hash.add(decided.digests[number].tobytes())
    return {
        "format": store.FORMAT,
        "documents": len(decided.order),
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


class _Spools:
    """Lines for many shards, each with its place; no file stays open, as there may be more than a process may have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[int, list[bytes]] = {}
        self._size = 0

    def add(self, shard: int, place: int, line: bytes) -> None:
        """Keep a line."""
        record = place.to_bytes(8, "little") + len(line).to_bytes(8, "little") + line
        self._held.setdefault(shard, []).append(record)
        self._size += len(record)
        if self._size > SPOOLED:
            self._flush()

    def _flush(self) -> None:
        for shard, records in self._held.items():
            with self._path(shard).open("ab") as file:
                file.writelines(records)
        self._held, self._size = {}, 0

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard}.spool"

    def sorted_lines(self, shard: int) -> list[memoryview]:
        """The lines of a shard in the order of their places; they are forgotten here."""
        self._flush()
        data = memoryview(self._path(shard).read_bytes())
        self._path(shard).unlink()
        found, at = [], 0
        while at < len(data):
            place, size = int.from_bytes(data[at : at + 8], "little"), int.from_bytes(data[at + 8 : at + 16], "little")
            found.append((place, data[at + 16 : at + 16 + size]))
            at += 16 + size
        found.sort(key=lambda one: one[0])
        return [line for _, line in found]


def write_ledger(
    parts: Parts, decided: Decided, not_listed: Sequence[Skipped], path: Path
) -> tuple[dict[str, Any], list[Skipped]]:
    """Write the row of every document, with what was decided about all of them together; at last, unlisted files.

    Returns:
        How many documents and bytes were read, and how many documents were dropped for which reason; and what no
        reader could read, equal reasons of one file together.
    """
    reasons: Counter[str] = Counter()
    documents = size = 0
    unread = _Unread()
    copies = np.bincount(decided.order, minlength=parts.count)
    duplicates = decided.duplicates
    number = 0
    ledger = LedgerWriter(path)
    for row in parts.rows():
        if row.kept:
            row.cluster = int(duplicates.cluster[number])
            if duplicates.instead[number] >= 0:
                row.copy_of = decided.ids[duplicates.instead[number]]
                reason, evidence = duplicates.evidence(number, row.copy_of)
                row.drop(DUPLICATES, reason, evidence)
            elif not copies[number]:
                row.drop(MIX, "not in the mixture", "its input is read less than once")
            else:
                row.copies = int(copies[number])
                row.split = SIDES[decided.side[number]] if "" not in decided.sides else ""
            number += 1
        elif row.step == READ:
            unread.add(row)
        if not row.kept:
            reasons[f"{row.step}: {row.reason}"] += 1
        documents, size = documents + 1, size + row.bytes_in
        ledger.add(row)
    for skipped in not_listed:
        row = Row(skipped.file, skipped.file, 0, bytes_in=skipped.size, bytes_dropped=skipped.size)
        row.drop(READ, skipped.reason, skipped.reason)
        documents, size = documents + 1, size + row.bytes_in
        reasons[f"{row.step}: {row.reason}"] += 1
        ledger.add(row)
    ledger.close()
    funnel = {"documents_in": documents, "bytes_in": size, "reasons": dict(reasons.most_common())}
    return funnel, [*not_listed, *unread.skipped()]


class _Unread:
    """Counts the reasons for which files and records were not read, few of each file."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, tuple[str, int]]] = {}

    def add(self, row: Row) -> None:
        reasons = self._found.setdefault(row.file, {})
        whole = row.evidence.startswith(row.reason)  # of a file: the evidence says it all
        reason, where = (row.evidence, "") if whole else (row.reason, row.evidence)
        if reason not in reasons and len(reasons) >= MOST_REASONS:
            reason = "other reasons"
        first, count = reasons.get(reason, (where, 0))
        reasons[reason] = first, count + 1

    def skipped(self) -> list[Skipped]:
        return [
            skipped_records(file, reason, first, count)
            for file, reasons in self._found.items()
            for reason, (first, count) in reasons.items()
        ]
