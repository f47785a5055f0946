"""What the inputs of a user hold: files in a stable order, and what is not read with the reason."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from bimo.errors import DataError, did_you_mean
from bimo.text import corpora, store
from bimo.text.decode import COMPRESSED_SUFFIXES, Unreadable, byte_chunks, decompressed
from bimo.text.document import Progress, Skipped
from bimo.text.readers import READERS, suffixes_of
from bimo.text.readers.record import HIDDEN

STDIN = "-"
SAME = ("the same file as", "the same folder as")  # reasons that lose nothing
NOT_TEXT = (".xml", ".doc", ".ppt", ".xls")
# What Hugging Face datasets writes beside the records.
BOOKKEEPING = ("state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json")
RECORD_FILES = (".arrow", ".parquet")
MAGIC = (
    (b"\x1f\x8b", ".gz"),
    (b"\x28\xb5\x2f\xfd", ".zst"),
    (b"BZh", ".bz2"),
    (b"\xfd7zXZ\0", ".xz"),
    (b"PK\x03\x04", ".zip"),
    (b"PAR1", ".parquet"),
    (b"ARROW1", ".arrow"),
)


@dataclass(frozen=True, slots=True)
class File:
    """One file to read.

    Attributes:
        name: begins the ids of its documents.
        modified: when, in nanoseconds; of standard input a number that stands for its content.
        sha256: of a shard of prepared text, ``None`` of any other file.
        input: what the user named that the file belongs to.
        side: of the split that was made when a shard was prepared, if one was.
        begin, line: of a slice of a file, ``size`` bytes long: where it begins, and the number of its first line;
            ``line`` is 0 where it is the whole file.
    """

    path: Path
    name: str
    size: int
    modified: int
    sha256: str | None = None
    input: str = ""
    side: str = ""
    begin: int = 0
    line: int = 0


@dataclass(slots=True)
class Listing:
    """What one or more inputs hold.

    Attributes:
        kept_open: temporary files that live as long as the listing.
        input: that files are added of now.
    """

    files: list[File] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    licences: list[str] = field(default_factory=list)
    kept_open: list[Any] = field(default_factory=list)
    input: str = ""


def list_inputs(names: Iterable[str], progress: Progress | None, out: Path | None = None) -> Listing:
    """List files, folders, prepared folders, corpora and standard input (``-``), each file once.

    Args:
        out: a folder that is none of them, as it is written to.

    Raises:
        DataError: a name is neither a path nor a corpus, prepared text is damaged, a fetch failed, nothing is piped in.
    """
    listing, names = Listing(), list(names)
    for name in names:
        listing.input = name
        if name == STDIN:
            if not listing.kept_open:
                _list_stdin(listing)
            continue
        path = Path(name)
        if out is not None and out.exists() and path.exists() and path.samefile(out):
            raise DataError(f"{out} is to be read and written at once.", fix="Choose another --out.")
        prefix = f"{path.as_posix()}/" if len(names) > 1 else ""
        if not os.path.lexists(path):
            if name not in corpora.CORPORA:
                fix = f"{did_you_mean(name, corpora.CORPORA)} `bimo corpora list` shows all."
                raise DataError(f"'{name}' is neither a path nor a corpus.", fix=fix)
            path = corpora.fetch(name, progress)
        _list_input(path, prefix, listing, out)
    _drop_repeated(listing)
    return listing


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; what turned into a pipe or a socket since it was listed cannot block us.

    Raises:
        OSError: it cannot be opened or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return io.BufferedReader(io.FileIO(descriptor))  # what `open` makes, without asking for what is known


def _list_stdin(listing: Listing) -> None:
    """Keep a copy of standard input in a temporary file, as a source is read more than once."""
    if sys.stdin is None or sys.stdin.isatty():
        fix = "cat notes.jsonl | bimo prepare - --out data/notes"
        raise DataError("There is nothing in standard input.", expected="text piped in", got="a terminal", fix=fix)
    stdin = cast(io.BufferedReader, sys.stdin.buffer)
    beginning = b""
    while len(beginning) < 1 << 16 and (data := stdin.read1(1 << 16)):
        beginning += data
    suffix = guessed_suffix(beginning)
    copy = tempfile.NamedTemporaryFile(prefix="bimo-stdin-", suffix=suffix)  # noqa: SIM115 (lives with the source)
    listing.kept_open.append(copy)
    digest = hashlib.sha256()
    while beginning:
        copy.write(beginning)
        digest.update(beginning)
        beginning = stdin.read1(1 << 18)
    copy.flush()
    content = int.from_bytes(digest.digest()[:7])
    os.utime(copy.name, ns=(content, content))
    _list_file(Path(copy.name), f"stdin{suffix}", listing)


def guessed_suffix(beginning: bytes) -> str:
    """The suffix a file would have, from its first bytes; ``.txt`` where they say nothing."""
    suffix = _guessed(beginning)
    if suffix not in COMPRESSED_SUFFIXES:
        return suffix
    try:
        return _guessed(next(byte_chunks(decompressed(io.BytesIO(beginning), suffix)), b"")) + suffix
    except Unreadable:
        return ".txt" + suffix


def _guessed(beginning: bytes) -> str:
    for mark, suffix in MAGIC:
        if beginning.startswith(mark):
            return suffix
    if beginning[257:262] == b"ustar":
        return ".tar"
    start = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    return ".jsonl" if start.startswith((b'{"', b"{}")) else ".json" if start.startswith(b"[{") else ".txt"


def summary(skipped: Iterable[Skipped]) -> list[str]:
    """One line a reason, the most frequent first: ``unknown suffix .png (312 files, such as a/b.png)``."""
    files: dict[str, list[str]] = {}
    for one in skipped:
        files.setdefault(one.reason, []).append(one.file)
    by_count = sorted(files.items(), key=lambda item: -len(item[1]))
    return [
        f"{reason} ({len(names)} files, such as {names[0]})" if len(names) > 1 else f"{names[0]}: {reason}"
        for reason, names in by_count
    ]


def _drop_repeated(listing: Listing) -> None:
    kept: dict[str, File] = {}
    folders: dict[str, str] = {}
    for file in listing.files:
        folder, name = os.path.split(file.path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        link = os.path.islink(file.path)
        first = kept.setdefault(os.path.realpath(file.path) if link else os.path.join(folders[folder], name), file)
        if first is not file:
            listing.skipped.append(Skipped(file.name or file.path.name, f"{SAME[0]} {first.name}"))
    listing.files = list(kept.values())


def _list_input(path: Path, prefix: str, listing: Listing, out: Path | None) -> None:
    if not os.path.isdir(path):
        name = prefix.rstrip("/") or path.name
        if path.suffix.lower() in NOT_TEXT and path.suffix.lower() not in READERS:
            reason = f"bimo does not read {path.suffix} yet: convert it to .txt"
            listing.skipped.append(Skipped(name, reason, size=_size(path)))
        else:
            _list_file(path, name, listing)
    elif store.is_prepared(path):
        _list_prepared(path, prefix, listing)
    else:
        _list_folder(path, prefix, listing, out)


def _list_prepared(folder: Path, prefix: str, listing: Listing) -> None:
    manifest = store.read_manifest(folder)
    if manifest.get("licence"):
        listing.licences.append(str(manifest["licence"]))
    for shard in manifest["shards"]:
        path, side = folder / shard["file"], shard.get("split", "")
        listing.files.append(File(path, prefix, shard["size"], 0, shard["sha256"], listing.input, side))


def _list_folder(root: Path, prefix: str, listing: Listing, out: Path | None) -> None:
    def refused(cause: OSError) -> None:
        where = _printable(os.path.relpath(cause.filename, root))
        listing.skipped.append(Skipped(f"{prefix}{where}/", f"cannot be listed: {cause.strerror}"))

    seen: dict[tuple[int, int], Path] = {}
    found: list[tuple[tuple[str, ...], Path]] = []  # with the folders below the root and the name
    for folder, folders, names in os.walk(root, onerror=refused, followlinks=True):
        here = Path(folder)
        try:
            status = here.stat()
        except OSError as cause:
            refused(cause)
            continue
        first, reason = seen.setdefault((status.st_dev, status.st_ino), here), ""
        if first is not here:  # a link, perhaps back to where we were
            reason = f"{SAME[1]} {_printable(first.relative_to(root).as_posix())}/"
        elif here != root and (store.is_prepared(here) or store.is_begun(here)):
            reason = "prepared text inside a folder: name it by its own path"
        if reason:
            folders.clear()
            if out is None or not out.exists() or not here.samefile(out):
                name = f"{prefix}{_printable(here.relative_to(root).as_posix())}/"
                listing.skipped.append(Skipped(name, reason))
            continue
        for name in sorted(name for name in folders if name.startswith(".")):
            if out is None or not out.exists() or not out.samefile(here / name):
                listing.skipped.append(Skipped(f"{prefix}{_printable(os.path.relpath(here / name, root))}/", HIDDEN))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        parts = here.relative_to(root).parts
        found += [((*parts, name), here / name) for name in names]
    for parts, path in _without_bookkeeping(sorted(found)):
        name = prefix + _printable("/".join(parts))
        suffix, compression = suffixes_of(path.name)
        if path.name.startswith("."):
            listing.skipped.append(Skipped(name, HIDDEN, size=_size(path)))
        elif suffix in READERS:
            _list_file(path, name, listing)
        else:
            listing.skipped.append(Skipped(name, f"unknown suffix {suffix}{compression}", size=_size(path)))


def _without_bookkeeping(found: list[tuple[tuple[str, ...], Path]]) -> list[tuple[tuple[str, ...], Path]]:
    """Without the files that `datasets` keeps beside its records: descriptions and caches."""
    records = {path.parent for _, path in found if path.suffix in RECORD_FILES}
    if not records:
        return found
    records |= {folder.parent for folder in records}
    saved = {path.parent for _, path in found if path.name == BOOKKEEPING[0] and path.parent in records}
    return [
        (parts, path)
        for parts, path in found
        if not (path.name in BOOKKEEPING and path.parent in records)
        and not (path.name.startswith("cache-") and path.suffix == ".arrow" and path.parent in saved)
    ]


def _size(path: Path) -> int:
    """Bytes of a file; 0 where it is none, or cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _list_file(path: Path, name: str, listing: Listing) -> None:
    try:
        status = path.stat()
    except OSError as cause:
        listing.skipped.append(Skipped(name, f"cannot be opened: {cause.strerror or cause}"))
        return
    if stat.S_ISREG(status.st_mode):
        size, modified = status.st_size, status.st_mtime_ns
        listing.files.append(File(path, _printable(name), size, modified, input=listing.input))
    else:
        listing.skipped.append(Skipped(name, "not a regular file"))


def _printable(name: str) -> str:
    """A file name that is not UTF-8 on disk, made into text that is."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")
