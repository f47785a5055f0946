"""Learning-rate schedules: the multiplier of the peak rate at each step, a pure function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bimo.config import setting


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate goes up and comes down."""

    name: Literal["wsd", "linear", "cosine", "constant"] = setting(
        "wsd", "wsd holds the peak and then falls linearly; linear and cosine fall from the end of the warm-up"
    )
    warmup: float = setting(0.03, "share of the steps in which the rate rises linearly from 0")
    cooldown: float = setting(0.6, "share of the steps in which wsd falls")
    final: float = setting(0.02, "the last multiplier")


def multiplier(config: ScheduleConfig, step: int, steps: int) -> float:
    """The multiplier in (0, 1] of the peak learning rate.

    Args:
        step: from 0 to ``steps`` - 1.
        steps: length of the whole training.
    """
    warmup = config.warmup * steps
    if step < warmup:
        return (step + 1) / (math.floor(warmup) + 1)
    begin = falls_at(config, steps)
    if step < begin:
        return 1.0
    left = (steps - step) / max(1.0, steps - begin)  # 1 at the beginning of the fall, towards 0
    if config.name == "cosine":
        left = 0.5 - 0.5 * math.cos(math.pi * left)
    return config.final + (1 - config.final) * left


def falls_at(config: ScheduleConfig, steps: int) -> float:
    """The step from which the multiplier falls."""
    warmup = config.warmup * steps
    return {"wsd": max(warmup, steps * (1 - config.cooldown)), "constant": float(steps)}.get(config.name, warmup)
