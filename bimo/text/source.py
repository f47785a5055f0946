"""A re-iterable stream of documents over what the user named: files, folders, prepared folders and corpora."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from bimo.errors import DataError, did_you_mean
from bimo.text import corpora, store
from bimo.text.decode import COMPRESSED_SUFFIXES, Unreadable, check_encoding, decompressed
from bimo.text.document import Document, Progress, Skipped
from bimo.text.readers import CODE_SUFFIXES, READERS
from bimo.text.readers.plain import read_text
from bimo.text.readers.record import Bad, Options, Reader, Record

NOT_TEXT = (".xml", ".doc", ".ppt", ".xls", ".odt", ".rtf")
MOST_REASONS = 20  # a file; what comes after is counted under one


@dataclass(frozen=True, slots=True)
class File:
    """One file to read: ``name`` begins the ids of its documents; ``sha256`` marks a shard of prepared text."""

    path: Path
    name: str
    size: int
    modified: int
    sha256: str | None = None


@dataclass(slots=True)
class Listing:
    """What one or more inputs hold."""

    files: list[File] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    licences: list[str] = field(default_factory=list)


class Source:
    """Documents in a stable order (inputs as given, files sorted by path), read anew and in bounded memory each time.

    Attributes:
        name: what the user typed.
        licence: of a corpus or prepared folder, where known.
        files: what is read.
        total_bytes: size of these files on disk.
        bytes_done: how far the pass that began last has come.
        skipped: what gave no document and why; begins anew with each pass, whole when the pass has ended.
        options: how the files are read.
    """

    def __init__(self, name: str, listing: Listing, options: Options) -> None:
        self.name, self.files, self.options = name, tuple(listing.files), options
        self.licence = ", ".join(dict.fromkeys(listing.licences)) or None
        self.total_bytes = sum(file.size for file in self.files)
        self.bytes_done = 0
        self._not_listed = tuple(listing.skipped)
        self.skipped = list(self._not_listed)

    def __iter__(self) -> Iterator[Document]:
        self.skipped = list(self._not_listed)
        self.bytes_done = before = 0
        for file in self.files:
            try:
                with file.path.open("rb") as raw:
                    for document in self._read_shard(raw, file) if file.sha256 else self._read(raw, file):
                        self.bytes_done = before + min(raw.tell(), file.size)
                        yield document
            except OSError as cause:
                if file.sha256:
                    raise DataError(f"{file.path} cannot be read.", got=str(cause), fix=store.REPAIR) from None
                self.skipped.append(Skipped(file.name, f"cannot be opened: {cause.strerror or cause}"))
            before += file.size
            self.bytes_done = before

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
            yield Document(file.name + document.id, document.text, file.name + document.source)

    def _read(self, raw: BinaryIO, file: File) -> Iterator[Document]:
        reader, compression = reader_for(file.path)
        bad: Counter[str] = Counter()
        first: dict[str, str] = {}
        given = 0
        try:
            for record in (reader or read_text)(decompressed(raw, compression), self.options):
                record = _checked(record)
                if isinstance(record, Bad):
                    reason = record.reason if record.reason in bad or len(bad) < MOST_REASONS else "other reasons"
                    bad[reason] += 1
                    first.setdefault(reason, record.where)
                else:
                    given += 1
                    kind = record.kind or kind_of(file.path)
                    yield Document(
                        file.name + record.key, record.text, file.name, kind=kind, time=record.time, notes=record.notes
                    )
        except Unreadable as cause:
            kept = f" (the {given} documents before this were kept)" if given else ""
            self.skipped.append(Skipped(file.name, f"{cause}{kept}"))
        for reason, count in bad.items():
            where = f"{count} records, first {first[reason]}" if count > 1 else first[reason]
            self.skipped.append(Skipped(file.name, f"{reason} ({where})" if where else reason, count))


def _checked(record: Record) -> Record:
    if isinstance(record, Bad):
        return record
    where = f"record {record.key[1:]}" if record.key else ""
    if not record.text or record.text.isspace():
        return Bad(where, "empty")
    try:
        record.text.encode("utf-8")
    except UnicodeEncodeError:
        return Bad(where, "half of a surrogate pair, which is no character")
    return record


def kind_of(path: Path) -> str:
    """What the name of a file says of its text."""
    name, compression = path.name.lower(), path.suffix.lower()
    bare = name.removesuffix(compression) if compression in COMPRESSED_SUFFIXES else name
    return "code" if Path(bare).suffix in CODE_SUFFIXES else "prose"


def reader_for(path: Path) -> tuple[Reader | None, str]:
    """The reader of a file by its name (None: unknown suffix), and the suffix of its compression or ``""``."""
    name, compression = path.name.lower(), path.suffix.lower()
    if compression in COMPRESSED_SUFFIXES:
        name = name.removesuffix(compression)
    else:
        compression = ""
    return READERS.get(Path(name).suffix), compression


def open_source(
    *what: str | Path, text_column: str = "text", encoding: str = "utf-8", progress: Progress | None = None
) -> Source:
    """Open files, folders (recursively), prepared folders and corpora by name, one after the other.

    A path wins over a corpus of the same name; a corpus that is not in the cache yet is fetched, with ``progress``.

    Args:
        text_column: the key or column that holds the text in JSON, CSV and Parquet records.
        encoding: of files without a byte order mark.

    Raises:
        DataError: a name is neither a path nor a corpus, or prepared text is damaged, or a fetch failed.
        ConfigError: the encoding is unknown.
    """
    check_encoding(encoding)
    listing = Listing()
    for name in map(str, what):
        path = Path(name)
        prefix = f"{path.as_posix()}/" if len(what) > 1 else ""
        if not os.path.lexists(path):
            if name not in corpora.CORPORA:
                fix = did_you_mean(name, corpora.CORPORA)
                raise DataError(
                    f"'{name}' is neither a path nor a corpus.", fix=f"{fix} `bimo corpora list` shows all."
                )
            path = corpora.fetch(name, progress)
        _list_input(path, prefix, listing)
    _drop_repeated(listing)
    return Source(", ".join(map(str, what)), listing, Options(text_column, encoding))


def _drop_repeated(listing: Listing) -> None:
    kept: dict[Path, File] = {}
    for file in listing.files:
        first = kept.setdefault(file.path.resolve(), file)
        if first is not file:
            listing.skipped.append(Skipped(file.name or file.path.name, f"the same file as {first.name}"))
    listing.files = list(kept.values())


def _list_input(path: Path, prefix: str, listing: Listing) -> None:
    if not os.path.isdir(path):
        name = prefix.rstrip("/") or path.name
        if path.suffix.lower() in NOT_TEXT:
            listing.skipped.append(Skipped(name, f"bimo does not read {path.suffix} yet: convert it to .txt"))
        else:
            _list_file(path, name, listing)
    elif store.is_prepared(path):
        _list_prepared(path, prefix, listing)
    else:
        _list_folder(path, prefix, listing)


def _list_prepared(folder: Path, prefix: str, listing: Listing) -> None:
    manifest = store.read_manifest(folder)
    if manifest.get("licence"):
        listing.licences.append(str(manifest["licence"]))
    for shard in manifest["shards"]:
        listing.files.append(File(folder / shard["file"], prefix, shard["size"], 0, shard["sha256"]))


def _list_folder(root: Path, prefix: str, listing: Listing) -> None:
    def refused(cause: OSError) -> None:
        where = _printable(os.path.relpath(cause.filename, root))
        listing.skipped.append(Skipped(f"{prefix}{where}/", f"cannot be listed: {cause.strerror}"))

    seen: set[tuple[int, int]] = set()
    found: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=refused, followlinks=True):
        here = Path(folder)
        try:
            status = here.stat()
        except OSError as cause:
            refused(cause)
            continue
        if (status.st_dev, status.st_ino) in seen:  # a link back to where we were
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if here != root and store.is_prepared(here):
            reason = "prepared text inside a folder: name it by its own path"
            listing.skipped.append(Skipped(f"{prefix}{_printable(here.relative_to(root).as_posix())}/", reason))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [here / name for name in names if not name.startswith(".")]
    for path in sorted(found, key=lambda path: path.relative_to(root).parts):
        name = prefix + _printable(path.relative_to(root).as_posix())
        if reader_for(path)[0] is None:
            listing.skipped.append(Skipped(name, f"unknown suffix {_kind(path)}"))
        else:
            _list_file(path, name, listing)


def _kind(path: Path) -> str:
    return "".join(path.suffixes[-2:]) if path.suffix.lower() in COMPRESSED_SUFFIXES else path.suffix


def _list_file(path: Path, name: str, listing: Listing) -> None:
    try:
        status = path.stat()
    except OSError as cause:
        listing.skipped.append(Skipped(name, f"cannot be opened: {cause.strerror or cause}"))
        return
    if stat.S_ISREG(status.st_mode):
        listing.files.append(File(path, _printable(name), status.st_size, status.st_mtime_ns))
    else:
        listing.skipped.append(Skipped(name, "not a regular file"))


def _printable(name: str) -> str:
    """A file name that is not UTF-8 on disk, made into text that is."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")
