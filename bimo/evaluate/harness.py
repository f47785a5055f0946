"""Puts the examples of a task to a model, keeps every answer as it comes, and measures what came of it.

``<run>/evaluations/<task>/predictions.jsonl``  a line for the task and model, then one for each example
``<run>/evaluations/<task>/result.json``        what was measured

Of prompts put as messages the folder is ``<task>-chat``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimo import files
from bimo.config import to_mapping
from bimo.errors import DataError, ModelError, RunError
from bimo.evaluate.continuations import Group, Score, encode_pair, score_groups
from bimo.evaluate.intervals import Measured
from bimo.evaluate.metric import Metric
from bimo.evaluate.programs import run_programs
from bimo.evaluate.significance import Compared, compare, measure
from bimo.evaluate.task import Example, Task, fingerprint
from bimo.evaluate.writing import Prompt, write
from bimo.generate.sampling import Sampling
from bimo.models.classifier import TextClassifier

if TYPE_CHECKING:
    from bimo.generate.language_model import LanguageModel

    Asked = LanguageModel | TextClassifier

EVALUATIONS, PREDICTIONS, RESULT = "evaluations", "predictions.jsonl", "result.json"
AT_ONCE = 256  # examples that are encoded and given to the engine together

Prediction = dict[str, Any]  # by what metrics read, and what else is worth keeping
Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Answered:
    """An example with what the model made of it."""

    id: str
    reference: Any
    prediction: Prediction
    row: Mapping[str, Any]


class Evaluation:
    """The answers of one model to one task, on disk: what is there already is not asked again.

    Args:
        run: folder of the model.
        chat: put the prompts as messages of a user.

    Attributes:
        folder: where they are kept.
    """

    def __init__(self, run: Path, name: str, task: Task, data_folder: Path, *, chat: bool = False) -> None:
        self.folder, self.task, self._chat = run / EVALUATIONS / (f"{name}-chat" if chat else name), task, chat
        weights = [files.sha256_file(path) for path in sorted(run.glob("*.safetensors"))]
        key = fingerprint(task, data_folder, str(chat), *weights)
        self._head = {"task": name, "fingerprint": key, "definition": to_mapping(task)}
        self._path = self.folder / PREDICTIONS
        self._answers = self._read()

    def _read(self) -> dict[str, Prediction]:
        """The whole lines of an earlier evaluation of the same; a line that was cut off is asked again."""
        head, answers = read_predictions(self._path)
        same = head.get("fingerprint") == self._head["fingerprint"]
        return {one["id"]: one["prediction"] for one in answers} if same else {}

    def missing(self, examples: Sequence[Example]) -> list[Example]:
        """The examples that are not answered yet."""
        return [one for one in examples if one.id not in self._answers]

    def ask(
        self,
        load: Callable[[], Asked],
        examples: Sequence[Example],
        *,
        done: Callable[[int], object],
        warn: Tell,
    ) -> list[Answered]:
        """Answer what is missing, each answer written as it comes, and give all answers in order.

        Args:
            load: gives the model, where anything is missing.
            done: called with the number of newly answered examples.
            warn: told of a fallback.

        Raises:
            RunError: nothing can be written beside the model.
            ModelError: a model with a head cannot do the task; see :func:`check_classes`.
            BimoError: the model or the engine fails.
        """
        missing = self.missing(examples)
        if missing:
            model = load()
            if isinstance(model, TextClassifier):
                check_classes(model, self.task, missing, chat=self._chat)
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                kept = [one for one in read_predictions(self._path)[1] if one["id"] in self._answers]
                files.write_text(self._path, "".join(map(_line, [self._head, *kept])))
            except OSError as cause:
                raise RunError(f"{self.folder} cannot be written.", got=str(cause)) from None
            with self._path.open("a", encoding="utf-8", newline="\n") as file:
                for number, prediction in answer(model, self.task, missing, chat=self._chat, warn=warn):
                    example = missing[number]
                    record = {"id": example.id, "reference": example.reference, "prediction": prediction}
                    file.write(_line({**record, "row": example.row}))
                    file.flush()
                    self._answers[example.id] = prediction
                    done(1)
        return [Answered(one.id, one.reference, self._answers[one.id], one.row) for one in examples]


def read_predictions(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The head of a file of predictions, and its whole lines; empty where there is none."""
    lines: list[dict[str, Any]] = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.split("\n"):
        try:
            lines.append(dict(json.loads(line)))
        except (ValueError, TypeError):  # a line that was cut off
            break
    return (lines[0], lines[1:]) if lines else ({}, [])


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def answer(
    model: Asked, task: Task, examples: Sequence[Example], *, chat: bool, warn: Tell
) -> Iterator[tuple[int, Prediction]]:
    """What the model makes of each example, in the order in which it comes, with the number of the example."""
    for first in range(0, len(examples), AT_ONCE):
        part = examples[first : first + AT_ONCE]
        if isinstance(model, TextClassifier):
            found = _classified(model, part)
        else:
            found = (_generated if task.kind == "generate" else _scored)(model, task, part, chat, warn)
        for number, prediction in found:
            yield first + number, prediction


