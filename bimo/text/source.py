"""A re-iterable stream of documents over what the user named: files, folders, prepared folders and corpora."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from bimo.errors import DataError
from bimo.text import store
from bimo.text.decode import Unreadable, check_encoding, decompressed
from bimo.text.document import Document, Progress, Skipped
from bimo.text.listing import SAME, File, Listing, list_inputs, open_regular
from bimo.text.readers import READERS, kind_of, suffixes_of
from bimo.text.readers.columns import parse_template
from bimo.text.readers.plain import read_text
from bimo.text.readers.record import HIDDEN, Bad, Options, Record, Text
from bimo.text.slices import opened_slice

MOST_REASONS = 20  # a file; what comes after is counted under one


class Source:
    """Documents in a stable order (inputs as given, files sorted by path), read anew and in bounded memory each time.

    Attributes:
        name: what the user typed.
        licence: of a corpus or prepared folder, where known.
        files: what is read.
        total_bytes: size of these files on disk.
        not_listed: what no reader takes, and why.
        skipped: what gave no document and why; begins anew with each pass, whole when the pass has ended.
        unread: those of ``skipped`` that are files, or the rest of one, that were listed but could not be read.
        options: how the files are read.
        strict: whether a file that gives no text, or not all, is an error.
    """

    def __init__(self, name: str, listing: Listing, options: Options, *, strict: bool = False) -> None:
        self.name, self.files, self.options, self.strict = name, tuple(listing.files), options, strict
        self._listing = listing  # whose temporary files live as long as it does
        self.licence = ", ".join(dict.fromkeys(listing.licences)) or None
        self.total_bytes = sum(file.size for file in self.files)
        self._bytes_before = 0  # of the files that the pass that began last has ended
        self._reading: tuple[BinaryIO, File] | None = None
        self.not_listed = tuple(listing.skipped)
        self.skipped = list(self.not_listed)
        self.unread: list[Skipped] = []

    @property
    def bytes_done(self) -> int:
        """How far the pass that began last has come."""
        here = 0
        if self._reading and not self._reading[0].closed:
            raw, file = self._reading
            here = min(raw.tell() - file.begin, file.size)
        return self._bytes_before + here

    def __iter__(self) -> Iterator[Document]:
        return (found for found in self.records() if isinstance(found, Document))

    def records(self) -> Iterator[Document | Bad]:
        """Documents and, between them, the records that gave none."""
        self.skipped, self.unread = list(self.not_listed), []
        self._bytes_before = 0
        for file in self.files:
            try:
                with open_regular(file.path) as raw:
                    self._reading = raw, file
                    yield from self._read_shard(raw, file) if file.sha256 else self._read(raw, file)
            except OSError as cause:
                if file.sha256:
                    raise DataError(f"{file.path} cannot be read.", got=str(cause), fix=store.REPAIR) from None
                self._skip(file, f"cannot be opened: {cause.strerror or cause}")
            self._reading = None
            self._bytes_before += file.size

    def watched(self, progress: Progress | None) -> Iterator[Document]:
        """Iterate, and call ``progress(bytes done, bytes in all)`` at most about 200 times on the way.

        Raises:
            DataError: there was no document to read.
        """
        shown, empty = 0, True
        for document in self:
            empty = False
            if progress and self.bytes_done - shown >= self.total_bytes / 200:
                shown = self.bytes_done
                progress(shown, self.total_bytes)
            yield document
        if empty:
            raise self.nothing_readable()
        if progress:
            progress(self.total_bytes, self.total_bytes)

    def nothing_readable(self) -> DataError:
        """The error for a pass that gave no document."""
        shown = "; ".join(map(str, self.skipped[:3])) + ("; ..." if len(self.skipped) > 3 else "")
        got = f"{len(self.files)} files, none with text" + (f" ({shown})" if shown else "")
        expected = "text in files such as .txt, .md, .jsonl, .csv or .parquet"
        return DataError(f"There is no readable text in {self.name}.", expected=expected, got=got)

    def _read_shard(self, raw: BinaryIO, file: File) -> Iterator[Document]:
        for document in store.read_shard(raw, file.path, file.sha256 or ""):
            id, source = file.name + document.id, file.name + document.source
            yield replace(document, id=id, source=source, side=file.side)

    def _read(self, raw: BinaryIO, file: File) -> Iterator[Document | Bad]:
        suffix, compression = suffixes_of(file.path.name)
        stream, options = decompressed(raw, compression), self.options
        if file.line:
            stream, options = opened_slice(raw, file), replace(options, encoding="utf-8", first_line=file.line)
        bad: Counter[str] = Counter()
        first: dict[str, str] = {}
        given, named = 0, kind_of(file.path.name)
        try:
            for record in READERS.get(suffix, read_text)(stream, options):
                record = _checked(record)
                if isinstance(record, Bad):
                    reason = record.reason if record.reason in bad or len(bad) < MOST_REASONS else "other reasons"
                    bad[reason] += 1
                    first.setdefault(reason, record.where)
                    yield record
                else:
                    given += 1
                    key, text, kind, time, notes, offset = record
                    offset = offset + file.begin if offset >= 0 else -1
                    yield Document(file.name + key, text, file.name, kind or named, "", time, "", notes, offset)
        except Unreadable as cause:
            before = f" ({given} document{'s' * (given > 1)} before this {'were' if given > 1 else 'was'} read)"
            self._skip(file, f"{cause}{before if given else ''}")
        else:
            if not (given or bad or file.line):
                self.skipped.append(Skipped(file.name, "no records"))
        self.skipped += [skipped_records(file.name, reason, first[reason], count) for reason, count in bad.items()]
        status = os.fstat(raw.fileno())
        if status.st_mtime_ns != file.modified or (status.st_size != file.size and not file.line):
            self._skip(file, "changed while it was read: its documents may be torn")

    def _skip(self, file: File, reason: str) -> None:
        self.unread.append(Skipped(file.name, reason))
        self.skipped += self.unread[-1:]
        if self.strict:
            raise not_read(self.unread)


def skipped_records(file: str, reason: str, where: str, count: int) -> Skipped:
    """``count`` records of a file that gave no text for the same reason, the first of them at ``where``."""
    where = f"{count} records, first {where}" if count > 1 else where
    return Skipped(file, f"{reason} ({where})" if where else reason, count)


def not_read(skipped: list[Skipped]) -> DataError:
    """The error for files that were to be read under ``strict``."""
    shown = "; ".join(map(str, skipped[:5])) + (f"; and {len(skipped) - 5} more" if len(skipped) > 5 else "")
    fix = "Take them away, convert them, or leave out --strict."
    return DataError("Not every file can be read.", expected="text in each, under --strict", got=shown, fix=fix)


def _checked(record: Record) -> Record:
    if isinstance(record, Bad):
        return Bad(_sound(record.where), _sound(record.reason))
    if not record.text or record.text.isspace():
        return Bad(_where(record), "empty")
    if not record.text.isascii():
        try:
            record.text.encode("utf-8")
        except UnicodeEncodeError:
            return Bad(_where(record), "half of a surrogate pair, which is no character")
    return record._replace(notes=tuple(map(_sound, record.notes))) if record.notes else record


def _where(record: Text) -> str:
    return record.key[1:] if record.key.startswith("!") else f"record {record.key[1:]}" if record.key else ""


def _sound(text: str) -> str:
    """What quotes a file, without the halves of characters that may be in it."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def open_source(
    *what: str | Path,
    text_column: str = "text",
    encoding: str = "auto",
    template: str = "",
    time_column: str = "",
    strict: bool = False,
    progress: Progress | None = None,
    out: Path | None = None,
) -> Source:
    """Open files, folders (recursively), prepared folders, corpora by name and ``-`` (stdin), one after the other.

    A path wins over a corpus of the same name; a corpus that is not in the cache yet is fetched, with ``progress``.

    Args:
        text_column: the key or column that holds the text in records.
        encoding: of files without a byte order mark; ``auto`` finds it out for each.
        template: makes the text of a record from several columns: ``"{title}\\n\\n{body}"``.
        time_column: the key or column that says when a record was written.
        strict: whether a file that no reader takes, or that cannot be read, is an error.
        out: a folder inside the others that is written to, and not read.

    Raises:
        DataError: a name is neither a path nor a corpus, prepared text is damaged, a fetch failed, or ``strict``.
        ConfigError: the encoding is unknown or the template broken.
    """
    check_encoding(encoding)
    parse_template(template)
    listing = list_inputs(map(str, what), progress, out)
    refused = [skipped for skipped in listing.skipped if not skipped.reason.startswith((*SAME, HIDDEN))]
    if strict and refused:
        raise not_read(refused)
    options = Options(text_column, encoding, template, time_column)
    return Source(", ".join(map(str, what)), listing, options, strict=strict)
