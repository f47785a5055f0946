"""One trial of a sweep: what watches its run, how it ends, and what is shown of it."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from bimo import files
from bimo.batches.loader import validation_batches
from bimo.config import from_mapping, read_yaml, to_mapping
from bimo.errors import TrainingError
from bimo.models import count_parameters, load_model
from bimo.run import Run
from bimo.train.config import TrainConfig
from bimo.train.display import Display
from bimo.train.finish import finish
from bimo.train.forecast import plan_closing
from bimo.train.hooks import Best, Validate
from bimo.train.lineage import Lineage, Stopwatch
from bimo.train.loop import Hook
from bimo.train.loop import Progress as TrainingProgress
from bimo.train.materials import Materials, open_materials
from bimo.train.objective import mean_nats
from bimo.train.surroundings import Surroundings
from bimo.train.sweep_record import FINISHED, PRUNED, Record, Trial
from bimo.train.sweep_space import MIX, Value
from bimo.train.sweep_study import SHARES, Watched
from bimo.train.sweep_texts import SharedTexts

MOST_VALIDATION = 1 << 17  # tokens of the validation text that the value of a trial is measured on
PRUNED_STOP = "pruned, worse than the median of the other trials"
OUT_OF_TIME = "the budget of the sweep is used up"
LEFT_OPEN = ("steps", "evaluate_every", "checkpoint_every", "compile", "threads", "dtype", "device")


class TrialRun:
    """Watches one trial's run and records in ``trial`` what came of it.

    Args:
        end: ``time.monotonic()`` at which the run has to stop, whatever its own budget says.

    Attributes:
        closing: seconds that measuring its test text would take, once it has ended.
    """

    def __init__(self, trial: Trial, watched: Watched, bar: SweepBar, end: float) -> None:
        self._trial, self._watched, self._bar, self._end = trial, watched, bar, end
        self.closing = self._counting_seconds = 0.0

    def surroundings(self, texts: SharedTexts) -> Surroundings:
        """The surroundings of the run."""
        self._counting_seconds = texts.counting_seconds
        return Surroundings(texts.read, texts.make, self._hooks, self._finish)

    def _hooks(self, run: Run, validate: Validate) -> Sequence[Hook]:
        earlier = run.read_metrics()  # of a run that was cut off and goes on

        def hook(progress: TrainingProgress) -> None:
            while earlier:
                record = earlier.pop(0)
                if record["step"] < progress.step and "validation_bits_per_byte" in record:
                    self._report(record["step"], progress.steps, record["validation_bits_per_byte"])
            self._bar.step(progress)
            if validate.last and validate.last[0] == progress.step:
                poor = self._report(progress.step, progress.steps, validate.last[1])
                if poor and progress.step < progress.steps and not progress.stop:
                    progress.stop = PRUNED_STOP
            if time.monotonic() > self._end and not progress.stop:
                progress.stop = OUT_OF_TIME

        return (hook,)

    def _report(self, step: int, steps: int, value: float) -> bool:
        return self._watched.worse_than_most(int(SHARES * step / steps + 1e-6), round(value, 6))

    def _finish(
        self,
        run: Run,
        config: TrainConfig,
        materials: Materials,
        lineage: Lineage,
        display: Display,
        progress: TrainingProgress,
        best: Best,
    ) -> None:
        """Measure the whole validation text; the test text is not for choosing among trials."""
        trial = self._trial
        if best.bits_per_byte is None:
            raise TrainingError("A trial ended before its first validation.", fix="Give a longer --budget.")
        model = load_model(run.path, device=torch.device(config.device))
        trial.size, _ = count_parameters(model)
        trial.steps, trial.seconds = progress.step, round(progress.seconds, 1)
        trial.reports = self._watched.reports
        if progress.stop == PRUNED_STOP:
            trial.state, trial.reason = PRUNED, f"after {trial.reports[-1][0] / SHARES:.0%} of its budget"
        else:
            trial.state, trial.reason = FINISHED, progress.stop
            trial.value = round(_validation_bits(model.eval(), materials, config), 6)
        self.closing = 1.3 * plan_closing(model, config, materials, self._counting_seconds, None).seconds + 2.0
        lineage.finish(
            model,
            {
                "validation_bits_per_byte": trial.value or best.bits_per_byte,
                "best_step": best.step,
                "steps": progress.step,
                "tokens": progress.tokens,
                "epochs": round(progress.tokens / materials.train.count, 3),
                "training_seconds": round(progress.seconds, 1),
            },
        )
        if trial.state == PRUNED:
            lineage.values["status"] = PRUNED
            lineage.write()
        for folder in run.checkpoints.glob("step-*"):  # as large as the model, and there are many trials
            shutil.rmtree(folder, ignore_errors=True)


def _validation_bits(model: Any, materials: Materials, config: TrainConfig) -> float:
    """Bits per byte of the validation text, of the same part of it for every trial."""
    assert config.batch.size and config.model.context
    tokens = materials.validation
    rows = max(1, config.batch.size // config.batch.accumulate)
    nats = mean_nats(model, list(validation_batches(tokens, rows, config.model.context, MOST_VALIDATION)))
    return nats * tokens.count / tokens.bytes / math.log(2)


def measure_test(run: Run, display: Display) -> dict[str, Any]:
    """Finish the best trial as `bimo train` finishes a run, and return its bits per byte of the test text."""
    config = from_mapping(TrainConfig, read_yaml(run.config), where=str(run.config))
    lineage = Lineage.open(run, Stopwatch())
    metrics = lineage.values["metrics"]
    progress = TrainingProgress(
        step=metrics["steps"], steps=metrics["steps"], tokens=metrics["tokens"], seconds=metrics["training_seconds"]
    )
    best = Best(metrics["validation_bits_per_byte"], metrics["best_step"])
    finish(run, config, open_materials(run, lineage.values["data"]), lineage, display, progress, best)
    return dict(lineage.values["metrics"]["test_bits_per_byte"])


def best_yaml(record: Record, best: Trial, shared: TrainConfig) -> None:
    """Write ``best.yaml``: the best trial's configuration, without what belongs to its budget and this machine."""
    path = record.folder_of(best) / "bimo.yaml"
    values, given = read_yaml(path), to_mapping(shared)
    for key in LEFT_OPEN:
        values[key] = given[key]
    if "model.dropout" not in best.parameters:
        values["model"]["dropout"] = given["model"]["dropout"]  # the plan's, by how often the text is read
    config = from_mapping(TrainConfig, values, where=str(path))
    head = (
        f"# The best of {len(record.trials)} trials ({best.name}): {best.value:.3f} bits per byte of validation text"
        f" after {best.wall_seconds:.0f} s.\n"
        f"# With more time it gets better: bimo train {record.folder}/best.yaml --budget 1h --out runs/best\n"
    )
    files.write_text(record.folder / "best.yaml", head + _yaml(config))


