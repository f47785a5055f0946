"""Everything before step 1: the text, the tokenizer, the plan, the model, a measured step, and what to expect."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from bimo.batches.loader import PackedBatches
from bimo.config import from_mapping, read_yaml, with_overrides
from bimo.device import free_memory, keep_few_products, resolve_device, return_memory
from bimo.errors import ConfigError
from bimo.files import cache_folder
from bimo.run import Run
from bimo.text.source import open_source
from bimo.train.anchor import Anchor, measure_anchor
from bimo.train.budget import Budget, parse_budget
from bimo.train.build import StepCost, build_model, compile_or_announce, fits_bigram, patient_of
from bimo.train.checkpoint import Checkpoint
from bimo.train.choice import Choice
from bimo.train.config import TrainConfig
from bimo.train.display import Display
from bimo.train.doctor import Doctor, no_doctor
from bimo.train.forecast import Prediction, clock, foresee, plan_closing
from bimo.train.limits import check_limits
from bimo.train.lineage import Lineage, Stopwatch
from bimo.train.materials import TEST_FOLDER, Materials
from bimo.train.origin import parent_facts, seen_before, take_over
from bimo.train.plan import (
    Plan,
    plan_arithmetic,
    plan_compilation,
    plan_kernels,
    plan_shape,
    plan_steps,
    plan_vocabulary,
)
from bimo.train.probe import Machine, forget, probe
from bimo.train.surroundings import ALONE, Surroundings
from bimo.train.watching import check_onlookers, rehearse

if TYPE_CHECKING:
    from bimo.models import Model

DEFAULT_BUDGET = "10m"
UNLIKE = 1.7  # times faster or slower than expected, a step says that the machine was busy when it was measured

FEWEST_TOKENS = 1024  # of a step: smaller ones are not what the probe measured


@dataclass(frozen=True)
class Session:
    """What the training loop works on: a run that begins, or with a checkpoint one that goes on."""

    config: TrainConfig
    materials: Materials
    model: Model
    lineage: Lineage
    machine: Machine
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class Ready:
    """All that training needs, and what is expected of it."""

    plan: Plan
    budget: Budget
    machine: Machine
    materials: Materials
    anchor: Anchor
    choice: Choice
    model: Model
    lineage: Lineage
    prediction: Prediction
    step_seconds: float

    @property
    def tokens_a_second(self) -> float:
        """Of training, as measured on some steps."""
        assert self.plan.config.batch.size and self.plan.config.model.context
        return self.plan.config.batch.size * self.plan.config.model.context / self.step_seconds


def configure(
    data: str | Path | Iterable[str | Path] | None,
    budget: str | None,
    config: str | Path | Mapping[str, Any] | None,
    overrides: Iterable[str],
) -> tuple[dict[str, Any], TrainConfig]:
    """What the user said, as plain values and as a configuration in which the rest is still empty.

    Args:
        config: a YAML file or plain values; the other arguments go before it.

    Raises:
        ConfigError: a key is unknown or a value wrong.
    """
    given = dict(read_yaml(Path(config)) if isinstance(config, (str, Path)) else config or {})
    if data is not None:
        given["data"] = [str(data)] if isinstance(data, (str, Path)) else [str(one) for one in data]
    if budget is not None:
        given["budget"] = budget
    given = with_overrides(given, overrides)
    where = str(config) if isinstance(config, (str, Path)) else "configuration"
    return given, from_mapping(TrainConfig, given, where=where)


def prepare(
    run: Run,
    config: TrainConfig,
    given: Mapping[str, Any],
    display: Display,
    stopwatch: Stopwatch,
    reserve: float = 0.0,
    *,
    doctor: Doctor = no_doctor,
    around: Surroundings = ALONE,
    fresh: bool = False,
) -> Ready:
    """Do what comes before step 1; only the run's folder is written to.

    Args:
        given: what the user wrote of ``config``, as plain values.
        reserve: seconds of a wall-clock budget to leave unused.
        doctor: examines what is about to be trained; the lineage keeps its answer.
        fresh: measure the machine again.

    Raises:
        BimoError: the text, the configuration or the budget is not usable.
    """
    check_limits(config)
    if config.model.family == "bert":
        fix = "Choose a family like qwen3; an encoder is tuned: bimo tune classify."
        raise ConfigError("BERT does not learn to write.", expected="a model.family of decoders", got="bert", fix=fix)
    config, reasons = take_over(config, given)
    if config.budget is None and config.steps is None:
        config = dataclasses.replace(config, budget=DEFAULT_BUDGET)
    budget = _budget(config)
    device, machine = set_up(config, display, fresh=fresh)
    source, split = around.read(config, display)
    for one in source.skipped[:5]:
        display.warn(f"skipped {one.file}: {one.reason}")
    if split.note:
        display.warn(split.note)

    deadline = None if budget.seconds is None else stopwatch.began + budget.seconds - reserve
    plan = Plan(dataclasses.replace(config, device=cast(Any, device.type)), reasons)
    if config.device == "auto":
        plan.reasons.append(("device", device.type, "the best one present"))
    plan_arithmetic(plan, machine)
    plan_kernels(plan)
    plan_vocabulary(plan, budget, machine, left(deadline), split.train.bytes)
    materials = around.make(run, plan.config, source, split, display)
    if not fits_bigram(materials.tokenizer) and plan.config.model.initial == "bigram":
        raise ConfigError("model.initial=bigram needs a smaller vocabulary.", fix="Use --set model.initial=random.")
    return_memory()
    with display.bar("measuring the text"):
        anchor = measure_anchor(materials.train, open_source(run.checkpoints / TEST_FOLDER), materials.tokenizer)
    return_memory()
    choice = plan_shape(plan, budget, machine, left(deadline), anchor, free_memory(device))
    lineage = Lineage.begin(run, plan, materials, machine, stopwatch, parent_facts(config.start))
    lineage.announce(seen_before(lineage.values["parent"], materials.facts, plan.config), display.warn)
    spent = {"preparation": stopwatch.read()[0]}
    tokens = planned_tokens(plan.config, budget, choice)
    plan_compilation(plan, budget, machine, left(deadline), tokens)
    batches = make_batches(plan.config, materials)
    model, step = _measured(plan, materials, batches, lineage, display, device)
    rehearse(plan.config, materials, model)
    lineage.values["doctor"] = doctor(patient_of(plan.config, materials, model, batches, run.checkpoints), display)
    if machine.cached and _unlike(plan.config, machine, step.seconds / expected_step(plan.config, choice)):
        forget(device)
    closing = plan_closing(model, plan.config, materials, anchor.counting_seconds, budget.seconds)
    if closing.share < 1:
        reason = f"measured at the end, as all of it would take {clock(closing.scoring)}"
        plan.reasons.append(("held-out text", f"{closing.share:.0%}", reason))
    spent["compiling" if plan.config.compile else "measuring a step"] = stopwatch.read()[0] - spent["preparation"]
    seconds = None if deadline is None else deadline - time.monotonic() - closing.seconds
    plan_steps(plan, seconds, step.seconds, anchor, tokens, materials.validation.count)
    return_memory()
    prediction = foresee(
        plan.config, materials, anchor, model, run.path, step=step, spent=spent, closing=closing.seconds
    )
    expected = prediction.values()
    lineage.planned(plan, seconds, step.seconds, expected, choice.most_tokens, closing.seconds, closing.share)
    return Ready(plan, budget, machine, materials, anchor, choice, model, lineage, prediction, step.seconds)


def _budget(config: TrainConfig) -> Budget:
    """The budget, or what the number of steps that the user pinned amounts to, roughly."""
    if config.budget is not None:
        return parse_budget(config.budget)
    return Budget(tokens=(config.steps or 1) * (config.batch.size or 8) * (config.model.context or 256))


def left(deadline: float | None) -> float | None:
    """Seconds until a deadline; None where there is none."""
    return None if deadline is None else deadline - time.monotonic()


def planned_tokens(config: TrainConfig, budget: Budget, choice: Choice) -> float:
    """How many tokens to learn from: the budget's, or the most that are useful within a time."""
    return choice.most_tokens if budget.seconds is not None else choice.tokens


