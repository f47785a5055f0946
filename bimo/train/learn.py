"""The part of a run in which a model learns: the loop with all that watches it, from step 1 or from a checkpoint."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bimo.device import leaving_cores, reusing_memory
from bimo.optim import Optimizer
from bimo.optim.schedule import multiplier
from bimo.run import Run
from bimo.train import hooks
from bimo.train.average import Average, Kept
from bimo.train.build import compile_layers
from bimo.train.checkpoint import Checkpoint, save_checkpoint
from bimo.train.config import TrainConfig
from bimo.train.display import Display, TrainingBar
from bimo.train.guard import Guard, Named
from bimo.train.lineage import Lineage
from bimo.train.loop import Hook, Loss, Progress, fit
from bimo.train.patient import Batches
from bimo.train.recorded import recorded
from bimo.train.watching import peak_rates


def _nothing_more(validate: hooks.Validate, report: hooks.Report, step: int) -> Sequence[Hook]:
    return ()


@dataclass(frozen=True)
class Learner:
    """All in which one kind of training differs from another.

    Attributes:
        measure: the held-out bits per byte, or loss of another kind, of the model as it is.
        keep: saves the weights as the run's, at each new best.
        bits_per_nat: turns the loss into bits per byte of the training text; None for a loss of another kind.
        unit: what these bits are of, where that is no byte.
        peak_share: share of the machine's matmul peak that one token a second takes.
        read: tokens that are read for each that is learned.
        text: says which documents a batch is from.
        watch: further hooks, called after each step's record, from the step where training begins.
    """

    model: Any
    batches: Batches
    loss: Loss
    measure: Callable[[], float]
    keep: Callable[[], None]
    bits_per_nat: float | None
    peak_share: float
    text: Named
    watch: Callable[[hooks.Validate, hooks.Report, int], Sequence[Hook]] = _nothing_more
    unit: str = "byte"
    read: float = 1.0


def learn(
    run: Run,
    display: Display,
    config: TrainConfig,
    lineage: Lineage,
    learner: Learner,
    checkpoint: Checkpoint | None = None,
) -> tuple[Progress, hooks.Best]:
    """Train to the end of the steps, or until held-out text is no longer learned, or the time is over.

    Raises:
        NotFinite, Diverged: training came to nothing; says how to go on from before.
        KeyboardInterrupt: a signal stopped it, after a checkpoint.
    """
    assert config.steps and config.evaluate_every and config.checkpoint_every
    model, batches = learner.model, learner.batches
    optimizer = Optimizer(model, config.optimizer)
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

    kept = Kept(model, learner.keep, held=next(model.parameters()).device.type == "cuda")

    def save(progress: Progress) -> None:
        kept.flush()
        state = {**hooks.progress_state(progress, best), "batches": batches.state()}
        state |= {"guard": guard.state(), "averaged": average.count}
        further, good = average.state_tensors(), guard.trend.good
        save_checkpoint(run.checkpoints, progress.step, model, optimizer, state, further=further, good=good)
        lineage.write()

    every, patience = config.evaluate_every, config.patience
    validate = hooks.Validate(learner.measure, kept, every=every, patience=patience, best=best, average=average)
    tell = (lineage.event, display.warn)
    with (
        TrainingBar(display, progress.steps) as bar,
        hooks.stopping_on_signals(display) as interruption,
        leaving_cores(config.device, *tell) as fit_threads,
    ):
        report = hooks.Report(
            run, bar, validate, bits_per_nat=learner.bits_per_nat, peak_share=learner.peak_share, read=learner.read,
            rates=peak_rates(config), unit=learner.unit,
        )  # fmt: skip
        after: list[Hook] = [average, validate, report, guard]
        after += [*learner.watch(validate, report, progress.step), interruption]
        if lineage.training_seconds is not None:
            end = time.monotonic() + lineage.training_seconds - progress.seconds
            deadline = hooks.Deadline(
                end, *tell, every=every, most=lineage.most_steps, closing=lineage.closing_seconds,
                seconds_a_step=lineage.training_seconds / config.steps, fit_threads=fit_threads,
            )  # fmt: skip
            after.append(deadline)
        after.append(hooks.Checkpointing(save, every=config.checkpoint_every))
        schedule = functools.partial(multiplier, config.schedule)
        passes = config.batch.accumulate
        with guard.explaining(learner.text), reusing_memory(), recorded(model, passes):
            fit(
                model, batches, learner.loss, optimizer, schedule, after,
                progress=progress, accumulate=passes, seed=config.seed,
            )  # fmt: skip
        kept.flush()
    if progress.stop == hooks.INTERRUPTED:
        lineage.interrupted(progress)
        done = f"Stopped after step {progress.step} of {progress.steps}"
        display.note(f"{done}; nothing is lost. Continue with --resume.")
        raise KeyboardInterrupt
    if progress.stop:
        display.note(f"Stopped early: {progress.stop}; the best weights are kept.")
        lineage.event(f"step {progress.step}: stopped early, {progress.stop}")
    return progress, best
