"""The held-out bits per byte that a training will reach, before it begins: a pure function of measured facts.

    bits = anchor * (floor + size * N**-a + text * X**c + data * D**-b)

The anchor is what an n-gram counted in 400,000 tokens needs for this very text (``train/anchor.py``), so that English,
Chinese and code differ by measurement. N: parameters in millions. D: tokens read in millions, repeated ones worth less
and less. X: by how much an n-gram of this text would fall with K counted tokens instead, where K lies between what was
read and the whole text, since training starts from word pairs of the whole. A power law each, as in Hoffmann et al.
2022 (Training Compute-Optimal Large Language Models, section 3.3); repetition and surplus parameters as in Muennighoff
et al. 2023 (Scaling Data-Constrained Language Models, section 3.1). The constants are fitted by
``benchmarks/scaling.py`` to trainings with the default optimizer, and written here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from bimo.train.anchor import COUNTED_TOKENS, Anchor

MILLION = 1e6


@dataclass(frozen=True)
class Law:
    """The constants, and the range that they were fitted in.

    Attributes:
        ahead: K = (tokens read, at most the text) ** (1 - ahead) * (tokens of the text) ** ahead.
        spread: standard deviation of log(actual / predicted) in the fit.
        parameters: fewest and most, in millions.
        tokens: fewest and most, in millions.
    """

    floor: float
    size: float
    text: float
    data: float
    size_power: float
    text_power: float
    data_power: float
    ahead: float
    spread: float
    parameters: tuple[float, float]
    tokens: tuple[float, float]


LAW = Law(
    floor=0.5569, size=0.0683, text=0.2251, data=0.1091,
    size_power=0.4, text_power=4.0, data_power=0.3, ahead=0.3,
    spread=0.02, parameters=(0.229, 2.16), tokens=(0.25, 2.95),
)  # fmt: skip
LOOKING_BACK = 0.985  # of what that law says: it was fitted before heads began by looking back (train/initial.py)
REPEATS = 15.0  # R_D: how many repetitions of a text are worth something (Muennighoff et al. 2023, section 5)
SURPLUS = 5.3  # R_N: how many times the parameters that a text can teach are worth something (same place)
PARAMETERS_A_TOKEN = 1.0  # that a token of text can teach; a guess, to be measured with long trainings
NEARBY = 1.1  # times as large, or as long
PAIRS = 1.12  # times the anchor: what a model needs that starts at word pairs
NORMAL = 1.96  # standard deviations on either side of a 95% interval
STRETCH = 0.5  # further spreads of the interval for each factor of e outside the fitted range


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


def more_counted(anchor: Anchor, tokens: float, ahead: float) -> float:
    """How an n-gram's bits per byte change when it knows as much as a model that has read ``tokens`` of the text."""
    known = min(tokens, anchor.unique_tokens) ** (1 - ahead) * anchor.unique_tokens**ahead
    return float((known / COUNTED_TOKENS) ** -anchor.slope)


def terms(anchor: Anchor, size: float, tokens: float, law: Law) -> tuple[float, float, float, float]:
    """What ``floor``, ``size``, ``text`` and ``data`` of the law are multiplied by.

    Args:
        size: millions of parameters, all worth something.
    """
    data = effective_tokens(tokens, anchor.unique_tokens) / MILLION
    text = more_counted(anchor, tokens, law.ahead) ** law.text_power
    return 1.0, size**-law.size_power, text, data**-law.data_power


def _bits(anchor: Anchor, size: float, tokens: float, law: Law) -> float:
    constants = law.floor, law.size, law.text, law.data
    found = terms(anchor, size, tokens, law)
    return anchor.bits_per_byte * LOOKING_BACK * sum(one * term for one, term in zip(constants, found, strict=True))


def fitting_parameters(anchor: Anchor, tokens: float, law: Law = LAW) -> float:
    """The parameters at which a step to a larger model and one to more tokens of fresh text teach equally much."""
    fresh = dataclasses.replace(anchor, unique_tokens=max(anchor.unique_tokens, round(NEARBY * tokens)))
    low, high = 1e-3, 1e6  # millions
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        larger, longer = _bits(fresh, NEARBY * middle, tokens, law), _bits(fresh, middle, NEARBY * tokens, law)
        low, high = (middle, high) if larger < longer else (low, middle)
    return low * MILLION


def effective_parameters(parameters: float, unique: float) -> float:
    """What ``parameters`` are worth when only ``unique`` tokens teach them."""
    taught = PARAMETERS_A_TOKEN * unique
    if parameters <= taught:
        return parameters
    return taught * (1 + SURPLUS * (1 - math.exp(-(parameters / taught - 1) / SURPLUS)))


def predict(anchor: Anchor, parameters: float, tokens: float, law: Law = LAW, *, from_pairs: bool = False) -> Forecast:
    """Bits per byte of held-out text after training.

    Args:
        parameters: those inside the layers and in the output matrix.
        tokens: labels learned from, repeated ones included.
        from_pairs: whether training starts at word pairs, above which it never ends, however short it is.
    """
    assert parameters > 0 and tokens > 0
    value = _bits(anchor, effective_parameters(parameters, anchor.unique_tokens) / MILLION, tokens, law)
    value = min(value, PAIRS * anchor.bits_per_byte) if from_pairs else value
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
