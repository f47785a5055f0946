"""What a sweep's record says, read for its page and its table: trials, the trade-off front, what each key mattered."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bimo import files
from bimo.errors import RunError
from bimo.report.facts import at, entries, measured, number, text

FEW_TRIALS = 10  # finished ones, below which no ranking of keys is to be trusted
FEWEST_TRIALS = 5  # finished ones, below which none is made
RANGE, CHOICES = "range", "choices"
TWENTIETHS = 20  # of its budget are the unit that the reports of a trial are placed by


@dataclass(frozen=True)
class TrialFacts:
    """One trial as recorded; ``front`` marks those that no finished trial beats with as few parameters."""

    number: int
    state: str
    parameters: Mapping[str, Any]
    value: float | None
    reports: tuple[tuple[float, float], ...]  # (share of its budget, bits per byte)
    size: float | None
    seconds: float | None
    wall: float | None
    reason: str
    front: bool = False


@dataclass(frozen=True)
class Key:
    """A searched key, and how it went with the outcome of the finished trials.

    Attributes:
        strength: from 0 to 1: the rank correlation of a range, the correlation ratio of the ranks for choices.
        rising: whether larger values of a range went with more bits per byte.
        means: mean bits per byte by choice, the best first.
    """

    name: str
    kind: str
    log: bool
    strength: float | None
    rising: bool
    means: tuple[tuple[str, float, int], ...]


@dataclass(frozen=True)
class SweepFacts:
    """A sweep's record.

    Attributes:
        start: values of the first trial, the configuration's own.
    """

    name: str
    values: Mapping[str, Any]
    trials: tuple[TrialFacts, ...]
    keys: tuple[Key, ...]
    start: Mapping[str, Any]

    def count(self, *states: str) -> int:
        """Trials in these states."""
        return sum(trial.state in states for trial in self.trials)

    @property
    def finished(self) -> tuple[TrialFacts, ...]:
        """The finished trials, best first."""
        done = [trial for trial in self.trials if trial.state == "finished" and trial.value is not None]
        return tuple(sorted(done, key=lambda trial: (trial.value or 0.0, trial.number)))

    @property
    def best(self) -> TrialFacts | None:
        """The best finished trial."""
        return self.finished[0] if self.finished else None

    @property
    def over(self) -> bool:
        """Whether the sweep came to its end."""
        return text(at(self.values, "status")) == "finished"

    @property
    def test(self) -> Any:
        """The best trial's bits per byte of the test text."""
        return measured(at(self.values, "test_bits_per_byte"))


def read_sweep(folder: Path) -> SweepFacts:
    """Read ``sweep.json`` in ``folder``.

    Raises:
        RunError: there is none, or it is damaged.
    """
    values = files.read_json(folder / "sweep.json", error=RunError, expected="the record of a sweep")
    trials = [_trial(one, place) for place, one in enumerate(entries(values.get("trials")))]
    front = {one.number for one in _front(trials)}
    marked = tuple(TrialFacts(**{**vars(trial), "front": trial.number in front}) for trial in trials)
    space, start = at(values, "plan.space"), at(values, "plan.start")
    found = SweepFacts(folder.resolve().name, values, marked, (), start if isinstance(start, Mapping) else {})
    keys = _keys(space if isinstance(space, Mapping) else {}, found.finished)
    return SweepFacts(found.name, values, marked, keys, found.start)


def _trial(one: Mapping[str, Any], place: int) -> TrialFacts:
    reports = one.get("reports")
    pairs = [pair for pair in reports if isinstance(pair, list) and len(pair) == 2] if isinstance(reports, list) else []
    parameters = one.get("parameters")
    return TrialFacts(
        number=int(number(one.get("number")) or place),
        state=text(one.get("state")),
        parameters=parameters if isinstance(parameters, Mapping) else {},
        value=number(one.get("value")),
        reports=tuple((share / TWENTIETHS, value) for share, value in pairs),
        size=number(one.get("size")),
        seconds=number(one.get("seconds")),
        wall=number(one.get("wall_seconds")),
        reason=text(one.get("reason")),
    )


def _front(trials: Sequence[TrialFacts]) -> list[TrialFacts]:
    """The finished trials that no other one beats with as few parameters, the smallest model first."""
    done = [one for one in trials if one.state == "finished" and one.value is not None and one.size is not None]
    found: list[TrialFacts] = []
    for one in sorted(done, key=lambda trial: (trial.size or 0.0, trial.value or 0.0)):
        if not found or (one.value or 0.0) < (found[-1].value or 0.0):
            found.append(one)
    return found


def lower_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one beats with as little of the first coordinate, in its order."""
    found: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not found or y < found[-1][1]:
            found.append((x, y))
    return found


def _keys(space: Mapping[str, Any], finished: Sequence[TrialFacts]) -> tuple[Key, ...]:
    flat: dict[str, Any] = {}
    for name, one in space.items():
        if name == "mix" and isinstance(one, Mapping):
            flat.update({f"mix.{source}": weights for source, weights in one.items()})
        else:
            flat[str(name)] = one
    keys = [_key(name, one, finished) for name, one in flat.items()]
    return tuple(sorted(keys, key=lambda key: -(key.strength or 0.0)))


def _key(name: str, space: Any, finished: Sequence[TrialFacts]) -> Key:
    pairs = [(one.parameters.get(name), one.value) for one in finished if one.value is not None]
    enough = len(pairs) >= FEWEST_TRIALS
    if isinstance(space, Mapping):
        known = [(found, bits) for value, bits in pairs if (found := number(value)) is not None]
        rho = rank_correlation([value for value, _ in known], [bits for _, bits in known])
        strength = abs(rho) if rho is not None and enough else None
        return Key(name, RANGE, space.get("log") is True, strength, (rho or 0.0) > 0, ())
    groups: dict[str, list[float]] = {}
    for value, bits in pairs:
        groups.setdefault(text(value) or "null", []).append(bits)
    ranked = ranks([bits for _, bits in pairs])
    strength = correlation_ratio([text(value) or "null" for value, _ in pairs], ranked)
    means = sorted(((choice, statistics.fmean(bits), len(bits)) for choice, bits in groups.items()), key=lambda m: m[1])
    return Key(name, CHOICES, False, strength if enough else None, False, tuple(means))


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value from 1 up; equal ones share the mean of theirs."""
    order = sorted(values)
    return [order.index(value) + (order.count(value) + 1) / 2 for value in values]


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Spearman's rank correlation, from -1 to 1; None for fewer than three pairs, or where one side never changes."""
    if len(left) < 3 or len(set(left)) < 2 or len(set(right)) < 2:
        return None
    return statistics.correlation(ranks(left), ranks(right))


def correlation_ratio(groups: Sequence[str], values: Sequence[float]) -> float | None:
    """How much of the spread of the values lies between the groups: the root of the share of the variance, 0 to 1."""
    if len(values) < 3 or len(set(groups)) < 2 or len(set(values)) < 2:
        return None
    mean = statistics.fmean(values)
    total = sum((value - mean) ** 2 for value in values)
    between = 0.0
    for group in set(groups):
        own = [value for one, value in zip(groups, values, strict=True) if one == group]
        between += len(own) * (statistics.fmean(own) - mean) ** 2
    return float((between / total) ** 0.5)
