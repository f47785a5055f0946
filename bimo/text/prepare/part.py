"""One part of the work, in a process of its own: some files are read, cleaned, signed and written down.

A part is a folder, whole or absent: the documents that the steps keep, a ledger of all, and what finding duplicates
needs to know. What is in it depends on its files and on the recipe alone.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bimo import files
from bimo.errors import DataError
from bimo.text import measures, store
from bimo.text.clean import pii
from bimo.text.document import Document, Drop, Skipped, Step
from bimo.text.listing import File, Listing
from bimo.text.prepare.ledger import CHANGED, LEDGER, READ, LedgerWriter, Row
from bimo.text.prepare.recipe import Recipe, build_steps, fingerprint
from bimo.text.signatures import exact_hashes, signatures
from bimo.text.source import Source

DOCUMENTS, FACTS = "documents.jsonl.zst", "part.json"
ARRAYS = {"digest": (np.uint8, 32), "exact": (np.uint64, 2), "bands": (np.uint64, 16), "check": (np.uint8, 128)}
NEAR = ("bands", "check")  # made only where near duplicates are looked for
CLEANED_TOGETHER = 256  # documents, or SIGNED_TOGETHER
SIGNED_TOGETHER = 1 << 20  # bytes of text
EXAMPLES, EXAMPLE_CHARACTERS = 3, 600  # of every reason, and of each text
NOTHING_IN_IT = ("empty", "no records")
AROUND = 8_000  # characters beside an excerpt that are read for personal data: a private key is long


@dataclass(frozen=True)
class Task:
    """Files to make one part of.

    Attributes:
        recipe: with what its steps have learned.
        work: a hash of all that it does to a text.
        folder: of the parts.
    """

    files: tuple[File, ...]
    recipe: Recipe
    work: str
    folder: str

    @property
    def name(self) -> str:
        """The name of the part's folder."""
        return fingerprint([self.work, [identity(file) for file in self.files]])

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self.files)


def identity(file: File) -> tuple[Any, ...]:
    """What makes a file the same as before."""
    return (file.name, file.size, file.modified, file.sha256, file.begin)


@dataclass
class Facts:
    """What is in a part.

    Attributes:
        work: the fingerprint of how it was made.
        files: of each, its :func:`identity`, its rows in the ledger, how many of these are of documents, and how many
            the steps kept.
        examples: of what the steps did, by ``step: reason``, each with a number by which some are chosen.
        unread: files that gave no text though there is something in them, or could not be read to their end, and why.
    """

    work: str = ""
    files: list[tuple[tuple[Any, ...], int, int, int]] = field(default_factory=list)
    documents: int = 0
    kept: int = 0
    bytes_in: int = 0
    examples: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    unread: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, part: Path) -> Facts:
        """The facts of a finished part.

        Raises:
            DataError: it is not finished, or another version of bimo made it.
        """
        values = files.read_json(part / FACTS, error=DataError, expected="a finished part")
        try:
            values["files"] = [(tuple(name), *counts) for name, *counts in values["files"]]
            return cls(**values)
        except (TypeError, KeyError, ValueError) as cause:
            raise DataError(f"{part} is of another version.", got=str(cause)) from None


def make_part(task: Task) -> Path:
    """Do a task, unless it is done; returns the folder of the part."""
    part = Path(task.folder) / task.name
    if not (part / FACTS).exists():
        with _new_part(part, task) as making:
            for file in task.files:
                making.add(file)
    return part


def make_broken_part(task: Task, cause: str) -> Path:
    """A part that says that its file cannot be worked on, as the process that tried has died."""
    part = Path(task.folder) / task.name
    with _new_part(part, task) as making:
        for file in task.files:
            making.refuse(file, cause)
    return part


