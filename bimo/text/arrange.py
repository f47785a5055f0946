"""The order in which prepared documents are written, how often each, and on which side of the split it lies.

Every decision follows from a seed and the id of the document (of the first one of its group), so that neither the order
of processing nor new files change what becomes of the others.

Shapes: D documents, S sources, G groups that stay together, R documents with their repeats.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from bimo.device import seed_for
from bimo.errors import ConfigError, DataError, did_you_mean
from bimo.text.duplicates import Numbers, components, join
from bimo.text.shingles import Hashes, mixed
from bimo.text.split import OVERSHOOT, TEST, TRAIN, VALIDATION, check_shares, fill

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]
Sides = npt.NDArray[np.uint8]
NO_SIDE = 255  # of a document that is not kept


def id_hashes(ids: Iterable[str]) -> Hashes:
    """64 bits of BLAKE2b of each document's id (D,): what decides about it."""
    digests = (hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest() for id in ids)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _chances(ids: Hashes, seed: int, *stream: str | int) -> Hashes:
    """A random 64-bit number for each id, from the named stream (D,)."""
    return mixed(ids ^ np.uint64(seed_for(seed, *stream)))


@dataclass(frozen=True, slots=True)
class Mix:
    """A mixture of sources, for the training documents.

    Attributes:
        weights: how often a source is read in comparison to others: at 2, twice as often as one at 1; sources without
            one have 1. Where no size is wanted, it is the number of times itself.
        most_epochs: the most times that a source is read.
        target_bytes: how much text to give, 0: what the weights give.
    """

    weights: Mapping[str, float]
    most_epochs: Mapping[str, float]
    target_bytes: int = 0


def numbers_by_source(option: str, text: str) -> dict[str, float]:
    """Read ``wiki=2,forum=0.5``, as options such as ``--mix`` have it.

    Raises:
        ConfigError: a part is not a name and a number, or a name comes twice.
    """
    result: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name.strip() or math.isnan(value) or name.strip() in result:
            raise ConfigError(f"{option} is wrong.", expected="sources and numbers: wiki=2,forum=1", got=repr(text))
        result[name.strip()] = value
    return result


def check_mix(names: Sequence[str], mix: Mix) -> None:
    """Raise a :class:`ConfigError` if a name is no source, or a number is negative."""
    if mix.target_bytes < 0:
        raise ConfigError("arrangement.target_bytes is wrong.", expected="0 or more", got=f"{mix.target_bytes}")
    for option, values in (("--mix", mix.weights), ("--most-epochs", mix.most_epochs)):
        for name, value in values.items():
            if name not in names:
                raise ConfigError(f"{option} names no source: '{name}'.", fix=did_you_mean(name, names))
            if not 0 <= value < math.inf:
                raise ConfigError(f"{option} is wrong.", expected="numbers from 0 up", got=f"{name}={value}")


def epochs(names: Sequence[str], sizes: Integers, mix: Mix) -> Floats:
    """How often each source is read (S,), given its bytes (S,).

    To reach a wanted size all weights are scaled alike; what a source may not give any more, the others give. Text that
    is repeated more than about four times teaches little (Muennighoff et al. 2023, "Scaling data-constrained language
    models"), which is what ``most_epochs`` is for.

    Raises:
        ConfigError: as :func:`check_mix`, or no text is left.
    """
    check_mix(names, mix)
    weights = np.array([mix.weights.get(name, 1.0) for name in names])
    most = np.array([mix.most_epochs.get(name, math.inf) for name in names])
    result = np.minimum(weights, most)
    if not (result * sizes).sum() > 0:
        raise ConfigError("The mixture leaves no text.", fix="Give larger weights.")
    if not mix.target_bytes:
        return result
    full = np.zeros(len(names), dtype=bool)  # sources that are read as often as they may
    while True:
        result = np.where(full, most, 0.0)
        open_bytes = float((weights * sizes)[~full].sum())
        if open_bytes > 0:
            scale = (mix.target_bytes - float((result * sizes).sum())) / open_bytes
            result[~full] = weights[~full] * scale
        over = ~full & (result > most)
        if not over.any():
            return result
        full |= over


def arrange(
    ids: Hashes,
    kept: Marks,
    *,
    seed: int,
    shuffle: bool = False,
    mix: Mix | None = None,
    source: npt.NDArray[np.integer] | None = None,
    names: Sequence[str] = (),
    sizes: Integers | None = None,
) -> Integers:
    """The numbers of the kept documents in the order in which to write them, some more than once (R,).

    Without a mixture and unshuffled it is the order they came in. A mixture is always shuffled, the repeats of a
    document apart from each other. Of a source read 2.3 times each document comes twice, and a seeded 30% of them a
    third time; the share is nested, what 0.3 takes 0.5 takes too.

    Args:
        ids: from :func:`id_hashes` (D,).
        kept: which to write: of a split, only its training documents (D,).
        source: with ``mix``, the number of each document's source in ``names`` (D,).
        sizes: with ``mix``, UTF-8 bytes of each (D,).

    Raises:
        ConfigError: as :func:`epochs`.
    """
    numbers = np.flatnonzero(kept)
    if mix is None and not shuffle:
        return numbers
    copies = np.ones(len(numbers), dtype=np.int64)
    if mix is not None:
        assert source is not None and sizes is not None
        given = np.bincount(source[numbers], weights=sizes[numbers], minlength=len(names)).astype(np.int64)
        times = epochs(names, given, mix)[source[numbers]]
        whole = np.floor(times)
        copies = whole.astype(np.int64) + (_uniform(_chances(ids[numbers], seed, "mix")) < times - whole)
    repeat = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)
    numbers = np.repeat(numbers, copies)
    chance = mixed(_chances(ids[numbers], seed, "order") + mixed(repeat.astype(np.uint64)))
    return numbers[np.argsort(chance, kind="stable")]


