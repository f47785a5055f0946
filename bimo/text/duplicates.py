"""Which documents are copies of others, exactly or nearly, and which copy is the best one.

Exact copies have equal hashes. Near ones share a band of their signatures and then at least ``similarity`` of their
bins; pairs that do are joined to clusters (connected components). In a cluster the best copy (:func:`copy_scores`) is
kept and those similar to it are dropped, then the best of the rest, and so on: a document is only dropped for one that
it is measured to be similar to, however long the chain that joined them. The cluster as a whole is what a split keeps
on one side.

The result follows from the arrays alone, whichever process computed which part of them. Memory: about 50 bytes a
document and one band at a time.

Shapes: D documents, P pairs, M members of groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bimo.text.shingles import Hashes
from bimo.text.signatures import Checks, similarity

# What is 0.75 alike is a near duplicate, and its measure is off by 0.04 (one standard deviation): with 0.7, 94% of
# planted English copies at 0.75 to 0.85 are found and nothing below 0.6; with 0.75, 86%. Bands miss the rest.
SIMILARITY = 0.7
ROUNDS = 24  # documents of one band bucket that the others are compared with
MOST_KEPT = 100  # documents of one cluster that are kept because others differ from them, before all the rest is
PAIRS = 1 << 16  # compared at once
COMMON = 1_000  # documents in a bucket or cluster from which it is worth a look

Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Many documents of one kind: ``"bucket"`` (they share a band, most are not similar) or ``"cluster"``."""

    kind: str
    documents: int
    example: int  # the number of its first document

    def __str__(self) -> str:
        what = {"bucket": "share a passage but are not similar", "cluster": "are joined by similar ones between them"}
        return f"{self.documents:,} documents {what[self.kind]}"


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What became of D documents.

    Attributes:
        cluster: the number of the first document of its cluster; -1 where it is alone (D,).
        instead: the number of the document that is kept in its place; -1 where it is kept itself (D,).
        similarity: to that document: 1 where ``exact``, else estimated; 0 where it is kept (D,).
        exact: whether it has the normal form of the document kept in its place (D,).
        crowds: where the documents are so many that one should look at an example.
    """

    cluster: Numbers
    instead: Numbers
    similarity: npt.NDArray[np.float32]
    exact: npt.NDArray[np.bool_]
    crowds: tuple[Crowd, ...] = ()

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Which documents are kept (D,)."""
        return self.instead < 0

    def evidence(self, number: int, kept_id: str) -> tuple[str, str]:
        """The reason and the evidence for dropping a document, given the id of the one kept in its place."""
        if self.exact[number]:
            return "exact duplicate", f"same text as {kept_id}"
        return "near duplicate", f"{self.similarity[number]:.0%} similar to {kept_id}"


def find_duplicates(
    exact: Hashes,
    bands: Iterable[Hashes],
    check: Checks,
    score: npt.NDArray[np.float64],
    size: npt.NDArray[np.int64],
    *,
    least: float = SIMILARITY,
) -> Duplicates:
    """Find the duplicates among D documents in order, of whose arrays any may be memory-mapped.

    Args:
        exact: hashes of the normal forms (D, 2).
        bands: each band's hashes (D,), one after the other; without any, only exact duplicates are found.
        check: bins of the signatures (D, BINS); without bands, anything.
        score: the copy with the highest is kept (D,), such as :func:`copy_scores`; NaN is lowest.
        size: of equal scores, the largest text is kept; of equal sizes, the first document (D,).
        least: the similarity from which documents are near duplicates.
    """
    count = len(exact)
    rank = _ranks(score, size)
    result = Duplicates(
        cluster=np.full(count, -1, dtype=np.int32),
        instead=np.full(count, -1, dtype=np.int32),
        similarity=np.zeros(count, dtype=np.float32),
        exact=np.zeros(count, dtype=bool),
    )
    heads, copies, group_of = _exact_groups(exact, rank)
    result.instead[copies], result.similarity[copies], result.exact[copies] = group_of, 1, True
    parent = np.arange(count, dtype=np.int32)
    parent[copies] = group_of
    crowds = []
    for band in bands:
        crowds += _join_band(np.asarray(band)[heads], heads, check, parent, least)
    _name_clusters(parent, result)
    crowds += _keep_best(result, heads, rank, check, least)
    _follow(result, copies)
    largest = {(crowd.kind, crowd.example): crowd for crowd in sorted(crowds, key=lambda crowd: crowd.documents)}
    return replace(result, crowds=tuple(sorted(largest.values(), key=lambda crowd: (-crowd.documents, crowd.example))))


def copy_scores(bytes_in: npt.NDArray[np.int64], bytes_out: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How good a copy each document is, from the share of it that the cleaning steps left, in tenths (D,).

    Of two copies, that from which less boilerplate and noise had to be taken is the cleaner one. In tenths, so that a
    stray blank does not count for more than the length.
    """
    return np.round(np.minimum(bytes_out / np.maximum(bytes_in, 1), 1.0), 1).astype(np.float64)


def _ranks(score: npt.NDArray[np.float64], size: npt.NDArray[np.int64]) -> Numbers:
    """The place of each document in the order from the best to the worst (D,)."""
    order = np.lexsort((-size, -np.nan_to_num(score, nan=-np.inf)))  # stable: the earlier of equal ones is better
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank


def _exact_groups(exact: Hashes, rank: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The best document of every group of equal ones, in document order; all others, and the best of each's group."""
    order = np.lexsort((rank, exact[:, 1], exact[:, 0])).astype(np.int32)
    first = _first(exact[order, 0]) | _first(exact[order, 1])
    head_of = order[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))]
    return np.sort(order[first]), order[~first], head_of[~first]


