"""Everything before step 1 of a tuning run, new or resumed: rows, columns, model, examples, the plan, the doctor."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from bimo.batches.loader import Batch
from bimo.config import differences, from_mapping, merged, part_like, read_yaml, with_overrides
from bimo.device import resolve_device
from bimo.errors import ConfigError, RunError
from bimo.generate.conventions import read_conventions
from bimo.models import count_parameters, trained_parameters
from bimo.models.adapter import Base
from bimo.optim import Optimizer
from bimo.run import Run
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.budget import Budget, parse_tuning_budget
from bimo.train.build import MEASURED_SECONDS, computing_as, measure_step
from bimo.train.checkpoint import Checkpoint
from bimo.train.display import Display
from bimo.train.doctor import Doctor
from bimo.train.guard import check_changes
from bimo.train.limits import check_limits
from bimo.train.lineage import Lineage, Stopwatch
from bimo.train.loop import divide
from bimo.train.materials import START_FOLDER
from bimo.train.origin import parent_facts, shape_of, tokens_a_parameter
from bimo.train.patient import Batches, Patient
from bimo.train.plan import Plan, plan_arithmetic, plan_kernels
from bimo.train.probe import Machine
from bimo.train.resume import go_on
from bimo.train.start import set_up
from bimo.tune.adapting import base_of, begin, keep, kept, plan_whole
from bimo.tune.answering import Writer, answered, chosen, questions_of, spread
from bimo.tune.config import TuneConfig
from bimo.tune.examples import Example
from bimo.tune.known import read_before
from bimo.tune.materials import SIDES, Given, Materials, make_materials, overlap_finding, read_given
from bimo.tune.plan import (
    EVALUATIONS,
    check_unused,
    plan_batch,
    plan_passes,
    plan_rates,
    plan_rows,
    plan_rule,
    plan_steps,
    wanted_rows,
)
from bimo.tune.rollout import Repeated
from bimo.tune.task import Acting, Comparing, Task, divisible, dropout_of, fewest_rows
from bimo.tune.tasks import make_task

DEFAULT_BUDGET = "10m"
REFERENCE_FOLDER = "reference"  # in checkpoints: what the model made of the examples before training
LONGEST = 1024  # tokens of a row unasked, as in pretraining
CLOSING_SECONDS = 4.0  # reading the best weights again, and the report, for a small model
EVALUATION_SHARE = 0.04  # of a wall-clock budget, for each look at the test answers
VALIDATION_SHARE = 0.01  # likewise, of a validation
# Steps that are measured, and seconds of them: a time must be kept, and the first on a GPU loads and compiles kernels.
ONCE, TIMED, WARMED = (1, 0.0), (2, MEASURED_SECONDS), (6, MEASURED_SECONDS)
SHOWN = (1500, 40)  # labels and lines of the first row that are printed before step 1


@dataclass(frozen=True)
class Session:
    """What the training loop works on: a run that begins, or with a checkpoint one that goes on."""

    config: TuneConfig
    task: Task
    materials: Materials
    model: Any
    lineage: Lineage
    machine: Machine
    checkpoint: Checkpoint | None = None

    @property
    def batches(self) -> Batches:
        """The training batches, from the first."""
        return make_batches(self.config, self.task, self.materials)


def configure(
    task: str,
    given: Mapping[str, Any],
    config: str | Path | Mapping[str, Any] | None,
    overrides: Iterable[str],
) -> tuple[dict[str, Any], TuneConfig]:
    """What the user said, as plain values and as a configuration in which the rest is still empty.

    Raises:
        ConfigError: a key is unknown, a value wrong, or a setting has no part in tuning.
    """
    values = dict(read_yaml(Path(config)) if isinstance(config, (str, Path)) else config or {})
    values = merged(values, {key: value for key, value in given.items() if value not in (None, {}, [])})
    where = str(config) if isinstance(config, (str, Path)) else "configuration"
    if values.get("task", task) != task:
        raise ConfigError(f"{where} is of another task.", expected=task, got=str(values["task"]))
    values = with_overrides({"task": task, **values}, overrides)
    return values, from_mapping(TuneConfig, values, where=where)


def prepare(
    run: Run,
    config: TuneConfig,
    given: Mapping[str, Any],
    display: Display,
    stopwatch: Stopwatch,
    *,
    doctor: Doctor,
) -> Session:
    """Do what comes before step 1; only the run's folder is written to.

    Args:
        given: what the user wrote of ``config``, as plain values.
        doctor: examines what is about to be trained; the lineage keeps its answer.

    Raises:
        BimoError: the data, the model, the configuration or the budget is not usable.
    """
    check_limits(config)
    if config.start is None or not config.data:
        missing, option = (
            ("model to tune", "--model RUN_OR_FOLDER") if config.start is None else ("data", "--data FILE")
        )
        raise ConfigError(f"There is no {missing}.", fix=f"Add {option}.")
    folder = Path(config.start)
    if config.budget is None and config.steps is None:
        config = dataclasses.replace(config, budget=DEFAULT_BUDGET)
    budget = parse_tuning_budget(config.budget) if config.budget else Budget(epochs=config.epochs)
    deadline = None if budget.seconds is None else stopwatch.began + budget.seconds
    resolve_device(config.device)
    rows = read_given(config, make_task(config.task, config.options), display)
    task = rows.task
    device, machine = set_up(config, display)
    with display.bar("loading the model"):
        model, tokenizer = task.open(folder, device, seed=config.seed)
    plan, materials = _materials(config, given, rows, model, tokenizer, display, device, machine)
    parent = parent_facts(config.start)
    materials.facts["read_before"] = read_before(parent, rows, display)
    tokenizer.save(run.path)
    with display.bar("keeping its weights"):
        task.save(model, run.checkpoints / START_FOLDER)
    plan_whole(plan, model)
    config = cast(TuneConfig, plan.config)
    materials = compared(config, task, materials, model, run, display)
    begin(model, config)
    model = computing_as(model.train(), config)
    task = acting(config, task, model, run, tokenizer)
    lineage = Lineage.begin(run, plan, materials, machine, stopwatch, parent, task.name)
    lineage.values["texts_begin"] = _beginnings(folder, materials.tokenizer)
    first_batches = make_batches(plan.config, task, materials, batch_size=plan.config.batch.accumulate)
    with display.bar("measuring a step"):
        often = WARMED if config.device != "cpu" else ONCE if deadline is None else TIMED
        a_step = measure_step(model, first_batches, config, task.loss, *often).seconds
        a_row = (a_step + drawing_seconds(task, first_batches)) / plan.config.batch.accumulate
    left = None if deadline is None else deadline - time.monotonic()
    rows_per_epoch = first_batches.rows_per_epoch  # type: ignore[attr-defined]
    wanted = wanted_rows(config, budget, materials.train, rows_per_epoch)
    plan_batch(plan, wanted, rows_per_epoch, len(materials.train), left, a_row, fewest_rows(task))
    read, examples = tokens_a_parameter(parent), len(materials.train) / rows_per_epoch
    _plan_learning(plan, given, task, model.config.hidden_size, examples, read)
    config = cast(TuneConfig, plan.config)
    materials = _sampled(config, materials, budget.seconds, a_row, wanted)
    batches = make_batches(config, task, materials)
    patient = patient_of(run, config, task, materials, model, batches, rows, base_of(config, parent))
    lineage.values["doctor"] = doctor(patient, display)
    questions, answering = chosen(task, materials, model.eval(), display, most=config.asked, seconds=budget.seconds)
    materials = dataclasses.replace(materials, questions=questions)
    materials.facts["asked"] = len(questions)
    evaluation_seconds, closing = _look_before(config, task, materials, model, lineage, display)
    seconds = None if deadline is None else deadline - time.monotonic() - closing - answering
    learned = sum(parameter.numel() for parameter in trained_parameters(model).values())
    most = plan_steps(plan, wanted, seconds, a_row, evaluation_seconds, learned, config.epochs)
    config = cast(TuneConfig, plan.config)
    assert config.batch.size
    choices = [{"key": key, "value": value, "reason": reason} for key, value, reason in plan.reasons]
    planned = {"training_seconds": seconds, "step_seconds": round(a_row * config.batch.size, 5), "most_steps": most}
    lineage.values["plan"] = {**planned, "closing_seconds": round(closing + answering, 3), "choices": choices}
    lineage.write()
    display.plan(plan.reasons)
    return Session(config, task, materials, model, lineage, machine)


def _plan_learning(
    plan: Plan, given: Mapping[str, Any], task: Task, width: int, examples: float, read: float | None
) -> None:
    """Choose how a step of a known size learns.

    Args:
        examples: of a row.
        read: tokens for each parameter that the model has read, if that is known.
    """
    if divisible(task):
        plan_passes(plan, given)
    assert plan.config.batch.size
    plan_rates(plan, given, width, examples * plan.config.batch.size, task, read)
    if dropout := dropout_of(task):
        plan.choose("model.dropout", dropout, "a label says little, and is soon known by heart")


def _materials(
    config: TuneConfig,
    given: Mapping[str, Any],
    rows: Given,
    model: Any,
    tokenizer: Tokenizer,
    display: Display,
    device: torch.device,
    machine: Machine,
) -> tuple[Plan, Materials]:
    """Examples on every side, and the plan as far as the model and they decide it."""
    context = model.config.max_position_embeddings
    wanted = config.model.context
    if wanted is not None and not 2 <= wanted <= context:
        problem = "model.context is wrong."
        raise ConfigError(problem, expected=f"2 to {context}, the context of the model", got=str(wanted))
    longest = wanted or min(LONGEST, context)
    shape = shape_of(model)
    check_unused(given, shape)
    materials = make_materials(rows, tokenizer, longest, display)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **{**shape, "context": wanted}),
        columns=rows.columns,
        device=cast(Any, device.type),
        compile=bool(config.compile),
    )
    plan = Plan(config)
    plan_arithmetic(plan, machine)
    plan_kernels(plan)
    plan_rule(plan, given)
    plan_rows(plan, [*materials.train, *materials.validation, *materials.test], longest)
    return plan, materials


def compared(config: TuneConfig, task: Task, materials: Materials, model: Any, run: Run, display: Display) -> Materials:
    """The examples with what the model makes of them before it is trained, where the task asks for it."""
    if not isinstance(task, Comparing):
        return materials
    assert config.model.context
    model = computing_as(model.eval(), config)
    sides: dict[str, Any] = {}
    with display.bar("asking the model before"):
        for side in SIDES:
            path = run.checkpoints / REFERENCE_FOLDER / f"{side}.npy"
            sides[side] = task.compared(model, getattr(materials, side), length=config.model.context, path=path)
    return dataclasses.replace(materials, **sides)


def acting(config: TuneConfig, task: Task, model: Any, run: Run, tokenizer: Tokenizer) -> Task:
    """The task with the model that it is about to train, where what is learned from is the model's own."""
    if not isinstance(task, Acting):
        return task
    return task.acting(
        model,
        tokenizer,
        lambda: computing_as(task.load(run.checkpoints / START_FOLDER, model.output_weight.device), config),
    )


