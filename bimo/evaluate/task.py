"""A task: examples of a data set, how each is put to a model, and what its answers are measured by; one YAML file."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml

from bimo import files
from bimo.config import from_mapping, read_yaml, setting, to_mapping
from bimo.errors import ConfigError, DataError, did_you_mean
from bimo.evaluate.metric import Metric
from bimo.evaluate.metrics import METRICS
from bimo.text import labelled
from bimo.text.document import Progress
from bimo.tokenizer.sandbox import Sandbox, render

FOLDER = Path(__file__).with_name("tasks")
READS: dict[str, set[str]] = {
    "choices": {"label", "label_norm", "probabilities"},
    "classify": {"label", "label_norm", "probabilities"},
    "generate": {"text"},
    "likelihood": {"likelihood"},
}


@dataclass(frozen=True)
class Task:
    """What `bimo eval --task` measures. Texts with ``{{ column }}`` are Jinja templates over the columns of a row.

    Raises:
        ConfigError: keys contradict each other, or are missing for this kind.
    """

    description: str = setting("", "what it is about")
    data: str = setting("", "a labelled set by name, or a .jsonl, .json, .csv or .tsv file beside this one")
    split: str = setting("test", "part of the set that is measured")
    kind: Literal["choices", "classify", "generate", "likelihood"] = setting(
        "generate",
        "choices: each row has its own; classify: the same labels for all; generate: text, or programs; "
        "likelihood: of a given text",
    )
    prompt: str = setting("", "template of what the model reads")
    answer: str = setting("", "template of the right answer: the text of a choice, a label, a text")
    answers: str = setting("", "instead, a column that holds a list of accepted answers")
    answer_number: str = setting("", "instead, of choices: the column that holds the number of the right one, from 0")
    between: str = setting(" ", "what stands between a prompt and its answer")
    choices: str = setting("", "of choices: the column that holds the list of them")
    labels: dict[str, str] = setting(dict, "of classify: each label, and the text that says it")
    text: str = setting("", "of classify: template of what a model with a head reads; the column `text` if not given")
    metrics: tuple[str, ...] = setting((), "names of metrics; those usual for the kind if not given")
    shots: int = setting(0, "examples with their answers before each prompt")
    shots_split: str = setting("train", "part of the set they are drawn from")
    separator: str = setting("\n\n", "what stands between these examples")
    stop: tuple[str, ...] = setting((), "texts that end what is generated")
    max_new_tokens: int = setting(64, "of what is generated")
    temperature: float = setting(0.0, "0 takes the likeliest token")
    samples: int = setting(1, "texts generated for each prompt")
    program: str = setting("", "template of a Python program that tests what was generated, `completion`")
    baseline: str = setting("", "template of a text that needs no model, measured beside it")
    slices: tuple[str, ...] = setting((), "columns by whose values `bimo errors` counts mistakes")
    id: str = setting("", "column that names a row")

    def __post_init__(self) -> None:
        needed = ["data", *{"choices": ["choices", "prompt"], "classify": ["labels", "prompt"]}.get(self.kind, [])]
        needed += [] if self.answers or self.answer_number or self.program else ["answer"]
        for key in needed:
            if not getattr(self, key):
                raise ConfigError(f"A task of kind {self.kind} needs '{key}'.", expected=f"{key}: ...")
        for name in self.metrics:
            if name not in METRICS:
                raise ConfigError(f"There is no metric '{name}'.", fix=did_you_mean(name, METRICS))
            if METRICS[name].reads not in self.reads:
                fits = ", ".join(metric.name for metric in METRICS.values() if metric.reads in self.reads)
                raise ConfigError(f"The metric {name} does not fit a task of kind {self.kind}.", expected=fits)
        if min(self.shots, self.max_new_tokens - 1, self.samples - 1) < 0:
            got = f"shots {self.shots}, max_new_tokens {self.max_new_tokens}, samples {self.samples}"
            raise ConfigError("A number of the task is wrong.", expected="shots from 0, the others from 1", got=got)
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError("Several samples without chance are all the same.", expected="a temperature above 0")

    def program_of(self, row: Mapping[str, Any], completion: str) -> str:
        """The program that tests what was generated for a row.

        Raises:
            DataError: the template does not fit the row.
        """
        return _filled(_sandbox().template(self.program), {**row, "completion": completion}, "program")

    @property
    def reads(self) -> set[str]:
        """What its metrics may read."""
        return {"passed"} if self.program else READS[self.kind]

    @property
    def measured_by(self) -> list[Metric]:
        """Its metrics."""
        usual = {"choices": ("accuracy", "acc_norm"), "classify": ("accuracy", "macro_f1", "micro_f1", "ece")}
        usual |= {"generate": ("exact_match", "f1"), "likelihood": ("bits_per_byte", "perplexity")}
        names = self.metrics or (("pass@1",) if self.program else usual[self.kind])
        return [METRICS[name] for name in names]


@dataclass(frozen=True, slots=True)
class Example:
    """A row as it is put to a model.

    Attributes:
        prompt: examples with answers first, where the task has them.
        choices: texts of the answers to choose from, and what each is called in results.
        reference: what metrics compare with.
        baseline: what the task's baseline writes.
        text: what a model with a head is to classify; empty where the task does not say.
    """

    id: str
    row: Mapping[str, Any]
    prompt: str
    choices: tuple[str, ...]
    names: tuple[str, ...]
    reference: Any
    baseline: str = ""
    text: str = ""

    @property
    def own_text(self) -> str:
        """Everything in its row, which a training text should not hold."""
        texts = [value for cell in self.row.values() for value in (cell if isinstance(cell, list) else [cell])]
        return "\n".join(str(text) for text in texts)


def find_task(name: str) -> tuple[str, Task, Path]:
    """A task by the name of one that comes with bimo, or by the path of a YAML file; with its name and folder.

    Raises:
        ConfigError: there is no such task, or it is wrong.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file() and path.parent == FOLDER:
        fix = did_you_mean(name, names()) + " A task of your own is a YAML file: --task FILE.yaml"
        raise ConfigError(f"There is no task '{name}'.", fix=fix)
    return path.stem, from_mapping(Task, read_yaml(path), where=str(path)), path.parent


