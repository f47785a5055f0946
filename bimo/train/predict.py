"""The held-out bits per byte that a training will reach, before it begins: a pure function of measured facts.

    bits = anchor * (floor + A * N**-a + B * D**-b)

N parameters that take part in every token's arithmetic and D tokens learned from, both in millions; repeated text and
parameters beyond what the text can teach count for less and less (Muennighoff et al. 2023, Scaling Data-Constrained
Language Models, section 3.1). The anchor is the text's own difficulty (``train/anchor.py``). The constants are fitted
by ``benchmarks/scaling.py`` to trainings with the default optimizer; nothing else of them is kept anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bimo.train.anchor import Anchor

MILLION = 1e6


@dataclass(frozen=True)
class Law:
    """The constants, and the range that they were fitted in.

    Attributes:
        spread: standard deviation of log(actual / predicted) in the fit.
        parameters: fewest and most, in millions.
        tokens: fewest and most, in millions.
    """

    floor: float
    size: float
    size_power: float
    data: float
    data_power: float
    spread: float
    parameters: tuple[float, float]
    tokens: tuple[float, float]


LAW = Law(
    floor=0.55, size=0.16, size_power=0.30, data=0.17, data_power=0.40, spread=0.02,
    parameters=(0.2, 5.0), tokens=(0.25, 6.75),
)  # fmt: skip
REPEATS = 15.0  # R_D: how many repetitions of a text are worth something (Muennighoff et al. 2023, section 5)
SURPLUS = 5.3  # R_N: how many times the parameters that a text can teach are worth something (same place)
NORMAL = 1.96  # standard deviations on either side of a 95% interval
STRETCH = 1.0  # further spreads of the interval for each factor of e outside the fitted range


@dataclass(frozen=True)
class Forecast:
    """Predicted bits per byte with a 95% interval."""

    value: float
    low: float
    high: float


def effective_tokens(tokens: float, unique: float) -> float:
    """What ``tokens`` read from a text of ``unique`` ones are worth, counted in tokens read for the first time."""
    if tokens <= unique:
        return tokens
    repetitions = tokens / unique - 1
    return unique * (1 + REPEATS * (1 - math.exp(-repetitions / REPEATS)))


def fitting_parameters(tokens: float, law: Law = LAW) -> float:
    """The parameters for which a step to a larger model and one to more tokens teach equally much."""
    share = law.size * law.size_power / (law.data * law.data_power)
    return MILLION * float((share * (tokens / MILLION) ** law.data_power) ** (1 / law.size_power))


def effective_parameters(parameters: float, unique: float, law: Law = LAW) -> float:
    """What ``parameters`` are worth when only ``unique`` tokens teach them."""
    taught = fitting_parameters(unique, law)
    if parameters <= taught:
        return parameters
    return taught * (1 + SURPLUS * (1 - math.exp(-(parameters / taught - 1) / SURPLUS)))


def predict(anchor: Anchor, parameters: float, tokens: float, law: Law = LAW) -> Forecast:
    """Bits per byte of held-out text after training.

    Args:
        parameters: those inside the layers and in the output matrix.
        tokens: labels learned from, repeated ones included.
    """
    assert parameters > 0 and tokens > 0
    size = effective_parameters(parameters, anchor.unique_tokens, law) / MILLION
    data = effective_tokens(tokens, anchor.unique_tokens) / MILLION
    share = law.floor + law.size * size**-law.size_power + law.data * data**-law.data_power
    value = anchor.bits_per_byte * share
    outside = _outside(parameters / MILLION, law.parameters) + _outside(tokens / MILLION, law.tokens)
    factor = math.exp(NORMAL * law.spread * (1 + STRETCH * outside))
    return Forecast(value, value / factor, value * factor)


def tokens_to_reach(anchor: Anchor, parameters: float, target: float, most: float, law: Law = LAW) -> float | None:
    """The fewest tokens after which ``target`` bits per byte are predicted; None if ``most`` are not enough."""
    if predict(anchor, parameters, most, law).value > target:
        return None
    low, high = 1.0, most
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if predict(anchor, parameters, middle, law).value <= target else (middle, high)
    return high


def _outside(value: float, limits: tuple[float, float]) -> float:
    """How many factors of e ``value`` lies outside the limits."""
    return max(0.0, math.log(limits[0] / value), math.log(value / limits[1]))
