"""Pretraining, from text to a finished run: plan, prepare, train, measure, record; or resume where it was cut off."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from bimo import files
from bimo.batches.loader import PackedBatches, validation_batches
from bimo.batches.shards import Tokens
from bimo.config import differences, from_mapping, merged, part_like, read_yaml, to_yaml, with_overrides
from bimo.device import resolve_device
from bimo.errors import ConfigError
from bimo.models import save_model
from bimo.optim import Optimizer
from bimo.optim.schedule import multiplier
from bimo.run import Run
from bimo.text.corpora import cache_folder
from bimo.train import hooks
from bimo.train.average import Average
from bimo.train.budget import parse_budget
from bimo.train.build import build_model, compile_layers, compile_or_announce, fits_bigram
from bimo.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bimo.train.config import TrainConfig
from bimo.train.display import Display, TrainingBar
from bimo.train.finish import finish
from bimo.train.guard import Guard, check_changes
from bimo.train.limits import check_limits
from bimo.train.lineage import Lineage, Stopwatch
from bimo.train.loop import Hook, Progress, fit
from bimo.train.materials import Materials, check_unchanged, make_materials, read_text, reopen_materials
from bimo.train.objective import mean_nats, next_token_loss
from bimo.train.plan import Plan, plan_arithmetic, plan_compilation, plan_shape, plan_steps, validation_tokens
from bimo.train.probe import Machine, probe
from bimo.train.start import Reason, parent_facts, seen_before, take_over

if TYPE_CHECKING:
    from bimo.models import Model

DEFAULT_BUDGET = "10m"


def train(
    data: str | Path | Iterable[str | Path] | None = None,
    budget: str | None = None,
    out: str | Path = "runs/model",
    *,
    config: str | Path | Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
    resume: bool = False,
    reserve: float = 0.0,
    began: float | None = None,
    quiet: bool = False,
) -> Run:
    """Train a language model on text, or continue a run that was interrupted.

    Args:
        data: files, folders, prepared folders or corpus names.
        budget: "10m" of wall-clock time, everything included; or "200k-tokens", "3-epochs".
        out: the run directory; it must not exist yet, unless ``resume``.
        config: a YAML file or plain values of :class:`TrainConfig`; the arguments above go before it.
        overrides: ``key=value`` strings such as ``model.width=256``.
        resume: continue the run in ``out``, to the same bytes as without the interruption.
        reserve: seconds of a wall-clock budget to leave unused.
        began: ``time.monotonic()`` when the budget started to run; now by default.
        quiet: show nothing.

    Raises:
        BimoError: with what was expected, what came, and the next step; nothing already written is lost.
        KeyboardInterrupt: training was stopped by a signal, after a checkpoint.
    """
    stopwatch = Stopwatch(began)
    display = Display(quiet=quiet)
    given = dict(read_yaml(Path(config)) if isinstance(config, (str, Path)) else config or {})
    if data is not None:
        given["data"] = [str(data)] if isinstance(data, (str, Path)) else [str(one) for one in data]
    if budget is not None:
        given["budget"] = budget
    given = with_overrides(given, overrides)
    wanted = from_mapping(TrainConfig, given, where=str(config) if isinstance(config, (str, Path)) else "configuration")
    check_limits(wanted)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
    if resume and Run(out).config.exists():
        return _resume(Run.open(out), given, display, stopwatch)
    with Run.starting(out, again=resume) as run:
        return _start(run, *take_over(wanted, given), display, stopwatch, reserve)


def _start(
    run: Run, config: TrainConfig, reasons: list[Reason], display: Display, stopwatch: Stopwatch, reserve: float
) -> Run:
    if config.budget is None and config.steps is None:
        config = dataclasses.replace(config, budget=DEFAULT_BUDGET)
    budget = parse_budget(config.budget or "1-epochs")
    device, machine = _set_up(config)
    source, split = read_text(config, display)
    if split.note:
        display.warn(split.note)
    for one in source.skipped[:5]:
        display.warn(f"skipped {one.file}: {one.reason}")

    deadline = None if budget.seconds is None else stopwatch.began + budget.seconds - reserve
    plan = Plan(dataclasses.replace(config, device=cast(Any, device.type)), reasons)
    if config.device == "auto":
        plan.reasons.append(("device", device.type, "the best one present"))
    plan_arithmetic(plan, machine)
    plan_shape(plan, budget, machine, deadline and deadline - time.monotonic(), split.train.bytes)
    materials = make_materials(run, plan.config, source, split, display)
    if not fits_bigram(materials.tokenizer) and plan.config.model.initial == "bigram":
        raise ConfigError("model.initial=bigram needs a smaller vocabulary.", fix="Use --set model.initial=random.")
    lineage = Lineage.begin(run, plan, materials, machine, stopwatch, parent_facts(config.start))
    lineage.announce(seen_before(lineage.values["parent"], materials.facts, plan.config), display.warn)
    plan_compilation(plan, budget, machine, deadline and deadline - time.monotonic(), materials.train.count)
    batches = _batches(plan.config, materials)
    model = build_model(plan.config, materials, device)
    compiled, step_seconds = compile_or_announce(model, batches, plan.config, display)
    if compiled != plan.config.compile:
        plan.config = dataclasses.replace(plan.config, compile=compiled)
        lineage.event("the layers could not be compiled")
    seconds = deadline and deadline - time.monotonic() - lineage.closing_seconds(materials, step_seconds, plan.config)
    plan_steps(plan, budget, seconds, step_seconds, materials.train.count)
    display.plan(plan.reasons)
    lineage.planned(plan, seconds, step_seconds)
    files.write_text(run.config, to_yaml(plan.config))
    return _train(run, plan.config, materials, model, lineage, display, machine, None)


def _resume(run: Run, given: Mapping[str, Any], display: Display, stopwatch: Stopwatch) -> Run:
    recorded = read_yaml(run.config)
    given = {key: value for key, value in given.items() if value != "auto"}  # "auto" was resolved when the run began
    changes = list(differences(part_like(recorded, given), given))
    lineage = Lineage.open(run, stopwatch)
    check_changes(run, lineage, changes)
    config = from_mapping(TrainConfig, merged(recorded, given), where=str(run.config))
    if lineage.finished:
        display.note(f"{run.path} is finished; there is nothing to resume.")
        return run
    device, machine = _set_up(config)
    source, split = read_text(config, display)
    check_unchanged(run, lineage.values, split)
    materials = reopen_materials(run, lineage.values["data"], source, split, display)
    checkpoint = load_checkpoint(run.checkpoints)
    step = checkpoint.state["progress"]["step"] if checkpoint else 0
    run.forget_metrics_after(step)
    display.note(f"resuming after step {step}")
    files.write_text(run.config, to_yaml(config))
    lineage.values["status"] = "running"
    lineage.event(", ".join([f"resumed after step {step}", *changes]))
    model = build_model(config, materials, device)
    if config.compile:  # the compiler may have gone since
        compiled, _ = compile_or_announce(model, _batches(config, materials), config, display)
        config = dataclasses.replace(config, compile=compiled)
        lineage.announce("" if compiled else "the layers could not be compiled any more", display.note)
    return _train(run, config, materials, model, lineage, display, machine, checkpoint)


def _set_up(config: TrainConfig) -> tuple[torch.device, Machine]:
    device = resolve_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return device, probe(device)


def _batches(config: TrainConfig, materials: Materials) -> PackedBatches:
    assert config.batch.size and config.model.context
    if config.batch.accumulate < 1 or config.batch.size % config.batch.accumulate:
        got = f"{config.batch.accumulate} and {config.batch.size}"
        raise ConfigError("batch.accumulate is wrong.", expected="a number that divides batch.size", got=got)
    context = config.model.context
    return PackedBatches(materials.train, batch_size=config.batch.size, context_length=context, seed=config.seed)


def _train(
    run: Run,
    config: TrainConfig,
    materials: Materials,
    model: Model,
    lineage: Lineage,
    display: Display,
    machine: Machine,
    checkpoint: Checkpoint | None,
) -> Run:
    assert config.steps and config.evaluate_every and config.checkpoint_every and config.model.context
    model.dropout = config.model.dropout or 0.0  # chosen after the model was built and measured
    optimizer = Optimizer(model, config.optimizer)
    batches = _batches(config, materials)
    progress, best = Progress(steps=config.steps), hooks.Best()
    average, state = Average(model, config.averaging), checkpoint.state if checkpoint else {}
    guard = Guard(lineage, run.checkpoints, config.optimizer, state.get("guard"))
    if checkpoint:
        checkpoint.restore(model, optimizer)
        average.load(checkpoint.tensors, state.get("averaged", 0))
        batches.load_state(state["batches"])
        progress, best = Progress(**state["progress"]), hooks.Best(**state["best"])
    if config.compile:
        compile_layers(model)

    def save(progress: Progress) -> None:
        state = {**hooks.progress_state(progress, best), "batches": batches.state()}
        state |= {"guard": guard.state(), "averaged": average.count}
        further, good = average.state_tensors(), guard.trend.good
        save_checkpoint(run.checkpoints, progress.step, model, optimizer, state, further=further, good=good)
        lineage.write()

    keep = functools.partial(save_model, model, run.path)
    measure = _validation(config, materials, model)
    every, patience = config.evaluate_every, config.patience
    validate = hooks.Validate(measure, keep, every=every, patience=patience, best=best, average=average)
    with TrainingBar(display, progress.steps) as bar, hooks.stopping_on_signals(display) as interruption:
        share = 3 * model.forward_flops(config.model.context) / machine.peak[config.dtype]
        report = hooks.Report(run, bar, validate, bits_per_nat=_bits_per_nat(materials.train), peak_share=share)
        after: list[Hook] = [average, validate, report, guard, materials.train.still_whole, interruption]
        if lineage.training_seconds is not None:
            end = time.monotonic() + lineage.training_seconds - progress.seconds
            after.append(hooks.Deadline(end, lineage.event, display.warn, every=every))
        after.append(hooks.Checkpointing(save, every=config.checkpoint_every))
        schedule = functools.partial(multiplier, config.schedule)
        with guard.explaining(materials.train):
            fit(
                model, batches, next_token_loss, optimizer, schedule, after,
                progress=progress, accumulate=config.batch.accumulate, seed=config.seed,
            )  # fmt: skip
    if progress.stop == hooks.INTERRUPTED:
        lineage.interrupted(progress)
        done = f"Stopped after step {progress.step} of {progress.steps}"
        display.note(f"{done}; nothing is lost. Continue with --resume.")
        raise KeyboardInterrupt
    if progress.stop:
        display.note(f"Stopped early: {progress.stop}; the best weights are kept.")
        lineage.event(f"step {progress.step}: stopped early, {progress.stop}")
    finish(run, config, materials, lineage, display, progress, best)
    return run


def _validation(config: TrainConfig, materials: Materials, model: Model) -> Callable[[], float]:
    """A function that measures the model as it then is: bits per byte of the validation text, or of an even sample."""
    assert config.batch.size and config.model.context
    rows = config.batch.size // config.batch.accumulate
    batches = list(validation_batches(materials.validation, rows, config.model.context, validation_tokens(config)))

    def measure() -> float:
        model.eval()
        with torch.compiler.set_stance("force_eager"):  # a second graph for evaluation would have to be compiled
            return mean_nats(model, batches) * _bits_per_nat(materials.validation)

    return measure


def _bits_per_nat(tokens: Tokens) -> float:
    """What turns mean nats a token of this text into bits a byte."""
    return tokens.count / tokens.bytes / math.log(2)
