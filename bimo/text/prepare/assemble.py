"""What becomes of all documents together: duplicates left out, the rest arranged; and the ledger that says so.

Everything here follows the order of the listing, whichever part holds a file and whenever that part was made.

Shapes: D documents that the steps kept, in the order of the listing; R documents as they are written, with repeats.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bimo.text.arrange import NO_SIDE, Integers, Marks, Mix, arrange, check_mix, id_hashes, numbers_by_source, split
from bimo.text.document import Skipped
from bimo.text.duplicates import Duplicates, Numbers, copy_scores, find_duplicates
from bimo.text.prepare.ledger import DUPLICATES, MIX, READ, LedgerWriter, Row, table_of
from bimo.text.prepare.parts import Parts
from bimo.text.prepare.recipe import Arrangement, Recipe
from bimo.text.shingles import Hashes
from bimo.text.source import MOST_REASONS, skipped_records
from bimo.text.split import SIDES, TRAIN

DROPPED = ("file", "step", "reason", "evidence")  # columns that say what was left out


@dataclass
class Decided:
    """What becomes of the documents that the steps kept.

    Attributes:
        ids: of those that were kept in place of others, by their numbers.
        sizes: UTF-8 bytes (D,).
        digests: of their texts (D, 32).
        order: numbers of documents as they are written (R,), those of one side together.
        sides: how many of them are on each side, by name; one nameless side where nothing is held out.
        side: of each document (D,): an index of ``SIDES`` or ``NO_SIDE``.
    """

    ids: dict[int, str]
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
    hashes, read, sizes, times = _looked_up(parts, with_times=recipe.arrangement.split_by == "time")
    duplicates = _duplicates(parts, recipe, copy_scores(read, sizes), sizes, folder)
    kept, arrangement = duplicates.kept, recipe.arrangement
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
            times=times,
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
    return Decided(_ids(parts, duplicates.instead), sizes, digests, duplicates, order, sides, side)


def _looked_up(parts: Parts, *, with_times: bool) -> tuple[Hashes, Integers, Integers, list[str] | None]:
    """Of the documents that the steps kept: hashes of ids, sizes as read and as kept, and times of writing (D,)."""
    hashes = np.empty(parts.count, dtype=np.uint64)
    read, sizes = np.empty(parts.count, dtype=np.int64), np.empty(parts.count, dtype=np.int64)
    times: list[str] = []
    at = 0
    for table in parts.tables(("id", "bytes_in", "bytes_out", "kept", *(["time"] if with_times else []))):
        table = table.filter(table["kept"])
        here = slice(at, at + table.num_rows)
        hashes[here] = id_hashes(table["id"].to_pylist())
        read[here], sizes[here] = table["bytes_in"].to_numpy(), table["bytes_out"].to_numpy()
        times += table["time"].to_pylist() if with_times else []
        at = here.stop
    return hashes, read, sizes, times if with_times else None


def _ids(parts: Parts, instead: Numbers) -> dict[int, str]:
    """The ids of the documents that were kept in place of others, by their numbers."""
    wanted = np.unique(instead[instead >= 0])
    found: dict[int, str] = {}
    at = 0
    for table in parts.tables(("id", "kept")) if len(wanted) else ():
        ids = table.filter(table["kept"])["id"]
        here = wanted[np.searchsorted(wanted, at) : np.searchsorted(wanted, at + len(ids))]
        found |= zip(here.tolist(), ids.take(here - at).to_pylist(), strict=True)
        at += len(ids)
    return found


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


def write_ledger(
    parts: Parts, decided: Decided, not_listed: Sequence[Skipped], path: Path
) -> tuple[dict[str, Any], list[Skipped]]:
    """Write the row of every document, with what was decided about all of them together; at last, unlisted files.

    Returns:
        How many documents and bytes were read, and how many documents were dropped for which reason; and what no
        reader could read, equal reasons of one file together.
    """
    from pyarrow import compute

    reasons: Counter[str] = Counter()
    documents = size = number = 0
    unread = _Unread()
    copies = np.bincount(decided.order, minlength=parts.count)
    ledger = LedgerWriter(path)
    others = table_of(list(map(_not_read, not_listed)))
    for table in itertools.chain(parts.tables(), [others]):
        kept = np.asarray(table["kept"], dtype=bool)
        settled = _settled(table, kept, decided, copies, number)
        number += int(np.count_nonzero(kept))
        for row in settled.select(DROPPED).filter(compute.invert(settled["kept"])).to_pylist():
            reasons[f"{row['step']}: {row['reason']}"] += 1
            if row["step"] == READ and table is not others:
                unread.add(row["file"], row["reason"], row["evidence"])
        documents, size = documents + table.num_rows, size + int(np.sum(table["bytes_in"]))
        ledger.extend(settled)
    ledger.close()
    funnel = {"documents_in": documents, "bytes_in": size, "reasons": dict(reasons.most_common())}
    return funnel, [*not_listed, *unread.skipped()]


def _not_read(skipped: Skipped) -> Row:
    row = Row(skipped.file, skipped.file, 0, bytes_in=skipped.size, bytes_dropped=skipped.size)
    row.drop(READ, skipped.reason, skipped.reason)
    return row


def _settled(table: Any, kept: Marks, decided: Decided, copies: Integers, first: int) -> Any:
    """Rows of a ledger, with what was decided about all documents together.

    Args:
        kept: which of the rows are of documents that the steps kept, the number ``first`` and those that follow.
        copies: how often each document is written (D,).
    """
    import pyarrow as pa
    from pyarrow import compute

    documents = np.arange(first, first + int(np.count_nonzero(kept)))
    duplicates, written = decided.duplicates, kept.copy()
    written[kept] = copies[documents] > 0
    lost = kept & ~written
    bytes_out = np.asarray(table["bytes_out"])
    columns: dict[str, Any] = {
        "kept": written,
        "cluster": _spread(duplicates.cluster[documents], kept, -1),
        "copies": _spread(copies[documents], kept, 0),
        "bytes_out": bytes_out * written,
        "bytes_dropped": np.asarray(table["bytes_dropped"]) + bytes_out * lost,
    }
    if "" not in decided.sides:
        side = _spread(decided.side[documents], kept, NO_SIDE)
        columns["split"] = pa.array([*SIDES, ""]).take(pa.array(np.where(written, side, len(SIDES))))
    if lost.any():
        reasons = [_reason(number, decided) for number in documents[lost[kept]].tolist()]
        for name, values in zip(("step", "reason", "evidence", "copy_of"), zip(*reasons, strict=True), strict=True):
            text = pa.array(values, pa.string())
            columns[name] = compute.replace_with_mask(table[name].combine_chunks(), pa.array(lost), text)
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, table.field(place), pa.array(values))
    return table


def _spread(values: npt.NDArray[Any], kept: Marks, other: int) -> Integers:
    """Values of documents as those of rows, of which some are of none."""
    found = np.full(len(kept), other, dtype=np.int64)
    found[kept] = values
    return found


def _reason(number: int, decided: Decided) -> tuple[str, str, str, str]:
    """Step, reason and evidence for not writing a document that the steps kept, and the id of its better copy."""
    instead = int(decided.duplicates.instead[number])
    if instead < 0:
        return MIX, "not in the mixture", "its input is read less than once", ""
    id = decided.ids[instead]
    return DUPLICATES, *decided.duplicates.evidence(number, id), id


class _Unread:
    """Counts the reasons for which files and records were not read, few of each file."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, tuple[str, int]]] = {}

    def add(self, file: str, reason: str, evidence: str) -> None:
        reasons = self._found.setdefault(file, {})
        whole = evidence.startswith(reason)  # of a file: the evidence says it all
        reason, where = (evidence, "") if whole else (reason, evidence)
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
