"""From the logits of the next token to a chosen token: each rule a pure function, and the settings that combine them.

Everything here takes one row of V logits, the vocabulary's, float32: so a row cannot depend on its neighbours, and
measured on a CPU rows one by one are faster than rows together, which leave its cache. The rules mean what the same
names mean in Hugging Face transformers; bias, presence and frequency what they mean in OpenAI's API.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bimo.config import setting
from bimo.device import seed_for
from bimo.errors import ModelError, UsageError

Row: TypeAlias = NDArray[np.float32]  # logits (V,)

COLDEST = 1e-3  # below this, logits divided by the temperature leave the range of float32
BLOCK = 256  # logits that are looked at together where only a few of all are wanted


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the same fields are the options of ``bimo generate``.

    Raises:
        UsageError: a value is of the wrong type or out of range.
    """

    max_new_tokens: int = setting(200, "tokens to generate at most")
    temperature: float = setting(0.8, "0 takes the likeliest token; higher is more varied")
    top_k: int | None = setting(None, "draw from the k likeliest tokens only; 0 for all")
    top_p: float | None = setting(None, "draw from the likeliest tokens that together have this probability")
    min_p: float | None = setting(None, "drop tokens less likely than this share of the likeliest one")
    repetition_penalty: float = setting(1.0, "above 1, tokens seen before become less likely")
    presence_penalty: float = setting(0.0, "taken off the logit of each token generated before")
    frequency_penalty: float = setting(0.0, "taken off the logit of a token for each time it was generated before")
    logit_bias: tuple[tuple[int, float], ...] = setting((), "added to the logits of the tokens with these ids")
    stop: tuple[str, ...] = setting((), "texts that end the generation; they are not part of the result")
    seed: int | None = setting(None, "repeats a result; drawn at random when absent")

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        object.__setattr__(self, "stop", tuple(stop) if isinstance(stop, Sequence) else stop)
        if isinstance(self.logit_bias, Mapping):
            object.__setattr__(self, "logit_bias", tuple(sorted(self.logit_bias.items())))
        warm = _is_number(self.temperature) and (self.temperature == 0 or COLDEST <= self.temperature < math.inf)
        _require(_is_count(self.max_new_tokens, 1), "max_new_tokens", "a whole number from 1", self.max_new_tokens)
        _require(warm, "temperature", f"0 or a number from {COLDEST}", self.temperature)
        _require(self.top_k is None or _is_count(self.top_k, 0), "top_k", "a whole number from 0", self.top_k)
        p, share = self.top_p, self.min_p
        _require(p is None or (_is_number(p) and 0 < p <= 1), "top_p", "a number above 0, up to 1", p)
        _require(share is None or (_is_number(share) and 0 <= share <= 1), "min_p", "a number from 0 to 1", share)
        penalty = self.repetition_penalty
        _require(_is_number(penalty) and 0 < penalty < math.inf, "repetition_penalty", "a number above 0", penalty)
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            _require(_is_number(value) and math.isfinite(value), name, "a number", value)
        biased = isinstance(self.logit_bias, tuple) and all(map(_is_bias, self.logit_bias))
        _require(biased, "logit_bias", "a number for each of several token ids", self.logit_bias)
        texts = isinstance(self.stop, tuple) and all(isinstance(text, str) and text for text in self.stop)
        _require(texts, "stop", "a text, or several, none of them empty", self.stop)
        _require(self.seed is None or _is_count(self.seed, 0), "seed", "a whole number from 0", self.seed)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, with no chance involved."""
        return self.temperature == 0

    @property
    def plain(self) -> bool:
        """Whether likelihood alone decides, to the end of the text."""
        return self.greedy and not (self.looks_back or self.logit_bias or self.stop)

    @property
    def looks_back(self) -> bool:
        """Whether a rule depends on the tokens before."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_bias(pair: Any) -> bool:
    whole = isinstance(pair, tuple) and len(pair) == 2 and _is_count(pair[0], 0)
    return whole and _is_number(pair[1]) and math.isfinite(pair[1])


def _require(right: bool, name: str, expected: str, got: Any) -> None:
    if not right:
        raise UsageError(f"{name} is wrong.", expected=expected, got=repr(got))


