"""What a ledger says in all: documents and bytes after every step, why they were left out, and what is left.

One pass over the rows, a batch in memory at a time, and 8 to 16 bytes for each document that may be in a cluster.
Every row is checked: ``bytes in = bytes out + bytes dropped + bytes changed``, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bimo import files
from bimo.errors import DataError
from bimo.text import store
from bimo.text.prepare.ledger import CHANGED, DUPLICATES, EXAMPLES, LEDGER, MIX, READ, damaged_ledger, read_rows

SHOWN = 3  # examples of a reason
MOST_REASONS = 1_000  # what comes after is counted under one
LARGEST, MEMBERS = 10, 6  # clusters that are told, and documents of each
BINS = 64  # of lengths: bin k holds 2^(k-1) up to 2^k bytes
ROWS = 1 << 16
COLUMNS = (
    *("file", "kind", "language", "bytes_in", "bytes_out", "bytes_dropped", "changes", "kept", "step", "reason"),
    *("cluster", "split", "copies"),
)  # fmt: skip

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stage:
    """One step of the funnel.

    Attributes:
        documents: after it; with ``bytes``.
        dropped: documents that it left out; with ``bytes_dropped``.
        changed: documents whose text it changed; ``bytes_changed`` is what that took away (negative: added).
    """

    name: str
    documents: int
    bytes: int
    dropped: int = 0
    bytes_dropped: int = 0
    changed: int = 0
    bytes_changed: int = 0


@dataclass(frozen=True)
class Reason:
    """Why documents were left out.

    Attributes:
        examples: each an ``id`` and ``evidence``, and the beginning of its text as ``before`` where it is known.
    """

    step: str
    reason: str
    documents: int
    bytes: int
    examples: tuple[dict[str, str], ...] = ()


@dataclass
class Group:
    """Documents of one language or kind: as they were read, and as they were kept."""

    documents_in: int = 0
    bytes_in: int = 0
    documents: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Member:
    """A document of a duplicate cluster."""

    id: str
    kept: bool
    bytes: int
    evidence: str


@dataclass(frozen=True)
class Cluster:
    """Documents that are copies of each other or nearly so, the first of them by name."""

    documents: int
    kept: int
    members: tuple[Member, ...]


@dataclass
class Side:
    """Documents on one side of the split, each counted once; ``written`` counts repeats."""

    documents: int = 0
    bytes: int = 0
    written: int = 0


@dataclass
class Totals:
    """All numbers of some rows of a ledger.

    Attributes:
        files: how many files the rows are of, where those of one stand together.
        bytes_changed: what changes took away.
        written: documents, with repeats; with ``bytes_written``.
        by_reason: documents and bytes that were left out, by step and reason.
        by_change: documents that a step changed, and the bytes that it took away.
        lengths: documents by bytes before and after (2, BINS).
        clusters: documents and kept documents by the number of their cluster (2, clusters).
    """

    files: int = 0
    documents: int = 0
    kept: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_dropped: int = 0
    bytes_changed: int = 0
    written: int = 0
    bytes_written: int = 0
    by_reason: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    by_change: dict[str, tuple[int, int]] = field(default_factory=dict)
    languages: dict[str, Group] = field(default_factory=dict)
    kinds: dict[str, Group] = field(default_factory=dict)
    sides: dict[str, Side] = field(default_factory=dict)
    lengths: Integers = field(default_factory=lambda: np.zeros((2, BINS), dtype=np.int64))
    clusters: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros((2, 0), dtype=np.int32))
    last_file: str | None = None

    @property
    def balanced(self) -> bool:
        """Whether every byte is accounted for."""
        return self.bytes_in == self.bytes_out + self.bytes_dropped + self.bytes_changed

    def add(self, batch: Any) -> int:
        """Count a batch of rows with ``COLUMNS``; returns the first row whose bytes do not add up, -1 if all do."""
        import pyarrow.compute as pc

        kept = batch["kept"].to_numpy(zero_copy_only=False)
        came, out, dropped, copies = (
            batch[name].to_numpy(zero_copy_only=False) for name in ("bytes_in", "bytes_out", "bytes_dropped", "copies")
        )
        changes = pc.list_flatten(batch["changes"])
        amounts = changes.field("bytes").to_numpy(zero_copy_only=False)
        taken = np.zeros(batch.num_rows, dtype=np.int64)
        np.add.at(taken, pc.list_parent_indices(batch["changes"]).to_numpy(), amounts)
        wrong = (came != out + dropped + taken) | np.where(kept, dropped != 0, out != 0)
        self.documents += batch.num_rows
        self.kept += int(kept.sum())
        self.bytes_in += int(came.sum())
        self.bytes_out += int(out.sum())
        self.bytes_dropped += int(dropped.sum())
        self.bytes_changed += int(taken.sum())
        self.written += int(copies.sum())
        self.bytes_written += int((out * copies).sum())
        self._count_files(batch["file"])
        self._count_reasons(batch)
        self._count_changes(changes)
        self._count_groups(batch)
        self._count_lengths(came, out, batch["step"])
        self._count_clusters(batch["cluster"].to_numpy(), kept)
        return int(wrong.argmax()) if wrong.any() else -1

    def _count_files(self, names: Any) -> None:
        import pyarrow.compute as pc

        if len(names):
            self.files += names[0].as_py() != self.last_file
            self.files += pc.sum(pc.not_equal(names[1:], names[:-1])).as_py() or 0
            self.last_file = names[-1].as_py()

    def _count_reasons(self, batch: Any) -> None:
        import pyarrow.compute as pc

        found = _grouped(batch.filter(pc.invert(batch["kept"])), ("step", "reason"), ("bytes_dropped",))
        for (step, reason), count, (size,) in found:
            key = (step, reason)
            if key not in self.by_reason and len(self.by_reason) >= MOST_REASONS:
                key = (step, "other reasons")
            documents, total = self.by_reason.get(key, (0, 0))
            self.by_reason[key] = documents + count, total + size

    def _count_changes(self, changes: Any) -> None:
        import pyarrow as pa

        table = pa.table({"step": changes.field("step"), "bytes": changes.field("bytes")})
        for (step,), count, (size,) in _grouped(table, ("step",), ("bytes",)):
            documents, total = self.by_change.get(step, (0, 0))
            self.by_change[step] = documents + count, total + size

    def _count_groups(self, batch: Any) -> None:
        import pyarrow.compute as pc

        read = batch.filter(pc.not_equal(batch["step"], READ))
        for name, groups in (("language", self.languages), ("kind", self.kinds)):
            for (key, kept), count, (came, out) in _grouped(read, (name, "kept"), ("bytes_in", "bytes_out")):
                group = groups.setdefault(key, Group())
                group.documents_in += count
                group.bytes_in += came
                group.documents += count * kept
                group.bytes += out
        kept_ones = batch.filter(batch["kept"])
        for (key,), count, (size, copies) in _grouped(kept_ones, ("split",), ("bytes_out", "copies")):
            side = self.sides.setdefault(key, Side())
            side.documents, side.bytes, side.written = side.documents + count, side.bytes + size, side.written + copies

    def _count_lengths(self, came: Integers, out: Integers, steps: Any) -> None:
        import pyarrow.compute as pc

        was_read = pc.not_equal(steps, READ).to_numpy(zero_copy_only=False)
        for place, sizes in enumerate((came[was_read], out[out > 0])):
            self.lengths[place] += np.bincount(np.frexp(sizes)[1], minlength=BINS)

    def _count_clusters(self, cluster: Integers, kept: npt.NDArray[np.bool_]) -> None:
        known = cluster >= 0
        if not known.any():
            return
        size, needed = self.clusters.shape[1], int(cluster.max()) + 1
        if needed > size:
            self.clusters = np.pad(self.clusters, ((0, 0), (0, max(needed, 2 * size) - size)))
        for place, chosen in enumerate((known, known & kept)):
            np.add.at(self.clusters[place], cluster[chosen], 1)


def _grouped(
    table: Any, keys: Sequence[str], sums: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], int, tuple[int, ...]]]:
    """The rows of each group: its keys, how many they are, and the sums of some columns."""
    import pyarrow as pa

    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    wanted = [(name, "sum") for name in sums]
    grouped = table.group_by(list(keys)).aggregate([*wanted, ([], "count_all")])
    for row in grouped.to_pylist():
        yield tuple(row[key] for key in keys), row["count_all"], tuple(row[f"{name}_sum"] for name in sums)


@dataclass(frozen=True)
class Account:
    """What became of all input of a prepared folder.

    Attributes:
        stages: as found, after every step in the recipe's order; the last one is what was kept.
        reasons: why documents were left out, those of most bytes first.
        changes: examples of what steps changed, each with ``before`` and ``after``, by step.
        clusters: the largest ones.
        crowds: where so many documents resemble each other that one should look.
    """

    folder: Path
    manifest: dict[str, Any]
    totals: Totals
    stages: tuple[Stage, ...]
    reasons: tuple[Reason, ...]
    changes: dict[str, list[dict[str, str]]]
    clusters: tuple[Cluster, ...]

    @property
    def clustered(self) -> tuple[int, int, int]:
        """Duplicate clusters, the documents in them, and how many of these were kept."""
        sizes, kept = self.totals.clusters
        return int(np.count_nonzero(sizes)), int(sizes.sum()), int(kept.sum())


def open_ledger(folder: Path) -> dict[str, Any]:
    """Make sure that a folder is prepared and has a ledger; returns its manifest.

    Raises:
        DataError: it is not, or was prepared before there were ledgers.
    """
    if not store.is_prepared(folder):
        got = "nothing there" if not folder.exists() else "a file" if folder.is_file() else "another folder"
        fix = "Name the folder that was written, the --out of `bimo prepare`."
        if (folder / store.RECIPE).is_file():
            got, fix = "one that is not finished", "The same `bimo prepare` again goes on with it."
        raise DataError(f"{folder} has no ledger.", expected="a folder made by `bimo prepare`", got=got, fix=fix)
    if not (folder / LEDGER).is_file():
        fix = "Prepare the text again into a new folder."
        raise DataError(f"{folder} was prepared by an older bimo, which kept no ledger.", fix=fix)
    return store.read_manifest(folder)


def account(folder: Path) -> Account:
    """Add up the ledger of a prepared folder.

    Raises:
        DataError: there is none, it is damaged, or its bytes do not add up.
    """
    manifest = open_ledger(folder)
    totals = count(folder)
    said = (manifest["documents"], manifest["bytes"])
    if said != (totals.written, totals.bytes_written):
        got = f"{totals.written:,} documents and {totals.bytes_written:,} bytes in the ledger"
        expected = f"{said[0]:,} documents and {said[1]:,} bytes, as in the manifest"
        raise damaged_ledger(folder / LEDGER, expected=expected, got=got)
    examples = _read_examples(folder)
    return Account(
        folder=folder,
        manifest=manifest,
        totals=totals,
        stages=stages(totals, order_of(folder)),
        reasons=_reasons(folder, totals, examples),
        changes={key.rpartition(": ")[0]: some for key, some in examples.items() if key.endswith(f": {CHANGED}")},
        clusters=_largest_clusters(folder, totals.clusters),
    )


def count(folder: Path, keep: Any = None) -> Totals:
    """Count the rows of a ledger, or those of which the expression ``keep`` (pyarrow) holds.

    Raises:
        DataError: it is damaged, or the bytes of a row do not add up.
    """
    totals, first = Totals(), 0
    for batch in batches(folder, COLUMNS):
        chosen = batch if keep is None else batch.filter(keep(batch))
        wrong = totals.add(chosen) if chosen.num_rows else -1
        if wrong >= 0:
            where = f"row {first + wrong:,}" if keep is None else f"a row of {chosen['file'][wrong]}"
            if keep is None:
                where += f" ({next(read_rows(folder / LEDGER, ('id',), first + wrong)).id})"
            expected = "bytes in = bytes out + bytes dropped + bytes changed"
            raise damaged_ledger(folder / LEDGER, expected=expected, got=f"other sums in {where}")
        first += batch.num_rows
    assert totals.balanced, "the rows add up, and their sums do not"
    return totals


def batches(folder: Path, columns: Sequence[str]) -> Iterator[Any]:
    """The rows of a ledger as record batches of pyarrow.

    Raises:
        DataError: it cannot be read.
    """
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / LEDGER
    try:
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=ROWS, columns=list(columns))
    except (OSError, pa.ArrowException, KeyError) as cause:
        raise damaged_ledger(path, expected="the ledger of prepared text", got=str(cause)) from None


def order_of(folder: Path) -> list[str]:
    """The cleaning steps that were on, in order."""
    recipe = files.read_json(folder / store.RECIPE, error=DataError, expected="the recipe of prepared text")
    clean = recipe.get("clean")
    steps = clean.items() if isinstance(clean, dict) else ()
    return [name for name, config in steps if isinstance(config, dict) and config.get("on")]


def stages(totals: Totals, order: Sequence[str]) -> tuple[Stage, ...]:
    """The funnel: what was found, and what was left after every step."""
    dropped: dict[str, tuple[int, int]] = {}
    for (step, _), (documents, size) in totals.by_reason.items():
        before = dropped.get(step, (0, 0))
        dropped[step] = before[0] + documents, before[1] + size
    known = [READ, *order, DUPLICATES, MIX]
    others = sorted((set(dropped) | set(totals.by_change)) - set(known))
    documents, size = totals.documents, totals.bytes_in
    found = [Stage("found", documents, size)]
    for name in [READ, *order, *others, DUPLICATES, *([MIX] if MIX in dropped else [])]:
        left_out, changed = dropped.get(name, (0, 0)), totals.by_change.get(name, (0, 0))
        documents, size = documents - left_out[0], size - left_out[1] - changed[1]
        found.append(Stage(name, documents, size, *left_out, *changed))
    assert (documents, size) == (totals.kept, totals.bytes_out), "a step is missing from the funnel"
    return tuple(found)


def _read_examples(folder: Path) -> dict[str, list[dict[str, str]]]:
    if not (folder / EXAMPLES).is_file():
        return {}
    return files.read_json(folder / EXAMPLES, error=DataError, expected="the examples of a ledger")


def _reasons(folder: Path, totals: Totals, examples: dict[str, list[dict[str, str]]]) -> tuple[Reason, ...]:
    ordered = sorted(totals.by_reason.items(), key=lambda one: (-one[1][0], -one[1][1], one[0]))
    missing: dict[tuple[str, str], list[dict[str, str]]] = {
        key: [] for key, _ in ordered[:MOST_REASONS] if f"{key[0]}: {key[1]}" not in examples
    }
    _first_rows(folder, missing)
    return tuple(
        Reason(*key, *numbers, tuple((examples.get(f"{key[0]}: {key[1]}") or missing.get(key, []))[:SHOWN]))
        for key, numbers in ordered
    )


def _first_rows(folder: Path, wanted: dict[tuple[str, str], list[dict[str, str]]]) -> None:
    """Find the first documents that were left out for each reason."""
    import pyarrow as pa
    import pyarrow.compute as pc

    left = set(wanted)
    for batch in batches(folder, ("id", "file", "evidence", "step", "reason")) if left else ():
        keys = pc.binary_join_element_wise(batch["step"], batch["reason"], "\0")
        chosen = np.flatnonzero(pc.is_in(keys, pa.array(["\0".join(key) for key in left], pa.string())))
        for number in chosen.tolist():
            key = batch["step"][number].as_py(), batch["reason"][number].as_py()
            example = {name: batch[name][number].as_py() for name in ("id", "evidence")}
            if key in left and example not in wanted[key]:  # records that cannot be read share the name of their file
                wanted[key].append(example)
                left -= {key} if len(wanted[key]) == SHOWN else set()
        if not left:
            return


def _largest_clusters(folder: Path, clusters: npt.NDArray[np.int32]) -> tuple[Cluster, ...]:
    import pyarrow as pa
    import pyarrow.compute as pc

    sizes, kept = clusters
    chosen = np.flatnonzero(sizes)
    chosen = chosen[np.argsort(-sizes[chosen], kind="stable")[:LARGEST]]
    members: dict[int, list[Member]] = {int(number): [] for number in chosen}
    columns = ("id", "kept", "bytes_out", "bytes_dropped", "evidence", "cluster")
    for batch in batches(folder, columns) if members else ():
        for row in batch.filter(pc.is_in(batch["cluster"], pa.array(list(members), pa.int64()))).to_pylist():
            member = Member(row["id"], row["kept"], row["bytes_out"] + row["bytes_dropped"], row["evidence"])
            some = members[row["cluster"]]
            some.append(member)
            some.sort(key=lambda one: not one.kept)  # the ones that were kept come first
            del some[MEMBERS:]
    return tuple(Cluster(int(sizes[n]), int(kept[n]), tuple(members[n])) for n in chosen.tolist())
