"""The held-out bits per byte that a training will reach, before it begins: a pure function of measured facts.

    bits = anchor * (floor + size * N**-a + data * D**-b) * C**(c0 + c1 * s * N**q) * E**(e1 * s - e0)
    s = 1 / (1 + (begins / D)**p)

The anchor is what an n-gram counted in 400,000 tokens needs for this very text (``train/anchor.py``), so that English,
Chinese and code differ by measurement. N: parameters in millions. D: tokens read in millions, repeated ones worth less
and less. C: the share of the anchor that is left to who may copy from the context (``train/copying.py``). E: how hard
a token is to an n-gram, from 0 to 1. s: how far a model has learned to attend to its context, which happens at some
point of its training (Olsson et al. 2022, In-context Learning and Induction Heads), and from then on gives most on easy
texts and where there is much to copy, there to large models more than to small ones. A power law each, as in Hoffmann
et al. 2022 (Training Compute-Optimal Large Language Models, section 3.3); repetition and surplus parameters as in
Muennighoff et al. 2023 (Scaling Data-Constrained Language Models, section 3.1). The constants are fitted by
``benchmarks/scaling.py`` to trainings with the default optimizer, and written here and nowhere else.
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
        begins: millions of tokens read after which a model attends to its context half as well as it will.
        suddenness: p, the power of that.
        copying: c0, c1 and q.
        hardness: e0 and e1.
        spread: standard deviation of log(actual / predicted) in the fit.
        parameters: fewest and most, in millions.
        tokens: fewest and most, in millions.
    """

    floor: float
    size: float
    data: float
    size_power: float
    data_power: float
    begins: float
    suddenness: float
    copying: tuple[float, float, float]
    hardness: tuple[float, float]
    spread: float
    parameters: tuple[float, float]
    tokens: tuple[float, float]


LAW = Law(
    floor=0.7523, size=0.08269, data=0.1323, size_power=0.35, data_power=0.3,
    begins=1.286, suddenness=3.0, copying=(0.497, 1.13, 0.272), hardness=(0.139, 0.562),
    spread=0.02836, parameters=(0.229, 11.4), tokens=(0.369, 6.0),
)  # fmt: skip
HARDEST = 0.64  # bits a token, over those of a token drawn at random: the hardest text of the fit, which is E = 1
REPEATS = 15.0  # R_D: how many repetitions of a text are worth something (Muennighoff et al. 2023, section 5)
SURPLUS = 5.3  # R_N: how many times the parameters that a text can teach are worth something (same place)
PARAMETERS_A_TOKEN = 1.0  # that a token of text can teach; a guess, to be measured with long trainings
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


def _bits(anchor: Anchor, size: float, tokens: float, law: Law) -> float:
    """The law.

    Args:
        size: millions of parameters, all worth something.
    """
    read = effective_tokens(tokens, anchor.unique_tokens) / MILLION
    alone = law.floor + law.size * size**-law.size_power + law.data * read**-law.data_power
    attends = 1 / (1 + (law.begins / read) ** law.suddenness)
    at_once, attending, power = law.copying
    copying = at_once + attending * attends * min(size, law.parameters[1]) ** power  # larger ones have not been seen
    hard = min(1.0, anchor.bits_per_byte * anchor.bytes_per_token / (HARDEST * math.log2(anchor.vocab_size)))
    from_context = anchor.copying**copying * hard ** (law.hardness[1] * attends - law.hardness[0])
    return float(anchor.bits_per_byte * alone * from_context)


def fitting_parameters(tokens: float, law: Law = LAW) -> float:
    """The parameters at which as much more of them teaches as much as more tokens of fresh text, context aside."""
    size = (law.size * law.size_power) / (law.data * law.data_power) * (tokens / MILLION) ** law.data_power
    return size ** (1 / law.size_power) * MILLION


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
