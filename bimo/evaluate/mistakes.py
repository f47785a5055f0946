"""Where a model is wrong: the mean score of examples that have something in common, and the worst of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bimo.config import from_mapping
from bimo.errors import RunError, did_you_mean
from bimo.evaluate.harness import EVALUATIONS, PREDICTIONS, read_predictions
from bimo.evaluate.intervals import Measured
from bimo.evaluate.metric import Metric, accepted
from bimo.evaluate.significance import measure
from bimo.evaluate.task import Task
from bimo.text.scripts import script_weights

LENGTHS = (50, 200, 1_000, 4_000)  # characters: the bounds of "length"
MOST_LABELS = 20  # else "label" tells nothing


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer that was kept.

    Attributes:
        score: the task's first metric of this example alone.
        worse: orders the worst first, where scores are equal by how sure the model was.
    """

    id: str
    row: Mapping[str, Any]
    reference: Any
    prediction: Mapping[str, Any]
    score: float
    worse: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Slice:
    """Examples with the same ``value`` of ``kind``."""

    kind: str
    value: str
    count: int
    measured: Measured


@dataclass(frozen=True, slots=True)
class Mistakes:
    """What there is to say of the answers to a task.

    Attributes:
        judged: the worst first.
        slices: of each kind the worst first.
    """

    task: Task
    metric: Metric
    judged: tuple[Judged, ...]
    slices: tuple[Slice, ...]


def evaluated(run: Path) -> list[str]:
    """The tasks that a run has answers to.

    Raises:
        RunError: there are none.
    """
    found = sorted(path.parent.name for path in (run / EVALUATIONS).glob(f"*/{PREDICTIONS}"))
    if not found:
        fix = f"Let it do one first: bimo eval {run} --task boolq"
        raise RunError(f"{run} has done no task.", expected=str(run / EVALUATIONS), got="no answers in it", fix=fix)
    return found


def find_mistakes(run: Path, name: str) -> Mistakes:
    """Judge the answers of a run to a task.

    Raises:
        RunError: there are none, or they are damaged.
    """
    if name not in (known := evaluated(run)):
        raise RunError(f"{run} has not done the task '{name}'.", fix=did_you_mean(name, known))
    head, records = read_predictions(run / EVALUATIONS / name / PREDICTIONS)
    if not records or "definition" not in head:
        got = "none that can be read"
        raise RunError(f"{run} has answered nothing of {name}.", got=got, fix=f"bimo eval {run} --task {name}")
    task = from_mapping(Task, head["definition"], where=str(run / EVALUATIONS / name / PREDICTIONS))
    metric = task.measured_by[0]
    judged = [_judged(metric, record) for record in records]
    return Mistakes(
        task, metric, tuple(sorted(judged, key=lambda one: one.worse)), tuple(_slices(task, metric, judged))
    )


def _judged(metric: Metric, record: Mapping[str, Any]) -> Judged:
    prediction, reference = record["prediction"], record["reference"]
    score = metric([prediction[metric.reads]], [reference])
    chances = prediction.get("probabilities", {})
    doubt = chances[reference] - max(chances.values()) if chances else 0.0
    worse = (score if metric.best == "high" else -score, doubt)
    return Judged(record["id"], record["row"], reference, prediction, score, worse)


def _slices(task: Task, metric: Metric, judged: Sequence[Judged]) -> Iterator[Slice]:
    kinds: dict[str, dict[str, list[Judged]]] = {}
    for one in judged:
        for kind, value in _properties(task, one):
            kinds.setdefault(kind, {}).setdefault(value, []).append(one)
    for kind, values in kinds.items():
        if len(values) < 2 or (kind == "label" and len(values) > MOST_LABELS):
            continue
        found = [Slice(kind, value, len(members), _measured(metric, members)) for value, members in values.items()]
        yield from sorted(found, key=lambda one: one.measured.value, reverse=metric.best == "low")


def _measured(metric: Metric, members: Sequence[Judged]) -> Measured:
    return measure(metric, [one.prediction[metric.reads] for one in members], [one.reference for one in members])


def _properties(task: Task, one: Judged) -> Iterator[tuple[str, str]]:
    """What an example is counted under: label, length, language, and the columns that the task names."""
    text = " ".join(str(value) for value in one.row.values() if isinstance(value, str))
    if task.kind == "classify":
        yield "label", str(one.reference)
    yield "length", length_of(text)
    yield "script", script_of(text)
    if task.kind == "generate":
        yield "answer's length", length_of(max(map(str, accepted(one.reference)), key=len))
        if "finish_reason" in one.prediction:
            yield "ended by", str(one.prediction["finish_reason"])
    for column in task.slices:
        yield column, str(one.row.get(column, ""))


def length_of(text: str) -> str:
    """The class of a text's length in characters: ``51 to 200``."""
    low = 0
    for bound in LENGTHS:
        if len(text) <= bound:
            return f"{low + 1:,} to {bound:,} characters" if low else f"up to {bound:,} characters"
        low = bound
    return f"over {low:,} characters"


def script_of(text: str) -> str:
    """The script that most of a text is written in."""
    weights = script_weights(text)
    name, weight = max(weights.items(), key=lambda item: item[1])
    return name if weight else "none"
