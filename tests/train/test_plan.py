"""The plan: bigger budgets never choose smaller models, pinned values stay, every choice has a reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bimo.errors import TrainingError
from bimo.train.budget import parse_budget
from bimo.train.config import BatchConfig, ModelConfig, TrainConfig
from bimo.train.plan import Plan, plan_arithmetic, plan_compilation, plan_shape, plan_steps, validation_tokens
from bimo.train.probe import Machine

SLOW = Machine({"float32": 1e11, "bfloat16": 4e11}, {"float32": 1e11, "bfloat16": 3e11})
FAST = Machine({"float32": 4e13, "bfloat16": 8e14}, {"float32": 2e13, "bfloat16": 4e14})
MB = 1_000_000


def planned(config: TrainConfig, budget: str, machine: Machine = SLOW, size: int = 5 * MB) -> Plan:
    plan, limit = Plan(config), parse_budget(budget)
    plan_arithmetic(plan, machine)
    plan_shape(plan, limit, machine, limit.seconds, size)
    plan_compilation(plan, limit, machine, limit.seconds, size // 3)
    plan_steps(plan, limit, limit.seconds, 0.1, size // 3)
    return plan


def empty(config: Any, prefix: str = "") -> set[str]:
    """Keys that still have no value."""
    found = set()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= empty(value, f"{prefix}{field.name}.")
        elif value is None:
            found.add(prefix + field.name)
    return found


@pytest.mark.parametrize("budget", ["60s", "3m", "10h", "300k-tokens", "2-epochs"])
@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
def test_everything_is_chosen_with_a_reason(budget: str, family: Any) -> None:
    plan = planned(TrainConfig(device="cpu", model=ModelConfig(family=family)), budget)
    assert empty(plan.config) == {"budget", "start", "tokenizer.path"}
    assert all(reason for _, _, reason in plan.reasons)


def test_more_time_or_a_faster_machine_never_means_a_smaller_model() -> None:
    widths = [planned(TrainConfig(), budget, size=50 * MB).config.model.width for budget in ("1m", "3m", "30m", "10h")]
    assert widths == sorted(widths) and widths[0] < widths[-1]  # type: ignore[type-var, operator]
    fast = planned(TrainConfig(), "30m", FAST, size=50 * MB).config.model.width
    assert fast and widths[2] and fast > widths[2]


def test_little_text_limits_the_model() -> None:
    small, large = (planned(TrainConfig(), "10h", size=size).config.model.width for size in (MB, 500 * MB))
    assert small and large and small < large


def test_pinned_values_stay_and_are_not_explained() -> None:
    pinned = TrainConfig(threads=1, compile=True, model=ModelConfig(width=96, dropout=0.3), batch=BatchConfig(size=5))
    plan = planned(pinned, "3m")
    config = plan.config
    assert (config.model.width, config.model.dropout, config.batch.size, config.compile) == (96, 0.3, 5, True)
    assert not {"model.width", "model.dropout", "batch.size", "compile", "threads"} & {
        key for key, _, _ in plan.reasons
    }


def test_repeated_text_brings_dropout() -> None:
    once, often = (planned(TrainConfig(), budget).config.model.dropout for budget in ("1-epochs", "10-epochs"))
    assert once == 0.0 and often and often > 0


def test_short_trainings_are_not_compiled() -> None:
    assert planned(TrainConfig(), "2m").config.compile is False
    assert planned(TrainConfig(), "10k-tokens").config.compile is False


def test_validation_takes_its_share() -> None:
    config = planned(TrainConfig(), "10m").config
    assert config.steps and config.batch.size and config.model.context and config.evaluate_every
    read = validation_tokens(config) * (config.steps / config.evaluate_every)
    assert read / 3 == pytest.approx(0.05 * config.steps * config.batch.size * config.model.context, rel=0.1)


def test_too_short_a_time_is_refused_with_the_numbers() -> None:
    plan, limit = Plan(TrainConfig(budget="1s")), parse_budget("1s")
    plan_arithmetic(plan, SLOW)
    plan_shape(plan, limit, SLOW, limit.seconds, MB)
    with pytest.raises(TrainingError, match=r"too short.*at least 20 steps.*1 s after preparation, 0.10 s a step"):
        plan_steps(plan, limit, limit.seconds, 0.1, MB)
