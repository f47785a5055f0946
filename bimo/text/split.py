"""Whole documents are held out for validation and test: seeded, sized in bytes, duplicates kept on one side."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bimo.device import seed_for
from bimo.errors import ConfigError, DataError
from bimo.text.document import DataHash, Document, Progress, cut_point, text_digest
from bimo.text.source import Source

FEWEST_DOCUMENTS = 10  # with fewer, or one of more than half of all bytes, documents are cut into sections
SECTIONS = 50
SHORTEST_SECTION = 40  # characters: less of a text measures nothing
TRAIN, VALIDATION, TEST = range(3)
SIDES = ("train", "validation", "test")
OVERSHOOT = 1.1  # times its share that a part may be, if whole documents make it so


class Part:
    """The documents of one side of a split, re-iterable: the source is read again and its texts are checked.

    Attributes:
        documents: how many.
        bytes: UTF-8 bytes of their texts.
        ids: of the documents, in order.
        sizes: UTF-8 bytes of each.
    """

    def __init__(self, stream: Iterable[Document], index: _Index, sides: bytearray, side: int) -> None:
        members = [number for number, found in enumerate(sides) if found == side]
        self.documents = len(members)
        self.sizes = tuple(index.sizes[number] for number in members)
        self.bytes = sum(self.sizes)
        self.ids = tuple(index.ids[number] for number in members)
        self._last = members[-1]
        self._stream, self._index, self._sides, self._side = stream, index, sides, side

    def __iter__(self) -> Iterator[Document]:
        number = -1
        for number, document in enumerate(self._stream):
            if self._sides[number] == self._side:
                if text_digest(document.text) != self._index.digest(number):
                    raise _changed(f"another text for {self._index.ids[number]}")
                yield document
            if number == self._last:
                return
        raise _changed(f"{number + 1} documents, of which the last was number {self._last + 1} before")


@dataclass(frozen=True, slots=True)
class Split:
    """What the model learns from, what steers the training, and what measures it.

    Attributes:
        data_hash: of all texts, before any cutting into sections; the ``data_hash`` of prepared text.
        documents: how many were distributed (sections, if ``note`` says so).
        bytes: UTF-8 bytes of them all.
        note: what a user should know of how it was done; empty when there is nothing.
    """

    train: Part
    validation: Part
    test: Part
    data_hash: str
    documents: int
    bytes: int
    note: str = ""


class _Index:
    """Size, digest and id of every document: about a hundred bytes each, the only memory that grows with the text."""

    def __init__(self, stream: Iterable[Document]) -> None:
        self.ids: list[str] = []
        self.sizes = array("q")
        self._digests = bytearray()
        self.sides: list[str] = []
        self.characters = 0
        data_hash = DataHash()
        for document in stream:
            digest = text_digest(document.text)
            data_hash.add(digest)
            self.ids.append(document.id)
            self.sizes.append(len(document.text.encode("utf-8")))
            self._digests += digest
            self.sides.append(document.side)
            self.characters += len(document.text)
        self.data_hash = data_hash.hex()

    def digest(self, number: int) -> bytes:
        return bytes(self._digests[32 * number : 32 * number + 32])

    def same_texts(self) -> list[list[int]]:
        """The numbers of the documents, grouped by text."""
        groups: dict[bytes, list[int]] = {}
        for number in range(len(self.ids)):
            groups.setdefault(self.digest(number), []).append(number)
        return list(groups.values())


class _Sections:
    """A stream of documents, each cut into sections of at most ``characters`` at blank lines or line ends."""

    def __init__(self, stream: Iterable[Document], characters: int) -> None:
        self._stream, self._characters = stream, characters

    def __iter__(self) -> Iterator[Document]:
        for document in self._stream:
            text, count = document.text, 0
            while text:
                cut = cut_point(text, self._characters)
                if not text[:cut].isspace():
                    yield Document(f"{document.id}#{count}", text[:cut], document.source)
                    count += 1
                text = text[cut:]


def split_source(
    source: Source,
    *,
    seed: int,
    validation: float = 0.04,
    test: float = 0.08,
    cap_bytes: int = 4_000_000,
    progress: Progress | None = None,
) -> Split:
    """Read a source once and decide for each document whether it is for training, validation or test.

    Text that was split when it was prepared stays so. Else a seeded shuffle decides; a part takes the documents that
    fit into its share of the bytes, at least one. Fewer than 10 documents, or one that is more than half of all, are
    first cut into sections, which ``note`` then says.

    Args:
        validation: share of the bytes for validation.
        test: share of the bytes for test.
        cap_bytes: the most that each of the two takes, where the documents allow.
        progress: called with (bytes read, bytes in all) of the files.

    Raises:
        ConfigError: the shares are not positive, or together more than half.
        DataError: there is no readable text, or fewer than three different texts even after cutting.
    """
    check_shares(validation, test, cap_bytes)
    stream: Iterable[Document] = source
    index = _Index(source.watched(progress))
    data_hash, total, note = index.data_hash, sum(index.sizes), ""
    if any(index.sides):
        sides = _prepared_sides(source, index)
        note = "The split is that of the prepared text."
        return _as_split(stream, index, sides, data_hash, note)
    if len(index.ids) < FEWEST_DOCUMENTS or max(index.sizes) > total / 2:
        stream, note = _cut(source, index, total)
        index = _Index(stream)
        total = sum(index.sizes)
    groups = index.same_texts()
    if len(groups) < 3:
        expected = "at least three different documents, or a text that can be cut into three"
        got = f"{len(groups)} different of {len(index.ids)}, {total:,} bytes in all"
        raise DataError(f"{source.name} has too few different texts to hold some out.", expected=expected, got=got)
    random.Random(seed_for(seed, "split")).shuffle(groups)
    weights = [index.sizes[group[0]] * len(group) for group in groups]
    sides = bytearray(len(index.ids))
    free = list(range(len(groups)))
    for side, share, still_needed in ((TEST, test, 2), (VALIDATION, validation, 1)):
        chosen = fill(free, weights, min(share * total, cap_bytes), cap_bytes, len(free) - still_needed)
        free = [number for number in free if number not in chosen]
        for number in chosen:
            for member in groups[number]:
                sides[member] = side
    return _as_split(stream, index, sides, data_hash, note)


def _prepared_sides(source: Source, index: _Index) -> bytearray:
    missing = [side for side in SIDES if side not in index.sides]
    if "" in index.sides or missing:
        got = f"no {missing[0]} text" if missing else "a split of some of it only"
        fix = "Prepare all of it together, with one --split-by."
        raise DataError(f"The split of {source.name} is not whole.", expected=", ".join(SIDES), got=got, fix=fix)
    return bytearray(map(SIDES.index, index.sides))


def _as_split(stream: Iterable[Document], index: _Index, sides: bytearray, data_hash: str, note: str) -> Split:
    return Split(
        train=Part(stream, index, sides, TRAIN),
        validation=Part(stream, index, sides, VALIDATION),
        test=Part(stream, index, sides, TEST),
        data_hash=data_hash,
        documents=len(index.ids),
        bytes=sum(index.sizes),
        note=note,
    )


def check_shares(validation: float, test: float, cap_bytes: int = 4_000_000) -> None:
    """Raise a :class:`ConfigError` unless some text is held out for both, and at most half of it."""
    if min(validation, test) <= 0 or validation + test > 0.5 or cap_bytes < 1:
        got = f"validation {validation}, test {test}, at most {cap_bytes} bytes"
        raise ConfigError("The held-out shares are wrong.", expected="two above 0, together at most 0.5", got=got)


def _cut(source: Source, index: _Index, total: int) -> tuple[_Sections, str]:
    size = max(index.characters // SECTIONS, SHORTEST_SECTION)
    few = f"{len(index.ids)} document" + ("s" if len(index.ids) > 1 else "")
    note = f"{few}, the largest with {max(index.sizes) / total:.0%} of the text: cut into sections of at most {size:,}"
    return _Sections(source, size), note + " characters, so that some can be held out."


def fill(free: Sequence[int], weights: Sequence[int], share: float, cap: int, most: int) -> set[int]:
    """Take of ``free``, in order, up to ``most`` that fit into ``share`` bytes; the smallest one if none does.

    It ends when less than an average document is missing: to go on would pick the short ones, whatever the shuffle.
    """
    chosen: set[int] = set()
    filled, limit, average = 0, min(share * OVERSHOOT, cap), sum(weights) / len(weights)
    for number in free:
        if (chosen and share - filled < average) or len(chosen) == most:
            break
        if filled + weights[number] <= limit:
            chosen.add(number)
            filled += weights[number]
    return chosen or {min(free, key=lambda number: weights[number])}


def _changed(got: str) -> DataError:
    fix = "Start again, or keep a fixed copy with `bimo prepare`."
    return DataError("The text changed while it was in use.", expected="the texts that were split", got=got, fix=fix)
