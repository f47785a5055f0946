"""Pretraining, from text to a finished run: plan, prepare, train, measure, record; or resume where it was cut off."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bimo import files
from bimo.batches.loader import validation_batches
from bimo.batches.shards import Tokens
from bimo.config import to_yaml
from bimo.models import save_model
from bimo.optim import Optimizer
from bimo.optim.schedule import falls_at, multiplier
from bimo.run import Run
from bimo.train import hooks
from bimo.train.average import Average
from bimo.train.build import compile_layers
from bimo.train.checkpoint import save_checkpoint
from bimo.train.config import TrainConfig
from bimo.train.display import Display, TrainingBar
from bimo.train.doctor import Doctor, preflight
from bimo.train.forecast import Prices, lines
from bimo.train.guard import Guard
from bimo.train.lineage import Stopwatch
from bimo.train.loop import Hook, Progress, fit
from bimo.train.materials import Materials
from bimo.train.objective import mean_nats, next_token_loss
from bimo.train.plan import validation_tokens
from bimo.train.resume import reopen
from bimo.train.start import Session, configure, make_batches, prepare
from bimo.train.surroundings import ALONE, Surroundings
from bimo.train.watching import onlookers, peak_rates

if TYPE_CHECKING:
    from bimo.models import Model


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
    doctor: Doctor = preflight,
    around: Surroundings = ALONE,
) -> Run:
    """Train a language model on text, or continue a run that was interrupted.

    Args:
        data: files, folders, prepared folders or corpus names.
        budget: "10m" of wall-clock time, everything included; or "200k-tokens", "3-epochs", "1.6-bpb".
        out: the run directory; it must not exist yet, unless ``resume``.
        config: a YAML file or plain values of :class:`TrainConfig`; the arguments above go before it.
        overrides: ``key=value`` strings such as ``model.width=256``.
        resume: continue the run in ``out``, to the same bytes as without the interruption.
        reserve: seconds of a wall-clock budget to leave unused.
        began: ``time.monotonic()`` when the budget started to run; now by default.
        quiet: show nothing.
        doctor: what examines a new training before step 1, as in ``bimo.train.doctor``; the lineage keeps its answer.
        around: what surrounds the run, where it is one of many.

    Raises:
        BimoError: with what was expected, what came, and the next step; nothing already written is lost.
        KeyboardInterrupt: training was stopped by a signal, after a checkpoint.
    """
    stopwatch = Stopwatch(began)
    display = Display(quiet=quiet)
    given, wanted = configure(data, budget, config, overrides)
    if resume and Run(out).config.exists():
        run = Run.open(out)
        session = reopen(run, given, display, stopwatch, around)
        return _train(run, display, session, around) if session else run
    with Run.starting(out, again=resume) as run:
        ready = prepare(run, wanted, given, display, stopwatch, reserve, doctor=doctor, around=around)
        planned = ready.plan.config
        display.plan(ready.plan.reasons)
        display.plan([*lines(ready.prediction, planned, Prices())])
        files.write_text(run.config, to_yaml(planned))
        session = Session(planned, ready.materials, ready.model, ready.lineage, ready.machine)
        return _train(run, display, session, around)


def _train(run: Run, display: Display, session: Session, around: Surroundings) -> Run:
    config, materials, model, lineage = session.config, session.materials, session.model, session.lineage
    assert config.steps and config.evaluate_every and config.checkpoint_every and config.model.context
    model.dropout = config.model.dropout or 0.0  # chosen after the model was built and measured
    optimizer = Optimizer(model, config.optimizer)
    batches = make_batches(config, materials)
    progress, best = Progress(steps=config.steps), hooks.Best()
    average, state = Average(model, config.averaging), session.checkpoint.state if session.checkpoint else {}
    guard = Guard(lineage, run.checkpoints, config.optimizer, state.get("guard"))
    if session.checkpoint:
        session.checkpoint.restore(model, optimizer)
        average.load(session.checkpoint.tensors, state.get("averaged", 0))
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
        share = 3 * model.forward_flops(config.model.context) / session.machine.peak[config.dtype]
        bits_per_nat, rates = _bits_per_nat(materials.train), peak_rates(config)
        report = hooks.Report(run, bar, validate, bits_per_nat=bits_per_nat, peak_share=share, rates=rates)
        onlooking = [*onlookers(run, config, materials, model, validate, report, progress.step)]
        onlooking += around.hooks(run, validate)
        whole = materials.train.still_whole
        after: list[Hook] = [average, validate, report, guard, whole, *onlooking, interruption]
        if lineage.training_seconds is not None:
            end = time.monotonic() + lineage.training_seconds - progress.seconds
            leeway = hooks.Leeway(config.steps, lineage.most_steps, falls_at(config.schedule, config.steps))
            after.append(hooks.Deadline(end, lineage.event, display.warn, every=every, leeway=leeway))
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
    around.finish(run, config, materials, lineage, display, progress, best)
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
