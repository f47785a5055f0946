"""What became of one file, document or text of a prepared folder, and how we know."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from bimo import files
from bimo.errors import BimoError, DataError
from bimo.text import corpora, store
from bimo.text.decode import Unreadable, ZstdStream, text_chunks, text_lines
from bimo.text.document import Document, Progress
from bimo.text.prepare.funnel import Integers, Totals, batches, count, open_ledger, order_of
from bimo.text.prepare.ledger import LEDGER, READ, Row, rows_at
from bimo.text.prepare.part import DOCUMENTS
from bimo.text.source import open_source

MOST_ROWS = 10  # documents that an answer tells of one by one
MOST_FOUND = 100  # documents that hold a piece of text, after which the search ends
MOST_NAMES = 50_000  # that a misspelt one is compared with
LONGEST_NAME = 1_000  # characters
NEAR = 3
UNSPACED = re.compile("[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")
HOW = {
    "name": "by the name",
    "text": "by the hash of the text as it was read",
    "file": "by the hash of what the file holds, under this name",
    "kept": "in the cleaned text",
    "source": "by reading the source files again, as the text as it was read is not kept",
}


@dataclass(frozen=True)
class Answer:
    """What became of what was asked for.

    Attributes:
        how: a key of ``HOW``: how it was found.
        documents: how many rows are meant, of which ``rows`` holds the first; at least, where ``more``.
        totals: of a file with several documents.
        instead: the rows of the copies that were kept in place of ``rows``, by id.
        order: the steps.
        near: names in the ledger that the question may have meant.
        remarks: what else to know.
    """

    question: str
    how: str
    documents: int
    rows: tuple[Row, ...]
    totals: Totals | None
    instead: dict[str, Row]
    order: tuple[str, ...]
    more: bool = False
    near: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def story(self, row: Row) -> list[tuple[str, str]]:
        """What each step did to a document, in order: its name and a sentence."""
        return story(row, self.order, self.instead.get(row.copy_of))


@dataclass
class _Found:
    """Rows of the ledger, by number."""

    how: str
    numbers: Integers = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    more: bool = False


Search = Callable[[Path, str, Progress | None], tuple[_Found, list[str]]]  # also what to say of it


def find(folder: Path, question: str, progress: Progress | None = None) -> Answer:
    """Say what became of a file, of a document by its id, or of a text or a piece of one.

    Looks for the name in the ledger, then for the hash of the text, then for the text in what was kept, and at last
    in the source files where they are still there.

    Args:
        progress: told about the reading of source files, which can take long.

    Raises:
        DataError: the folder has no ledger, or there is nothing like that in it.
    """
    open_ledger(folder)
    if not question.strip():
        raise DataError("There is nothing to look for.", expected="a file, the id of a document, or text", got="none")
    by_name, by_text, near = _look_up(folder, question)
    if len(by_name.numbers):
        return _answer(folder, question, by_name, near=())
    if len(by_text.numbers):
        return _answer(folder, question, by_text, near=near)
    remarks: list[str] = []
    searches: tuple[Search, ...] = (_of_this_file, _in_kept_text, _in_sources)
    for search in searches:
        if search is _in_sources and not re.search(r"\s", question):
            near = near or _similar_names(folder, question)
            if near:
                break  # whoever asks will have meant one of them, and reading everything again takes long
        found, said = search(folder, question, progress)
        remarks += said
        if len(found.numbers):
            return _answer(folder, question, found, near=near, remarks=remarks)
    fix = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Give more of it, or the name of its file."
    shown = question if len(question) <= 60 else question[:57] + "..."
    raise DataError(f"{folder} knows nothing of {shown!r}.", got="; ".join(remarks), fix=fix)


def _answer(folder: Path, question: str, found: _Found, near: Sequence[str], remarks: Sequence[str] = ()) -> Answer:
    rows = rows_at(folder / LEDGER, found.numbers[:MOST_ROWS].tolist())
    totals = None
    if len(found.numbers) > 1 and found.how in ("name", "file"):
        totals = _totals(folder, found.numbers)
    copies = _numbers_of(folder, {row.copy_of for row in rows if row.copy_of})
    instead = {row.id: row for row in rows_at(folder / LEDGER, copies.tolist())}
    order = tuple(order_of(folder))
    return Answer(
        question, found.how, len(found.numbers), tuple(rows), totals, instead, order, found.more, tuple(near),
        tuple(remarks),
    )  # fmt: skip


def _totals(folder: Path, numbers: Integers) -> Totals:
    """The sums of some rows, whose numbers are in order."""
    import pyarrow as pa

    first = 0

    def keep(batch: Any) -> Any:
        nonlocal first
        mask = np.zeros(batch.num_rows, dtype=bool)
        begin, end = np.searchsorted(numbers, (first, first + batch.num_rows))
        mask[numbers[begin:end] - first] = True
        first += batch.num_rows
        return pa.array(mask)

    return count(folder, keep)


def _look_up(folder: Path, question: str) -> tuple[_Found, _Found, tuple[str, ...]]:
    """Rows by name and by the hash of their text, and a few names that hold the question; one pass.

    A name is that of a document or a file, else the end of the name of one file, else that of a folder.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names, hashes = _names(question), pa.array(sorted(_hashes_of(question)))
    named: dict[str, list[Integers]] = {name: [] for name in names}
    ending: dict[str, list[Integers]] = {}
    inside, same_text = [], []
    near: dict[str, None] = {}
    first = 0
    for batch in batches(folder, ("id", "file", "hash")):
        ids, files_of = batch["id"], batch["file"]
        same_text.append(first + np.flatnonzero(pc.is_in(batch["hash"], hashes)))
        for name in names:
            named[name].append(first + np.flatnonzero(pc.or_(pc.equal(ids, name), pc.equal(files_of, name))))
        if names:
            inside.append(first + np.flatnonzero(pc.starts_with(files_of, _plain(question) + "/")))
            mask = pc.ends_with(files_of, "/" + names[0].lstrip("/"))
            for name in pc.unique(files_of.filter(mask)).slice(0, NEAR).to_pylist():
                ending.setdefault(name, []).append(first + np.flatnonzero(pc.equal(files_of, name)))
            for column in (files_of, ids) if len(near) < NEAR else ():
                mask = pc.match_substring(column, names[0], ignore_case=True)
                near.update(dict.fromkeys(pc.unique(column.filter(mask)).slice(0, NEAR).to_pylist()))
        first += batch.num_rows
    chosen = next((some for some in named.values() if any(map(len, some))), None)
    if chosen is None:
        chosen = next(iter(ending.values())) if len(ending) == 1 else inside
    return _Found("name", _joined(chosen)), _Found("text", _joined(same_text)), tuple(near)[:NEAR]


