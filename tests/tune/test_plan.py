"""What the plan chooses for a tuning run."""

from __future__ import annotations

import dataclasses

import pytest

from bimo.train.plan import Plan
from bimo.tune.config import TuneConfig
from bimo.tune.plan import plan_batch
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
