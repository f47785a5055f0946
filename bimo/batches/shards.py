"""Token shards: documents as one stream of ids in a memory-mapped binary file, with a JSON header that vouches for it.

``<name>.bin``        little-endian uint16 or uint32: for each document the end-of-text id, then its ids
``<name>.index.bin``  little-endian int64 (documents, 3): position in the stream, bytes of text, offset in the names
``<name>.ids.jsonl``  the ids of the documents, one JSON string a line
``<name>.json``       what the three are, with their hashes; written last, so that without it there is no shard
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bimo import files
from bimo.errors import DataError
from bimo.text.document import Document
from bimo.tokenizer.tokenizer import Tokenizer

FORMAT = "bimo-tokens-1"
SUFFIXES = (".bin", ".index.bin", ".ids.jsonl")
_INDEX: np.dtype[Any] = np.dtype("<i8")
_DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
_USABLE: dict[str, Callable[[Any], bool]] = {
    "dtype": lambda value: value in ("uint16", "uint32"),
    **{key: lambda value: isinstance(value, int) and value > 0 for key in ("count", "documents", "vocab_size")},
    **{key: lambda value: isinstance(value, int) and value >= 0 for key in ("bytes", "eos_id")},
    "sha256": lambda value: isinstance(value, dict) and value.keys() == set(SUFFIXES),
}
_FIX = "Delete the folder and run the same command again to make it anew."

EncodedDocument = tuple[str, int, Sequence[int]]


class Tokens:
    """An open shard; the ids stay on disk until they are read.

    Attributes:
        ids: the stream, a read-only memory map of shape (count,).
        header: the content of ``<name>.json``.
        count: ids in the stream, the end-of-text id of each document included.
        documents: documents in the stream.
        bytes: UTF-8 bytes of the text that was encoded.
        eos_id: the id that starts every document.
        starts: positions of the documents in the stream, shape (documents,).
        document_bytes: UTF-8 bytes of each document's text, shape (documents,).
    """

    def __init__(self, folder: Path, name: str, header: dict[str, Any]) -> None:
        self.folder, self.name, self.header = folder, name, header
        self.count, self.documents, self.bytes = int(header["count"]), int(header["documents"]), int(header["bytes"])
        self.eos_id = int(header["eos_id"])
        self.ids = np.memmap(folder / f"{name}.bin", _DTYPES[header["dtype"]], mode="r")
        index = np.memmap(folder / f"{name}.index.bin", _INDEX, mode="r").reshape(-1, 3)
        self.starts, self.document_bytes, self._names = index.T

    def still_whole(self, *_: object) -> None:
        """Check that nobody cut the open file short: reading beyond its end would kill the process without a word.

        A file that was deleted stays readable while it is open.

        Raises:
            DataError: the file is shorter than it was.
        """
        path = self.folder / f"{self.name}.bin"
        size = self.ids.nbytes
        with contextlib.suppress(OSError):
            if (found := path.stat().st_size) < size:
                fix = "Nothing that was learned is lost. Add --resume to make the file again and go on."
                raise DataError(f"{path} was cut short.", expected=f"{size} bytes", got=str(found), fix=fix)

    def document_at(self, position: int) -> str:
        """The id of the document that holds the given position of the stream."""
        assert 0 <= position < self.count, position
        document = int(np.searchsorted(self.starts, position, side="right")) - 1
        with (self.folder / f"{self.name}.ids.jsonl").open("rb") as file:
            file.seek(int(self._names[document]))
            return str(json.loads(file.readline()))


def encode_documents(
    documents: Iterable[Document], tokenizer: Tokenizer, batch_bytes: int = 4_000_000
) -> Iterator[EncodedDocument]:
    """Yield (id, UTF-8 bytes of the text, token ids) of each document, about ``batch_bytes`` of text in memory."""
    group: list[tuple[str, int, str]] = []
    waiting = 0
    for document in documents:
        size = len(document.text.encode("utf-8", "surrogatepass"))
        if group and waiting + size > batch_bytes:
            yield from _encode(group, tokenizer)
            group, waiting = [], 0
        group.append((document.id, size, document.text))
        waiting += size
    yield from _encode(group, tokenizer)


def _encode(group: list[tuple[str, int, str]], tokenizer: Tokenizer) -> Iterator[EncodedDocument]:
    encoded = tokenizer.encode_batch([text for _, _, text in group])
    for (id, size, _), ids in zip(group, encoded, strict=True):
        yield id, size, ids


def write_tokens(
    folder: Path,
    name: str,
    documents: Iterable[EncodedDocument],
    *,
    tokenizer_hash: str,
    data_hash: str,
    vocab_size: int,
    eos_id: int,
) -> Tokens:
    """Write the documents as the shard ``name`` in ``folder`` and open it; one document at a time is in memory.

    A shard of the same name is replaced. If anything fails, no header is left, and so no shard.

    Args:
        documents: (id, UTF-8 bytes of the text, token ids without ``eos_id``) of each document.
        tokenizer_hash: identifies the tokenizer, checked by :func:`open_tokens`.
        data_hash: identifies the text, checked by :func:`open_tokens`.

    Raises:
        DataError: there are no documents, or an id is outside the vocabulary or is ``eos_id``.
    """
    dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
    (folder / f"{name}.json").unlink(missing_ok=True)
    count = number = size = 0
    with contextlib.ExitStack() as stack:
        stream, index, names = (stack.enter_context(_Output.create(folder / (name + suffix))) for suffix in SUFFIXES)
        for id, document_bytes, ids in documents:
            row = np.asarray(ids, dtype=np.int64)
            if row.size and (row.min() < 0 or row.max() >= vocab_size or (row == eos_id).any()):
                raise DataError(
                    f"Document {id} was not encoded with this tokenizer.",
                    expected=f"ids below {vocab_size} without the end-of-text id {eos_id}",
                    got=f"ids from {row.min()} to {row.max()}",
                )
            index.write(np.array([count, document_bytes, names.size], dtype=_INDEX).tobytes())
            names.write(json.dumps(id, ensure_ascii=True).encode() + b"\n")
            stream.write(np.concatenate(([eos_id], row)).astype(_DTYPES[dtype]).tobytes())
            count, number, size = count + 1 + row.size, number + 1, size + document_bytes
        if not number:
            raise DataError(f"There is no text for '{name}'.", expected="at least one document", got="none")
    header = {
        "format": FORMAT,
        "dtype": dtype,
        "count": count,
        "documents": number,
        "bytes": size,
        "vocab_size": vocab_size,
        "eos_id": eos_id,
        "tokenizer_hash": tokenizer_hash,
        "data_hash": data_hash,
        "sha256": {
            suffix: output.digest.hexdigest() for suffix, output in zip(SUFFIXES, (stream, index, names), strict=True)
        },
    }
    files.write_json(folder / f"{name}.json", header)
    return Tokens(folder, name, header)


class _Output:
    """A file being written atomically, with its size and hash so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()

    @classmethod
    @contextlib.contextmanager
    def create(cls, path: Path) -> Iterator[_Output]:
        with files.atomic_path(path) as temporary, temporary.open("wb", buffering=1 << 20) as file:
            yield cls(file)

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self.digest.update(content)
        self.size += len(content)


