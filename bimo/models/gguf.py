"""Read a GGUF file, version 2 or 3, that nobody vouches for.

Every count, length, type and place is compared with the size of the file before anything is made of it. The tensors
stay in the file, mapped into memory, until one is asked for. The format: ggml's docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bimo.errors import ModelError
from bimo.models.gguf_blocks import DEQUANTISERS, KIND_OF, KINDS, Bytes, Floats, dequantise

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT, MOST_ALIGNMENT = 32, 1 << 20
MOST_DIMENSIONS = 4
LARGEST_DIMENSION = 1 << 31
MOST_HEADER = 1 << 28  # bytes of metadata and tensor entries; the largest vocabularies need some 20 MB
LONGEST_KEY, LONGEST_NAME = 65_535, 64  # bytes of a metadata key and of a tensor's name, by the format
NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 10: "<u8", 11: "<i8", 12: "<f8"}
BOOL, STRING, ARRAY = 7, 8, 9
SMALLEST_PAIR = 8 + 4 + 1  # bytes: the length of a key, a type, a value
SMALLEST_ENTRY = 8 + 4 + 8 + 4 + 8  # bytes: the length of a name, the number of dimensions, one, a type, a place
DAMAGED = "Copy or download it again."

Value = bool | int | float | str | list[str] | NDArray[Any]


@dataclass(frozen=True)
class Entry:
    """A tensor of the file.

    Attributes:
        shape: as numpy and torch count, the axis of neighbours in memory last.
        kind: how its numbers are stored, a key of :data:`bimo.models.gguf_blocks.KINDS`.
        begin: where its bytes lie in the file.
        size: how many bytes they are.
    """

    shape: tuple[int, ...]
    kind: str
    begin: int
    size: int


class GGUF:
    """An open file, of which the header is known to be right.

    Attributes:
        path: where it lies.
        version: of the format.
        metadata: key -> value; arrays are lists of texts or numpy arrays.
        tensors: name -> what the file says of the tensor.
    """

    def __init__(
        self, path: Path, data: mmap.mmap, version: int, metadata: Mapping[str, Value], tensors: Mapping[str, Entry]
    ) -> None:
        self.path, self._data, self.version, self.metadata, self.tensors = path, data, version, metadata, tensors

    @property
    def data(self) -> mmap.mmap:
        """All bytes of the file."""
        return self._data

    def packed(self, name: str) -> Bytes:
        """The bytes of a tensor as they lie in the file, not copied."""
        entry = self.tensors[name]
        return np.frombuffer(self._data, dtype=np.uint8, count=entry.size, offset=entry.begin)

    def tensor(self, name: str) -> Floats:
        """The numbers of a tensor, float32, in its shape.

        Raises:
            ModelError: they are stored in a way that bimo does not read, or one is infinite or not a number.
        """
        entry = self.tensors[name]
        if entry.kind not in DEQUANTISERS:
            raise unreadable(self.path, [entry.kind])
        numbers = dequantise(entry.kind, self.packed(name)).reshape(entry.shape)
        if not np.isfinite(numbers).all():
            problem = f"The tensor {name} of {self.path} is damaged."
            raise ModelError(problem, expected="numbers", got="an infinite one, or none at all", fix=DAMAGED)
        return numbers


def unreadable(path: Path, kinds: list[str]) -> ModelError:
    """The error for a file whose tensors are stored in ways that bimo does not read."""
    fix = "Take the model in one of these, such as Q8_0 or Q4_K."
    expected = f"tensors in {', '.join(DEQUANTISERS)}"
    return ModelError(
        f"{path} is quantised in a way that is not supported.", expected=expected, got=", ".join(kinds), fix=fix
    )


def read_gguf(path: str | Path) -> GGUF:
    """Open a GGUF file and check its whole header; no tensor is read.

    Raises:
        ModelError: it is missing, no GGUF file, of a version or byte order that is not supported, or damaged.
    """
    path = Path(path)
    try:
        if not path.is_file():  # never opened: a pipe would wait for ever
            got = "something else" if path.exists() else "no such file"
            raise ModelError(f"{path} cannot be read.", expected="a GGUF file", got=got)
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise ModelError(f"{path} is not a GGUF file.", expected="a file that begins with 'GGUF'")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as cause:
        raise ModelError(f"{path} cannot be read.", expected="a GGUF file", got=str(cause)) from None
    header = _Header(path, data)
    version = header.version()
    tensors, pairs = header.count("tensors", SMALLEST_ENTRY), header.count("metadata", SMALLEST_PAIR)
    metadata: dict[str, Value] = {}
    for _ in range(pairs):
        key = header.text("a metadata key", LONGEST_KEY)
        if not key or key in metadata:
            raise header.damaged("metadata keys that differ", repr(key))
        metadata[key] = header.value(header.number("<u4", f"the type of {key}"), key)
    return GGUF(path, data, version, metadata, _entries(header, tensors, _alignment(header, metadata)))


def _alignment(header: _Header, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    whole = isinstance(alignment, int) and not isinstance(alignment, bool)
    if not whole or not 8 <= alignment <= MOST_ALIGNMENT or alignment & (alignment - 1):  # type: ignore[operator]
        raise header.damaged("a power of two from 8 as general.alignment", repr(alignment))
    return int(alignment)  # type: ignore[arg-type]


def _entries(header: _Header, count: int, alignment: int) -> dict[str, Entry]:
    """The tensors that the header lists, each of which lies whole in the file and in a place of its own."""
    listed: dict[str, Entry] = {}
    for _ in range(count):
        name = header.text("the name of a tensor", LONGEST_NAME)
        if not name or name in listed:
            raise header.damaged("names of tensors that differ", repr(name))
        listed[name] = header.entry(name)
    start = -(-header.at // alignment) * alignment
    placed = {}
    end = 0
    for name, entry in sorted(listed.items(), key=lambda item: item[1].begin):
        if entry.begin % alignment:
            raise header.damaged(f"tensors that begin at multiples of {alignment}", f"{name} at {entry.begin}")
        if entry.begin < end:
            raise header.damaged("tensors in places of their own", f"{name}, which overlaps the one before")
        end = entry.begin + entry.size
        if start + end > len(header.data):
            got = f"{len(header.data):,} bytes, of which {name} ends at {start + end:,}"
            raise header.damaged("all tensors to lie in the file", got)
        placed[name] = Entry(entry.shape, entry.kind, start + entry.begin, entry.size)
    return {name: placed[name] for name in listed}


class _Header:
    """The header of a file, read from its beginning; every step is checked before it is taken."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, len(MAGIC)
        self._end = min(len(data), MOST_HEADER)

    def damaged(self, expected: str, got: str) -> ModelError:
        return ModelError(f"{self.path} is damaged.", expected=expected, got=got, fix=DAMAGED)

    def version(self) -> int:
        version = self.number("<u4", "the version")
        if version in VERSIONS:
            return version
        got = "a file in big-endian byte order" if version & 0xFFFF == 0 and version else f"version {version}"
        fix = "Convert the model with a current llama.cpp."
        expected = f"version {' or '.join(map(str, VERSIONS))}, little-endian"
        raise ModelError(f"{self.path} is a GGUF file that is not supported.", expected=expected, got=got, fix=fix)

    def skip(self, size: int, what: str) -> int:
        """Go past ``size`` bytes, which must be there; returns where they begin."""
        if size > self._end - self.at:
            if self._end == MOST_HEADER:
                raise self.damaged(f"a header of at most {MOST_HEADER:,} bytes", f"{what} beyond it")
            raise self.damaged(f"{size:,} bytes for {what}", f"the end of the file after {self._end - self.at:,}")
        self.at += size
        return self.at - size

    def number(self, kind: str, what: str) -> Any:
        """One number, of numpy's name ``kind``."""
        dtype = np.dtype(kind)
        at = self.skip(dtype.itemsize, what)
        return np.frombuffer(self.data, dtype, 1, at)[0].item()

    def count(self, what: str, smallest: int) -> int:
        """How many of something follow, each of which needs ``smallest`` bytes at least."""
        count = struct.unpack_from("<Q", self.data, self.skip(8, f"the number of {what}"))[0]
        if count > (self._end - self.at) // smallest:
            raise self.damaged(f"as many {what} as the header has room for", f"{count:,}")
        return int(count)

    def text(self, what: str, longest: int) -> str:
        size = struct.unpack_from("<Q", self.data, self.skip(8, f"the length of {what}"))[0]
        if size > longest:
            raise self.damaged(f"at most {longest:,} bytes for {what}", f"{size:,}")
        at = self.skip(size, what)
        try:
            return self.data[at : at + size].decode("utf-8")
        except UnicodeDecodeError as cause:
            raise self.damaged(f"UTF-8 in {what}", str(cause)) from None

    def value(self, kind: int, key: str) -> Value:
        if kind == STRING:
            return self.text(key, MOST_HEADER)
        if kind == ARRAY:
            return self._array(key)
        if kind == BOOL:
            return bool(self._bools(1, key)[0])
        if kind not in NUMBERS:
            raise self.damaged("a type of metadata that the format knows", f"number {kind} for {key}")
        return self.number(NUMBERS[kind], key)

    def _array(self, key: str) -> Value:
        kind = self.number("<u4", f"the type of {key}")
        if kind == ARRAY:
            raise self.damaged("no arrays in arrays", f"one in {key}")
        if kind == STRING:
            return [self.text(key, MOST_HEADER) for _ in range(self.count(f"texts of {key}", 8))]
        if kind == BOOL:
            return self._bools(self.count(f"values of {key}", 1), key)
        if kind not in NUMBERS:
            raise self.damaged("a type of metadata that the format knows", f"number {kind} for {key}")
        dtype = np.dtype(NUMBERS[kind])
        count = self.count(f"values of {key}", dtype.itemsize)
        at = self.skip(count * dtype.itemsize, key)
        return np.frombuffer(self.data, dtype, count, at).copy()

    def _bools(self, count: int, key: str) -> NDArray[np.bool_]:
        values = np.frombuffer(self.data, np.uint8, count, self.skip(count, key))
        if values.max(initial=0) > 1:
            raise self.damaged(f"0 or 1 for {key}", str(values.max()))
        return values.astype(np.bool_)

    def entry(self, name: str) -> Entry:
        """What the header says of a tensor; its place still counts from the end of the header."""
        rank = self.number("<u4", f"the dimensions of {name}")
        if not 1 <= rank <= MOST_DIMENSIONS:
            raise self.damaged(f"1 to {MOST_DIMENSIONS} dimensions", f"{rank} of {name}")
        shape = struct.unpack_from(f"<{rank}Q", self.data, self.skip(8 * rank, f"the shape of {name}"))
        number = self.number("<u4", f"the type of {name}")
        begin = self.number("<u8", f"the place of {name}")
        if not all(1 <= size < LARGEST_DIMENSION for size in shape):
            raise self.damaged("dimensions of at least 1 that fit the file", f"{shape} of {name}")
        if number not in KIND_OF:
            raise self.damaged("a type of tensor that is known", f"number {number} for {name}")
        values, size = KINDS[KIND_OF[number]].values, KINDS[KIND_OF[number]].bytes
        if shape[0] % values:
            raise self.damaged(f"rows of a multiple of {values} for {KIND_OF[number]}", f"{shape} of {name}")
        return Entry(tuple(reversed(shape)), KIND_OF[number], begin, math.prod(shape) // values * size)
