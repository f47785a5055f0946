"""The prepared form of text: a folder of compressed JSON-lines shards and a manifest with their hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from bimo import files
from bimo.errors import DataError
from bimo.text.decode import Unreadable, ZstdStream, text_chunks, text_lines
from bimo.text.document import DataHash, Document, text_digest

FORMAT = "bimo-documents-1"
MANIFEST = "manifest.json"
FIRST_SHARD = "documents-00000.jsonl.zst"
FURTHER = ("kind", "language", "time")  # of a document, where they are known
RECIPE, PARTS = "recipe.json", "parts"  # how it was prepared, and the finished work of all files
SHARD_BYTES = 128_000_000
REPAIR = "Delete the folder and prepare it again."


def is_prepared(folder: Path) -> bool:
    """Whether ``folder`` was written by :func:`write_documents`, be it damaged by now."""
    return os.path.isfile(folder / MANIFEST) and os.path.isfile(folder / FIRST_SHARD)


def is_begun(folder: Path) -> bool:
    """Whether ``folder`` is written by ``bimo prepare``, which has not ended yet or was interrupted."""
    return os.path.isfile(folder / RECIPE) and os.path.isdir(folder / PARTS)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a prepared folder and check that its shards are there in full length.

    Raises:
        DataError: the manifest or a shard is missing, damaged, or does not have the size that was written.
    """
    path = folder / MANIFEST
    manifest = files.read_json(path, error=DataError, expected="the manifest of prepared text")
    try:
        if manifest["format"] != FORMAT:
            raise DataError(f"{path} is not usable.", expected=f"format {FORMAT}", got=repr(manifest["format"]))
        for shard in manifest["shards"]:
            _check_size(folder / shard["file"], shard["size"])
            _ = shard["sha256"]
        _ = manifest["documents"], manifest["bytes"], manifest["data_hash"]
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        raise DataError(f"{path} is damaged.", got=f"{type(cause).__name__}: {cause}", fix=REPAIR) from None
    return manifest


def _check_size(path: Path, size: int) -> None:
    try:
        found = f"{path.stat().st_size:,} bytes"
    except OSError as cause:
        found = cause.strerror or str(cause)
    if found != f"{size:,} bytes":
        raise DataError(f"{path} is damaged.", expected=f"{size:,} bytes", got=found, fix=REPAIR)


def read_shard(file: BinaryIO, path: Path, sha256: str) -> Iterator[Document]:
    """Read the documents of one shard.

    Args:
        file: the shard, opened for reading bytes.
        path: where it lies, for the error message.
        sha256: the hash from the manifest, compared when all was read.

    Raises:
        DataError: the shard is cut short, damaged, or not what the manifest says.
    """
    raw = _Hashing(file)
    try:
        for _, line in text_lines(text_chunks(ZstdStream(raw), "utf-8"), limit=1 << 62):
            record = json.loads(line or "")
            further = {name: record[name] for name in FURTHER if name in record}
            yield Document(record["id"], record["text"], record["source"], **further)
    except (Unreadable, ValueError, KeyError, TypeError) as cause:
        raise DataError(f"{path} is damaged.", got=str(cause), fix=REPAIR) from None
    if raw.hash.hexdigest() != sha256:
        got = f"SHA-256 {raw.hash.hexdigest()}"
        raise DataError(f"{path} is damaged.", expected=f"SHA-256 {sha256}", got=got, fix=REPAIR)


class _Hashing:
    """Hashes the bytes that are read through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.hash = file, hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.hash.update(data)
        return data


def write_documents(documents: Iterable[Document], out: Path, facts: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Write documents as a prepared folder, which appears whole or not at all; memory is bounded by one document.

    Args:
        facts: gives further entries of the manifest; called when all documents have gone by.

    Returns:
        The manifest.

    Raises:
        DataError: ``out`` exists and is not an empty folder, cannot be written, or there are no documents.
    """
    refuse_unless_new(out)
    try:
        with files.new_folder(out) as folder:
            manifest = _write_shards(documents, folder)
            if not manifest["documents"]:
                raise DataError("There are no documents to write.")
            manifest.update(facts())
            files.write_json(folder / MANIFEST, manifest)
    except OSError as cause:
        raise DataError(f"{out} cannot be written.", got=str(cause), fix="Choose another place for it.") from None
    return manifest


def refuse_unless_new(out: Path) -> None:
    """Raise a :class:`DataError` if ``out`` is anything but absent or an empty folder."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        expected = "a folder that does not exist yet or is empty"
        raise DataError(f"{out} exists.", expected=expected, got="something else", fix="Choose another --out.")


def write_shard(folder: Path, number: int, lines: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write records, each a line of JSON with its end, as one shard; returns its entry in the manifest."""
    import zstandard

    path = folder / FIRST_SHARD.replace("00000", f"{number:05d}")
    with path.open("wb") as file:
        with zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False) as writer:
            for line in lines:
                writer.write(line)
        file.flush()
        os.fsync(file.fileno())
    return {"file": path.name, "size": path.stat().st_size, "sha256": files.sha256_file(path)}


def _write_shards(documents: Iterable[Document], folder: Path) -> dict[str, Any]:
    stream, data_hash = iter(documents), DataHash()
    shards: list[dict[str, Any]] = []
    count = total = 0
    document = next(stream, None)

    def lines() -> Iterator[bytes]:
        """Those of one shard."""
        nonlocal document, count, total
        size = 0
        while document is not None and size < SHARD_BYTES:
            record = {"id": document.id, "text": document.text, "source": document.source}
            yield json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"
            data_hash.add(text_digest(document.text))
            size += len(document.text.encode("utf-8"))
            count += 1
            document = next(stream, None)
        total += size

    while document is not None:
        shards.append(write_shard(folder, len(shards), lines()))
    return {"format": FORMAT, "documents": count, "bytes": total, "data_hash": data_hash.hex(), "shards": shards}