def _join_band(band: Hashes, heads: Numbers, check: Checks, parent: Numbers, least: float) -> list[Crowd]:
    """Join those documents of one band that share a hash and are similar; report buckets of which most are not."""
    order = np.argsort(band, kind="stable")
    band = band[order]
    first = _first(band)
    shared = ~first
    shared[:-1] |= ~first[1:]
    members, group = heads[order[shared]], band[shared]
    for a, b, _ in _compare(members, group, check, least, ROUNDS, parent):
        join(parent, a, b)
    crowds = []
    starts = np.flatnonzero(_first(group))
    sizes = np.diff(np.append(starts, len(group)))
    for start, size in zip(starts[sizes >= COMMON].tolist(), sizes[sizes >= COMMON].tolist(), strict=True):
        bucket = members[start : start + size]
        if len(np.unique(_roots(parent, bucket))) > size / 2:
            crowds.append(Crowd("bucket", size, int(bucket[0])))
    return crowds


def _compare(
    members: Numbers, group: npt.NDArray[np.generic], check: Checks, least: float, rounds: int, parent: Numbers | None
) -> Iterator[tuple[Numbers, Numbers, npt.NDArray[np.float32]]]:
    """Compare the first member of every group with its others, then the first of those left over, and so on.

    Args:
        members: documents, those of a group together (M,).
        group: of each (M,).
        parent: where given, members that it joins already are not compared.

    Yields:
        Of each round, pairs of first and other members that are similar, and how similar (P,).
    """
    for _ in range(rounds):
        first = _first(group)
        leader = members[np.maximum.accumulate(np.where(first, np.arange(len(members)), 0))]
        members, leader, group = members[~first], leader[~first], group[~first]
        if not len(members):
            return
        if parent is not None:
            apart = _roots(parent, members) != _roots(parent, leader)
            members, leader, group = members[apart], leader[apart], group[apart]
        found = np.empty(len(members), dtype=np.float32)
        for start in range(0, len(members), PAIRS):
            these = slice(start, start + PAIRS)
            found[these] = similarity(check[leader[these]], check[members[these]])
        similar = found >= least
        yield leader[similar], members[similar], found[similar]
        members, group = members[~similar], group[~similar]


def _first(group: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Which members are the first of their group (M,)."""
    first = np.ones(len(group), dtype=bool)
    first[1:] = group[1:] != group[:-1]
    return first


def join(parent: Numbers, a: Numbers, b: Numbers) -> None:
    """Join the components of ``a[i]`` and ``b[i]`` for each pair, in place: roots are parents of themselves."""
    while len(a):
        a, b = _roots(parent, a), _roots(parent, b)
        apart = a != b
        a, b = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
        parent[b] = a  # of several, one; the others are joined in the next round


def _roots(parent: Numbers, documents: Numbers) -> Numbers:
    roots = parent[documents]
    while True:
        above = parent[roots]
        if np.array_equal(above, roots):
            break
        roots = above
    parent[documents] = roots  # so that the way is short the next time
    return roots


def components(parent: Numbers) -> Numbers:
    """The number of the first document in the component of each (D,)."""
    roots = _roots(parent, np.arange(len(parent), dtype=np.int32))
    lowest = np.arange(len(parent), dtype=np.int32)
    np.minimum.at(lowest, roots, lowest.copy())
    return lowest[roots]


def _name_clusters(parent: Numbers, result: Duplicates) -> None:
    label = components(parent)
    in_cluster = np.bincount(label, minlength=len(label))[label] > 1
    result.cluster[in_cluster] = label[in_cluster]


def _keep_best(result: Duplicates, heads: Numbers, rank: Numbers, check: Checks, least: float) -> list[Crowd]:
    """Decide what is kept of each cluster; of clusters that hold too many kinds, the rest is kept and they are told."""
    members = heads[result.cluster[heads] >= 0]
    members = members[np.lexsort((rank[members], result.cluster[members]))]
    for leader, dropped, found in _compare(members, result.cluster[members], check, least, MOST_KEPT, None):
        result.instead[dropped], result.similarity[dropped] = leader, found
    kept = result.cluster[members[result.instead[members] < 0]]
    labels, counts = np.unique(kept, return_counts=True)
    return [
        Crowd("cluster", int(count), int(label))
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True)
        if count > MOST_KEPT
    ]


def _follow(result: Duplicates, copies: Numbers) -> None:
    """Where the best of some exact copies was dropped for a near one, the copies are dropped for that one too."""
    moved = copies[result.instead[result.instead[copies]] >= 0]
    leader = result.instead[moved]
    result.similarity[moved], result.exact[moved] = result.similarity[leader], False
    result.instead[moved] = result.instead[leader]
