"""Tuning, from a model and a person's rows to a finished run; or resumed where it was cut off."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bimo import files
from bimo.config import to_yaml
from bimo.device import return_memory
from bimo.report.card import write_card
from bimo.report.facts import read_facts
from bimo.report.page import write_page
from bimo.report.task_figures import task_figures
from bimo.run import Run
from bimo.train.build import eagerly
from bimo.train.display import Display
from bimo.train.doctor import Doctor, preflight
from bimo.train.hooks import Best
from bimo.train.learn import Learner, learn
from bimo.train.lineage import Stopwatch
from bimo.train.loop import Progress
from bimo.tune.adapting import base_of, finished, keep, kept, tidy
from bimo.tune.answering import ANSWERS, Writer, answered
from bimo.tune.examples import Example
from bimo.tune.start import Session, configure, held_out_batches, prepare, reopen
from bimo.tune.task import in_bits, unit_of

TRY = {  # a tuned run, by task
    "classify": 'classify {run} "TEXT"',
    "label": 'classify {run} "TEXT"',
    "translate": 'translate {run} "TEXT"',
    "summarise": "summarise {run} FILE",
    "qa": 'ask {run} "QUESTION"',
}


def tune(
    task: str = "chat",
    model: str | Path | None = None,
    data: str | Path | Iterable[str | Path] | None = None,
    out: str | Path = "runs/tuned",
    budget: str | None = None,
    *,
    test: str | Path | Iterable[str | Path] | None = None,
    options: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
    resume: bool = False,
    began: float | None = None,
    quiet: bool = False,
    doctor: Doctor = preflight,
) -> Run:
    """Tune a model for a task, or continue a run that was interrupted.

    Args:
        task: a name of ``bimo.tune.tasks.TASKS``.
        model: a run or Hugging Face folder of a supported family.
        data: files or folders of rows.
        out: the run directory; it must not exist yet, unless ``resume``.
        budget: "10m" of wall-clock time, everything included; or "500-examples", "200k-tokens", "3-epochs".
        test: files or folders of rows to measure on, instead of a share of the data.
        options: settings of the task.
        columns: role -> column, where the names of the columns do not say.
        config: a YAML file or plain values of :class:`TuneConfig`; the arguments above go before it.
        overrides: ``key=value`` strings such as ``optimizer.learning_rate=1e-4``.
        resume: continue the run in ``out``, to the same bytes as without the interruption.
        began: ``time.monotonic()`` when the budget started to run; now by default.
        quiet: show nothing.
        doctor: what examines the training before step 1, as in ``bimo.train.doctor``; the lineage keeps its answer.

    Raises:
        BimoError: with what was expected, what came, and the next step; nothing already written is lost.
        KeyboardInterrupt: training was stopped by a signal, after a checkpoint.
    """
    stopwatch, display = Stopwatch(began), Display(quiet=quiet)
    names, tests = (
        None if given is None else [str(given)] if isinstance(given, (str, Path)) else [str(one) for one in given]
        for given in (data, test)
    )
    start = None if model is None else str(model)
    said = {"start": start, "data": names, "test": tests, "budget": budget, "options": options, "columns": columns}
    given, wanted = configure(task, said, config, overrides)
    if resume and Run(out).config.exists():
        run = Run.open(out)
        session = reopen(run, given, display, stopwatch)
        return _tune(run, display, session) if session else run
    with Run.starting(out, again=resume) as run:
        session = prepare(run, wanted, given, display, stopwatch, doctor=doctor)
        files.write_text(run.config, to_yaml(session.config))
        return _tune(run, display, session)


def _tune(run: Run, display: Display, session: Session) -> Run:
    config, task, materials, model = session.config, session.task, session.materials, session.model
    assert config.model.context
    model.dropout = config.model.dropout or 0.0
    return_memory()
    bits_per_nat = 1 / (math.log(2) * materials.bytes_per_token) if in_bits(task) else None
    passes = 3 if config.lora is None else 2  # frozen weights need no gradient
    learner = Learner(
        model,
        session.batches,
        task.loss,
        measure=_validation(session, bits_per_nat),
        keep=functools.partial(keep, task, model, config, base_of(config, session.lineage.values["parent"]), run.path),
        bits_per_nat=bits_per_nat,
        peak_share=passes * model.forward_flops(config.model.context) / session.machine.peak[config.dtype],
        text=materials,
        unit=unit_of(task),
        read=_read(materials.train),
    )
    progress, best = learn(run, display, config, session.lineage, learner, session.checkpoint)
    _finish(run, session, display, progress, best)
    return run


def _read(examples: Sequence[Example]) -> float:
    """Tokens that are read for each that is learned; 1 where the model itself will say what is."""
    learned = sum(one.learned for one in examples)
    return sum(one.size for one in examples) / learned if learned else 1.0


def _validation(session: Session, bits_per_nat: float | None) -> Callable[[], float]:
    """A function that measures the model as it then is on the validation examples, or for want of any on all."""
    task, model, materials = session.task, session.model, session.materials
    batches = held_out_batches(session.config, task, materials.validation or materials.train)

    def measure() -> float:
        model.eval()
        with eagerly():
            return task.measure(model, batches)["loss"] * (bits_per_nat or 1.0)

    return measure


def _finish(run: Run, session: Session, display: Display, progress: Progress, best: Best) -> None:
    """Measure the saved weights on answers that no choice was made on, then write lineage, model card and report."""
    config, task, materials, lineage = session.config, session.task, session.materials, session.lineage
    assert config.model.context
    session.model.to("meta")  # the last weights are needed no more
    return_memory()
    model = finished(task, config, run, torch.device(config.device))
    model.compute_dtype, model.fused = session.model.compute_dtype, bool(config.kernels)

    def rewrite(change: Callable[[Any], object]) -> None:
        weights = kept(task, config, run, run.path, torch.device("cpu"))
        change(weights)
        keep(task, weights, config, base_of(config, lineage.values["parent"]), run.path)

    figures = task.finish(model, materials, rewrite, length=config.model.context)
    if materials.test:
        with display.bar("measuring held-out answers"):
            figures |= task.figures(model, materials.test, materials.tokenizer, length=config.model.context)
    if materials.questions:
        figures |= answered(Writer.of(task, materials, display), model, materials, run.path / ANSWERS)
    steps_of_epoch = getattr(session.batches, "labels_per_epoch", 0) or 1
    lineage.finish(
        model,
        {
            **figures,
            f"validation_bits_per_{unit_of(task)}" if in_bits(task) else "validation_loss": best.bits_per_byte,
            "best_step": best.step,
            "steps": progress.step,
            "tokens": progress.tokens,
            "epochs": round(progress.tokens / steps_of_epoch, 3),
            "training_seconds": round(progress.seconds, 1),
        },
    )
    write_card(run)
    write_page(run)
    tidy(config, run)
    if "test_bits_per_byte" in figures:
        before = lineage.values["before"]["test_bits_per_byte"]["value"]
        now = figures["test_bits_per_byte"]["value"]
        display.note(f"bits per byte of held-out answers: {before:.3f} before, {now:.3f} now")
    for one in task_figures(read_facts(run)):
        display.note(one.line)
    command = TRY.get(config.task, "chat {run}").format(run=run.path)
    display.note(f"the run is {run.path}; try it: bimo {command}")
