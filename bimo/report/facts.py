"""What a run says of itself, read tolerantly: a run that was cut off, or is of another version, is still shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from bimo.config import read_yaml
from bimo.errors import ConfigError
from bimo.run import Run
from bimo.text.corpora import CORPORA

SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
COUNTS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))
PARTS = ("train", "validation", "test")


class Measured(NamedTuple):
    """A number and its 95% interval, where it has one."""

    value: float
    low: float | None
    high: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Facts:
    """The files of a run, in memory.

    Attributes:
        name: of the run's folder.
        lineage: of ``lineage.json``.
        config: of ``bimo.yaml``; empty where it cannot be read.
        records: of ``metrics.jsonl``, in the order of their steps.
        samples: of ``samples.jsonl``: what the model wrote as it learnt.
    """

    name: str
    lineage: Mapping[str, Any]
    config: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]
    samples: tuple[Mapping[str, Any], ...] = ()

    def at(self, path: str) -> Any:
        """The lineage's value at a dotted path; None where there is none."""
        return at(self.lineage, path)

    def number(self, path: str) -> float | None:
        """The lineage's number at a dotted path."""
        return number(self.at(path))

    def measured(self, path: str) -> Measured | None:
        """The lineage's measurement at a dotted path."""
        return measured(self.at(path))

    def text(self, path: str) -> str:
        """The lineage's text at a dotted path, empty where there is none."""
        return text(self.at(path))

    def setting(self, path: str) -> str:
        """A value of the configuration as text, empty where there is none."""
        return text(at(self.config, path))

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.text("status") == "finished"

    @property
    def language(self) -> str:
        """The language of the text if it is a corpus that bimo knows, "en" or "code", else empty."""
        corpus = CORPORA.get(self.text("data.source"))
        return corpus.language if corpus else ""

    @property
    def training_seconds(self) -> float | None:
        """Seconds that training took, or has taken so far."""
        last = self.records[-1] if self.records else {}
        found = self.number("metrics.training_seconds")
        return number(last.get("seconds")) if found is None else found

    @property
    def steps(self) -> int | None:
        """Steps taken, or taken so far."""
        last = self.records[-1]["step"] if self.records else None
        found = self.number("metrics.steps")
        return last if found is None else round(found)

    @property
    def planned_steps(self) -> float | None:
        """Steps that the run set out to take."""
        return number(at(self.config, "steps"))

    @property
    def planned_seconds(self) -> float | None:
        """Seconds planned for training: the budget's, or those that the steps were expected to take."""
        seconds, step = self.number("plan.training_seconds"), self.number("plan.step_seconds")
        if seconds is None and step is not None and self.planned_steps is not None:
            return step * self.planned_steps
        return seconds

    @property
    def baselines(self) -> dict[str, Measured]:
        """Bits per byte of other methods on the same held-out text, the highest first."""
        found = self.at("metrics.baselines")
        values = {str(name): measured(value) for name, value in found.items()} if isinstance(found, Mapping) else {}
        known = [(name, value) for name, value in values.items() if value is not None]
        return dict(sorted(known, key=lambda item: -item[1].value))


def read_facts(run: Run) -> Facts:
    """Read the files of ``run``.

    Raises:
        RunError: it has no readable ``lineage.json``.
    """
    try:
        config = read_yaml(run.config)
    except ConfigError:
        config = {}
    records = [record for record in run.read_metrics() if isinstance(record, Mapping)]
    steps = {int(step): record for record in records if (step := number(record.get("step"))) is not None}
    ordered = tuple({**steps[step], "step": step} for step in sorted(steps))
    samples = tuple(sample for sample in run.read_samples() if isinstance(sample, Mapping))
    return Facts(run.path.resolve().name, run.read_lineage(), config, ordered, samples)


def at(values: Any, path: str) -> Any:
    """The value at a dotted path into nested mappings; None where there is none."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def number(value: Any) -> float | None:
    """``value`` if it is a finite number, else None."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    return value if usable else None


def bits_of(record: Mapping[str, Any]) -> float | None:
    """The training bits of a line of the record: of a byte of text, or of a label where classes are learned."""
    return number(record.get("bits_per_byte", record.get("bits_per_label")))


def validation_bits_of(record: Mapping[str, Any]) -> float | None:
    """The same of the held-out validation text, where that was measured."""
    return number(record.get("validation_bits_per_byte", record.get("validation_bits_per_label")))


def text(value: Any) -> str:
    """``value`` as text if it is text, a number or a truth value, else empty."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, float)) else ""


def entries(value: Any) -> list[Mapping[str, Any]]:
    """The mappings of a list; empty where ``value`` is none."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def numbers(value: Any) -> dict[str, float]:
    """The numbers of a mapping."""
    found = value.items() if isinstance(value, Mapping) else ()
    return {str(key): known for key, one in found if (known := number(one)) is not None}


def pairs(value: Any) -> list[tuple[str, str]]:
    """The texts of a mapping."""
    return [(str(key), text(one)) for key, one in value.items()] if isinstance(value, Mapping) else []


def measured(value: Any) -> Measured | None:
    """A measurement, recorded as a number or with its interval; None where there is none."""
    if not isinstance(value, Mapping):
        value = {"value": value}
    known = number(value.get("value"))
    return None if known is None else Measured(known, number(value.get("low")), number(value.get("high")))


def figure(value: float | None, digits: int = 3) -> str:
    """``2.458``, or a dash where there is no number."""
    return "–" if value is None else f"{value:,.{digits}f}".replace("-", "−")


def whole(value: float | None) -> str:
    """``5,057,197``, or a dash where there is no number."""
    return figure(value, 0)


def size(value: float | None) -> str:
    """Bytes as ``5.06 MB``, or a dash where there is no number."""
    return "–" if value is None else _short(value, SIZES, "B")


def count(value: float | None) -> str:
    """A large number as ``726k``, or a dash where there is no number."""
    return "–" if value is None else _short(value, COUNTS, "").replace(" ", "")


def _short(value: float, units: tuple[tuple[float, str], ...], one: str) -> str:
    factor, unit = next(((factor, unit) for factor, unit in units if abs(value) >= factor), (1.0, one))
    scaled = value / factor
    digits = 0 if unit == one or abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2
    return f"{scaled:,.{digits}f} {unit}".strip()


def change(value: float, reference: float) -> float | None:
    """``value`` relative to ``reference``: -0.1 when it is a tenth less."""
    return value / reference - 1 if reference > 0 and math.isfinite(value / reference) else None
