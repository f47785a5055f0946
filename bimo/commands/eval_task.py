"""``bimo eval --task``: how well a model does tasks, beside what needs no model, and against another run."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bimo.commands import Device
from bimo.commands.results import counted, print_json, print_table, with_interval
from bimo.errors import DataError, UsageError

if TYPE_CHECKING:
    from bimo.evaluate.contamination import Shared
    from bimo.evaluate.harness import Answered, Evaluation
    from bimo.evaluate.task import Example, Task
    from bimo.generate.language_model import LanguageModel
    from bimo.models.classifier import TextClassifier
    from bimo.train.display import Display

ALL = "all"
TUNED = "the rows it was tuned on"
MOST_CLASSES = 20  # of a confusion matrix that is printed


class Options(NamedTuple):
    """See :func:`bimo.commands.eval.evaluate`."""

    limit: int | None
    compare: Path | None
    chat: bool
    keep_known: bool
    json: bool
    device: Device


class _Models:
    """Loads a model when it is first asked for: where all answers are there already, never."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._loaded: dict[Path, LanguageModel | TextClassifier] = {}

    def __getitem__(self, run: Path) -> LanguageModel | TextClassifier:
        from bimo.device import resolve_device
        from bimo.generate.language_model import load
        from bimo.models.classifier import load_text_classifier
        from bimo.models.heads import has_head

        if run not in self._loaded:
            if has_head(run):
                self._loaded[run] = load_text_classifier(run, device=resolve_device(self._device))
            else:
                self._loaded[run] = load(run, device=self._device)
        return self._loaded[run]


def evaluate_tasks(run: Path, tasks: Sequence[str], options: Options) -> None:
    """Do each of the tasks, print what was measured, and keep it in the run."""
    from bimo.evaluate import task as module
    from bimo.generate.language_model import require_folder
    from bimo.train.display import Display

    if options.limit is not None and options.limit < 1:
        raise UsageError("--limit is wrong.", expected="a number from 1", got=str(options.limit))
    for folder in filter(None, (run, options.compare)):
        require_folder(folder)
    chosen = [name for task in tasks for name in (module.names() if task == ALL else [task])]
    found = [module.find_task(name) for name in chosen]
    display, models = Display(), _Models(options.device)
    results: list[dict[str, Any]] = []
    for name, task, folder in found:
        try:
            result = _evaluate(run, name, task, folder, options, display, models)
        except DataError as cause:
            if ALL not in tasks:
                raise
            display.warn(f"left out {name}: {cause}")  # some data are only to be had on some systems
            continue
        results.append(result)
        if not options.json:
            print("" if len(results) == 1 else "\n", end="")
            _print(result, task)
    if options.json:
        print_json(results[0] if len(results) == 1 else results)


def _evaluate(
    run: Path, name: str, task: Task, folder: Path, options: Options, display: Display, models: _Models
) -> dict[str, Any]:
    from bimo import files
    from bimo.evaluate.harness import RESULT, Evaluation, compare_all, measure_all
    from bimo.evaluate.task import read_examples

    with display.bar(f"reading {name}") as advance:
        examples = read_examples(task, folder, limit=options.limit, progress=advance)
    shared = _shared(run, examples, display)
    others_shared = _shared(options.compare, examples, display) if options.compare else None
    known = {
        one.id
        for found in (shared, others_shared)
        if found is not None
        for one, read in zip(examples, found[0].examples, strict=True)
        if read
    }
    used = [one for one in examples if options.keep_known or one.id not in known]
    if not used:
        display.warn("All examples stand in the training text. They are measured nevertheless: trust no number here.")
        used = examples
    evaluation = Evaluation(run, name, task, folder, chat=options.chat)
    answers = _ask(evaluation, run, used, display, models)
    measured = measure_all(task, answers)
    result: dict[str, Any] = {
        "task": name,
        "description": task.description,
        "run": str(run),
        "examples": len(answers),
        "chat": options.chat,
        "shots": task.shots,
        "known": shared
        and {
            "examples": sorted(known),
            "left_out": len(examples) - len(used),
            "too_short": shared[0].too_short,
            "searched": shared[0].searched,
            "looked_in": shared[1],
        },
        "metrics": {
            metric.name: {**dataclasses.asdict(measured[metric.name]), "signature": metric.signature}
            for metric in task.measured_by
        },
        "baselines": _baselines(task, answers, used),
    }
    if task.kind == "classify":
        from bimo.evaluate.metrics.classification import confusion

        classes, table = confusion([one.prediction["label"] for one in answers], [one.reference for one in answers])
        result["confusion"] = {"classes": classes, "counts": table.astype(int).tolist()}
    if options.compare is not None:
        other = Evaluation(options.compare, name, task, folder, chat=options.chat)
        others = {one.id: one.prediction for one in _ask(other, options.compare, used, display, models)}
        compared = {key: dataclasses.asdict(value) for key, value in compare_all(task, answers, others).items()}
        result["compared"] = {"run": str(options.compare), "metrics": compared}
    files.write_json(evaluation.folder / RESULT, result)
    return result