def _yaml(config: TrainConfig) -> str:
    """The configuration without the values that were left open."""
    import yaml

    def known(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: found for key, one in value.items() if (found := known(one)) not in (None, {}, [])}
        return [known(item) for item in value] if isinstance(value, (list, tuple)) else value

    return yaml.safe_dump(known(to_mapping(config)), sort_keys=False, allow_unicode=True)


def shown(parameters: Mapping[str, Value]) -> str:
    """``width 128, learning_rate 0.013``: the values of a trial in a line."""
    return ", ".join(f"{short(key)} {value}" for key, value in parameters.items())


def short(key: str) -> str:
    """The last word of a key; a data weight keeps its mark."""
    return key if key.startswith(MIX) else key.rpartition(".")[2]


class SweepBar:
    """What moves while a sweep works: the trial, the best so far, and the time."""

    def __init__(self, display: Display, total: float, elapsed: Callable[[], float]) -> None:
        self._console, self._elapsed, self._head = display.console, elapsed, ""
        self._facts = Text(no_wrap=True, overflow="ellipsis")
        columns = (BarColumn(bar_width=None), TextColumn("{task.fields[left]} left"))
        self._bar = Progress(*columns, console=self._console, expand=True)
        self._total = total
        self._task = self._bar.add_task("", total=total, left="")
        self._live = Live(Group(self._facts, self._bar), console=self._console, refresh_per_second=4)

    def __enter__(self) -> SweepBar:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def trial(self, trial: Trial, record: Record) -> None:
        """A trial begins."""
        best = f"   best {record.finished[0].value:.3f}" if record.finished else ""
        self._head = f"trial {trial.number}  {shown(trial.parameters)}{best}"
        self._facts.plain = self._head
        self._move()

    def step(self, progress: TrainingProgress) -> None:
        """A step was taken."""
        self._facts.plain = f"{self._head}   step {progress.step}/{progress.steps}  loss {progress.loss:.3f}"
        self._move()

    def done(self, trial: Trial, record: Record) -> None:
        """A trial ended: a line that stays."""
        outcome = {
            FINISHED: f"{trial.value or 0:.3f} bits/byte",
            PRUNED: f"pruned at {trial.reports[-1][1] if trial.reports else 0:.3f}",
        }.get(trial.state, trial.state)
        best = "  best so far" if record.finished and record.finished[0] is trial else ""
        size = f"  {trial.size / 1e6:.2f}M parameters" if trial.size else ""
        reason = f"  {trial.reason}" if trial.reason else ""
        line = f"trial {trial.number:<3} {outcome:<18} {trial.wall_seconds:5.0f} s{size}  {shown(trial.parameters)}"
        self._console.print(f"{line}{best}{reason}", markup=False, soft_wrap=True)

    def _move(self) -> None:
        done = self._elapsed()
        left = max(0.0, self._total - done)
        self._bar.update(self._task, completed=done, left=f"{int(left // 60)}:{int(left % 60):02}")