def drawing_seconds(task: Task, batches: Batches) -> float:
    """What it takes until the model has given something to learn from; other batches take no time worth counting."""
    if not isinstance(task, Acting):
        return 0.0
    state, began = batches.state(), time.monotonic()
    next(batches)
    batches.load_state(state)
    return time.monotonic() - began


def make_batches(config: Any, task: Task, materials: Materials, batch_size: int | None = None) -> Batches:
    """The training batches, from the first.

    Raises:
        ConfigError: ``batch.accumulate`` does not divide ``batch.size``.
    """
    size = batch_size or config.batch.size
    if size % config.batch.accumulate:
        got = f"{config.batch.accumulate} and {size}"
        raise ConfigError("batch.accumulate is wrong.", expected="a number that divides batch.size", got=got)
    return task.batches(materials.train, batch_size=size, length=config.model.context, seed=config.seed)


def held_out_batches(config: TuneConfig, task: Task, examples: list[Example] | Any) -> list[Batch]:
    """Batches of held-out examples, as many rows as one pass of training has."""
    assert config.batch.size and config.model.context
    rows = max(1, config.batch.size // config.batch.accumulate)
    return task.held_out(examples, batch_size=rows, length=config.model.context)


def _sampled(
    config: TuneConfig, materials: Materials, seconds: float | None, row_seconds: float, rows: float
) -> Materials:
    """Fewer held-out examples, where looking at all of them would take too much of the budget.

    Args:
        seconds: of the budget, if it is a time; then there is a limit to what is measured before and after, too.
        row_seconds: that a step of one row takes.
        rows: to learn from in all; where the budget is no time, a validation reads an eighth of what training does.
    """
    context = config.model.context or 1
    if seconds is None:
        return _only(materials, {"validation_examples": _fitting(materials.validation, rows * context / EVALUATIONS)})
    positions = 3 * seconds / row_seconds * context  # forward is a third of a step
    measured = {
        "validation_examples": _fitting(materials.validation, VALIDATION_SHARE * positions),
        "test_examples": _fitting(materials.test, EVALUATION_SHARE * positions),
    }
    return _only(materials, measured)


def _fitting(examples: Sequence[Example], positions: float) -> int:
    """How many of the examples have so many positions together, if they are alike; at least eight."""
    share = positions / max(1, sum(example.size for example in examples))
    return max(min(len(examples), 8), int(len(examples) * min(1.0, share)))


def _only(materials: Materials, measured: Mapping[str, int]) -> Materials:
    """So many of the held-out examples, spread evenly: the same ones when the run is resumed."""
    validation = spread(materials.validation, measured["validation_examples"])
    test = spread(materials.test, measured.get("test_examples", len(materials.test)))
    materials.facts["measured"] = dict(measured)
    return dataclasses.replace(materials, validation=validation, test=test)


def _look_before(
    config: TuneConfig, task: Task, materials: Materials, model: Any, lineage: Lineage, display: Display
) -> tuple[float, float]:
    """Measure the model as it is before training; the seconds of a validation, and of what will come after step N."""
    assert config.model.context
    model.eval()
    began = time.monotonic()
    with display.bar("measuring it before"):
        if materials.test:
            lineage.values["before"] = task.figures(
                model, materials.test, materials.tokenizer, length=config.model.context
            )
        tested = time.monotonic() - began
        if config.asked_before and materials.questions:
            lineage.values["before"] |= answered(Writer.of(task, materials, display), model, materials)
        if materials.test and (baselines := task.baselines(materials)):
            lineage.values["before"]["baselines"] = baselines
        measured = time.monotonic()
        watched = materials.validation or materials.train
        lineage.values.setdefault("before", {})["validation"] = task.measure(
            model, held_out_batches(config, task, watched)
        )
    validated = time.monotonic() - measured
    model.train()
    parameters = count_parameters(model)[0]
    return validated, tested + CLOSING_SECONDS + 8 * parameters / 3e8


def _beginnings(parent: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """How texts of the model begin, which tuning does not change; see ``generate/conventions.py``."""
    conventions = read_conventions(parent, tokenizer)
    return {"prefix": list(conventions.prefix), "start": list(conventions.start)}


def patient_of(
    run: Run,
    config: TuneConfig,
    task: Task,
    materials: Materials,
    model: Any,
    batches: Batches,
    rows: Given,
    base: Base,
) -> Patient:
    """What the doctor examines; of a run that would keep only an adapter, the merged model too."""
    whole = (
        config
        if config.lora is None
        else dataclasses.replace(config, lora=dataclasses.replace(config.lora, adapter_only=False))
    )
    return Patient(
        model=model,
        loss=task.loss,
        divide=divide,
        make_optimizer=lambda one: Optimizer(one, config.optimizer),
        batches=Repeated(batches) if isinstance(task, Acting) else batches,
        tokenizer=materials.tokenizer,
        train=None,
        validation=None,
        config=config,
        folder=run.checkpoints,
        trained=True,
        frozen=frozenset(name for name, parameter in model.named_parameters() if not parameter.requires_grad),
        ends=task.ends(materials.tokenizer),
        shared=overlap_finding(rows.parts),
        skips=task.skips,
        shown=SHOWN,
        classes=getattr(task, "classes", ()),
        save=lambda one, folder: keep(task, one, whole, base, folder),
        load=lambda folder: kept(task, whole, run, folder, torch.device("cpu")),
    )


def reopen(run: Run, given: Mapping[str, Any], display: Display, stopwatch: Stopwatch) -> Session | None:
    """Everything as it was after the last checkpoint; None when the run is finished.

    Raises:
        RunError: the configuration, the data or the tokenizer changed, or the checkpoint is damaged.
    """
    recorded = read_yaml(run.config)
    given = {key: value for key, value in given.items() if value != "auto"}
    changes = list(differences(part_like(recorded, given), given))
    if given.get("lora") is not None and recorded.get("lora") is None:
        changes.append("lora: None -> one")
    lineage = Lineage.open(run, stopwatch)
    check_changes(run, lineage, changes)
    config = from_mapping(TuneConfig, merged(recorded, given), where=str(run.config))
    if lineage.finished:
        display.note(f"{run.path} is finished; there is nothing to resume.")
        return None
    rows = read_given(config, make_task(config.task, config.options), display)
    if rows.hash != lineage.values["data"]["data_hash"]:
        raise RunError(
            f"{run.path} cannot be resumed: the data changed.",
            expected=f"rows with the hash {lineage.values['data']['data_hash'][:12]}, as when the run began",
            got=rows.hash[:12],
            fix="Restore the data, or start a new run with another --out.",
        )
    device, machine = set_up(config, display)
    with display.bar("loading the model"):
        model = rows.task.load(run.checkpoints / START_FOLDER, device)
    assert config.model.context
    materials = make_materials(rows, Tokenizer.load(run.path), config.model.context, display)
    materials = compared(config, rows.task, materials, model, run, display)
    measured = lineage.values["data"].get("measured")
    if measured:
        materials = _only(materials, measured)
    asked = lineage.values["data"].get("asked", 0)
    materials = dataclasses.replace(materials, questions=spread(questions_of(rows.task, materials), asked))
    checkpoint = go_on(run, config, lineage, changes, display)
    begin(model, config)
    model = computing_as(model.train(), config)
    task = acting(config, rows.task, model, run, materials.tokenizer)
    return Session(config, task, materials, model, lineage, machine, checkpoint)
