"""A small n-gram model of characters: how many bits a character of a text costs one who has read the reference.

Interpolated Witten-Bell (Witten and Bell 1991; Chen and Goodman 1998, section 2.6) over UTF-16 units, laid out as ARPA
files are, with a log probability and a back-off weight an n-gram, in a table of fixed size addressed by hash: an n-gram
that finds its place taken by a more frequent one counts as unseen. Like CCNet (Wenzek et al. 2020, arXiv 1911.00359),
it reads lower case, and every digit as the same one.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bimo.errors import DataError
from bimo.files import atomic_path
from bimo.text.document import cut_point

ORDER = 5
SLOT_BITS = 20
FIT_CHARACTERS = 1 << 23  # of the reference: more would hardly be kept in the table
PIECE = 2_000  # characters; the reference is cut into such pieces, and every tenth is held out
HELD_OUT = 10
JUDGED = 1 << 13  # characters of a text that are read
UNSEEN = -16.0  # log2 of the probability of a character that the reference lacks
FORMAT = "bimo-characters-1"

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_DIGIT = re.compile(r"\d")

U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """A fitted model; the first three are of shape (2**SLOT_BITS,).

    Attributes:
        marks: 16 bits of the hash of the n-gram in each slot, which tell it from others.
        log_probabilities: log2 of its last character's probability after the others.
        backoffs: log2 of what is left for characters that have not followed it.
        held_out: bits a byte of each held-out piece of the reference, ascending; shape (pieces,).
    """

    marks: npt.NDArray[np.uint16]
    log_probabilities: npt.NDArray[np.float16]
    backoffs: npt.NDArray[np.float16]
    held_out: F32

    def bits_per_character(self, text: str) -> float:
        """Bits a character costs, in the mean over the beginning of a text; 0 for a text without characters."""
        units = _units(text[:JUDGED])
        return self._bits(units) / (len(units) or 1)

    def bits_per_byte(self, text: str) -> float:
        """The same for a byte of UTF-8, which is less unlike between Chinese and English."""
        units = _units(text[:JUDGED])
        size = len(units) + int((units > 0x7F).sum() + (units > 0x7FF).sum())
        surrogates = int((units & 0xF800 == 0xD800).sum())  # two units, four bytes
        return self._bits(units) / (size - surrogates or 1)

    def _bits(self, units: npt.NDArray[np.uint16]) -> float:
        total = np.full(len(units), UNSEEN, np.float32)
        before = np.zeros(len(units), np.float32)  # back-off of what stands before each character
        for hashes in _hashes(units):
            slots, marks = _slots(hashes), _marks(hashes)
            found = self.marks[slots] == marks
            total = np.where(found, self.log_probabilities[slots], total + before)
            before[1:] = np.where(found, self.backoffs[slots], np.float16(0))[:-1]
        return float(-total.sum())

    def threshold(self, percentile: float) -> float:
        """Bits a byte that ``percentile`` of a hundred held-out pieces of the reference stay below."""
        return float(np.percentile(self.held_out, percentile))

    def save(self, path: Path) -> None:
        """Write the model as a compressed ``.npz`` without pickled objects, whole or not at all."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                format=np.array(FORMAT),
                marks=self.marks,
                log_probabilities=self.log_probabilities,
                backoffs=self.backoffs,
                held_out=self.held_out,
            )

    @staticmethod
    def load(path: Path) -> Model:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: the file is missing, damaged, or not such a model.
        """
        try:
            with np.load(path, allow_pickle=False) as values:
                if str(values["format"]) != FORMAT:
                    raise DataError(f"{path} is not usable.", expected=f"format {FORMAT}", got=str(values["format"]))
                model = Model(*(values[name] for name in Model.__dataclass_fields__))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
        ) as cause:
            got = f"{type(cause).__name__}: {cause}"
            raise DataError(f"{path} is not a model of characters.", got=got, fix="Fit it again.") from None
        shapes = {model.marks.shape, model.log_probabilities.shape, model.backoffs.shape}
        if shapes != {(1 << SLOT_BITS,)} or model.held_out.ndim != 1 or not len(model.held_out):
            raise DataError(f"{path} is damaged.", expected=f"arrays of shape ({1 << SLOT_BITS},)", got=str(shapes))
        return model


def fit(texts: Iterable[str]) -> Model:
    """Fit a model to reference texts, the first ``FIT_CHARACTERS`` of them.

    Raises:
        DataError: there are fewer than ten pieces of ``PIECE`` characters to fit it to.
    """
    fitted: list[npt.NDArray[np.uint16]] = []
    held_out: list[str] = []
    characters = number = 0
    for text in texts:
        while text and characters < FIT_CHARACTERS:
            cut = cut_point(text, PIECE)
            piece, text = text[:cut], text[cut:]
            number += 1
            characters += len(piece)
            if number % HELD_OUT:
                fitted.append(_units(piece))
            else:
                held_out.append(piece)
        if characters >= FIT_CHARACTERS:
            break
    if not held_out:
        least = f"{HELD_OUT * PIECE:,} characters"
        problem = "The reference is too small to fit a model of characters."
        raise DataError(problem, expected=least, got=f"{characters:,}")
    table = _table(np.concatenate(fitted))
    bare = Model(*table, held_out=np.zeros(1, np.float32))
    bits = np.sort(np.array([bare.bits_per_byte(piece) for piece in held_out], np.float32))
    return Model(*table, held_out=bits)


@lru_cache(maxsize=1)
def loaded(path: Path) -> Model:
    """:meth:`Model.load`, once in a process."""
    return Model.load(path)


class _Grams(NamedTuple):
    """The different n-grams of one order, by hash: log2 of probabilities, back-off weights and counts."""

    hashes: U64
    log_probabilities: F32
    backoffs: F32
    counts: npt.NDArray[np.int64]


def _table(
    units: npt.NDArray[np.uint16],
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Marks, log probabilities and back-off weights of all n-grams, each in its slot; the most frequent has it."""
    orders: list[_Grams] = []
    one = np.ones(1, np.float32)
    shorter = _Grams(np.zeros(1, np.uint64), UNSEEN * one, 0 * one, np.ones(1, np.int64))
    before = np.zeros(len(units), np.uint64)  # hash of what stands before each character; 0 is the hash of nothing
    suffix = before
    for n, hashes in enumerate(_hashes(units)):  # the first n characters have fewer before them
        grams, shorter = _order(hashes[n:], before[n:], suffix[n:], shorter)
        orders.append(shorter)
        shorter, suffix = grams, hashes
        before = np.concatenate((np.zeros(1, np.uint64), hashes[:-1]))
    orders = [*orders[1:], shorter]  # without that of the empty n-gram
    hashes, logs, backoffs, counts = (np.concatenate(parts) for parts in zip(*orders, strict=True))
    rising = np.argsort(counts, kind="stable")
    hashes = hashes[rising]
    slots = _slots(hashes)
    marks = np.zeros(1 << SLOT_BITS, np.uint16)
    table_logs, table_backoffs = np.zeros(1 << SLOT_BITS, np.float16), np.zeros(1 << SLOT_BITS, np.float16)
    marks[slots], table_logs[slots], table_backoffs[slots] = _marks(hashes), logs[rising], backoffs[rising]
    return marks, table_logs, table_backoffs


