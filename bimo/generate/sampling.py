"""From the logits of the next token to a chosen token: each rule a pure function, and the settings that combine them.

Shape legend: B rows, V vocabulary. The rules mean what the same names mean in Hugging Face transformers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bimo.config import setting
from bimo.device import seed_for
from bimo.errors import UsageError

COLDEST = 1e-3  # below this, logits divided by the temperature leave the range of float32


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
    stop: tuple[str, ...] = setting((), "texts that end the generation; they are not part of the result")
    seed: int | None = setting(None, "repeats a result; drawn at random when absent")

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        object.__setattr__(self, "stop", tuple(stop) if isinstance(stop, Sequence) else stop)
        warm = _is_number(self.temperature) and (self.temperature == 0 or COLDEST <= self.temperature < math.inf)
        _require(_is_count(self.max_new_tokens, 1), "max_new_tokens", "a whole number from 1", self.max_new_tokens)
        _require(warm, "temperature", f"0 or a number from {COLDEST}", self.temperature)
        _require(self.top_k is None or _is_count(self.top_k, 0), "top_k", "a whole number from 0", self.top_k)
        p, share = self.top_p, self.min_p
        _require(p is None or (_is_number(p) and 0 < p <= 1), "top_p", "a number above 0, up to 1", p)
        _require(share is None or (_is_number(share) and 0 <= share <= 1), "min_p", "a number from 0 to 1", share)
        penalty = self.repetition_penalty
        _require(_is_number(penalty) and 0 < penalty < math.inf, "repetition_penalty", "a number above 0", penalty)
        texts = isinstance(self.stop, tuple) and all(isinstance(text, str) and text for text in self.stop)
        _require(texts, "stop", "a text, or several, none of them empty", self.stop)
        _require(self.seed is None or _is_count(self.seed, 0), "seed", "a whole number from 0", self.seed)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, with no chance involved."""
        return self.temperature == 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(right: bool, name: str, expected: str, got: Any) -> None:
    if not right:
        raise UsageError(f"{name} is wrong.", expected=expected, got=repr(got))


def repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make the tokens marked in ``seen`` (B, V) bool less likely (CTRL, arXiv:1909.05858, section 4.1)."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def temperature(logits: Tensor, value: float) -> Tensor:
    """Sharpen (below 1) or flatten (above 1) the distribution; ``value`` must not be 0."""
    return logits / value


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the ``k`` likeliest tokens and those that tie with the last of them."""
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]  # (B, 1)
    return logits.masked_fill(logits < least, -math.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest likeliest tokens whose probability adds up to ``p`` (nucleus sampling, arXiv:1904.09751)."""
    ascending, order = logits.sort(dim=-1)  # (B, V)
    dropped = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    dropped[..., -1] = False
    return logits.masked_fill(dropped.scatter(-1, order, dropped), -math.inf)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Drop tokens less likely than ``p`` times the likeliest one (arXiv:2407.01082)."""
    probabilities = logits.softmax(dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(dim=-1, keepdim=True), -math.inf)


def sample(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution; a token at ``-inf`` is never drawn.

    Args:
        logits: (B, V).
        uniform: (B,), numbers in [0, 1), one a row; the sums are taken in their precision.

    Returns:
        Token ids, (B,).
    """
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1, dtype=uniform.dtype)  # (B, V)
    below_total = cumulative[:, -1:] * (1 - torch.finfo(uniform.dtype).eps)
    threshold = uniform[:, None] * below_total  # (B, 1)
    drawn = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    return drawn.clamp(max=logits.shape[-1] - 1)  # only NaN points past the end


def uniforms(seeds: Sequence[int], count: int, device: torch.device | str = "cpu") -> Tensor:
    """The random numbers of all steps at once: (count, B), column ``i`` depending on ``seeds[i]`` alone."""
    streams = [np.random.Generator(np.random.PCG64(seed_for(seed, "sampling"))) for seed in seeds]
    numbers = torch.from_numpy(np.stack([stream.random(count) for stream in streams], axis=1))
    device = torch.device(device)
    return numbers.to(device, torch.float32 if device.type == "mps" else torch.float64)  # MPS has no float64


def next_tokens(logits: Tensor, sampling: Sampling, *, seen: Tensor | None, uniform: Tensor | None) -> Tensor:
    """Choose the next token of each row, applying the rules in the order that transformers does.

    Args:
        logits: (B, V), in float32.
        seen: (B, V) bool, the tokens that are in the row already; needed for a repetition penalty only.
        uniform: (B,), numbers in [0, 1); not needed when greedy.

    Returns:
        Token ids, (B,).
    """
    if seen is not None:
        logits = repetition_penalty(logits, seen, sampling.repetition_penalty)
    if sampling.greedy or uniform is None:
        return logits.argmax(dim=-1)
    logits = temperature(logits, sampling.temperature)
    if sampling.top_k:
        logits = top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = min_p(logits, sampling.min_p)
    return sample(logits, uniform)