def _ask(
    evaluation: Evaluation, run: Path, examples: list[Example], display: Display, models: _Models
) -> list[Answered]:
    missing = len(evaluation.missing(examples))
    if missing < len(examples):
        display.note(f"{evaluation.folder}: {len(examples) - missing:,} of {len(examples):,} answers are there already")
    told: set[str] = set()
    answered = 0

    def warn(text: str) -> None:
        if text not in told:
            told.add(text)
            display.warn(text)

    try:
        with display.bar(f"asking {run.name}") as advance:

            def done(count: int) -> None:
                nonlocal answered
                answered += count
                advance(answered, missing, f"{answered:,} of {missing:,} examples")

            return evaluation.ask(lambda: models[run], examples, done=done, warn=warn)
    except KeyboardInterrupt:
        display.note(f"The answers so far are kept in {evaluation.folder}; the same command goes on from there.")
        raise


def _shared(run: Path, examples: Sequence[Example], display: Display) -> tuple[Shared, str] | None:
    """Which examples the run has learned from, and in what they were looked for; None where that is not there."""
    from bimo.tune.known import find_read

    with display.bar("comparing with training") as advance:
        found = find_read(run, [one.own_text for one in examples], [one.text for one in examples], advance)
    return None if found is None else (found[0], TUNED if found[1] else "the training text")


def _baselines(task: Task, answers: Sequence[Answered], examples: Sequence[Example]) -> dict[str, dict[str, float]]:
    """What needs no model: chance, the most frequent label, the task's own baseline; each by its metrics."""
    baselines: dict[str, dict[str, float]] = {}
    references = [one.reference for one in answers]
    if task.kind in ("choices", "classify"):
        baselines["chance"] = {"accuracy": sum(1 / len(one.choices) for one in examples) / len(examples)}
    if task.kind == "classify":
        label = Counter(references).most_common(1)[0][0]
        labels = [label] * len(references)
        baselines[f"always {label}"] = {
            metric.name: metric(labels, references) for metric in task.measured_by if metric.reads == "label"
        }
    if task.kind == "generate" and task.baseline:
        texts = [one.baseline for one in examples]
        baselines["baseline"] = {metric.name: metric(texts, references) for metric in task.measured_by}
    return baselines


def _print(result: dict[str, Any], task: Task) -> None:
    from bimo.evaluate.intervals import Measured

    rows = [("task", f"{result['task']}: {task.description}")]
    rows.append(("examples", f"{result['examples']:,} of {task.data} ({task.split}), {task.shots} shown before each"))
    rows.append(("known", _known(result["known"])))
    for metric in task.measured_by:
        facts = dict(result["metrics"][metric.name])
        signature = facts.pop("signature")
        rows.append((metric.name, with_interval(Measured(**facts), _digits(metric.name))))
        if signature:
            rows.append(("", signature))
    for name, values in result["baselines"].items():
        rows.append((name, ", ".join(f"{metric} {value:.{_digits(metric)}f}" for metric, value in values.items())))
    print_table(("", ""), rows)
    if 1 < len(result.get("confusion", {}).get("classes", ())) <= MOST_CLASSES:
        classes = result["confusion"]["classes"]
        columns = ("label \\ taken for", *classes)
        counts = zip(classes, result["confusion"]["counts"], strict=True)
        print()
        print_table(columns, [(name, *(f"{count:,}" for count in row)) for name, row in counts], right=classes)
    if "compared" in result:
        print()
        _print_compared(result["compared"], Path(result["run"]).name)


def _digits(metric: str) -> int:
    from bimo.evaluate.metrics import METRICS

    return 1 if "100" in METRICS[metric].scale else 3


def _known(known: dict[str, Any] | None) -> str:
    if known is None:
        return "the training text of this model is not here, so nobody knows what it has read"
    found = len(known["examples"])
    place = known["looked_in"]
    said = f"{counted(found, 'example')} stand in {place}" if found else f"none stands in {place}"
    said += " and are left out" if known["left_out"] else ""
    said += f"; {known['too_short']:,} are too short to look for" if known["too_short"] else ""
    said += "; what the model before it has read is not known here" if place == TUNED else ""
    return said + (f"; {known['searched']:.0%} of it was searched" if known["searched"] < 1 else "")


def _print_compared(compared: dict[str, Any], own: str) -> None:
    from bimo.evaluate.intervals import Measured

    other = Path(compared["run"]).name
    columns = ("metric", own, other, "difference", "p")
    rows = []
    for name, facts in compared["metrics"].items():
        difference = with_interval(Measured(**facts["difference"]))
        rows.append((name, f"{facts['first']:.3f}", f"{facts['second']:.3f}", difference, f"{facts['p']:.4f}"))
    print_table(columns, rows, right=columns[1:])
    print("p: how likely so large a difference is where the two runs are equally good")
