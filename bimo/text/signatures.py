"""What finding duplicates needs to know of each document: a hash of its text and a MinHash signature of its shingles.

The exact hash is of the normal form: two texts are the same if they differ in nothing but case, in the width or
composition of characters (Unicode's compatibility forms) and in white space. The signature (Broder 1997, "On the
resemblance and containment of documents") estimates the Jaccard similarity of two texts' sets of 5 words in a row,
punctuation aside; a Chinese or Japanese character counts as a word. It comes from one pass over the shingles (Li, Owen
& Zhang 2012, "One permutation hashing"), its empty bins filled from others (Shrivastava 2017, "Optimal densification
for fast and accurate minwise hashing"); its bands are for locality-sensitive hashing (Leskovec, Rajaraman & Ullman,
"Mining of massive datasets", 3.4), and 8 bits of each bin are kept to compare two documents (Li & König 2010, "b-bit
minwise hashing").

Shapes: D documents, K bins, S shingles, W words.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bimo.text import scan
from bimo.text.document import cut_point
from bimo.text.shingles import Hashes, Places, mixed, window_hashes, words_of

SHINGLE = 5  # words; a document of fewer is one shingle
BINS, BANDS = 128, 16  # a pair of similarity s shares a band with 1 - (1 - s**8)**16: 0.99 at 0.85, 0.06 at 0.5
BIN_BITS = 7
CHECK_BITS = 8
BATCH = 1 << 15  # characters of documents that are hashed together
PIECE = 1 << 22  # characters of a document that are hashed at once

Checks = npt.NDArray[np.uint8]
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Signatures:
    """Of D documents, the same bytes on every machine.

    Attributes:
        exact: 128 bits of BLAKE2b of the normal form (D, 2).
        bands: hashes of 8 bins each (D, BANDS): a document is a candidate for those that share one, in its column.
        check: the low 8 bits of every bin (D, BINS), for :func:`similarity`.
    """

    exact: Hashes
    bands: Hashes
    check: Checks


def signatures(texts: Sequence[str]) -> Signatures:
    """Sign texts, of any length and content; what one gets does not depend on the others."""
    normal = [normal_form(text) for text in texts]
    exact = _exact(normal)  # (D, 2)
    minima = np.empty((len(texts), BINS), dtype=np.uint64)
    for numbers in _batches(normal):
        minima[numbers] = _minima([normal[number] for number in numbers])
    # A text without words is like its equals alone.
    wordless = np.flatnonzero((minima == _EMPTY).all(axis=1))
    minima[wordless] = mixed(np.add(exact[wordless, :1], np.arange(BINS, dtype=np.uint64), dtype=np.uint64))
    _densify(minima)
    rows = minima.reshape(-1, BANDS, BINS // BANDS)
    order = mixed(np.arange(rows.shape[2], dtype=np.uint64)) | np.uint64(1)
    check = (minima & np.uint64((1 << CHECK_BITS) - 1)).astype(np.uint8)
    return Signatures(exact, mixed((rows * order).sum(axis=2, dtype=np.uint64)), check)


def similarity(a: Checks, b: Checks) -> npt.NDArray[np.float32]:
    """The estimated Jaccard similarity of pairs of documents, from checks (pairs, BINS) each.

    Its standard deviation at the similarity s is about the root of s (1 - s) / 128: 0.03 at 0.85. Bins that agree by
    chance, one in 256, are taken off.
    """
    chance = 2.0**-CHECK_BITS
    return np.maximum(((a == b).mean(axis=-1, dtype=np.float32) - chance) / (1 - chance), 0).astype(np.float32)


def normal_form(text: str) -> str:
    """The text without regard to case, compatibility forms and white space: what the exact hash is of."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    elif (folded := scan.folded(text)) is not None:
        return folded
    return " ".join(text.casefold().split())


def exact_hashes(texts: Iterable[str]) -> Hashes:
    """The exact hashes alone (D, 2), at a third of the cost: for those who do not look for near duplicates."""
    return _exact(map(normal_form, texts))


def _exact(normal: Iterable[str]) -> Hashes:
    encoded = (text.encode("utf-8", "surrogatepass") for text in normal)
    digests = b"".join(hashlib.blake2b(text, digest_size=16).digest() for text in encoded)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64).reshape(-1, 2)


def _batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """The numbers of the texts, ASCII and others apart, in groups of about ``BATCH`` characters."""
    for ascii in (True, False):
        group: list[int] = []
        size = 0
        for number, text in enumerate(texts):
            if text.isascii() is ascii:
                if group and size + len(text) > BATCH:
                    yield group
                    group, size = [], 0
                group.append(number)
                size += len(text)
        if group:
            yield group


def _minima(texts: Sequence[str]) -> Hashes:
    """The least shingle hash in every bin of every text (D, K); ``_EMPTY`` where there is none."""
    if len(texts) == 1 and len(texts[0]) > PIECE:
        cut = cut_point(texts[0], PIECE)
        return np.minimum(_minima([texts[0][:cut]]), _minima([texts[0][cut:]]))
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    words = words_of("\n".join(texts))
    begins = np.searchsorted(words.starts, np.cumsum(lengths + 1) - (lengths + 1))  # first word of each text (D,)
    counts = np.diff(np.append(begins, len(words.starts)))  # (D,)
    shingles, document = _shingles(words.hashes, begins, counts)
    minima = np.full(len(texts) * BINS, _EMPTY)
    bins = (shingles >> np.uint64(64 - BIN_BITS)).astype(np.int64)
    np.minimum.at(minima, document * BINS + bins, shingles)
    return minima.reshape(-1, BINS)


def _shingles(words: Hashes, begins: Places, counts: Places) -> tuple[Hashes, Places]:
    """The shingle hashes of all texts and the text of each (S,): words (W,) of which text d has ``counts[d]``."""
    pad = SHINGLE - 1
    padded = np.zeros(len(words) + pad * len(counts), dtype=np.uint64)  # so that a text of fewer words has a window
    texts = np.arange(len(counts))
    padded[np.arange(len(words)) + pad * np.repeat(texts, counts)] = words
    each = np.minimum(np.maximum(counts - pad, 1), counts)  # shingles (D,)
    places = np.arange(each.sum()) + np.repeat(begins + pad * texts - (np.cumsum(each) - each), each)
    return mixed(window_hashes(padded, SHINGLE)[places]), np.repeat(texts, each)


def _densify(minima: Hashes) -> None:
    """Fill every empty bin (D, K), in place, from the first full one in a random order of that bin's own."""
    flat = minima.reshape(-1)
    empty = np.flatnonzero(flat == _EMPTY)
    full, orders = flat.copy(), _orders()
    for attempt in range(BINS):
        if not len(empty):
            return
        bins = empty % BINS
        found = full[empty - bins + orders[attempt, bins]]
        flat[empty] = found
        empty = empty[found == _EMPTY]
    assert not len(empty), "a document has no shingle"


@functools.cache
def _orders() -> npt.NDArray[np.int64]:
    """For each bin, in its column, all bins in an order of its own (K, K)."""
    return np.argsort(mixed(np.arange(BINS * BINS, dtype=np.uint64)).reshape(BINS, BINS), axis=0, kind="stable")
