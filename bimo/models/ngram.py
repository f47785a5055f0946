"""The n-gram baseline: interpolated modified Kneser-Ney over token ids, the model that every neural one must beat.

Method: S. F. Chen and J. Goodman, An Empirical Study of Smoothing Techniques for Language Modeling (1998), section 4.1;
lower orders count distinct left neighbours, n-grams that begin a document keep their plain counts.

Shapes: N tokens of a stream, V vocabulary, G distinct grams of one order, H those of the order below (contexts).
A gram's key is ``context * V + token``, where ``context`` is the index of the gram's prefix among the H keys of the
order below: every order is one sorted array of integers. Orders are counted one after the other, lowest first; what is
scored while they go by (:func:`score_best`) never needs them all in memory, and probabilities of one at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bimo.device import return_memory

Tokens = NDArray[np.integer[Any]]
Ints = NDArray[np.integer[Any]]
Places = NDArray[np.int32]  # indices of grams: half the memory, and enough for 2**31 of them
Floats = NDArray[np.float64]

MAX_ORDER = 6
BLOCK = 1 << 16  # grams that are summed at once
# For counts too few or too regular to estimate discounts from (KenLM's fallback); indexed by min(count, 3).
FALLBACK_DISCOUNTS = (0.0, 0.5, 1.0, 1.5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Counts of one order as discounted probabilities, and the mass that each context leaves to the order below."""

    counts: Places  # (G,)
    discounts: Floats  # (4,) by min(count, 3)
    totals: Places  # (H,) sum of counts after a context; 0 where nothing follows it
    backoffs: Floats  # (H,) share of a context's mass that its discounts set free

    @classmethod
    def of(cls, counts: Places, keys: Ints, contexts: int, vocab_size: int) -> Estimate:
        """Estimate from ``counts`` (G,) of the grams of sorted ``keys`` (G,); there are H = ``contexts`` contexts."""
        discounts = estimate_discounts(counts)
        totals, freed = np.zeros(contexts, dtype=np.int32), np.zeros(contexts)
        for start in range(0, len(keys), BLOCK):  # a whole text's intermediate numbers would take twice the memory
            part = slice(start, start + BLOCK)
            places = keys[part] // vocab_size
            first, last = places[0], places[-1]
            places -= first
            totals[first : last + 1] += np.bincount(places, weights=counts[part]).astype(np.int32)
            freed[first : last + 1] += np.bincount(places, weights=discounts[np.minimum(counts[part], 3)])
        freed /= np.maximum(totals, 1)
        return cls(counts, discounts, totals, freed)

    def interpolate(self, grams: Ints, contexts: Ints, lower: Floats) -> Floats:
        """Mix this order's probabilities with ``lower`` (N,), those of the order below.

        Args:
            grams: (N,) index of each label's gram, -1 if it was never seen.
            contexts: (N,) index of its prefix, -1 if that was never seen.
        """
        counts = np.where(grams >= 0, self.counts[grams], 0)
        totals = np.where(contexts >= 0, self.totals[contexts], 0)
        own = (counts - self.discounts[np.minimum(counts, 3)]) / np.maximum(totals, 1)
        return np.where(totals > 0, own + self.backoffs[contexts] * lower, lower)