class History:
    """The tokens of a sequence as the penalties see them: which ones are in it, and how often each was generated."""

    def __init__(self, prompt: Iterable[int]) -> None:
        self._prompt = set(prompt)
        self._counts: dict[int, int] = {}

    def add(self, token: int) -> None:
        """Take a generated token."""
        self._counts[token] = self._counts.get(token, 0) + 1

    def seen(self) -> NDArray[np.int64]:
        """The tokens of prompt and continuation, each once."""
        return np.fromiter(self._prompt | self._counts.keys(), np.int64)

    def counted(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The tokens of the continuation, and how often each is there."""
        return np.fromiter(self._counts.keys(), np.int64), np.fromiter(self._counts.values(), np.float32)


class Uniforms:
    """The random numbers of one sequence, in [0, 1): the i-th depends on the seed and i alone."""

    def __init__(self, seed: int) -> None:
        self._stream = np.random.Generator(np.random.PCG64(seed_for(seed, "sampling")))
        self._drawn: list[float] = []

    def __getitem__(self, index: int) -> float:
        while len(self._drawn) <= index:
            self._drawn.append(self._stream.random())
        return self._drawn[index]


class Draw(NamedTuple):
    """A chosen token.

    Attributes:
        logprob: natural log-probability in the distribution it was drawn from, which all rules have shaped.
    """

    token: int
    logprob: float


def logit_bias(logits: Row, bias: Sequence[tuple[int, float]]) -> Row:
    """Add a number to the logit of each token named; ids behind the vocabulary are an error of the caller."""
    changed = logits.copy()
    for token, value in bias:
        changed[token] += np.float32(value)
    return changed


def repetition_penalty(logits: Row, seen: NDArray[np.int64], penalty: float) -> Row:
    """Make the tokens ``seen``, each named once, less likely (CTRL, arXiv:1909.05858, section 4.1)."""
    changed, factor = logits.copy(), np.float32(penalty)
    chosen = logits[seen]
    changed[seen] = np.where(chosen < 0, chosen * factor, chosen / factor)
    return changed


def presence_penalty(logits: Row, tokens: NDArray[np.int64], penalty: float) -> Row:
    """Take ``penalty`` off the logits of ``tokens``, those generated before."""
    changed = logits.copy()
    changed[tokens] -= np.float32(penalty)
    return changed


def frequency_penalty(logits: Row, tokens: NDArray[np.int64], counts: NDArray[np.float32], penalty: float) -> Row:
    """Take ``penalty`` off the logits of ``tokens``, as many times as each was generated before."""
    changed = logits.copy()
    changed[tokens] -= np.float32(penalty) * counts
    return changed


def temperature(logits: Row, value: float) -> Row:
    """Sharpen (below 1) or flatten (above 1) the distribution; ``value`` must not be 0."""
    return logits / np.float32(value)


def top_k(logits: Row, k: int) -> Row:
    """Keep the ``k`` likeliest tokens and those that tie with the last of them."""
    return np.where(logits < logits[largest(logits, k)[-1]], np.float32(-math.inf), logits)


def top_p(logits: Row, p: float) -> Row:
    """Keep the fewest likeliest tokens whose probability adds up to ``p`` (nucleus sampling, arXiv:1904.09751)."""
    weights, total = exponentials(logits)
    spare = (1 - p) * total
    # The tokens below this bound add up to less than what may be dropped: only the others need to be sorted.
    candidates = np.flatnonzero(weights > spare / len(weights))
    order = candidates[np.argsort(weights[candidates], kind="stable")]
    kept_weight = weights[order].astype(np.float64)
    dropped = np.cumsum(kept_weight) + (total - kept_weight.sum()) <= spare
    kept = order[~dropped] if not dropped.all() else order[-1:]
    changed = np.full_like(logits, -math.inf)
    changed[kept] = logits[kept]
    return changed


def min_p(logits: Row, p: float) -> Row:
    """Drop tokens less likely than ``p`` times the likeliest one (arXiv:2407.01082)."""
    if p == 0:
        return logits
    return np.where(logits < logits.max() + np.float32(math.log(p)), np.float32(-math.inf), logits)


def exponentials(logits: Row) -> tuple[Row, float]:
    """What is proportional to the probabilities, the likeliest token's being 1, and the sum of it."""
    weights = logits - logits.max()
    np.exp(weights, out=weights)
    return weights, float(weights.sum())


def normaliser(logits: Row) -> float:
    """What a logit is above its log-probability."""
    return float(logits.max()) + math.log(exponentials(logits)[1])


def require_numbers(logits: Row) -> None:
    """Check what a model gave.

    Raises:
        ModelError: the logits are not numbers.
    """
    if not math.isfinite(logits.max()):
        raise ModelError("The model's output is not a number.", fix="Its weights are damaged: train it again.")


def largest(logits: NDArray[np.floating[Any]], k: int) -> NDArray[np.int64]:
    """The ids of the ``k`` largest logits, the largest first, of equal ones the lower id."""
    whole = len(logits) // BLOCK * BLOCK
    if k < len(logits) // BLOCK:  # the k-th largest maximum of a block is a bound that k logits reach
        bound = np.partition(logits[:whole].reshape(-1, BLOCK).max(axis=1), -k)[-k]
    else:
        bound = np.partition(logits, -min(k, len(logits)))[-min(k, len(logits))]
    candidates = np.flatnonzero(logits >= bound)
    return candidates[np.lexsort((candidates, -logits[candidates]))][:k]


def sample(logits: Row, uniform: float) -> Draw:
    """Draw a token by inverting the cumulative distribution; a token at ``-inf`` is never drawn.

    Args:
        uniform: a number in [0, 1).
    """
    weights, total = exponentials(logits)
    blocks = np.add.reduceat(weights, np.arange(0, len(weights), BLOCK)).cumsum(dtype=np.float64)
    threshold = uniform * blocks[-1] * (1 - 2**-52)
    block = int(np.searchsorted(blocks, threshold, side="right"))
    start = block * BLOCK
    inside = weights[start : start + BLOCK].cumsum(dtype=np.float64)
    place = int(np.searchsorted(inside, threshold - (blocks[block - 1] if block else 0.0), side="right"))
    if place == len(inside):  # the two sums are rounded differently
        place = int(np.flatnonzero(weights[start : start + BLOCK])[-1])
    return Draw(start + place, float(np.log(weights[start + place]) - math.log(total)))


def next_token(
    logits: Row,
    sampling: Sampling,
    *,
    history: History | None = None,
    uniform: float = 0.0,
    allowed: NDArray[np.bool_] | None = None,
    bonus: Row | None = None,
) -> Draw:
    """Choose the next token, applying the rules in the order that transformers does.

    That is: what is allowed, logit bias, repetition, presence and frequency penalty, temperature, top k, top p, min p;
    at last a bonus, so that it brings nothing in that a rule has left out. Without chance the likeliest token is taken
    after the penalties, of equal ones the lowest id.

    Args:
        history: what the penalties need; not needed without them.
        uniform: a number in [0, 1); not read when greedy.
        allowed: bool (V,), at least one of them true.
        bonus: what some tokens gain (V,): a watermark.

    Raises:
        ModelError: the logits are not numbers.
        UsageError: the rules make them infinite.
    """
    require_numbers(logits)
    if allowed is not None:
        logits = np.where(allowed, logits, np.float32(-math.inf))
    if sampling.logit_bias:
        logits = logit_bias(logits, sampling.logit_bias)
    if history is not None and sampling.repetition_penalty != 1:
        logits = repetition_penalty(logits, history.seen(), sampling.repetition_penalty)
    if history is not None and (sampling.presence_penalty or sampling.frequency_penalty):
        tokens, counts = history.counted()
        logits = presence_penalty(logits, tokens, sampling.presence_penalty)
        logits = frequency_penalty(logits, tokens, counts, sampling.frequency_penalty)
    if sampling.greedy:
        return Draw(int((logits if bonus is None else logits + bonus).argmax()), 0.0)
    logits = temperature(logits, sampling.temperature)
    if not math.isfinite(logits.max()):
        fix = "Bring repetition_penalty nearer to 1, or the penalties and logit_bias nearer to 0."
        raise UsageError("The sampling rules make the scores of tokens infinite.", fix=fix)
    if sampling.top_k and sampling.top_k < len(logits):
        logits = top_k(logits, sampling.top_k)
    left = np.flatnonzero(logits > -math.inf) if sampling.top_k else None  # mostly few: what follows is faster
    if left is not None:
        logits = logits[left]
    if sampling.top_p is not None and sampling.top_p < 1:
        logits = top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = min_p(logits, sampling.min_p)
    if bonus is not None:
        logits = logits + (bonus if left is None else bonus[left])
    draw = sample(logits, uniform)
    return draw if left is None else Draw(int(left[draw.token]), draw.logprob)
