"""How likely a model finds given texts: bits for each byte of them, and perplexity of a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bimo.evaluate.metric import Metric, Sums, ratio


class Likelihood(NamedTuple):
    """What one text cost; the reference is the text, of which the UTF-8 bytes count."""

    nats: float
    tokens: int


def _contributions(predictions: Sequence[Sequence[float]], references: Sequence[str]) -> Sums:
    """Nats, tokens and bytes (N, 3)."""
    sizes = [len(reference.encode("utf-8", "surrogatepass")) for reference in references]
    return np.column_stack([np.array([tuple(one) for one in predictions], np.float64), sizes])


def _bits_per_byte(sums: Sums) -> Sums:
    return ratio(sums[..., [0, 2]]) / np.log(2)


def _perplexity(sums: Sums) -> Sums:
    return np.exp(ratio(sums[..., :2]))


METRICS = (
    Metric("bits_per_byte", "likelihood", _contributions, _bits_per_byte, best="low", scale="bits"),
    Metric("perplexity", "likelihood", _contributions, _perplexity, best="low", scale="1 to the vocabulary"),
)
