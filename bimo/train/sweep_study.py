"""What Optuna decides: the values of the next trial, and whether a running one is worth its time.

The study lives in memory and is made anew from the sweep's own record before each trial, and the sampler is seeded by
the number of the trial: so a sweep that was cut off suggests what it would have suggested, and nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bimo.device import seed_for
from bimo.errors import ConfigError
from bimo.train.sweep_record import Trial
from bimo.train.sweep_space import Choices, Range, Space, Value, rounded

SHARES = 20  # of a trial's budget, at which trials are compared
WARM_UP = 5  # shares that every trial may take
ATTEMPTS = 50  # to find a combination that was not tried yet


def require_optuna() -> None:
    """Fail early and clearly where Optuna is not installed."""
    try:
        import optuna
    except ImportError:
        fix = "pip install 'bimo[sweep]'"
        raise ConfigError("A sweep needs Optuna, which is not installed.", fix=fix) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class Study:
    """Suggestions and pruning for one space.

    Args:
        start: values of the first trial, for some or all keys.
        trials: the number of trials expected; the first few of them are drawn at random.
    """

    def __init__(self, space: Space, *, seed: int, trials: int, start: Mapping[str, Value]) -> None:
        self._space, self._seed, self._start = space, seed, start
        self._random = max(3, min(10, trials // 3))
        self._unpruned = max(2, min(5, trials // 4))

    def suggest(self, before: Sequence[Trial]) -> dict[str, Value] | None:
        """The values of the next trial, given all trials before it; None when every combination has been tried."""
        number, tried = len(before), [trial.parameters for trial in before]
        for attempt in range(ATTEMPTS):
            study = self._study(before, seed_for(self._seed, "sweep", number, attempt) % (1 << 32))
            if number == 0 and self._start:
                study.enqueue_trial(dict(self._start))
            suggested = self._ask(study)
            values = {key: rounded(suggested.params[key], space) for key, space in self._space.items()}
            if values not in tried:
                return values
        return None

    def watch(self, before: Sequence[Trial], parameters: Mapping[str, Value]) -> Watched:
        """Follow a trial with these values, to tell when it is not worth going on."""
        study = self._study(before, 0)
        study.enqueue_trial(dict(parameters))
        return Watched(self._ask(study))

    def _study(self, before: Sequence[Trial], seed: int) -> Any:
        import optuna

        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=self._random),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=self._unpruned, n_warmup_steps=WARM_UP),
        )
        states = optuna.trial.TrialState
        for trial in before:
            complete = trial.state == "finished"
            study.add_trial(
                optuna.trial.create_trial(
                    # What failed or diverged has no value; as pruned at once, the sampler learns to keep away from it.
                    state=states.COMPLETE if complete else states.PRUNED,
                    value=trial.value if complete else None,
                    params=dict(trial.parameters),
                    distributions={key: _distribution(space) for key, space in self._space.items()},
                    intermediate_values=dict(trial.reports) if trial.state in ("finished", "pruned") else {},
                )
            )
        return study

    def _ask(self, study: Any) -> Any:
        return study.ask({key: _distribution(space) for key, space in self._space.items()})


class Watched:
    """A running trial: takes its validations, and says when its best is worse than the median of the others'."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial
        self.reports: list[tuple[int, float]] = []

    def worse_than_most(self, share: int, value: float) -> bool:
        """Report bits per byte at a share of the budget (in twentieths); whether the trial should be pruned."""
        if self.reports and share <= self.reports[-1][0]:
            return False
        self.reports.append((share, value))
        self._trial.report(value, share)
        return bool(self._trial.should_prune())


def _distribution(space: Choices | Range) -> Any:
    import optuna

    if isinstance(space, Choices):
        return optuna.distributions.CategoricalDistribution(space.values)
    if space.whole:
        step = 1 if space.step is None else int(space.step)
        return optuna.distributions.IntDistribution(int(space.low), _top(space, step), log=space.log, step=step)
    high = space.high if space.step is None else float(_top(space, space.step))
    return optuna.distributions.FloatDistribution(space.low, high, log=space.log, step=space.step)


def _top(space: Range, step: float) -> Any:
    """The last value of a range that a number of steps reaches; Optuna would warn and do the same."""
    return space.low + int((space.high - space.low) / step + 1e-9) * step