def estimate_discounts(counts: Ints) -> Floats:
    """Discounts for counts 0, 1, 2 and 3 or more, from the counts of counts (Chen and Goodman, equation 26)."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if not (n1 and n2 and n3 and n4):
        return np.array(FALLBACK_DISCOUNTS)
    share = n1 / (n1 + 2 * n2)
    discounts = np.array([0, 1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3])
    return discounts if np.all(discounts[1:] > 0) else np.array(FALLBACK_DISCOUNTS)


@dataclass(frozen=True, slots=True)
class Level:
    """All grams of one order, with both ways to count them."""

    keys: Ints  # (G,) sorted
    counts: Places  # (G,) occurrences
    neighbours: Places | None  # (G,) distinct left neighbours, or occurrences without any; None for the highest fitted
    contexts: int  # H
    vocab_size: int

    def plain(self) -> Estimate:
        """From occurrences: used when this is the highest order."""
        return Estimate.of(self.counts, self.keys, self.contexts, self.vocab_size)

    def continued(self) -> Estimate | None:
        """From distinct left neighbours: used below the highest order."""
        if self.neighbours is None:
            return None
        return Estimate.of(self.neighbours, self.keys, self.contexts, self.vocab_size)

    def find(self, keys: Ints) -> Ints:
        """The index of each key (N,), or -1."""
        found = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[found] == keys, found, -1)


def count_levels(tokens: Tokens, *, vocab_size: int, eos_id: int, order: int) -> Iterator[Level]:
    """Count the grams of a stream, one order after the other; about 60 bytes a token at once, whatever the order.

    Args:
        tokens: (N,) documents one after the other, each begun by ``eos_id``, as in the token shards.
        order: length of the longest gram; there are fewer levels when no document is that long.
    """
    labels, age = _labels(tokens, eos_id), _age(tokens, eos_id, order)
    ended = np.zeros(len(tokens) + 1, dtype=np.int32)  # (N+1,) index of the gram that ends at each position
    below: Level | None = None
    for length in range(1, order + 1):
        complete = age >= length - 2  # (N,) whether a gram of this length ends with the label
        if not complete.any():
            break
        keys, inverse, counts = _grouped(ended[:-1][complete] * np.int64(vocab_size) + labels[complete])
        suffixes = np.empty(len(keys), dtype=np.int32)  # (G,) index, in the order below, of what each gram ends with
        suffixes[inverse] = ended[1:][complete]
        ended.fill(-1)
        ended[1:][complete] = inverse
        if length == 1:
            ended[0] = ended[-1]  # both are the end-of-document token
        del inverse, complete
        if below:
            neighbours = np.bincount(suffixes, minlength=len(below.keys)).astype(np.int32)
            np.copyto(neighbours, below.counts, where=neighbours == 0)
            del suffixes
            yield dataclasses.replace(below, neighbours=neighbours)
            del neighbours
        below = Level(keys, counts, None, contexts=len(below.keys) if below else 1, vocab_size=vocab_size)
    assert below is not None, "order is at least 1"
    yield below


class NGram:
    """A fitted model of one order."""

    def __init__(self, levels: tuple[Level, ...], *, vocab_size: int, eos_id: int) -> None:
        self.levels, self.vocab_size, self.eos_id = levels, vocab_size, eos_id

    @classmethod
    def fit(cls, tokens: Tokens, *, vocab_size: int, eos_id: int, order: int) -> NGram:
        """Keep all that :func:`count_levels` counts."""
        levels = tuple(count_levels(tokens, vocab_size=vocab_size, eos_id=eos_id, order=order))
        return cls(levels, vocab_size=vocab_size, eos_id=eos_id)

    def log_probs(self, ids: Tokens) -> Floats:
        """Natural log-probability of each label of a stream: (N,), for the tokens 1 to N-1 and the closing ``eos_id``.

        Args:
            ids: (N,) one or more documents, each begun by ``eos_id``.
        """
        scoring = _Scoring(ids, self.vocab_size, self.eos_id)
        return [scoring.add(level) for level in self.levels][-1]


def score_best(
    train: Tokens, validation: Tokens, ids: Tokens, *, vocab_size: int, eos_id: int, max_order: int = MAX_ORDER
) -> tuple[int, Floats]:
    """The order up to ``max_order`` that gives ``validation`` the fewest nats, and its log-probabilities of ``ids``.

    All are streams as in :meth:`NGram.log_probs`, which gives the same numbers; the memory is that of two orders.
    """
    scoring, rows = _Scoring(np.concatenate((validation, ids)), vocab_size, eos_id), []
    for level in count_levels(train, vocab_size=vocab_size, eos_id=eos_id, order=max_order):
        rows.append(scoring.add(level))
        del level  # before the next one, which is as large
        return_memory()  # else its arrays lie beside those of this one
    best = int(np.argmax([row[: len(validation)].sum() for row in rows]))
    return best + 1, rows[best][len(validation) :]


class _Scoring:
    """A stream that is scored while the orders go by, lowest first."""

    def __init__(self, ids: Tokens, vocab_size: int, eos_id: int) -> None:
        self._labels, self._vocab_size = _labels(ids, eos_id).astype(np.int64), vocab_size
        self._ended = np.zeros(len(ids) + 1, dtype=np.int64)
        self._lower: Floats = np.full(len(ids), 1 / vocab_size)

    def add(self, level: Level) -> Floats:
        """The log-probabilities (N,) of the model whose highest order this is."""
        # A context that reaches over a document's beginning was never counted with anything after it.
        contexts, lower = self._ended[:-1], self._lower
        grams = level.find(contexts * self._vocab_size + self._labels)
        self._ended = np.concatenate([grams[-1:], grams])  # what ends with the first token, eos_id, ends with the last
        probabilities = level.plain().interpolate(grams, contexts, lower)
        if (continued := level.continued()) is not None:
            self._lower = continued.interpolate(grams, contexts, lower)
        return np.log(probabilities)


def _grouped(keys: Ints) -> tuple[Ints, Places, Places]:
    """The distinct keys (G,) sorted, the index of each key (N,) among them, and their counts (G,).

    ``np.unique`` does the same with three times the memory. Keys that leave room for it are sorted with their place in
    the lower bits, in ``keys`` itself: whole numbers are sorted in a fifth of the time that ``argsort`` needs.
    """
    size = len(keys)
    bits = size.bit_length()
    if int(keys.max()) < 1 << (63 - bits):
        order = keys
        order <<= bits
        order |= np.arange(size)
        order.sort()
        ordered: Ints = order >> bits
        order &= (1 << bits) - 1
    else:
        order = np.argsort(keys)
        ordered = keys[order]
    first = np.empty(size, dtype=bool)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    distinct = ordered[first]
    del ordered
    grams, inverse = np.cumsum(first, dtype=np.int32), np.empty(size, dtype=np.int32)
    grams -= 1
    inverse[order] = grams
    del order, grams
    starts = np.flatnonzero(first).astype(np.int32)
    return distinct, inverse, np.diff(starts, append=np.int32(size))


def _labels(tokens: Tokens, eos_id: int) -> Tokens:
    """The label after each position of a stream (N,)."""
    assert len(tokens) > 0 and tokens[0] == eos_id, "a stream begins with eos_id"
    return np.append(tokens[1:], tokens[:1])


def _age(tokens: Tokens, eos_id: int, most: int) -> NDArray[np.int8]:
    """How many tokens after ``eos_id`` each position of a stream is (N,), at most ``most``."""
    age = np.full(len(tokens), most, dtype=np.int8)
    beginnings = np.flatnonzero(tokens == eos_id)
    for distance in reversed(range(most)):
        places = beginnings + distance
        age[places[places < len(tokens)]] = distance
    return age
