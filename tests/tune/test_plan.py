"""What the plan chooses for a tuning run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bimo.models.lora import LoraConfig
from bimo.optim import OptimizerConfig
from bimo.train.plan import Plan
from bimo.tune.config import TuneConfig
from bimo.tune.plan import plan_batch, plan_passes, plan_rates
from bimo.tune.reinforce import Reinforce
from bimo.tune.task import Task, fewest_rows
from bimo.tune.tasks import make_task


@pytest.mark.parametrize(
    ("seconds", "prompts", "size"),
    [(100.0, 5, 5), (4000.0, 5, 16), (1000.0, 5, 10), (1000.0, 13, 13), (1000.0, 70, 50)],
)
def test_a_step_asks_enough_prompts(seconds: float, prompts: int, size: int) -> None:
    """50 prompts at a second each, in a time for 100 steps of 1, 10 or 40 of them."""
    plan = Plan(TuneConfig())
    plan_batch(plan, 5000.0, 50, 50, seconds, 1.0, fewest_rows(Reinforce(prompts=prompts)))
    assert plan.config.batch.size == size
    ((key, _, reason),) = plan.reasons
    assert key == "batch.size" and ("the noise of single ones leads" in reason) == (size in (5, 13, 50))


@pytest.mark.parametrize(
    ("task", "read", "lora", "rate"),
    [
        (make_task("chat", {}), 0.5, False, 5e-4),
        (make_task("chat", {}), 20.0, False, 2e-4),
        (make_task("chat", {}), None, False, 2e-4),
        (make_task("chat", {}), 0.5, True, 2e-3),
        (make_task("classify", {}), 0.5, False, 1e-4),
        (make_task("prefer", {}), 0.5, False, 5e-5),
        (make_task("reinforce", {"reward": ["number"]}), 0.5, False, 2.5e-5),
    ],
)
def test_a_model_that_has_read_little_learns_faster(task: Task, read: float | None, lora: bool, rate: float) -> None:
    config = dataclasses.replace(
        TuneConfig(lora=LoraConfig() if lora else None), optimizer=OptimizerConfig(name="adamw")
    )
    plan = Plan(config)
    plan_rates(plan, {}, 256, 16, task, read)
    assert plan.config.optimizer.learning_rate == plan.config.optimizer.adamw_learning_rate == pytest.approx(rate)
    reason = plan.reasons[0][2]
    assert ("has read only 0.5 tokens a parameter" in reason) == (read == 0.5 and not lora)
    plan = Plan(config)
    plan_rates(plan, {"optimizer": {"learning_rate": 1.0, "adamw_learning_rate": 1.0}}, 256, 16, task, read)
    assert plan.config == config


def test_a_batch_that_was_said_stays() -> None:
    config = TuneConfig()
    plan = Plan(dataclasses.replace(config, batch=dataclasses.replace(config.batch, size=2)))
    plan_batch(plan, 5000.0, 50, 50, 100.0, 1.0, 8)
    assert plan.config.batch.size == 2


@pytest.mark.parametrize(
    ("size", "context", "passes"), [(6, 512, 2), (7, 512, 7), (2, 2048, 2), (16, 64, 1), (9, 256, 3)]
)
def test_a_step_is_divided_into_passes_of_some_positions(size: int, context: int, passes: int) -> None:
    config = TuneConfig(device="cpu")
    model = dataclasses.replace(config.model, context=context)
    config = dataclasses.replace(config, model=model, batch=dataclasses.replace(config.batch, size=size))
    plan = Plan(config)
    plan_passes(plan, {})
    assert plan.config.batch.accumulate == passes and len(plan.reasons) == (passes > 1)
    whole: list[tuple[Any, Any]] = [({"batch": {"accumulate": 1}}, "cpu"), ({}, "cuda")]
    for given, device in whole:
        plan = Plan(dataclasses.replace(config, device=device))
        plan_passes(plan, given)
        assert plan.config.batch.accumulate == 1 and not plan.reasons
