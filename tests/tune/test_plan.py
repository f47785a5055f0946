"""What the plan chooses for a tuning run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bimo.train.plan import Plan
from bimo.tune.config import TuneConfig
from bimo.tune.plan import plan_batch, plan_passes
from bimo.tune.reinforce import Reinforce
from bimo.tune.task import fewest_rows


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