def expected_step(config: TrainConfig, choice: Choice) -> float:
    """Seconds that a step should take."""
    assert config.batch.size and config.model.context
    return choice.seconds_a_token * config.batch.size * config.model.context


def _unlike(config: TrainConfig, machine: Machine, ratio: float) -> bool:
    """Whether a step of the kind that the probe measured takes another time than the probe says."""
    assert config.batch.size and config.model.context and config.model.width
    small = config.batch.size * config.model.context < FEWEST_TOKENS or config.model.width < min(machine.efficiency)
    return not (small or config.compile) and not 1 / UNLIKE < ratio < UNLIKE


def set_up(config: TrainConfig, display: Display, *, fresh: bool = False) -> tuple[torch.device, Machine]:
    """Take the device and the threads that were asked for, and know how fast they are."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
    keep_few_products()
    check_onlookers(config)
    device = resolve_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with display.bar("measuring this machine"):
        return device, probe(device, fresh=fresh, width=config.model.width)


def make_batches(config: TrainConfig, materials: Materials) -> PackedBatches:
    """The training batches, from the first.

    Raises:
        ConfigError: ``batch.accumulate`` does not divide ``batch.size``.
        DataError: the text is smaller than one batch.
    """
    assert config.batch.size and config.model.context
    if config.batch.accumulate < 1 or config.batch.size % config.batch.accumulate:
        got = f"{config.batch.accumulate} and {config.batch.size}"
        raise ConfigError("batch.accumulate is wrong.", expected="a number that divides batch.size", got=got)
    context = config.model.context
    return PackedBatches(materials.train, batch_size=config.batch.size, context_length=context, seed=config.seed)


def _measured(
    plan: Plan,
    materials: Materials,
    batches: PackedBatches,
    lineage: Lineage,
    display: Display,
    device: torch.device,
) -> tuple[Model, StepCost]:
    """The model, and what a step of it takes; notes in the plan whether its layers compile."""
    model = build_model(plan.config, materials, device)
    compiled, step = compile_or_announce(model, batches, plan.config, display)
    if compiled != plan.config.compile:
        plan.config = dataclasses.replace(plan.config, compile=compiled)
        lineage.event("the layers could not be compiled")
    return model, step