def open_tokens(
    folder: Path, name: str, *, tokenizer_hash: str | None = None, data_hash: str | None = None, verify: bool = True
) -> Tokens:
    """Open the shard ``name`` in ``folder``.

    Args:
        tokenizer_hash: if given, the shard must have been made with this tokenizer.
        data_hash: if given, the shard must have been made from this text.
        verify: also compare the SHA-256 of every file, which reads them whole.

    Raises:
        DataError: the shard is missing, truncated or corrupted, or made with another tokenizer or from other text.
    """
    path = folder / f"{name}.json"
    header = files.read_json(path, error=DataError, expected="the header of a token shard")
    if header.get("format") != FORMAT:
        raise DataError(f"{path} is not a token shard.", expected=f"format {FORMAT}", got=repr(header.get("format")))
    for key, usable in _USABLE.items():
        if not usable(header.get(key)):
            raise DataError(f"{path} is corrupted.", expected=f"a usable '{key}'", got=repr(header.get(key)), fix=_FIX)
    for what, key, wanted in (("tokenizer", "tokenizer_hash", tokenizer_hash), ("text", "data_hash", data_hash)):
        if wanted is not None and header.get(key) != wanted:
            problem = f"The token shard {path} was made with another {what}."
            raise DataError(problem, expected=f"{key} {wanted[:12]}", got=str(header.get(key))[:12], fix=_FIX)
    sizes = {
        ".bin": header["count"] * _DTYPES[header["dtype"]].itemsize,
        ".index.bin": header["documents"] * 3 * _INDEX.itemsize,
    }
    for suffix in SUFFIXES:
        _check_file(folder / (name + suffix), sizes.get(suffix), header["sha256"][suffix] if verify else None)
    tokens = Tokens(folder, name, header)
    if tokens.ids[0] != tokens.eos_id:
        problem = f"{path} does not fit {name}.bin."
        raise DataError(problem, expected=f"id {tokens.eos_id} first", got=str(tokens.ids[0]), fix=_FIX)
    return tokens


def _check_file(path: Path, size: int | None, digest: str | None) -> None:
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            raise DataError(f"{path} is truncated or corrupted.", expected=f"{size} bytes", got=str(found), fix=_FIX)
        actual = digest and files.sha256_file(path)
    except OSError as cause:
        raise DataError(f"{path} cannot be read.", expected="a token shard", got=str(cause), fix=_FIX) from None
    if digest != actual:
        raise DataError(f"{path} is corrupted.", expected=f"SHA-256 {digest}", got=str(actual), fix=_FIX)
