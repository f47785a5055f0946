"""Searching configurations: many short runs of one budget, compared on the same validation text, cut off when poor."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bimo import files
from bimo.config import differences, from_mapping, read_yaml, to_mapping, with_overrides
from bimo.device import resolve_device
from bimo.errors import BimoError, ConfigError, ModelError, RunError, TrainingError
from bimo.report.sweep import write_sweep_page
from bimo.run import Run
from bimo.train.budget import Budget, parse_budget
from bimo.train.choice import SHAPES
from bimo.train.config import TrainConfig
from bimo.train.display import Display
from bimo.train.loop import NotFinite
from bimo.train.plan import Plan, plan_arithmetic, plan_kernels, plan_shape, plan_vocabulary
from bimo.train.pretrain import train
from bimo.train.probe import probe
from bimo.train.sweep_record import DIVERGED, FAILED, FILE, FINISHED, RUNNING, Record, Trial
from bimo.train.sweep_space import SweepConfig, Value, inside, parse_sweep, value_at, with_values
from bimo.train.sweep_study import Study, require_optuna
from bimo.train.sweep_texts import SharedTexts
from bimo.train.sweep_trial import SweepBar, TrialRun, best_yaml, measure_test

DEFAULT_BUDGET = "30m"
DEFAULT_OUT = "runs/sweep"
SHARED = "shared"  # the folder of text, tokenizers and shards
SHORTEST_TRIAL = 15.0  # seconds, where trial_budget does not say otherwise
MOST_TRIALS = 60  # that a budget is divided into
TRIALS_BY_COUNT = 12  # where a trial's budget is not a time
CLOSING_SHARE = 0.06  # of the budget for the test figure, before the first trial tells how long it takes
SLACK = 0.1  # of a trial's budget that the last one may lack
MOST_FAILURES = 6  # in a row, from the first trial on, after which the sweep gives up
PINNED = (
    *("dtype", "threads", "tokenizer.vocab_size", "batch.size"),
    *("model.width", "model.layers", "model.context"),
)


def sweep(
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    data: Sequence[str] | None = None,
    budget: str | None = None,
    out: str | Path = DEFAULT_OUT,
    overrides: Iterable[str] = (),
    began: float | None = None,
    display: Display | None = None,
) -> Record:
    """Search configurations, or go on with a search that was cut off.

    Args:
        config: a YAML file or plain values: those of `bimo train`, and ``sweep:`` with the space.
        data: files, folders, prepared folders or corpus names.
        budget: wall-clock time of the whole, such as "30m".
        out: the folder of the sweep.
        overrides: ``key=value`` strings for what all trials share.
        began: ``time.monotonic()`` when the budget started to run; now by default.

    Returns:
        The record; its best trial has been measured on the test text.

    Raises:
        BimoError: with what was expected, what came, and the next step; what was finished stays.
        KeyboardInterrupt: stopped by a signal; the same call goes on.
    """
    began = time.monotonic() if began is None else began
    display, folder = display or Display(), Path(out)
    require_optuna()
    where = str(config) if isinstance(config, (str, Path)) else "configuration"
    given = dict(read_yaml(Path(config)) if isinstance(config, (str, Path)) else config or {})
    if data:
        given["data"] = [str(one) for one in data]
    given = with_overrides(given, overrides)
    section = given.pop("sweep", None)
    budget = budget or given.pop("budget", None)
    given.pop("budget", None)
    shared = from_mapping(TrainConfig, given, where=where)
    searched = None if section is None and config is None else parse_sweep(section, shared.data, where=where)
    settings = {"config": given, "sweep": None if section is None else section}

    record = Record.read(folder)
    if record is None:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        record = Record.begin(folder, settings, budget or DEFAULT_BUDGET, created)
    else:
        changes = list(differences(record.settings, settings))
        if changes:
            expected, fix = "the configuration it began with", "Choose another --out."
            raise RunError(f"{folder} is another sweep.", expected=expected, got=", ".join(changes), fix=fix)
        if record.status == FINISHED:
            display.note(f"{folder} is finished. For another sweep, choose another --out.")
            return record
        record.budget = budget or record.budget
    total = parse_budget(record.budget).seconds
    if total is None:
        expected = "a time such as 30m; trials can have a budget in tokens: sweep.trial_budget"
        raise ConfigError("The budget of a sweep is a wall-clock time.", expected=expected, got=record.budget)
    with _begun(record):
        record.write()
        driver = _Sweep(record, shared, searched, display, began=began - _spent(record), total=total)
        driver.run()
    return record


def _spent(record: Record) -> float:
    """Seconds used by earlier sessions, those of a trial that was killed included."""
    spent = record.spent
    for trial in record.trials:
        run = Run(record.folder_of(trial))
        if trial.state == RUNNING and run.lineage.exists():
            spent += max(0.0, float(run.read_lineage()["cost"]["wall_seconds"]) - trial.wall_seconds)
    return spent


@contextlib.contextmanager
def _begun(record: Record) -> Iterator[None]:
    """What a sweep that failed before its first trial was planned has written is removed."""
    try:
        yield
    finally:
        if not record.plan and record.folder.is_dir():
            shutil.rmtree(record.folder / SHARED, ignore_errors=True)
            (record.folder / FILE).unlink(missing_ok=True)
            record.folder.rmdir()


class _Sweep:
    """One session of a sweep; ``began`` lies as far back as earlier sessions took."""

    def __init__(
        self,
        record: Record,
        shared: TrainConfig,
        searched: SweepConfig | None,
        display: Display,
        *,
        began: float,
        total: float,
    ) -> None:
        self.record, self.shared, self.display = record, shared, display
        self.began, self.end = began, began + total
        self.texts = SharedTexts(record.folder / SHARED, shared, display)
        if not record.plan:
            self._settle(searched)
        elif record.plan["data_hash"] != self.texts.split.data_hash:
            expected, got = record.plan["data_hash"][:12], self.texts.split.data_hash[:12]
            raise RunError(f"{record.folder} cannot go on: the text changed.", expected=f"text {expected}", got=got)
        plan = record.plan
        self.space = parse_sweep(plan["space"], shared.data, where="sweep.json").space
        self.trial_budget: str = plan["trial_budget"]
        self.trial_seconds = parse_budget(self.trial_budget).seconds
        self.study = Study(self.space, seed=shared.seed, trials=plan["trials"], start=plan["start"])
        self.closing = CLOSING_SHARE * total

    def left(self) -> float:
        """Seconds until the best trial has to be measured."""
        return self.end - self.closing - time.monotonic()

    def save(self) -> None:
        """Write the record and its page."""
        self.record.write(time.monotonic() - self.began)
        write_sweep_page(self.record.folder)

    def _settle(self, searched: SweepConfig | None) -> None:
        """Before the first trial: divide the budget, pin what trials share, make tokenizer and shards."""
        left = (1 - CLOSING_SHARE) * (self.end - time.monotonic())
        trials, trial_budget = _divided(left, searched)
        config = self.shared
        plan = Plan(dataclasses.replace(config, device=resolve_device(config.device).type))  # type: ignore[arg-type]
        machine = probe(resolve_device(config.device))
        plan_arithmetic(plan, machine)
        plan_kernels(plan)
        plan_vocabulary(plan, trial_budget, machine, trial_budget.seconds, self.texts.split.train.bytes)
        plan_shape(plan, trial_budget, machine, trial_budget.seconds, self.texts.anchor(plan.config))
        chosen = to_mapping(plan.config)
        searched = searched or SweepConfig(_around(plan.config))
        pinned = {key: value_at(chosen, key) for key in PINNED if key not in searched.space}
        if trial_budget.seconds and searched.trial_budget is None:
            left = (1 - CLOSING_SHARE) * (self.end - time.monotonic())
            trial_budget = Budget(seconds=left / trials)
            _enough(left, trial_budget.seconds or 0.0)
        seconds = trial_budget.seconds
        start = {key: value_at(chosen, key) for key in searched.space}
        start |= {f"mix.{name}": 1.0 for name in config.data}
        self.record.plan = {
            "data_hash": self.texts.split.data_hash,
            "source": self.texts.source.name,
            "trials": trials,
            "most_trials": searched.trials,
            "trial_budget": searched.trial_budget or f"{seconds:.0f}s",
            "pinned": pinned,
            "space": _plain(searched),
            "start": {key: start[key] for key, space in searched.space.items() if inside(start.get(key), space)},
        }
        each = self.record.plan["trial_budget"]
        if seconds:
            room = "" if searched.trials else "; those that are pruned make room for more"
            self.display.note(f"{trials} trials of {each} each fit into {self.record.budget}{room}")
        else:
            self.display.note(f"up to {trials} trials of {each} each, as many as fit into {self.record.budget}")
        self.record.write(time.monotonic() - self.began)

    def run(self) -> None:
        """All trials there is time for, then the best one's test figure."""
        record = self.record
        try:
            with SweepBar(self.display, self.end - self.began, lambda: time.monotonic() - self.began) as bar:
                while (trial := self._next()) is not None:
                    bar.trial(trial, record)
                    self._run(trial, bar)
                    self.save()
                    bar.done(trial, record)
                    self._check_failures()
            self._close()
        except KeyboardInterrupt:
            for trial in record.trials:
                run = Run(record.folder_of(trial))
                if trial.state == RUNNING and run.lineage.exists():
                    trial.wall_seconds = float(run.read_lineage()["cost"]["wall_seconds"])
            self.save()
            self.display.note("Stopped; nothing is lost. The same command goes on.")
            raise

    def _next(self) -> Trial | None:
        """The trial that was cut off, or a new one; None when the sweep is over."""
        record = self.record
        if record.trials and record.trials[-1].state == RUNNING:
            return record.trials[-1]
        most = record.plan["most_trials"]
        longest = max((trial.wall_seconds for trial in record.trials), default=0.0)
        needed = longest if self.trial_seconds is None else (1 - SLACK) * self.trial_seconds
        if (most and len(record.trials) >= most) or self.left() < needed:
            return None
        parameters = self.study.suggest(record.trials)
        if parameters is None:
            record.events.append("every combination has been tried")
            return None
        record.trials.append(Trial(len(record.trials), parameters))
        record.write(time.monotonic() - self.began)
        return record.trials[-1]

    def configuration(self, parameters: Mapping[str, Value]) -> dict[str, Any]:
        """What `bimo train` would be given for these values."""
        values: dict[str, Any] = self.record.settings["config"]
        for key, value in self.record.plan["pinned"].items():
            if value_at(values, key) is None or key == "dtype":
                values = with_values(values, {key: value}, ())
        return {**with_values(values, parameters, self.shared.data), "budget": self.trial_budget}

    def _run(self, trial: Trial, bar: SweepBar) -> None:
        folder, config = self.record.folder_of(trial), self.configuration(trial.parameters)
        before = self.record.trials[: trial.number]
        began = time.monotonic()
        try:
            resolved = from_mapping(TrainConfig, config, where=f"trial {trial.number}")
            if "tokenizer.vocab_size" in self.space:
                self.texts.prepare(resolved)
            watched = self.study.watch(before, trial.parameters)
            trial.reports = []
            run = TrialRun(trial, watched, bar, self.end - self.closing)
            if "torch._dynamo" in sys.modules:
                torch.compiler.reset()  # or, after some shapes, layers would silently no longer be compiled
            lacking = 0.0 if self.trial_seconds is None else max(0.0, self.trial_seconds - self.left())
            around = run.surroundings(self.texts)
            train(config=config, out=folder, resume=True, reserve=lacking, began=began, quiet=True, around=around)
            trial.wall_seconds = float(Run(folder).read_lineage()["cost"]["wall_seconds"])
            self.closing = max(run.closing, CLOSING_SHARE / 3 * (self.end - self.began))
        except (ConfigError, TrainingError, ModelError, MemoryError, torch.OutOfMemoryError) as cause:
            trial.state = DIVERGED if isinstance(cause, NotFinite) else FAILED
            trial.reason = _reason(cause)
            trial.wall_seconds = round(time.monotonic() - began, 1)
            _mark(Run(folder), trial)

    def _check_failures(self) -> None:
        trials = self.record.trials
        if len(trials) >= MOST_FAILURES and all(trial.state in (FAILED, DIVERGED) for trial in trials):
            raise self._nothing_finished()

    def _nothing_finished(self) -> BimoError:
        reasons = list(dict.fromkeys(trial.reason for trial in self.record.trials if trial.reason))
        return TrainingError(
            f"None of the {len(self.record.trials)} trials came to its end.",
            expected="at least one finished trial",
            got="; ".join(reasons[:3]) or "no time for one",
            fix="Give a longer --budget, or a space with smaller models and lower learning rates.",
        )

    def _close(self) -> None:
        record = self.record
        if not record.finished:
            self.save()
            raise self._nothing_finished()
        best = record.finished[0]
        record.best = best.number
        best_yaml(record, best, self.shared)
        if record.test is None:
            record.test = measure_test(Run(record.folder_of(best)), self.display)
        record.status = FINISHED
        self.save()