def check_classes(model: TextClassifier, task: Task, examples: Sequence[Example], *, chat: bool) -> None:
    """Make sure that a model with a head can do a task.

    Raises:
        ModelError: it has other classes, or it is no task for one.
    """
    if chat:
        raise ModelError("A model with a head reads texts, not messages.", fix="Leave out --chat.")
    if task.kind != "classify":
        expected = "a task of kind classify"
        raise ModelError("The model gives texts a class; it cannot do this task.", expected=expected, got=task.kind)
    if {*model.labels} != {*task.labels}:
        lacking, unknown = task.labels.keys() - {*model.labels}, {*model.labels} - task.labels.keys()
        got = ", ".join(model.labels)
        got += f"; the model lacks {', '.join(sorted(lacking))}" if lacking else ""
        got += f"; the task lacks {', '.join(sorted(unknown))}" if unknown else ""
        fix = "Write a task of your own, a YAML file, whose `labels` have these names: see docs/evaluation.md."
        raise ModelError(
            "The model has other classes than the task.", expected=", ".join(task.labels), got=got, fix=fix
        )
    if empty := next((one for one in examples if not one.text.strip()), None):
        columns = ", ".join(empty.row)
        raise ModelError(
            f"The task does not say what text is to be classified in {empty.id}.",
            expected='a column `text`, or a template `text: "{{ column }}"` in the task',
            got=f"the columns {columns}",
        )


def _classified(model: TextClassifier, examples: Sequence[Example]) -> Iterator[tuple[int, Prediction]]:
    """The classes of the texts themselves: what a head was tuned on has no prompt around it."""
    for number, shares in enumerate(model.probabilities([one.text for one in examples])):
        probabilities = dict(zip(model.labels, map(float, shares), strict=True))
        label = max(probabilities, key=probabilities.__getitem__)
        yield number, {"label": label, "label_norm": label, "probabilities": probabilities}


def _scored(
    model: LanguageModel, task: Task, examples: Sequence[Example], chat: bool, _: Tell
) -> Iterator[tuple[int, Prediction]]:
    if task.kind == "likelihood":
        yield from _likelihoods(model, [_pairs(model, example, [example.reference], chat)[0] for example in examples])
        return
    groups = []
    for example in examples:
        pairs = _pairs(model, example, [task.between + text for text in example.choices], chat)
        groups.append(Group(pairs[0][0], [after for _, after in pairs]))
    for number, scores in score_groups(model.model, groups):
        yield number, _weighed(examples[number], scores)


def _pairs(
    model: LanguageModel, example: Example, continuations: Sequence[str], chat: bool
) -> list[tuple[list[int], list[int]]]:
    """The ids of the prompt and of each of the texts that may follow it."""
    if not chat:
        return [encode_pair(model, example.prompt, text) for text in continuations]
    model.require_chat()
    context = model.tokenizer.render_chat([{"role": "user", "content": example.prompt}])
    return [encode_pair(model, context, text.strip(), rendered=True) for text in continuations]


