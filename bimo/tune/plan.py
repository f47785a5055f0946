"""The choices of a tuning run: rows, batch, learning rates, steps and pauses, each with its reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bimo.config import to_mapping
from bimo.errors import ConfigError, TrainingError
from bimo.train.budget import Budget
from bimo.train.plan import Plan
from bimo.tune.config import TuneConfig
from bimo.tune.examples import Example
from bimo.tune.packing import pack
from bimo.tune.task import Task, rate_of

SHORTEST_ROW, ROW_STEP = 128, 64
LONG_ROW, LITTLE_MORE = 512, 0.03  # longer rows cost more attention than they save, and so does a little room
EXAMPLES_A_STEP = 16  # enough to agree on a direction, few enough to make many steps of little data
STEPS_WANTED = 100  # fewer large steps learn less than more small ones
FEWEST_STEPS = 5
PASS = 2048  # positions of a pass on a CPU, if a row has no more: half of them is slower by a tenth
LOW_RANK = 10  # times the rate of all weights that updates of low rank want; half as much learns less
RATE_AT_WIDTH = 1e-4 * 512  # AdamW's rate times the width: wider models want smaller ones (Yang et al. 2022)
YOUNG_UNTIL = 20  # tokens a parameter that a model has read (Hoffmann et al. 2022 train compute-optimally until there)
EVALUATIONS = 8
HEEDED = ("model.context", "model.dropout", "reading.encoding", "reading.validation", "reading.test")
CHECKPOINT_SHARE, CHECKPOINT_SECONDS = 0.05, 60.0
SAVED_BYTES, DISK = 12, 3e8  # of a parameter, with its two moments; bytes a second


def plan_rows(plan: Plan, examples: Sequence[Example], longest: int) -> None:
    """Choose the length of a row: the longest example fits, and others share rows with little room left over."""
    if plan.config.model.context is not None:
        return
    sizes = [example.size for example in examples]
    least = max(SHORTEST_ROW, -(-max(sizes) // ROW_STEP) * ROW_STEP)
    lengths = [min(longest, length) for length in range(least, max(least, LONG_ROW) + 1, ROW_STEP)]
    filled = {length: sum(sizes) / (len(pack(sizes, length)) * length) for length in dict.fromkeys(lengths)}
    length = next(length for length, share in filled.items() if share >= max(filled.values()) - LITTLE_MORE)
    reason = f"the longest example has {max(sizes):,} tokens; packed, {filled[length]:.0%} of a row is used"
    plan.choose("model.context", length, reason)


def plan_rule(plan: Plan, given: Mapping[str, Any]) -> None:
    """Choose the update rule, where the user does not: AdamW, with which nearly all models were trained before."""
    said = given.get("optimizer") or {}
    usual = {"name": "adamw", "weight_decay": 0.0}
    left = {key: value for key, value in usual.items() if key not in said}
    plan.config = dataclasses.replace(plan.config, optimizer=dataclasses.replace(plan.config.optimizer, **left))  # type: ignore[arg-type]


def plan_rates(
    plan: Plan, given: Mapping[str, Any], width: int, examples: float, task: Task, read: float | None
) -> None:
    """Choose AdamW's learning rates, where the user does not.

    Args:
        read: tokens for each parameter that the model has read, if that is known.
        examples: of a step; with fewer, gradients are noisier, and AdamW's rate falls with their square root (Malladi
            et al. 2022, On the SDEs and scaling rules for adaptive gradient algorithms).
    """
    said, optimizer = given.get("optimizer") or {}, plan.config.optimizer
    lora = plan.config.lora is not None  # type: ignore[attr-defined]
    young = read is not None and read < YOUNG_UNTIL and not lora
    faster = rate_of(task, young=young) * (LOW_RANK if lora else 1)
    rate = float(f"{faster * RATE_AT_WIDTH / width * min(1.0, examples / EXAMPLES_A_STEP) ** 0.5:.2g}")
    for key in ("learning_rate", "adamw_learning_rate"):
        if key not in said and optimizer.name == "adamw":
            optimizer = dataclasses.replace(optimizer, **{key: rate})  # type: ignore[arg-type]
            reason = f"for a width of {width} and {examples:.1f} examples a step"
            reason += f", by a model that has read only {read:.1f} tokens a parameter" if young else ""
            plan.reasons.append((f"optimizer.{key}", rate, reason))
    plan.config = dataclasses.replace(plan.config, optimizer=optimizer)


def wanted_rows(config: TuneConfig, budget: Budget, examples: Sequence[Example], rows_per_epoch: int) -> float:
    """Rows to learn from in all: the budget's, or with a time the most that are useful."""
    tokens = sum(example.size for example in examples)
    if budget.tokens is not None:
        return max(1.0, budget.tokens / tokens * rows_per_epoch)
    if budget.examples is not None:
        return max(1.0, budget.examples / len(examples) * rows_per_epoch)
    return (budget.epochs or config.epochs) * rows_per_epoch