@contextmanager
def _new_part(part: Path, task: Task) -> Iterator[_Part]:
    """A part that is whole on the disk, or absent; of two processes that make the same one, the first wins."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{part.name}.", suffix=".tmp", dir=part.parent))
    try:
        temporary.chmod(0o755)  # mkdtemp's 0700 would hide it from workers of other users
        with _Part(temporary, task) as making:
            yield making
        (temporary / FACTS).write_text(json.dumps(vars(making.facts)), encoding="utf-8")
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        try:
            os.replace(temporary, part)
        except OSError:
            if not (part / FACTS).exists():
                raise
        files.sync_folder(part.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass(slots=True)
class _Counts:
    """What is in a file, as far as it is read: see :class:`Facts`."""

    file: tuple[Any, ...]
    rows: int = 0
    documents: int = 0
    kept: int = 0


@dataclass(slots=True)
class _Work:
    """A document on its way through the steps, its text in UTF-8, its row, and the counts of its file."""

    document: Document
    raw: bytes
    row: Row
    counts: _Counts


class _Part:
    """The files of a part while it is made."""

    def __init__(self, folder: Path, task: Task) -> None:
        self._folder, self._options, self._near = folder, task.recipe.reading.options(), task.recipe.duplicates.near
        self._steps = build_steps(task.recipe.clean)
        self._examples = _Examples()
        self._counts: list[_Counts] = []
        self._held: list[tuple[Row, _Work | None]] = []  # rows that wait, and what is to be done for them
        self._held_bytes = 0
        self._texts: list[str] = []  # of documents that are kept, with their lines and digests
        self._lines: list[bytes] = []
        self._digests: list[bytes] = []
        self._waiting = 0  # bytes of these texts
        self.facts = Facts(task.work)

    def __enter__(self) -> _Part:
        import zstandard

        self._stack = ExitStack()
        self._ledger = LedgerWriter(self._folder / LEDGER)
        self._stack.callback(self._ledger.close)
        raw = self._stack.enter_context((self._folder / DOCUMENTS).open("wb"))
        self._documents = self._stack.enter_context(zstandard.ZstdCompressor(level=1).stream_writer(raw, closefd=False))
        self._arrays: dict[str, BinaryIO] = {
            name: self._stack.enter_context((self._folder / f"{name}.bin").open("wb"))
            for name in ARRAYS
            if self._near or name not in NEAR
        }
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0] is None:
            self._clean()
            self._sign()
        self._stack.close()
        self.facts.examples = self._examples.found
        self.facts.files = [(one.file, one.rows, one.documents, one.kept) for one in self._counts]
        self.facts.documents = sum(one.rows for one in self._counts)
        self.facts.kept = sum(one.kept for one in self._counts)

    def add(self, file: File) -> None:
        """Read a file, clean its documents and write them down; the last ones later, together with those to come."""
        source = Source(file.name, Listing([file]), self._options)
        counts = self._count(file)
        for number, found in enumerate(source.records()):
            if isinstance(found, Document):
                self._wait(found, number, counts)
            else:
                self._lose(f"{file.name} {found.where}".rstrip(), file, counts, found.reason, found.where)
        for skipped in source.unread if counts.rows else source.skipped:
            self._lose(file.name, file, counts, skipped.reason.partition(" (")[0], skipped.reason)
        useless = [one for one in source.skipped if not one.reason.startswith(NOTHING_IN_IT)]
        self.facts.unread += map(asdict, source.unread if counts.documents else useless)

    def refuse(self, file: File, cause: str) -> None:
        """Write down that a file gives nothing."""
        self._lose(file.name, file, self._count(file), cause, cause)
        self.facts.unread.append(asdict(Skipped(file.name, cause)))

    def _count(self, file: File) -> _Counts:
        self._counts.append(_Counts(identity(file)))
        self.facts.bytes_in += file.size
        return self._counts[-1]

    def _lose(self, id: str, file: File, counts: _Counts, reason: str, evidence: str) -> None:
        row = Row(id, file.name, counts.rows)
        row.drop(READ, reason, evidence)
        counts.rows += 1
        self._held.append((row, None))

    def _wait(self, document: Document, number: int, counts: _Counts) -> None:
        raw = document.text.encode("utf-8")
        row = Row(document.id, document.source, number, hashlib.blake2b(raw, digest_size=16).hexdigest())
        row.bytes_in, row.offset = len(raw), document.offset
        self._held.append((row, _Work(document, raw, row, counts)))
        self._held_bytes += len(raw)
        counts.rows += 1
        counts.documents += 1
        if len(self._held) >= CLEANED_TOGETHER or self._held_bytes > SIGNED_TOGETHER:
            self._clean()

    def _clean(self) -> None:
        """Apply each step to all documents that wait, then the next one: its code and tables stay in the cache."""
        left = [work for _, work in self._held if work]
        for name, step in self._steps:
            left = [work for work in left if self._goes_on(name, step, work)]
        for work in left:
            work.row.kept, work.row.bytes_out, work.row.copies = True, len(work.raw), 1
            work.counts.kept += 1
        for row, done in self._held:
            if done:
                found = done.document
                row.kind, row.language, row.time, row.notes = found.kind, found.language, found.time, found.notes
                if row.kept:
                    self._keep(found, done.raw)
            self._ledger.add(row)
        self._held, self._held_bytes = [], 0
        measures.forget()

    def _goes_on(self, name: str, step: Step, work: _Work) -> bool:
        found, row = work.document, work.row
        result = step(found)
        if isinstance(result, Drop):
            self._examples.add(name, result.reason, found, result.evidence)
            row.bytes_dropped = len(work.raw)
            row.drop(name, result.reason, result.evidence)
            return False
        if result is not found and result.text != found.text:
            before, work.raw = len(work.raw), result.text.encode("utf-8")
            row.changes.append((name, before - len(work.raw)))
            self._examples.add(name, CHANGED, found, result.notes[-1] if result.notes else "", result.text)
        work.document = result
        if result.text and not result.text.isspace():
            return True
        row.bytes_dropped = len(work.raw)
        row.drop(name, "nothing left", f"of {row.bytes_in:,} bytes")
        return False

    def _keep(self, document: Document, raw: bytes) -> None:
        self._lines.append(store.line_of(document, raw))
        self._digests.append(hashlib.sha256(raw).digest())
        self._texts.append(document.text)
        self._waiting += len(raw)
        if self._waiting > SIGNED_TOGETHER:
            self._sign()

    def _sign(self) -> None:
        if self._texts:
            made: dict[str, Any] = {"digest": np.frombuffer(b"".join(self._digests), dtype=np.uint8)}
            if self._near:
                signed = signatures(self._texts)
                made |= {"exact": signed.exact, "bands": signed.bands, "check": signed.check}
            else:
                made["exact"] = exact_hashes(self._texts)
            for name, values in made.items():
                self._arrays[name].write(np.ascontiguousarray(values, dtype=ARRAYS[name][0]).tobytes())
            self._documents.write(b"".join(self._lines))
        self._texts, self._lines, self._digests, self._waiting = [], [], [], 0


class _Examples:
    """A few documents for everything that a step did: those with the lowest hash, so that the order does not count."""

    def __init__(self) -> None:
        self.found: dict[str, list[tuple[int, dict[str, str]]]] = {}

    def add(self, step: str, reason: str, document: Document, evidence: str, after: str | None = None) -> None:
        rank = _rank(document.id)
        kept = self.found.setdefault(f"{step}: {reason}", [])
        if len(kept) == EXAMPLES and rank >= kept[-1][0]:
            return
        begin = 0 if after is None else max(0, first_difference(document.text, after) - EXAMPLE_CHARACTERS // 4)
        example = {"id": document.id, "evidence": evidence, "before": self._excerpt(document.text, begin)}
        if after is not None:
            example["after"] = self._excerpt(after, begin)
        kept.append((rank, example))
        self.found[f"{step}: {reason}"] = heapq.nsmallest(EXAMPLES, kept, key=lambda one: (one[0], one[1]["id"]))

    def _excerpt(self, text: str, begin: int) -> str:
        """Some of a text, without the personal data that would otherwise outlive its removal."""
        first = max(0, begin - AROUND)
        part, begin = text[first : begin + EXAMPLE_CHARACTERS + AROUND], begin - first
        end = begin + EXAMPLE_CHARACTERS
        while findings := pii.find(part):  # what is cut by an edge is found whole, and its placeholder stays whole
            part, (begin, end) = pii.redact(part, findings), pii.moved(findings, begin, end)
        return part[begin:end]


@functools.lru_cache(maxsize=1)  # several steps change a document
def _rank(id: str) -> int:
    """A number by which examples are chosen."""
    return int.from_bytes(hashlib.blake2b(id.encode("utf-8", "replace"), digest_size=6).digest(), "big")


def first_difference(a: str, b: str) -> int:
    """The place of the first character in which two texts differ."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # the longest common beginning, by halves
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def grouped(listed: Sequence[File], size: int) -> Iterator[tuple[File, ...]]:
    """Files in their order, about ``size`` bytes of them together."""
    group: list[File] = []
    total = 0
    for file in listed:
        if group and total + file.size > size:
            yield tuple(group)
            group, total = [], 0
        group.append(file)
        total += file.size
    if group:
        yield tuple(group)
