"""The n-gram baseline: interpolated modified Kneser-Ney over token ids, the model that every neural one must beat.

Method: S. F. Chen and J. Goodman, An Empirical Study of Smoothing Techniques for Language Modeling (1998), section 4.1;
lower orders count distinct left neighbours, n-grams that begin a document keep their plain counts.

Shapes: N tokens of a stream, V vocabulary, G distinct grams of one order, H those of the order below (contexts).
A gram's key is ``context * V + token``, where ``context`` is the index of the gram's prefix among the H keys of the
order below: every order is one sorted array of integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.integer[Any]]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_ORDER = 6
# For counts too few or too regular to estimate discounts from (KenLM's fallback); indexed by min(count, 3).
FALLBACK_DISCOUNTS = (0.0, 0.5, 1.0, 1.5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Counts of one order as discounted probabilities, and the mass that each context leaves to the order below."""

    counts: NDArray[np.int32]  # (G,)
    discounts: Floats  # (4,) by min(count, 3)
    totals: Floats  # (H,) sum of counts after a context; 0 where nothing follows it
    backoffs: Floats  # (H,) share of a context's mass that its discounts set free

    @classmethod
    def of(cls, counts: Ints, contexts: Ints, size: int) -> Estimate:
        """Estimate from ``counts`` (G,) of grams whose prefixes are ``contexts`` (G,), indices below ``size`` = H."""
        discounts = estimate_discounts(counts)
        totals = np.bincount(contexts, weights=counts, minlength=size).astype(np.float64)
        freed = np.bincount(contexts, weights=discounts[np.minimum(counts, 3)], minlength=size)
        return cls(counts.astype(np.int32), discounts, totals, freed / np.maximum(totals, 1))

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
    plain: Estimate  # occurrences: used when this is the highest order
    continued: Estimate | None  # distinct left neighbours: used below the highest order; None for the highest fitted

    def find(self, keys: Ints) -> Ints:
        """The index of each key (N,), or -1."""
        found = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[found] == keys, found, -1)


class NGram:
    """A fitted model of one order; made by :meth:`fit` or :func:`fit_best`."""

    def __init__(self, levels: tuple[Level, ...], *, vocab_size: int, eos_id: int) -> None:
        self.levels, self.vocab_size, self.eos_id = levels, vocab_size, eos_id

    @property
    def order(self) -> int:
        """The length of the longest gram, the label included."""
        return len(self.levels)

    @classmethod
    def fit(cls, tokens: Tokens, *, vocab_size: int, eos_id: int, order: int) -> NGram:
        """Count the grams of a stream.

        Args:
            tokens: (N,) documents one after the other, each begun by ``eos_id``, as in the token shards.
            order: length of the longest gram; the model's order is lower when no document is that long.
        """
        labels, positions = _labels(tokens, eos_id), np.arange(len(tokens))
        age = positions - np.maximum.accumulate(np.where(tokens == eos_id, positions, 0))  # (N,) tokens since eos_id
        ended = np.zeros(len(labels) + 1, dtype=np.int64)  # (N+1,) index of the gram that ends at each position
        levels: list[Level] = []
        pending: tuple[Ints, Ints, Ints, int] | None = None  # keys, counts, contexts, H of the order below
        size = 1
        for length in range(1, order + 1):
            where = np.flatnonzero(age >= length - 2)
            if not len(where):
                break
            keys, inverse, counts = np.unique(
                ended[where] * vocab_size + labels[where], return_inverse=True, return_counts=True
            )
            if pending:
                suffixes = np.empty(len(keys), dtype=np.int64)
                suffixes[inverse] = ended[where + 1]
                levels.append(_level(*pending, suffixes))
            pending = keys, counts, keys // vocab_size, size
            size = len(keys)
            ended = np.full_like(ended, -1)
            ended[where + 1] = inverse
            if length == 1:
                ended[0] = ended[-1]  # both are the end-of-document token
        assert pending is not None, "order is at least 1"
        levels.append(_level(*pending, None))
        return cls(tuple(levels), vocab_size=vocab_size, eos_id=eos_id)

    def truncated(self, order: int) -> NGram:
        """The model of a lower order, as if fitted on the same stream."""
        return NGram(self.levels[:order], vocab_size=self.vocab_size, eos_id=self.eos_id)

    def log_probs(self, ids: Tokens) -> Floats:
        """Natural log-probability of each label of a stream: (N,), for the tokens 1 to N-1 and the closing ``eos_id``.

        Args:
            ids: (N,) one or more documents, each begun by ``eos_id``.
        """
        return self.log_probs_by_order(ids)[-1]

    def log_probs_by_order(self, ids: Tokens) -> Floats:
        """Like :meth:`log_probs` for this model and all its truncations: (order, N), order 1 first."""
        labels = _labels(ids, self.eos_id)
        ended = np.zeros(len(labels) + 1, dtype=np.int64)
        lower = np.full(len(labels), 1 / self.vocab_size)
        rows = []
        for level in self.levels:
            # A context that reaches over a document's beginning was never counted with anything after it.
            contexts = ended[:-1]
            grams = level.find(contexts * self.vocab_size + labels)
            rows.append(level.plain.interpolate(grams, contexts, lower))
            if level.continued is not None:
                lower = level.continued.interpolate(grams, contexts, lower)
            ended = np.concatenate([grams[-1:], grams])  # what ends with the first token, eos_id, ends with the last
        return np.log(np.stack(rows))


def fit_best(train: Tokens, validation: Tokens, *, vocab_size: int, eos_id: int, max_order: int = MAX_ORDER) -> NGram:
    """Fit every order up to ``max_order`` to ``train`` and return the one that gives ``validation`` the fewest nats."""
    model = NGram.fit(train, vocab_size=vocab_size, eos_id=eos_id, order=max_order)
    nats = -model.log_probs_by_order(validation).sum(axis=1)
    return model.truncated(int(nats.argmin()) + 1)


def _level(keys: Ints, counts: Ints, contexts: Ints, size: int, suffixes: Ints | None) -> Level:
    """A level; ``suffixes`` are the indices, in this level, that the distinct grams of the order above end with."""
    plain = Estimate.of(counts, contexts, size)
    if suffixes is None:
        return Level(keys, plain, None)
    neighbours = np.bincount(suffixes, minlength=len(keys))
    return Level(keys, plain, Estimate.of(np.where(neighbours > 0, neighbours, counts), contexts, size))


def _labels(tokens: Tokens, eos_id: int) -> Ints:
    """The label after each position of a stream (N,)."""
    assert len(tokens) > 0 and tokens[0] == eos_id, "a stream begins with eos_id"
    return np.append(tokens[1:], eos_id).astype(np.int64)
