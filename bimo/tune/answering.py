"""What a model answers to held-out questions by itself, and how right that is by the metrics of its task."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from bimo import files
from bimo.evaluate.metrics import METRICS
from bimo.evaluate.significance import measure
from bimo.evaluate.writing import Prompt, write
from bimo.generate.completion import Completion
from bimo.generate.sampling import Sampling
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.display import Display
from bimo.tune.examples import Question
from bimo.tune.materials import Materials
from bimo.tune.task import Answering, Task

ANSWERS = "answers.jsonl"  # in the run: what was asked, what it answered, what was wanted
SHARE = 0.08  # of a wall-clock budget
FEWEST, PROBED = 8, 4  # questions that are asked at least, and that are timed
ROOM = 1.5  # times the longest right answer: a model that has not ended by then will not be right

T = TypeVar("T")


def questions_of(task: Task, materials: Materials) -> list[Question]:
    """What the test rows ask, each question once with all right answers; none where the task is not measured so."""
    if not isinstance(task, Answering):
        return []
    rows: dict[tuple[int, ...], int] = {}
    accepted: dict[tuple[int, ...], list[str]] = {}
    for example in materials.test:
        ids = tuple(example.ids[: int(example.counts.argmax())].tolist())
        rows.setdefault(ids, example.row)
        accepted.setdefault(ids, []).extend(task.accepted(materials.rows[example.row]))
    found = [Question(ids, row, tuple(dict.fromkeys(accepted[ids]))) for ids, row in rows.items()]
    return found if task.metrics([one.accepted for one in found]) else []


def chosen(
    task: Task, materials: Materials, model: Any, display: Display, *, most: int, seconds: float | None
) -> tuple[list[Question], float]:
    """The questions that the model is asked after training, and how long it will take to answer them.

    Args:
        model: as it is before training.
        most: of them; fewer where a budget of ``seconds`` has no room.
    """
    known = questions_of(task, materials)
    if not known or not most:
        return [], 0.0
    if seconds is None:
        return spread(known, most), 0.0
    writer, probed = Writer.of(task, materials, display), spread(known, PROBED)
    learned = sum(example.learned for example in materials.train) / len(materials.train)
    began = time.monotonic()
    writer.answers(model, probed, max(1, round(learned)))  # as long as the right ones: it has not learned to stop
    each = (time.monotonic() - began) / len(probed)
    questions = spread(known, min(most, max(FEWEST, int(SHARE * seconds / each))))
    return questions, each * len(questions)


def spread(values: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly from the first to the last."""
    count = min(len(values), max(0, most))
    return [values[place * len(values) // count] for place in range(count)]


@dataclass(frozen=True)
class Writer:
    """Lets models answer the questions of one run.

    Attributes:
        longest: tokens of an answer.
    """

    task: Task
    tokenizer: Tokenizer
    longest: int
    display: Display

    @classmethod
    def of(cls, task: Task, materials: Materials, display: Display) -> Writer:
        """The one for answers as long as those of the data."""
        examples = (*materials.train, *materials.validation, *materials.test)
        longest = max(example.learned for example in examples)
        return cls(task, materials.tokenizer, int(ROOM * longest) + 1, display)

    def answers(self, model: Any, questions: Sequence[Question], longest: int | None = None) -> list[Completion]:
        """The likeliest answer to each, as the task searches for it.

        Args:
            longest: tokens of an answer, if not the usual number.
        """
        room, most = int(model.config.max_position_embeddings), longest or self.longest
        prompts = [
            Prompt(one.ids, Sampling(max_new_tokens=max(1, min(most, room - len(one.ids))), temperature=0, seed=0))
            for one in questions
        ]
        ends = self.task.ends(self.tokenizer) | {self.tokenizer.eos_id}
        found: dict[int, Completion] = {}
        with self.display.bar("answering questions") as advance:
            assert isinstance(self.task, Answering)
            beams, warn = self.task.num_beams, self.display.warn
            for number, texts in write(model, self.tokenizer, prompts, ends=ends, num_beams=beams, warn=warn):
                found[number] = texts[0]
                advance(len(found), len(prompts))
        return [found[number] for number in range(len(prompts))]


def figures(task: Answering, answers: Sequence[str], accepted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Each metric of the task with its 95% interval, and its signature where it has one."""
    told = {}
    for name in task.metrics(accepted):
        metric = METRICS[name]
        told[name] = asdict(measure(metric, [one.strip() for one in answers], accepted))
        if metric.signature:
            most = max(map(len, accepted))
            told[name]["signature"] = metric.signature.replace("nrefs:1", "nrefs:var" if most > 1 else "nrefs:1")
    return told


def answered(writer: Writer, model: Any, materials: Materials, path: Path | None = None) -> dict[str, Any]:
    """Figures of the model's own answers to ``materials.questions``, as a lineage names them.

    Args:
        path: of a file for the answers, beside what was asked and what is right.
    """
    questions, task = materials.questions, writer.task
    if not questions:
        return {}
    assert isinstance(task, Answering)
    answers = writer.answers(model, questions)
    if path is not None:
        files.write_text(path, "".join(_lines(task, materials, answers)))
    told = figures(task, answers, [one.accepted for one in questions])
    unfinished = sum(one.finish_reason != "stop" for one in answers)
    return {**{f"test_{name}": one for name, one in told.items()}, "unfinished_answers": unfinished}


def _lines(task: Any, materials: Materials, answers: Sequence[Completion]) -> Iterator[str]:
    for question, answer in zip(materials.questions, answers, strict=True):
        row = materials.rows[question.row]
        line = {"row": row.where, "question": task.texts(row)[0], "answer": answer.strip()}
        yield json.dumps({**line, "accepted": question.accepted}, ensure_ascii=False) + "\n"