def _joined(numbers: Sequence[Integers]) -> Integers:
    return np.concatenate(numbers) if numbers else np.empty(0, dtype=np.int64)


def _names(question: str) -> list[str]:
    """What a file that is called so may be called in the ledger, the most exact name first; none if it is no name."""
    if "\n" in question or len(question) > LONGEST_NAME:
        return []
    plain = _plain(question)
    parts = plain.split("/")
    ends = ["/".join(parts[place:]) for place in range(len(parts))]
    return list(dict.fromkeys([question, plain, *(end for end in ends if end)]))


def _plain(path: str) -> str:
    return PurePath(os.path.normpath(path)).as_posix()


def _hashes_of(text: str) -> set[str]:
    """The hashes that a text may have in the ledger: a shell leaves out the last line end, an editor adds one."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    forms = {text, plain, plain.rstrip("\n"), plain.rstrip("\n") + "\n", plain.strip()}
    return {_hash(form) for form in forms}


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def _numbers_of(folder: Path, values: Iterable[str], column: str = "id") -> Integers:
    """The numbers of the rows with one of these ids, or hashes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted, first = pa.array(sorted(values), pa.string()), 0
    found: list[Integers] = []
    if not len(wanted):
        return _joined(found)
    for batch in batches(folder, (column,)):
        found.append(first + np.flatnonzero(pc.is_in(batch[column], wanted)))
        first += batch.num_rows
    return _joined(found)