def _divided(left: float, searched: SweepConfig | None) -> tuple[int, Budget]:
    """How many trials of which budget fit into the seconds that are left."""
    wanted = searched.trials if searched else None
    if searched and searched.trial_budget:
        budget = parse_budget(searched.trial_budget)
        if budget.seconds is None:
            return wanted or TRIALS_BY_COUNT, budget
        _enough(left, budget.seconds)
        return min(wanted or MOST_TRIALS, int(left / budget.seconds)), budget
    _enough(left, SHORTEST_TRIAL)
    fitting = int(left / SHORTEST_TRIAL)
    trials = min(fitting, wanted or min(MOST_TRIALS, max(2, round((left / 6) ** 0.5))))
    return trials, Budget(seconds=left / trials)


def _enough(left: float, seconds: float) -> None:
    if left < 2 * seconds * (1 - SLACK):
        raise TrainingError(
            "The budget is too short for a sweep.",
            expected=f"time for at least two trials of {seconds:.0f} s",
            got=f"{max(0.0, left):.0f} s after preparation",
            fix="Give a longer --budget, or set sweep.trial_budget to less.",
        )


def _around(config: TrainConfig) -> Any:
    """A space around what the plan chose: neighbouring shapes, and learning rates a third and three times as high."""
    model, optimizer = config.model, config.optimizer
    assert model.width and model.layers
    widths = sorted({width for width, _ in SHAPES} | {model.width})
    place = widths.index(model.width)
    space = {
        "model.width": widths[max(0, place - 1) : place + 2],
        "model.layers": sorted({max(1, model.layers - 1), model.layers, model.layers + 1}),
        **{
            f"optimizer.{name}": {"low": float(f"{rate / 3:.2g}"), "high": float(f"{rate * 3:.2g}"), "log": True}
            for name, rate in (
                ("learning_rate", optimizer.learning_rate),
                ("adamw_learning_rate", optimizer.adamw_learning_rate),
            )
        },
    }
    return parse_sweep(space, (), where="configuration").space


def _plain(searched: SweepConfig) -> dict[str, Any]:
    """The space as the ``sweep:`` section of a configuration would hold it."""
    section: dict[str, Any] = {}
    for key, space in searched.space.items():
        if key.startswith("mix."):
            section.setdefault("mix", {})[key.removeprefix("mix.")] = space.plain()
        else:
            section[key] = space.plain()
    return section


def _reason(cause: BaseException) -> str:
    """What went wrong, in a line; advice for a single run would not help."""
    if isinstance(cause, BimoError):
        return f"{cause.problem} Got {cause.got}." if cause.got else cause.problem
    return "The memory is used up."


def _mark(run: Run, trial: Trial) -> None:
    """Say in the lineage of a run, if it came that far, that it diverged or failed."""
    if run.lineage.exists():
        values = run.read_lineage()
        files.write_json(run.lineage, {**values, "status": trial.state})
