"""Pretraining, from text to a finished run: plan, prepare, train, measure, record; or resume where it was cut off."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimo import files
from bimo.batches.loader import validation_batches
from bimo.batches.shards import Tokens
from bimo.config import to_yaml
from bimo.device import return_memory
from bimo.models import save_model
from bimo.run import Run
from bimo.train import hooks
from bimo.train.build import eagerly
from bimo.train.config import TrainConfig
from bimo.train.display import Display
from bimo.train.doctor import Doctor, preflight
from bimo.train.forecast import Prices, lines
from bimo.train.learn import Learner, learn
from bimo.train.lineage import Stopwatch
from bimo.train.loop import Hook
from bimo.train.materials import Materials
from bimo.train.objective import mean_nats, next_token_loss
from bimo.train.plan import validation_tokens
from bimo.train.resume import reopen
from bimo.train.start import Session, configure, make_batches, prepare
from bimo.train.surroundings import ALONE, Surroundings
from bimo.train.watching import onlookers

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
    assert config.model.context
    model.dropout = config.model.dropout or 0.0  # chosen after the model was built and measured

    def watch(validate: hooks.Validate, report: hooks.Report, step: int) -> list[Hook]:
        onlooking = onlookers(run, config, materials, model, validate, report, step)
        return [materials.train.still_whole, *onlooking, *around.hooks(run, validate)]

    learner = Learner(
        model,
        make_batches(config, materials),
        next_token_loss,
        measure=_validation(config, materials, model),
        keep=functools.partial(save_model, model, run.path),
        bits_per_nat=_bits_per_nat(materials.train),
        peak_share=3 * model.forward_flops(config.model.context) / session.machine.peak[config.dtype],
        text=materials.train,
        watch=watch,
    )
    progress, best = learn(run, display, config, lineage, learner, session.checkpoint)
    model.zero_grad()
    return_memory()
    around.finish(run, config, materials, lineage, display, progress, best)
    return run


def _validation(config: TrainConfig, materials: Materials, model: Model) -> Callable[[], float]:
    """A function that measures the model as it then is: bits per byte of the validation text, or of an even sample."""
    assert config.batch.size and config.model.context
    rows = config.batch.size // config.batch.accumulate
    batches = list(validation_batches(materials.validation, rows, config.model.context, validation_tokens(config)))

    def measure() -> float:
        model.eval()
        with eagerly():
            return mean_nats(model, batches) * _bits_per_nat(materials.validation)

    return measure


def _bits_per_nat(tokens: Tokens) -> float:
    """What turns mean nats a token of this text into bits a byte."""
    return tokens.count / tokens.bytes / math.log(2)