def _of_this_file(folder: Path, question: str, progress: Progress | None) -> tuple[_Found, list[str]]:
    """Documents with the text of a file of this machine, whatever it was called when it was read."""
    if not _names(question) or not os.path.isfile(question):
        return _Found("file"), []
    try:
        hashes = {_hash(document.text) for document in itertools.islice(_again(folder, [question]), MOST_FOUND)}
    except BimoError as cause:
        return _Found("file"), [f"the file {question} cannot be read: {cause.problem}"]
    found = _numbers_of(folder, hashes, "hash")
    return _Found("file", found), [] if len(found) else [f"no document with the text of the file {question}"]


def _in_kept_text(folder: Path, question: str, progress: Progress | None) -> tuple[_Found, list[str]]:
    """Documents that hold a piece of text after cleaning, of duplicates all that are still known."""
    shards = [folder / shard["file"] for shard in store.read_manifest(folder)["shards"]]
    searched = sorted(folder.glob(f"{store.PARTS}/*/{DOCUMENTS}")) or shards
    hits = itertools.chain.from_iterable(_lines_with(path, question) for path in searched)
    ids = set(itertools.islice(hits, MOST_FOUND))
    found = _numbers_of(folder, ids)
    return _Found("kept", found, more=len(ids) == MOST_FOUND), [] if len(found) else ["not in the cleaned text"]


def _lines_with(path: Path, piece: str) -> Iterator[str]:
    """The ids of the documents of a shard that hold ``piece``, whatever white space is between its words."""
    plain = _pattern(piece)
    in_json = _pattern(piece, written_as_json=True)  # so that only lines that hold it are parsed
    try:
        with path.open("rb") as raw:
            for _, line in text_lines(text_chunks(ZstdStream(raw), "utf-8"), limit=1 << 62):
                if line and in_json.search(line):
                    record = json.loads(line)
                    if plain.search(record["text"]):
                        yield record["id"]
    except (OSError, Unreadable, ValueError, KeyError, TypeError) as cause:
        raise DataError(f"{path} is damaged.", got=str(cause), fix=store.REPAIR) from None


def _pattern(piece: str, *, written_as_json: bool = False) -> re.Pattern[str]:
    """Finds a piece of text whatever white space is between its words, or none between two Chinese or Japanese ones."""
    words = piece.split()
    gap = r"(?:\s|\\[ntrf])" if written_as_json else r"\s"
    parts = []
    for before, word in itertools.pairwise(["", *words]):
        if before:
            parts.append(gap + ("*" if UNSPACED.match(before[-1]) and UNSPACED.match(word[0]) else "+"))
        parts.append(re.escape(json.dumps(word, ensure_ascii=False)[1:-1] if written_as_json else word))
    return re.compile("".join(parts))


def _in_sources(folder: Path, question: str, progress: Progress | None) -> tuple[_Found, list[str]]:
    """Documents whose text as it is read holds a piece of text."""
    source = str(store.read_manifest(folder).get("source", ""))
    names = [source] if os.path.lexists(source) else source.split(", ")
    missing = [name for name in names if not _is_there(name)]
    if missing:
        return _Found("source"), [f"source files that are not there any more, seen from here: {', '.join(missing)}"]
    plain = _pattern(question)
    hashes: dict[str, str] = {}
    said: list[str] = []
    try:
        for document in _again(folder, names, progress):
            if plain.search(document.text):
                hashes[document.id] = _hash(document.text)
                if len(hashes) == MOST_FOUND:
                    break
    except BimoError as cause:
        said = [f"the source files cannot be read again: {cause.problem}"]
    found = _numbers_of(folder, hashes)
    if not hashes:
        said = said or ["not in the source files, read again"]
    elif not len(found):
        said = [f"{next(iter(hashes))} holds it, but was not there when the text was prepared"]
    changed = [row.id for row in rows_at(folder / LEDGER, found[:MOST_ROWS].tolist()) if hashes.get(row.id) != row.hash]
    said += [f"{id} has changed since it was prepared" for id in changed]
    return _Found("source", found, more=len(hashes) == MOST_FOUND), said


