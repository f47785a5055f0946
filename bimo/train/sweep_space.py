"""The space that a sweep searches: configuration keys, each with choices or a range; read from YAML and checked."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bimo.config import from_mapping
from bimo.errors import ConfigError, did_you_mean
from bimo.train.config import TrainConfig

Value = bool | int | float | str | None
MIX = "mix."  # begins the names of data weights among the parameters
OWN = ("trials", "trial_budget", "mix")  # keys of the sweep itself
DIGITS = 4  # of a suggested number: more say nothing
REFUSED = {
    "data": "use mix to search how often each source is read",
    "budget": "every trial gets the same share of the sweep's --budget; sweep.trial_budget pins it",
    "steps": "they follow from a trial's budget",
    "seed": "another seed holds out other documents, and then trials cannot be compared",
    "reading": "what is held out has to be the same for all trials; use mix for data weights",
    "device": "all trials run on the same device",
    "threads": "they change the time of a step, not what is learnt",
    "evaluate_every": "trials are compared at the same shares of their budgets",
    "checkpoint_every": "it changes nothing that is learnt",
}
EXAMPLE = "a list of choices such as [96, 128], or a range such as {low: 0.005, high: 0.05, log: true}"


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Value, ...]

    def plain(self) -> Any:
        """As in YAML."""
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        log: whether factors count, not differences.
        whole: whether they are whole numbers.
        step: the distance between them; None for any.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False
    step: float | None = None

    def plain(self) -> Any:
        """As in YAML."""
        options = {"log": self.log or None, "step": self.step}
        return {
            "low": self.low,
            "high": self.high,
            **{key: value for key, value in options.items() if value is not None},
        }


Space = Mapping[str, Choices | Range]


@dataclass(frozen=True)
class SweepConfig:
    """The ``sweep:`` section.

    Attributes:
        space: by configuration key, or ``mix.`` and the name of a source.
        trials: the number of trials, at most; None: as many as the budget pays for.
        trial_budget: of each trial; None: an equal share of the sweep's.
    """

    space: Space
    trials: int | None = None
    trial_budget: str | None = None


def parse_sweep(section: Any, data: typing.Sequence[str], *, where: str) -> SweepConfig:
    """Read the ``sweep:`` section of a configuration.

    Args:
        data: the names of the sources that ``mix`` may speak of.
        where: what it came from, for the error message.

    Raises:
        ConfigError: a key is unknown or cannot be searched, or what it holds is neither choices nor a possible range.
    """
    if not isinstance(section, Mapping) or not section:
        expected = f"sweep: with configuration keys, each with {EXAMPLE}"
        raise ConfigError(f"{where}: there is nothing to search.", expected=expected, got=repr(section))
    space: dict[str, Choices | Range] = {}
    for key, value in section.items():
        if key not in OWN:
            _check_key(str(key), where)
            space[str(key)] = _parse(str(key), value, where)
    mix = section.get("mix", {})
    if not isinstance(mix, Mapping):
        expected = "names of data, each with a range such as {low: 0, high: 3}"
        raise ConfigError(f"{where}: sweep.mix is wrong.", expected=expected, got=repr(mix))
    for name, value in mix.items():
        if name not in data:
            fix = did_you_mean(str(name), data)
            raise ConfigError(f"{where}: sweep.mix speaks of '{name}', which is not in data.", fix=fix)
        space[MIX + str(name)] = _parse(MIX + str(name), value, where)
    trials, budget = section.get("trials"), section.get("trial_budget")
    if trials is not None and (not isinstance(trials, int) or isinstance(trials, bool) or trials < 2):
        raise ConfigError(f"{where}: sweep.trials is wrong.", expected="a whole number from 2 up", got=repr(trials))
    if not space:
        raise ConfigError(f"{where}: there is nothing to search.", expected=f"configuration keys, each with {EXAMPLE}")
    return SweepConfig(space, trials, None if budget is None else str(budget))


def known_keys(owner: type = TrainConfig, prefix: str = "") -> Iterator[str]:
    """All keys of the configuration, dotted."""
    hints = typing.get_type_hints(owner)
    for field in dataclasses.fields(owner):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from known_keys(typing.cast(type, hints[field.name]), f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _check_key(key: str, where: str) -> None:
    refused = REFUSED.get(key) or REFUSED.get(key.partition(".")[0])
    if refused:
        raise ConfigError(f"{where}: sweep.{key} cannot be searched: {refused}.")
    known = set(known_keys())
    if key not in known:
        fix = did_you_mean(key, {one for one in known if not {one, one.partition(".")[0]} & set(REFUSED)} | set(OWN))
        raise ConfigError(f"{where}: sweep has the unknown key '{key}'.", fix=fix)


def nested(key: str, value: Any) -> dict[str, Any]:
    """``{"model": {"width": 96}}`` from ``model.width`` and 96."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return typing.cast(dict[str, Any], value)


