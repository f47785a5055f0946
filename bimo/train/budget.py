"""The one dial: a budget in wall-clock time, tokens or epochs, or the bits per byte to reach."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from bimo.errors import ConfigError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([smhd])|([km]?)-?tokens?|-?epochs?()|-?(bpb))", re.IGNORECASE)
_THOUSANDS = {"": 1, "k": 1_000, "m": 1_000_000}


@dataclass(frozen=True)
class Budget:
    """Exactly one of them is set; ``examples`` only where there are any."""

    seconds: float | None = None
    tokens: int | None = None
    epochs: float | None = None
    bits_per_byte: float | None = None
    examples: int | None = None


def parse_tuning_budget(text: str) -> Budget:
    """Read what :func:`parse_budget` reads, or ``500-examples``, but no quality to reach.

    Raises:
        ConfigError: the text is none of these, or zero.
    """
    match = re.fullmatch(r"(\d+)\s*-?examples?", text.strip(), re.IGNORECASE)
    if match and int(match[1]):
        return Budget(examples=int(match[1]))
    budget = None if match else parse_budget(text)
    if budget is None or budget.bits_per_byte is not None:
        expected = "a time such as 90s, 10m or 2h, or 500-examples, 200k-tokens, 3-epochs"
        raise ConfigError(f"The budget '{text}' is not understood.", expected=expected)
    return budget


def seconds_of_budget(text: str | None) -> float:
    """The seconds of a budget in wall-clock time; of none, or any other, there are infinitely many."""
    match = _PATTERN.fullmatch((text or "").strip())
    return float(match[1]) * _SECONDS[match[2].lower()] if match and match[2] else math.inf


def parse_budget(text: str) -> Budget:
    """Read ``90s``, ``10m``, ``2h``, ``1d``, ``200k-tokens``, ``5m-tokens``, ``3-epochs``, ``1.6-bpb``.

    Raises:
        ConfigError: the text is none of these, or zero.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match and float(match[1]) > 0:
        number = float(match[1])
        if match[2]:
            return Budget(seconds=seconds_of_budget(text))
        if match[3] is not None:
            return Budget(tokens=max(1, round(number * _THOUSANDS[match[3].lower()])))
        return Budget(bits_per_byte=number) if match[5] else Budget(epochs=number)
    expected = "a time such as 90s, 10m or 2h, or 200k-tokens, 3-epochs, or a quality such as 1.6-bpb"
    raise ConfigError(f"The budget '{text}' is not understood.", expected=expected)