def _is_there(name: str) -> bool:
    return os.path.lexists(name) or (name in corpora.CORPORA and store.is_prepared(corpora.folder_of(name)))


def _again(folder: Path, names: Sequence[str], progress: Progress | None = None) -> Iterator[Document]:
    """The documents of some inputs, read as they were when the folder was prepared."""
    reading = files.read_json(folder / store.RECIPE, error=DataError).get("reading")
    yield from open_source(*names, **(reading if isinstance(reading, dict) else {})).watched(progress)


def _similar_names(folder: Path, question: str) -> tuple[str, ...]:
    """Names that the question may be a misspelling of: of files, else of documents."""
    names = _names(question)
    for column in ("file", "id") if names else ():
        known: dict[str, None] = {}
        for batch in batches(folder, (column,)):
            known.update(dict.fromkeys(batch[column].unique().to_pylist()))
            if len(known) > MOST_NAMES:
                break
        for name in (names[0], names[-1]):
            if near := difflib.get_close_matches(name, known, n=NEAR, cutoff=0.6):
                return tuple(near)
    return ()


def story(row: Row, order: Sequence[str], instead: Row | None = None) -> list[tuple[str, str]]:
    """What each step did to a document, in order: its name and a sentence."""
    changes = dict(row.changes)
    notes: dict[str, list[str]] = {}
    for note in row.notes:
        step, colon, rest = note.partition(": ")
        known = bool(colon) and (step in order or step in changes)
        notes.setdefault(step if known else READ, []).append(rest if known else note)
    told: list[tuple[str, str]] = []
    if row.step == READ:
        whole = row.evidence.startswith(row.reason)  # else it says where
        where = f" ({row.evidence})" if row.evidence and not whole else ""
        told.append((READ, f"could not be read: {row.evidence if whole else row.reason + where}"))
    else:
        size = f"{row.bytes_in:,} bytes" + (f" from byte {row.offset:,} on" if row.offset > 0 else "")
        what = ", ".join([row.kind or "prose", size, *notes.get(READ, [])])
        told.append((READ, what + (f", {row.language}" if row.language else "")))
    for step in dict.fromkeys((*order, *changes)):
        said = "; ".join(notes.get(step, []))
        if step in changes:
            told.append((step, f"{_taken(changes[step])}" + (f": {said}" if said else "")))
        elif said:
            told.append((step, said))
        if row.step == step:
            told.append((step, _left_out(row)))
    if row.step and row.step != READ and row.step not in (*order, *changes):
        told.append((row.step, _left_out(row)))
    if instead is not None:
        fate = "" if instead.kept else f"; that one was left out later, by {instead.step}: {instead.reason}"
        told.append(("", f"kept in its place: {instead.id}, {instead.bytes_out + instead.bytes_dropped:,} bytes{fate}"))
    if row.kept:
        times = "" if row.copies == 1 else f", written {row.copies:,} times"
        side = f", for {row.split}" if row.split else ""
        told.append(("kept", f"{row.bytes_out:,} of {row.bytes_in:,} bytes{times}{side}"))
    return told


def _taken(size: int) -> str:
    if not size:
        return "changed it, as many bytes as before"
    amount = f"{abs(size):,} byte{'' if abs(size) == 1 else 's'}"
    return f"took away {amount}" if size > 0 else f"added {amount}"


def _left_out(row: Row) -> str:
    evidence = f" ({row.evidence})" if row.evidence and row.evidence != row.reason else ""
    return f"left it out: {row.reason}{evidence}"


def outcome(row: Row) -> str:
    """What became of a document, in a few words."""
    if row.kept:
        return "kept"
    return f"not read: {row.reason}" if row.step == READ else f"left out by {row.step}: {row.reason}"