def _converted(key: str, value: Any, where: str) -> Value:
    """The value as the configuration would hold it; weights of data are numbers from 0 up."""
    if key.startswith(MIX):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ConfigError(f"{where}: sweep.{key} is wrong.", expected="numbers from 0 up", got=repr(value))
        return float(value)
    found: Any = from_mapping(TrainConfig, nested(key, value), where=f"{where}: sweep")
    for name in key.split("."):
        found = getattr(found, name)
    return typing.cast(Value, found)


def _parse(key: str, value: Any, where: str) -> Choices | Range:
    if isinstance(value, (list, tuple)) and value:
        return Choices(tuple(dict.fromkeys(_converted(key, one, where) for one in value)))
    if not isinstance(value, Mapping) or not {"low", "high"} <= set(value) <= {"low", "high", "log", "step"}:
        raise ConfigError(f"{where}: sweep.{key} is not a space.", expected=EXAMPLE, got=repr(value))
    low, high = (_converted(key, value[end], where) for end in ("low", "high"))
    if isinstance(low, bool) or not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        expected = "a list of choices, because it is not a number"
        raise ConfigError(f"{where}: sweep.{key} cannot have a range.", expected=expected, got=repr(value))
    log, step = value.get("log", False), value.get("step")
    whole = isinstance(low, int)
    if low >= high:
        raise ConfigError(f"{where}: the range of sweep.{key} is empty.", expected="low below high", got=repr(value))
    if not isinstance(log, bool):
        raise ConfigError(f"{where}: sweep.{key} is wrong.", expected="log: true or false", got=repr(log))
    if log and low <= 0:
        expected = "low above 0, because of log: true"
        raise ConfigError(f"{where}: the range of sweep.{key} is impossible.", expected=expected, got=repr(value))
    if step is not None:
        number = isinstance(step, int if whole else (int, float)) and not isinstance(step, bool)
        if not number or not 0 < step <= high - low or log:
            expected = "step above 0, no longer than the range, and not with log: true"
            raise ConfigError(f"{where}: sweep.{key} is wrong.", expected=expected, got=repr(value))
    return Range(low, high, log, whole, step)


def rounded(value: Value, space: Choices | Range) -> Value:
    """A suggested value with few digits, inside the space as before."""
    if not isinstance(value, float) or not isinstance(space, Range) or space.step is not None:
        return value
    return min(float(space.high), max(float(space.low), float(f"{value:.{DIGITS}g}")))


def inside(value: Any, space: Choices | Range) -> bool:
    """Whether the space holds this value."""
    if isinstance(space, Choices):
        return any(value == one and type(value) is type(one) for one in space.values)
    number = isinstance(value, int if space.whole else (int, float)) and not isinstance(value, bool)
    if not number or not space.low <= value <= space.high:
        return False
    places = (value - space.low) / space.step if space.step else 0.0
    return abs(places - round(places)) < 1e-6


def with_values(
    config: Mapping[str, Any], parameters: Mapping[str, Value], data: typing.Sequence[str]
) -> dict[str, Any]:
    """A plain configuration with the values of a trial in their places."""
    result = _copy(config)
    weights = {name: parameters.get(MIX + name) for name in data}
    if any(weight is not None for weight in weights.values()):
        fixed = [1.0 if weight is None else weight for weight in weights.values()]
        result.setdefault("reading", {})["weights"] = fixed
    for key, value in parameters.items():
        if not key.startswith(MIX):
            *path, last = key.split(".")
            owner = result
            for name in path:
                owner = owner.setdefault(name, {})
            owner[last] = value
    return result


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key of a plain configuration; None where there is none."""
    found: Any = config
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value
