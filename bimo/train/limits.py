"""What the numbers of a configuration must be, whatever the text, the model and the machine."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

from bimo.errors import ConfigError
from bimo.train.config import TrainConfig

AT_LEAST = {
    "steps": 1,
    "threads": 1,
    "evaluate_every": 1,
    "checkpoint_every": 1,
    "patience": 0,
    "batch.size": 1,
    "batch.accumulate": 1,
}
ABOVE_ZERO = ("optimizer.learning_rate", "optimizer.adamw_learning_rate", "optimizer.clip", "schedule.final")
SHARES = ("optimizer.momentum", "optimizer.beta1", "optimizer.beta2", "averaging", "model.dropout")
WHOLE_SHARES = ("schedule.warmup", "schedule.cooldown")


def check_limits(config: TrainConfig) -> None:
    """Refuse numbers that no training can have, by the name the user wrote.

    Raises:
        ConfigError: names the key, what it must be and what it is.
    """
    for key, least in AT_LEAST.items():
        _check(config, key, functools.partial(operator.le, least), f"a whole number of at least {least}")
    for key in ABOVE_ZERO:
        _check(config, key, lambda value: value > 0, "a number above 0")
    for key in SHARES:
        _check(config, key, lambda value: 0 <= value < 1, "a share from 0 up to, not including, 1")
    for key in WHOLE_SHARES:
        _check(config, key, lambda value: 0 <= value <= 1, "a share from 0 to 1")
    _check(config, "optimizer.weight_decay", lambda value: value >= 0, "a number of at least 0")


def _check(config: TrainConfig, key: str, right: Callable[[Any], bool], expected: str) -> None:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    if value is not None and not right(value):
        raise ConfigError(f"{key} is wrong.", expected=expected, got=str(value))
