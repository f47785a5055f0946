"""The plan: bigger budgets never choose smaller models, pinned values stay, every choice has a reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bimo.device import free_memory
from bimo.errors import TrainingError
from bimo.train.anchor import Anchor
from bimo.train.budget import Budget, parse_budget
from bimo.train.choice import SHAPES, best_possible, candidates, choose, for_target
from bimo.train.config import BatchConfig, ModelConfig, TrainConfig
from bimo.train.plan import (
    Plan,
    plan_arithmetic,
    plan_compilation,
    plan_kernels,
    plan_shape,
    plan_steps,
    plan_vocabulary,
    validation_tokens,
)
from bimo.train.probe import Machine, step_flops
from bimo.train.start import expected_step, planned_tokens

SLOW = Machine({"float32": 1e11, "bfloat16": 4e11}, {"float32": 1e11, "bfloat16": 3e11})
FAST = Machine({"float32": 4e13, "bfloat16": 8e14}, {"float32": 2e13, "bfloat16": 4e14})
MB = 1_000_000


def anchor_of(size: int, vocabulary: int = 2048) -> Anchor:
    return Anchor(2.1, size // 3, 3.0, vocabulary)


def planned(config: TrainConfig, budget: str, machine: Machine = SLOW, size: int = 5 * MB) -> Plan:
    plan, limit = Plan(dataclasses.replace(config, budget=budget)), parse_budget(budget)
    plan_arithmetic(plan, machine)
    plan_vocabulary(plan, limit, machine, limit.seconds, size)
    anchor = anchor_of(size, plan.config.tokenizer.vocab_size or 0)
    choice = plan_shape(plan, limit, machine, limit.seconds, anchor)
    tokens = planned_tokens(plan.config, limit, choice)
    plan_kernels(plan)
    plan_compilation(plan, limit, machine, limit.seconds, tokens)
    plan_steps(plan, limit.seconds, expected_step(plan.config, choice), anchor, tokens, size // 75)
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


@pytest.mark.parametrize("budget", ["60s", "3m", "10h", "300k-tokens", "2-epochs", "2-bpb"])
@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
def test_everything_is_chosen_with_a_reason(budget: str, family: Any) -> None:
    plan = planned(TrainConfig(device="cpu", model=ModelConfig(family=family)), budget)
    assert empty(plan.config) == {"start", "tokenizer.path"}
    assert all(reason for _, _, reason in plan.reasons)


def test_more_time_or_a_faster_machine_never_means_a_smaller_model() -> None:
    widths = [planned(TrainConfig(), budget, size=50 * MB).config.model.width for budget in ("1m", "3m", "30m", "10h")]
    assert widths == sorted(widths) and widths[0] < widths[-1]  # type: ignore[type-var, operator]
    fast = planned(TrainConfig(), "30m", FAST, size=50 * MB).config.model.width
    assert fast and widths[2] and fast > widths[2]


def test_little_text_limits_the_model() -> None:
    small, large = (planned(TrainConfig(), "10h", FAST, size).config.model.width for size in (MB, 500 * MB))
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


def test_a_gpu_is_kept_busy_and_compiles_sooner() -> None:
    plan = planned(TrainConfig(device="cuda"), "4m", FAST, 400 * MB)
    assert plan.config.batch.size == 64 and ("batch.size", 64, "fewer leave a GPU idle") in plan.reasons
    assert (
        plan.config.compile is True
        and planned(TrainConfig(device="cuda"), "1m", FAST, 400 * MB).config.compile is False
    )


def test_validation_takes_its_share() -> None:
    config = planned(TrainConfig(), "10m").config
    assert config.steps and config.batch.size and config.model.context and config.evaluate_every
    read = validation_tokens(config) * (config.steps / config.evaluate_every)
    assert read / 3 == pytest.approx(0.05 * config.steps * config.batch.size * config.model.context, rel=0.1)


def test_too_short_a_time_is_refused_with_the_numbers() -> None:
    plan, limit = Plan(TrainConfig(budget="1s")), parse_budget("1s")
    plan_arithmetic(plan, SLOW)
    plan_vocabulary(plan, limit, SLOW, limit.seconds, MB)
    plan_shape(plan, limit, SLOW, limit.seconds, anchor_of(MB))
    with pytest.raises(TrainingError, match=r"too short.*at least 20 steps.*1 s after preparation, 0.10 s a step"):
        plan_steps(plan, limit.seconds, 0.1, anchor_of(MB), 1e9, 10_000)


def test_a_very_long_budget_on_little_text_ends_early_and_says_why() -> None:
    hours, days = (planned(TrainConfig(), budget, FAST, size=MB) for budget in ("10h", "10d"))
    assert hours.config.steps == days.config.steps and hours.config.model == days.config.model
    assert any("next to nothing" in reason for key, _, reason in days.reasons if key == "steps")
    assert any("next to nothing" in reason for key, _, reason in days.reasons if key == "model.width")


def test_checkpoints_of_a_large_model_are_rarer() -> None:
    config = planned(TrainConfig(model=ModelConfig(width=1280, layers=20)), "9d", FAST, size=500 * MB).config
    small = planned(TrainConfig(model=ModelConfig(width=64, layers=2)), "9d", FAST, size=500 * MB).config
    assert config.checkpoint_every and small.checkpoint_every

    def seconds(one: TrainConfig) -> float:
        assert one.model.width and one.model.layers and one.checkpoint_every
        assert one.batch.size and one.model.context and one.tokenizer.vocab_size
        flops = step_flops(one.model.width, one.model.layers, one.tokenizer.vocab_size, one.model.context)
        return one.checkpoint_every * flops * one.batch.size * one.model.context / FAST.speed(1, one.dtype)

    assert seconds(config) > 1.5 * seconds(small)


@pytest.mark.parametrize("budget", ["0.3-bpb", "0.01-bpb"])
def test_an_impossible_target_names_what_is_possible(budget: str) -> None:
    with pytest.raises(TrainingError, match=r"not to be expected with this much text.*target of \d.*5.0 MB"):
        planned(TrainConfig(), budget)


@given(
    width=st.sampled_from([64, 128, 512, 1280]),
    seconds=st.floats(30, 1e6),
    size=st.integers(10_000, 10**10),
    peak=st.floats(1e10, 1e15),
)
def test_any_budget_gives_a_shape_of_the_ladder(width: int, seconds: float, size: int, peak: float) -> None:
    machine = Machine({"float32": peak, "bfloat16": peak}, {"float32": peak, "bfloat16": peak}, 1e10, {width: 0.4})
    anchor = anchor_of(size)
    found = candidates(TrainConfig(dtype="float32"), machine, anchor, 256)
    choice = choose(found, Budget(seconds=seconds), seconds, anchor)
    assert (choice.width, choice.layers) in SHAPES and 0 < choice.tokens <= choice.most_tokens * 1.01 + 20_000
    assert choice.forecast.low < choice.forecast.value < choice.forecast.high


def test_little_memory_limits_the_model() -> None:
    anchor = anchor_of(500 * MB)
    found = [len(candidates(TrainConfig(dtype="float32"), SLOW, anchor, 256, memory)) for memory in (0, 1e8, 1e12)]
    assert found[0] == 1 < found[1] < found[2] == len(SHAPES)
    assert free_memory(torch.device("cpu")) > 1e7


def test_the_reverse_question_takes_longer_for_less() -> None:
    anchor = anchor_of(50 * MB)
    found = candidates(TrainConfig(dtype="float32"), SLOW, anchor, 256)
    seconds = [choice.seconds for target in (2.1, 2.0, 1.9) if (choice := for_target(found, target, anchor))]
    assert len(seconds) == 3 and seconds == sorted(seconds) and seconds[0] < seconds[2]
    assert for_target(found, 0.98 * best_possible(found, anchor).forecast.value, anchor) is None