def _likelihoods(
    model: LanguageModel, pairs: Sequence[tuple[list[int], list[int]]]
) -> Iterator[tuple[int, Prediction]]:
    """Each text in pieces of at most half the context, after as much as fits before them."""
    most = max(1, int(model.model.config.max_position_embeddings) // 2)
    groups, owners = [], []
    for number, (context, text) in enumerate(pairs):
        for start in range(0, len(text), most):
            groups.append(Group([*context, *text[:start]], [text[start : start + most]]))
            owners.append(number)
    left = Counter(owners)
    nats = [0.0] * len(pairs)
    for place, (score,) in score_groups(model.model, groups):
        owner = owners[place]
        nats[owner] -= score.logprob
        left[owner] -= 1
        if not left[owner]:
            yield owner, {"likelihood": [nats[owner], len(pairs[owner][1])]}


def _weighed(example: Example, scores: Sequence[Score]) -> Prediction:
    """The choice with the highest likelihood, and with the highest for each character of it (lm-eval's acc_norm)."""
    logprobs = [score.logprob for score in scores]
    each = [logprob / len(text) for logprob, text in zip(logprobs, example.choices, strict=True)]
    top = max(logprobs)
    total = sum(math.exp(logprob - top) for logprob in logprobs)
    return {
        "label": example.names[logprobs.index(top)],
        "label_norm": example.names[each.index(max(each))],
        "probabilities": {
            name: math.exp(logprob - top) / total for name, logprob in zip(example.names, logprobs, strict=True)
        },
        "logprobs": logprobs,
    }


def _generated(
    model: LanguageModel, task: Task, examples: Sequence[Example], chat: bool, warn: Tell
) -> Iterator[tuple[int, Prediction]]:
    conventions = model.conventions
    sampling = Sampling(
        max_new_tokens=task.max_new_tokens, temperature=task.temperature, stop=task.stop, seed=0, top_k=0
    )
    prompts = []
    for example in examples:
        if chat:
            ids = model.chat_ids([{"role": "user", "content": example.prompt}])
        else:
            ids = model.prompt_ids(example.prompt)
        prompts.append(Prompt(ids, sampling, task.samples))
    ends = conventions.turn_ends if chat else conventions.ends
    for number, texts in write(model.model, model.tokenizer, prompts, ends=ends, warn=warn):
        if task.program:
            yield number, _tested(task, examples[number], list(map(str, texts)), warn)
        else:
            yield number, {"text": texts[0].strip(), "finish_reason": texts[0].finish_reason}


def _tested(task: Task, example: Example, texts: list[str], warn: Tell) -> Prediction:
    sources = [task.program_of(example.row, text) for text in texts]
    outcomes = list(run_programs(sources))
    if outcomes[0].missing:
        warn(f"Programs run here without a ban on: {', '.join(outcomes[0].missing)}.")
    return {
        "passed": [outcome.passed for outcome in outcomes],
        "reasons": [outcome.reason for outcome in outcomes],
        "texts": texts,
    }


def measure_all(task: Task, answers: Sequence[Answered]) -> dict[str, Measured]:
    """Each metric of the task with its interval.

    Raises:
        DataError: there are no answers.
    """
    return {
        metric.name: measure(metric, _read_by(metric, answers), _references(answers)) for metric in task.measured_by
    }


def compare_all(task: Task, answers: Sequence[Answered], others: Mapping[str, Prediction]) -> dict[str, Compared]:
    """Each metric of the task against the predictions of another run for the same examples, by their ids.

    Raises:
        DataError: the other run has not answered them all.
    """
    lacking = [one.id for one in answers if one.id not in others]
    if lacking:
        expected, got = (
            f"answers to the same {len(answers):,} examples",
            f"{len(lacking):,} missing, such as {lacking[0]}",
        )
        raise DataError("The two runs cannot be compared.", expected=expected, got=got)
    other = [dataclasses.replace(one, prediction=others[one.id]) for one in answers]
    return {
        metric.name: compare(metric, _read_by(metric, answers), _read_by(metric, other), _references(answers))
        for metric in task.measured_by
    }


def _read_by(metric: Metric, answers: Sequence[Answered]) -> list[Any]:
    return [one.prediction[metric.reads] for one in answers]


def _references(answers: Sequence[Answered]) -> list[Any]:
    return [one.reference for one in answers]