def _uniform(chances: Hashes) -> Floats:
    """Numbers from 0 up to 1, without it."""
    return (chances >> np.uint64(11)).astype(np.float64) * 2.0**-53


def split(
    key: Hashes,
    sizes: Integers,
    kept: Marks,
    cluster: Numbers,
    *,
    seed: int,
    validation: float = 0.04,
    test: float = 0.08,
    cap_bytes: int = 4_000_000,
    times: Sequence[str] | None = None,
) -> Sides:
    """The side of every kept document: ``TRAIN``, ``VALIDATION`` or ``TEST`` of ``split.py``, else ``NO_SIDE`` (D,).

    Documents of one key or of one near-duplicate cluster are on one side. A seeded order of such groups decides; a part
    takes those that fit into its share of the bytes. With ``times`` the newest groups are for the test and the next
    newest for validation; a group is as old as its oldest document, and for training if the time of one is unknown.

    Args:
        key: :func:`id_hashes` of the documents' ids; of their sources or files, to split by those (D,).
        sizes: UTF-8 bytes of each (D,).
        kept: which there are, the others have no side (D,).
        cluster: of :class:`bimo.text.duplicates.Duplicates` (D,).
        times: when each was written, in ISO 8601, ``""`` where unknown (D,).

    Raises:
        ConfigError: the shares are not positive, or together more than half.
        DataError: there are too few groups to have some on every side.
    """
    check_shares(validation, test, cap_bytes)
    numbers = np.flatnonzero(kept)
    key, cluster, sizes = key[numbers], cluster[numbers], sizes[numbers]
    first, group = _groups(key, cluster)
    weights = np.bincount(group, weights=sizes, minlength=len(first)).astype(np.int64)  # (G,)
    chance = _chances(key[first], seed, "split")
    if times is None:
        order, what = np.argsort(chance, kind="stable"), "groups of documents that stay together"
    else:
        oldest = np.full(len(first), math.inf)
        np.minimum.at(oldest, group, np.array([_moment(times[number]) for number in numbers.tolist()]))
        order = np.lexsort((chance, -oldest))[: np.count_nonzero(oldest > -math.inf)]
        what = "groups of documents whose time is known"
    for_training = int(len(order) == len(first))  # how many of them are needed there
    if len(order) < 2 + for_training:
        expected, fix = f"at least {2 + for_training}", "Split by document, or add text."
        if times is not None:
            fix = "Name the column that holds the times (--time-column), split by document, or add text."
        raise DataError("There is too little to hold some out.", expected=expected, got=f"{len(order)} {what}", fix=fix)
    side_of = np.full(len(first), TRAIN, dtype=np.uint8)
    take = fill if times is None else _newest
    for side, share, still_needed in ((TEST, test, 1 + for_training), (VALIDATION, validation, for_training)):
        limit = min(share * int(weights.sum()), cap_bytes)
        chosen = take(order.data, weights.data, limit, cap_bytes, len(order) - still_needed)
        side_of[list(chosen)] = side
        order = order[side_of[order] == TRAIN]
    sides = np.full(len(kept), NO_SIDE, dtype=np.uint8)
    sides[numbers] = side_of[group]
    return sides


def _groups(key: Hashes, cluster: Numbers) -> tuple[Integers, Integers]:
    """The first document of every group (G,), and the group of each document (D,)."""
    parent = np.arange(len(key), dtype=np.int32)
    for labels, members in ((key, parent.copy()), (cluster, np.flatnonzero(cluster >= 0).astype(np.int32))):
        _, first, index = np.unique(labels[members], return_index=True, return_inverse=True)
        join(parent, members, members[first[index]])
    first, group = np.unique(components(parent), return_inverse=True)
    return first.astype(np.int64), group


def _moment(time: str) -> float:
    """Seconds since 1970 of a time in ISO 8601, of a year or month its begin; minus infinity where it is none."""
    try:
        found = datetime.fromisoformat(time + "0001-01-01"[len(time) :] if len(time) in (4, 7) else time)
        return found.replace(tzinfo=found.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return -math.inf


def _newest(order: Sequence[int], weights: Sequence[int], share: float, cap: int, most: int) -> set[int]:
    """The first of ``order`` as far as they fit, without a gap; at least one."""
    filled, taken = 0, 0
    while taken < most and filled + weights[order[taken]] <= min(share * OVERSHOOT, cap):
        filled += weights[order[taken]]
        taken += 1
    return set(order[: max(taken, 1)])
