"""How far a likelihood measured on some held-out text may lie from that of all such text: bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bimo.device import seed_for
from bimo.evaluate.likelihood import DocumentScore

RESAMPLES = 1_000
CONFIDENCE = 0.95
ENOUGH_DOCUMENTS = 30  # with fewer, blocks of text are resampled instead
BLOCK_TOKENS = 1_000


@dataclass(frozen=True, slots=True)
class Measured:
    """A number and its 95% interval; ``low`` and ``high`` are None when there is too little text for one."""

    value: float
    low: float | None
    high: float | None
    resampled: str  # what the interval comes from: "152 blocks of 1,000 tokens", "31 documents"


def wilson(right: int, count: int) -> dict[str, float]:
    """A share with its 95% interval (Wilson 1927)."""
    share, z = right / count, 1.96
    middle, width = (
        share + z * z / (2 * count),
        z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)),
    )
    return {
        "value": share,
        "low": (middle - width) / (1 + z * z / count),
        "high": (middle + width) / (1 + z * z / count),
    }


def bits_per_byte(scores: Sequence[DocumentScore], *, seed: int = 0) -> Measured:
    """Bits that the model needs for a byte of the source text; the end of each document is paid for too."""
    units, resampled = _units(scores)
    return _measure(units.nats / math.log(2), units.bytes, resampled, seed)


def perplexity(scores: Sequence[DocumentScore], *, seed: int = 0) -> Measured:
    """The exponential of the mean nats of a token; comparable only between models with the same tokenizer."""
    units, resampled = _units(scores)
    mean = _measure(units.nats, units.tokens, resampled, seed)
    low, high = (None if bound is None else math.exp(bound) for bound in (mean.low, mean.high))
    return Measured(math.exp(mean.value), low, high, resampled)


def bits_per_byte_difference(
    scores: Sequence[DocumentScore], baseline: Sequence[DocumentScore], *, seed: int = 0
) -> Measured:
    """Bits per byte of ``scores`` minus those of ``baseline``, resampled in pairs: negative where the model wins.

    Both must be of the same documents in the same order. The tokenizers may differ if there are enough documents;
    with fewer, blocks of tokens are paired, so the tokens must be the same.
    """
    units, resampled = _units(scores)
    others, _ = _units(baseline)
    same = [score.id for score in scores] == [score.id for score in baseline] and len(units.nats) == len(others.nats)
    assert same, "only scores of the same documents can be paired"
    return _measure((units.nats - others.nats) / math.log(2), units.bytes, resampled, seed)


@dataclass(frozen=True, slots=True)
class _Units:
    """What is resampled: U documents or blocks."""

    nats: NDArray[np.float64]  # (U,)
    tokens: NDArray[np.float64]  # (U,)
    bytes: NDArray[np.float64]  # (U,) of a block: in proportion to its tokens


def _units(scores: Sequence[DocumentScore]) -> tuple[_Units, str]:
    if len(scores) >= ENOUGH_DOCUMENTS:
        rows = [(score.nats, score.tokens, float(score.bytes)) for score in scores]
        name = f"{len(rows):,} documents"
    else:
        rows = [row for score in scores for row in _blocks(score)]
        name = f"{len(rows):,} blocks of {BLOCK_TOKENS:,} tokens"
    return _Units(*np.array(rows, dtype=np.float64).reshape(-1, 3).T), name


def _blocks(score: DocumentScore) -> list[tuple[float, int, float]]:
    edges = range(0, score.tokens, BLOCK_TOKENS)
    parts = [score.label_nats[edge : edge + BLOCK_TOKENS] for edge in edges]
    return [(float(part.sum(dtype=np.float64)), len(part), score.bytes * len(part) / score.tokens) for part in parts]


def _measure(amounts: NDArray[np.float64], sizes: NDArray[np.float64], resampled: str, seed: int) -> Measured:
    """The ratio of two sums, with the percentile interval of the same ratio over resampled units."""
    value = float(amounts.sum() / sizes.sum())
    count = len(amounts)
    if count < 2:
        return Measured(value, None, None, resampled)
    generator = np.random.Generator(np.random.PCG64(seed_for(seed, "bootstrap")))
    ratios = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        drawn = generator.integers(count, size=count)
        ratios[index] = amounts[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Measured(value, float(low), float(high), resampled)
