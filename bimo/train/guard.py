"""Stops a training that has diverged: the loss left its trend for good, or is no number any more.

The last checkpoint from before is kept, whatever was written since, and the error says how to go on from it.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from bimo.errors import RunError, TrainingError
from bimo.optim import OptimizerConfig
from bimo.run import Run
from bimo.train.checkpoint import steps_of
from bimo.train.lineage import Lineage
from bimo.train.loop import NotFinite, Progress

STREAK = 10  # steps in a row that the loss must be off its trend
LEAST, SPREADS = 0.5, 5.0  # nats, and spreads, above the best smoothed loss at which a step is off the trend
LABEL_SPREAD = 2.5  # nats: of the losses of single tokens, before the spread of whole steps is known
ENOUGH = 0.5  # of that height is where a streak ends: a diverged loss swings, but does not come back
ON_TREND = 0.35  # of that height is where the last good checkpoint was taken
MEMORY = 0.9  # of the smoothed loss, a step
FIRST = 10  # losses that say where a trend begins: a model that starts from word pairs loses some of them at first
EARLY = 2.0  # so many times higher is off the trend after the first loss, half of that after the second, and so on
CHANGEABLE = ("optimizer.", "schedule.")  # what may be changed to go on after divergence
FIXED = "optimizer.name"  # its state would not fit
DIVERGED = "diverged"


class Named(Protocol):
    """Text whose documents have names."""

    def document_at(self, position: int, /) -> str:
        """The document from which a row of a batch begins, by the batch's ``positions``."""
        ...


@dataclass
class Trend:
    """Where the loss has been; part of every checkpoint.

    Attributes:
        smooth: mean of the last losses, older ones counting less.
        best: its lowest so far.
        spread: mean distance of neighbouring losses, in the same way.
        last: the loss of the last step.
        streak: steps in a row that were off the trend.
        on: the last step whose loss was on the trend.
        count: losses that were taken into the mean; of the first ones, which differ most, it is a plain mean.
    """

    smooth: float = math.nan
    best: float = math.inf
    spread: float = 0.0
    last: float = math.nan
    streak: int = 0
    on: int = 0
    count: int = 0

    @property
    def good(self) -> int:
        """The newest step after which the weights are known to be good: the loss of the next one was on the trend."""
        return max(0, self.on - 1)

    def update(self, step: int, loss: float, labels: float) -> bool:
        """Take in the loss of one step, a mean over ``labels``; whether training has diverged."""
        if math.isnan(self.smooth):
            self.smooth = self.best = self.last = loss
            self.spread = LABEL_SPREAD / max(1.0, labels) ** 0.5
        height = (loss - self.best) / (max(LEAST, SPREADS * self.spread) * (1 + EARLY / max(1, self.count)))
        self.streak = self.streak + 1 if height > (ENOUGH if self.streak else 1.0) else 0
        if height <= ON_TREND:  # what is off the trend must not widen it
            self.on = step
            self.spread = MEMORY * self.spread + (1 - MEMORY) * abs(loss - self.last)
        if not self.streak:
            self.count += 1
            self.smooth += max(1 - MEMORY, 1 / self.count) * (loss - self.smooth)
            self.best = min(self.best, self.smooth) if self.count > FIRST else self.smooth
        self.last = loss
        return self.streak >= STREAK


class Diverged(TrainingError):
    """The loss left its trend at ``step`` and did not come back."""

    def __init__(self, step: int, got: str, fix: str) -> None:
        self.step = step
        expected = "a loss that falls, or comes back after a spike"
        super().__init__(f"Training diverged at step {step}.", expected=expected, got=got, fix=fix)


class Guard:
    """A hook that ends training when it diverges, before a checkpoint of the ruined model is written.

    Args:
        checkpoints: the folder of the run's checkpoints.
        state: that of a checkpoint, or None.
    """

    def __init__(
        self, lineage: Lineage, checkpoints: Path, optimizer: OptimizerConfig, state: Mapping[str, Any] | None
    ) -> None:
        self._lineage, self._checkpoints, self._optimizer = lineage, checkpoints, optimizer
        self.trend = Trend(**(state or {}))

    def __call__(self, progress: Progress) -> None:
        """Raises Diverged."""
        if not self.trend.update(progress.step, progress.loss, progress.tokens / progress.step):
            return
        turned = self.trend.on + 1
        rate = f"{self._optimizer.learning_rate * progress.multiplier:.3g}"
        got = (
            f"{progress.loss:.2f} nats at step {progress.step} after {self.trend.best:.2f} at best, "
            f"with a learning rate of {rate}"
        )
        raise Diverged(
            turned, got, self._fall_back(f"step {turned}: the loss left its trend; stopped at {progress.step}")
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return asdict(self.trend)

    @contextlib.contextmanager
    def explaining(self, text: Named) -> Iterator[None]:
        """Add to a loss or gradient that is not finite the documents of its batch, and how to go on."""
        try:
            yield
        except NotFinite as cause:
            fix = self._fall_back(f"step {cause.step}: {cause.problem}")
            documents = {text.document_at(int(position)) for position in cause.batch.positions}
            raise NotFinite(cause.step, cause.batch, cause.what, sorted(documents), fix) from None

    def _fall_back(self, event: str) -> str:
        """Leave only checkpoints from before, and say how to go on from the newest of them."""
        steps = steps_of(self._checkpoints)
        left = [number for folder in steps if (number := _number(folder)) <= self.trend.good]
        for folder in steps[len(left) :]:
            shutil.rmtree(folder, ignore_errors=True)
        self._lineage.values["status"] = DIVERGED
        self._lineage.event(event)
        rates = (
            ("learning_rate", self._optimizer.learning_rate),
            ("adamw_learning_rate", self._optimizer.adamw_learning_rate),
        )
        halved = " ".join(f"optimizer.{name}={rate / 2:.3g}" for name, rate in rates)
        where = (
            f"the checkpoint of step {left[-1]}, the last good one"
            if left
            else "the beginning, as no checkpoint was due yet"
        )
        return f"Go on from {where}, with half the learning rates: add --resume --set {halved} to the same --out."


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def check_changes(run: Run, lineage: Lineage, changes: Iterable[str]) -> None:
    """Allow the changes with which a diverged run may go on; a run that did not diverge allows none.

    Args:
        changes: lines of ``bimo.config.differences``.

    Raises:
        RunError: a change that is not allowed, or none where one is needed.
    """
    changes = list(changes)
    if lineage.values["status"] != DIVERGED:
        if changes:
            problem = f"{run.path} cannot be resumed with another configuration."
            raise RunError(problem, expected="the configuration it began with, or none", got=", ".join(changes))
        return
    refused = [line for line in changes if not line.startswith(CHANGEABLE) or line.startswith(FIXED + ":")]
    fix = "Add --set optimizer.learning_rate=... optimizer.adamw_learning_rate=..., about half of what they were."
    if refused:
        expected = "after divergence, only other numbers of optimizer.* and schedule.*"
        raise RunError(f"{run.path} cannot be resumed so.", expected=expected, got=", ".join(refused), fix=fix)
    if not changes:
        problem = f"{run.path} diverged, and would again."
        raise RunError(problem, expected="a lower learning rate", got="no change", fix=fix)