def plan_batch(
    plan: Plan,
    rows: float,
    rows_per_epoch: int,
    examples: int,
    seconds: float | None,
    row_seconds: float,
    fewest: int = 1,
) -> None:
    """Choose the rows of a step: about so many examples, but enough steps.

    Args:
        fewest: rows below which steps of this task learn noise; fewer steps are taken instead.
        rows: to learn from in all.
        seconds: of training, where the budget is a time.
        row_seconds: that a step of one row takes.
    """
    affordable = rows if seconds is None else min(rows, max(0.0, seconds) / row_seconds)
    by_examples = round(EXAMPLES_A_STEP * rows_per_epoch / examples)
    size = max(1, min(by_examples, int(affordable / STEPS_WANTED)))
    least = min(fewest, rows_per_epoch)
    accumulate = plan.config.batch.accumulate
    a_row = examples / rows_per_epoch
    reason = f"rows of a step, with {a_row:.1f} examples each"
    if size < least:
        reason = f"prompts of a step: with fewer than {least}, the noise of single ones leads (prompts={fewest})"
    size = -(-max(size, least) // accumulate) * accumulate
    plan.choose("batch.size", size, reason)


def plan_passes(plan: Plan, given: Mapping[str, Any]) -> None:
    """Divide a step into passes, where the user does not: on a CPU they are nearly as fast, and hold less."""
    config = plan.config
    size, context = config.batch.size, config.model.context
    assert size and context
    if config.device == "cpu" and "accumulate" not in (given.get("batch") or {}):
        passes = next(n for n in range(1, size + 1) if size % n == 0 and (size // n * context <= PASS or n == size))
        if passes > 1:
            plan.config = dataclasses.replace(config, batch=dataclasses.replace(config.batch, accumulate=passes))
            plan.reasons.append(("batch.accumulate", passes, f"so that at most {PASS:,} positions are held at once"))


def plan_steps(
    plan: Plan,
    rows: float,
    seconds: float | None,
    row_seconds: float,
    evaluation_seconds: float,
    parameters: int,
    most_epochs: float,
) -> int | None:
    """Turn the budget into steps, and place validations and checkpoints.

    Args:
        evaluation_seconds: of one validation.
        most_epochs: times that every example is seen at most.

    Returns:
        the steps that the schedule may be lengthened to, where the steps were chosen by time.

    Raises:
        TrainingError: the time that is left pays for too few steps.
    """
    config = plan.config
    assert config.batch.size
    step_seconds = row_seconds * config.batch.size
    useful = max(1, round(rows / config.batch.size))
    save_seconds = SAVED_BYTES * parameters / DISK
    most: int | None = None
    steps, reason = useful, f"{config.budget} in steps of {config.batch.size} rows"
    if seconds is not None:
        pauses = EVALUATIONS * evaluation_seconds + seconds * CHECKPOINT_SHARE
        affordable = int(max(0.0, seconds - pauses) / step_seconds)
        if affordable < FEWEST_STEPS and config.steps is None and affordable < useful:
            raise TrainingError(
                f"The budget {config.budget} is too short to learn anything here.",
                expected=f"time for at least {FEWEST_STEPS} steps",
                got=f"{max(0.0, seconds):.0f} s after preparation, {step_seconds:.2f} s a step",
                fix="Give more time, a smaller model, or a budget in tokens, examples or epochs.",
            )
        steps, most = min(useful, affordable), useful
        reason = f"{seconds:.0f} s at {step_seconds:.2f} s a step, pauses aside"
        if useful <= affordable:
            epochs = f"{most_epochs:g}"
            reason = f"seeing every example more than {epochs} times teaches little more (epochs={epochs})"
    chosen = config.steps is None
    plan.choose("steps", steps, reason)
    assert plan.config.steps
    every = max(1, min(plan.config.steps, math.ceil(plan.config.steps / EVALUATIONS)))
    plan.choose("evaluate_every", every, f"about {EVALUATIONS} validations in all")
    between = max(CHECKPOINT_SECONDS, save_seconds / CHECKPOINT_SHARE)
    plan.choose(
        "checkpoint_every", max(1, round(between / step_seconds)), f"at most {between:.0f} s are lost to a crash"
    )
    return most if chosen else None


def check_unused(given: Mapping[str, Any], shape: Mapping[str, Any]) -> None:
    """Refuse settings of pretraining that tuning would not heed.

    Args:
        given: what the user wrote.
        shape: of the model, which settings may repeat.

    Raises:
        ConfigError: names one.
    """
    usual = to_mapping(TuneConfig())
    heeded = {"model": shape, "tokenizer": {}, "reading": {}}
    for section, known in heeded.items():
        for key, value in (given.get(section) or {}).items():
            if f"{section}.{key}" not in HEEDED and value not in (None, [], usual[section].get(key), known.get(key)):
                fix = "Leave it out: shape and tokenizer come with the model, and columns are named by --columns."
                raise ConfigError(f"{section}.{key} has no part in tuning.", got=str(value), fix=fix)