def _order(hashes: U64, before: U64, suffix: U64, shorter: _Grams) -> tuple[_Grams, _Grams]:
    """The n-grams of one order, and those one shorter with their back-off weights.

    Args:
        hashes: of the n-gram that ends at each character; shape (characters,).
        before: of its context, which is shorter by its last character.
        suffix: of what it backs off to, which is shorter by its first character.
    """
    distinct, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    contexts = np.searchsorted(shorter.hashes, before[first])
    totals = np.bincount(contexts, weights=counts, minlength=len(shorter.hashes))
    followers = np.bincount(contexts, minlength=len(shorter.hashes))
    lower = np.exp2(shorter.log_probabilities[np.searchsorted(shorter.hashes, suffix[first])])
    in_context, of_context = totals[contexts], followers[contexts]
    probabilities = (counts + of_context * lower) / (in_context + of_context)
    seen = np.maximum(totals + followers, 1)
    backoffs = np.where(followers > 0, np.log2(np.maximum(followers, 1) / seen), 0).astype(np.float32)
    grams = _Grams(distinct, np.log2(probabilities).astype(np.float32), np.zeros(len(distinct), np.float32), counts)
    return grams, shorter._replace(backoffs=backoffs)


def _units(text: str) -> npt.NDArray[np.uint16]:
    plain = _DIGIT.sub("0", " ".join(text.lower().split()))
    return np.frombuffer(plain.encode("utf-16-le", "surrogatepass"), "<u2").astype(np.uint16)


def _hashes(units: npt.NDArray[np.uint16]) -> Iterable[U64]:
    """For each order, the hash of the n-gram that ends at each character; at the beginning of what there is of it."""
    values = (units.astype(np.uint64) + np.uint64(1)) * _MULTIPLIER
    hashes = np.zeros(len(units), np.uint64)
    for _ in range(ORDER):
        before = np.concatenate((np.zeros(1, np.uint64), hashes[:-1])) if len(units) else hashes
        hashes = before * _MULTIPLIER + values
        hashes ^= hashes >> np.uint64(29)
        yield hashes


def _slots(hashes: U64) -> npt.NDArray[np.int64]:
    return ((hashes * _MULTIPLIER) >> np.uint64(64 - SLOT_BITS)).astype(np.int64)


def _marks(hashes: U64) -> npt.NDArray[np.uint16]:
    marks = ((hashes * _MULTIPLIER) >> np.uint64(64 - SLOT_BITS - 16)).astype(np.uint16)
    return np.maximum(marks, np.uint16(1))  # 0 marks an empty slot
