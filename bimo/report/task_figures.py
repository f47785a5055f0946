"""What a task was measured by: this model, the same before it was tuned, and what needs no such model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bimo.report.facts import Facts, Measured, figure

# The metric as the lineage names it: what people call it, and digits behind the point.
NAMES = {
    "accuracy": ("accuracy", 3),
    "macro_f1": ("macro F1", 3),
    "entity_f1": ("entity F1", 3),
    "entity_precision": ("precision", 3),
    "entity_recall": ("recall", 3),
    "word_accuracy": ("accuracy of words", 3),
    "word_macro_f1": ("macro F1 of words", 3),
    "bleu": ("BLEU", 1),
    "bleu_zh": ("BLEU (zh)", 1),
    "chrf++": ("chrF++", 1),
    "rouge1": ("ROUGE-1", 3),
    "rouge2": ("ROUGE-2", 3),
    "rougeL": ("ROUGE-L", 3),
    "exact_match": ("exact match", 3),
    "f1": ("F1", 3),
}
OWN, BEFORE = "this model", "before tuning"


@dataclass(frozen=True)
class TaskFigure:
    """One metric.

    Attributes:
        name: as people call it.
        values: by whom it was reached; this model first.
        signature: what settles the value, as sacrebleu writes it; else empty.
    """

    name: str
    digits: int
    values: Mapping[str, Measured]
    signature: str

    def shown(self, who: str) -> str:
        """``12.3``, or a dash."""
        found = self.values.get(who)
        return figure(None if found is None else found.value, self.digits)

    def interval(self, who: str) -> str:
        """``11.8 to 12.9``, or a dash."""
        ends = found.interval if (found := self.values.get(who)) else None
        return "–" if ends is None else " to ".join(figure(end, self.digits) for end in ends)

    @property
    def line(self) -> str:
        """All of it in a line for the terminal."""
        others = ", ".join(f"{self.shown(who)} {who}" for who in self.values if who != OWN)
        told = f"{self.name}: {self.shown(OWN)}"
        told += "" if self.values[OWN].interval is None else f" (95%: {self.interval(OWN)})"
        return f"{told}; {others}" if others else told


def task_figures(facts: Facts) -> list[TaskFigure]:
    """The metrics that were measured of the model, the likeliest to be looked for first."""
    return [one for one in (_of(facts, key) for key in NAMES) if OWN in one.values]


def compared(told: Iterable[TaskFigure]) -> list[str]:
    """Whose figures these are, this model first."""
    return list(dict.fromkeys(who for one in told for who in one.values))


def _of(facts: Facts, key: str) -> TaskFigure:
    name, digits = NAMES[key]
    return TaskFigure(name, digits, dict(_values(facts, key)), facts.text(f"metrics.test_{key}.signature"))


def _values(facts: Facts, key: str) -> Iterator[tuple[str, Measured]]:
    for who, where in ((OWN, "metrics"), (BEFORE, "before")):
        if found := facts.measured(f"{where}.test_{key}"):
            yield who, found
    baselines = facts.at("before.baselines")
    for name in baselines if isinstance(baselines, Mapping) else ():
        if found := facts.measured(f"before.baselines.{name}.{key}"):
            yield str(name), found