def names() -> list[str]:
    """The tasks that come with bimo."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_examples(
    task: Task, folder: Path, *, limit: int | None = None, progress: Progress | None = None
) -> list[Example]:
    """The examples, in an order drawn once for all: so a limit takes a fair part, and a larger one a part with it.

    Raises:
        DataError: the data cannot be had, or a template does not fit it.
    """
    rows = _read_rows(task.data, task.split, folder, progress)
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    writer = _Writer(task)
    before = ""
    if task.shots:
        shown = _read_rows(task.data, task.shots_split, folder, progress)
        drawn = random.Random(1).sample(range(len(shown)), min(task.shots, len(shown)))
        if task.shots_split == task.split:
            order = [number for number in order if number not in drawn]
        before = "".join(writer.shown(shown[number], number) + task.separator for number in drawn)
    found = [writer.example(rows[number], number, before) for number in order[:limit]]
    (name, times), *_ = Counter(one.id for one in found).most_common(1) or [("", 0)]
    if times > 1:
        raise DataError(
            f"The column '{task.id}' does not name the rows.", expected="each once", got=f"{name} {times} times"
        )
    return found


def fingerprint(task: Task, folder: Path, *parts: str) -> str:
    """The same while the task, its data and all other parts are."""
    local = folder / task.data
    content = files.sha256_file(local) if local.is_file() else ""
    if task.data in labelled.SETS:
        content = ",".join(archive.sha256 for archive in labelled.SETS[task.data].archives)
    text = yaml.safe_dump([to_mapping(task), content, *parts], allow_unicode=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sandbox() -> Sandbox:
    return Sandbox(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


def _filled(template: jinja2.Template, row: Mapping[str, Any], key: str, where: str = "a row") -> str:
    try:
        return render(template, row)
    except jinja2.TemplateError as cause:
        got, fix = str(cause), f"Columns: {', '.join(row)}."
        raise DataError(f"The template '{key}' does not fit {where}.", got=got, fix=fix) from None


class _Writer:
    """Fills in the templates of a task."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._templates = {}
        for key in ("prompt", "answer", "program", "baseline", "text"):
            try:
                self._templates[key] = _sandbox().template(getattr(task, key))
            except jinja2.TemplateError as cause:
                raise ConfigError(f"The template '{key}' of the task is wrong.", got=str(cause)) from None

    def _text(self, key: str, row: Mapping[str, Any], number: int) -> str:
        return _filled(self._templates[key], row, key, f"row {number + 1}")

    def example(self, row: Mapping[str, Any], number: int, before: str) -> Example:
        task = self._task
        texts, names = self._choices(row, number)
        reference: Any
        if task.answers:
            reference = self._list(task.answers, row, number)
        elif task.answer_number:
            reference = self._numbered(row, names, number)
        else:
            reference = self._text("answer", row, number)
        if names and reference not in names:
            expected, got = f"one of {', '.join(names)}", repr(reference)
            raise DataError(f"The answer of row {number + 1} is none of the choices.", expected=expected, got=got)
        if task.kind == "likelihood":
            reference = task.between + reference
        name = str(row.get(task.id) or "") or f"{task.split}:{number + 1}"
        prompt, baseline = before + self._text("prompt", row, number), self._text("baseline", row, number)
        said = ""
        if task.kind == "classify":
            said = self._text("text", row, number) if task.text else str(row.get("text", ""))
        return Example(name, row, prompt, texts, names, reference, baseline, said)

    def shown(self, row: Mapping[str, Any], number: int) -> str:
        """A row with its answer."""
        one = self.example(row, number, "")
        if one.names:
            answer = one.choices[one.names.index(one.reference)]
        else:
            answer = one.reference[0] if isinstance(one.reference, list) else one.reference
        return one.prompt + ("" if self._task.kind == "likelihood" else self._task.between) + answer

    def _choices(self, row: Mapping[str, Any], number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The texts to choose from, and the name of each."""
        if self._task.kind == "classify":
            return tuple(self._task.labels.values()), tuple(self._task.labels)
        if self._task.kind != "choices":
            return (), ()
        texts = tuple(self._list(self._task.choices, row, number))
        if len(set(texts)) < len(texts) or not all(texts) or len(texts) < 2:
            raise DataError(f"The choices of row {number + 1} cannot be told apart.", got=str(list(texts)))
        return texts, texts

    def _numbered(self, row: Mapping[str, Any], names: Sequence[str], number: int) -> str:
        value = str(row.get(self._task.answer_number, "")).strip()
        if not value.isdecimal() or int(value) >= len(names):
            expected = f"a number from 0 to {len(names) - 1} in the column '{self._task.answer_number}'"
            raise DataError(f"The answer of row {number + 1} is none of the choices.", expected=expected, got=value)
        return names[int(value)]

    def _list(self, column: str, row: Mapping[str, Any], number: int) -> list[str]:
        value = row.get(column)
        if isinstance(value, str) and value.startswith("["):  # a list in a CSV file
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                value = None
        if not isinstance(value, list) or not value:
            expected, got = f"a list in the column '{column}'", repr(row.get(column))[:80]
            fix = did_you_mean(column, row) if column not in row else ""
            raise DataError(f"Row {number + 1} cannot be used.", expected=expected, got=got, fix=fix)
        return [str(one) for one in value]


def _read_rows(data: str, split: str, folder: Path, progress: Progress | None) -> list[dict[str, Any]]:
    if data not in labelled.SETS:
        return _read_file(folder / data)
    path = labelled.fetch(data, progress) / f"{split}.jsonl"
    if not path.is_file():
        there = ", ".join(sorted(one.stem for one in path.parent.glob("*.jsonl")))
        raise DataError(f"The set {data} has no part '{split}'.", expected=there)
    return _read_file(path)


def _read_file(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, by its ending."""
    if not path.is_file():
        fix = did_you_mean(path.name, labelled.SETS)
        expected = "a labelled set, or a file beside the task"
        raise DataError(f"There is no data at {path}.", expected=expected, got="no such file", fix=fix)
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows: Any
        if path.suffix in (".csv", ".tsv"):
            rows = list(
                csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if path.suffix == ".tsv" else ",")
            )
        elif path.suffix == ".json":
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as cause:
        raise DataError(f"{path} cannot be read.", expected="JSON lines, JSON, CSV or TSV", got=str(cause)) from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} has no rows.", expected="a list of objects with the same keys")
    return rows
