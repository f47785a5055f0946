"""What `bimo translate`, `summarise` and `ask` have in common: where texts come from, and how answers are shown."""

from __future__ import annotations

import json as json_module
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from bimo.commands import Device
from bimo.commands.results import checked, counted, tell, text_argument, visible
from bimo.commands.tune import columns_of
from bimo.errors import DataError, UsageError

if TYPE_CHECKING:
    from bimo.tune.asking import Asking
    from bimo.tune.rows import Row
    from bimo.tune.tuned import Answer

NAMED_ROWS = 5  # that a note names
TEXT_SUFFIXES = (".txt", ".md", ".html", ".pdf", ".docx", ".epub")
TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")


@Parameter(name="*")
@dataclass(frozen=True)
class Answering:
    """How questions are read and answers written.

    Attributes:
        data: a file with a text or question in each row: csv, tsv, json, jsonl or parquet; can be given several times
        columns: which column is what, as role=column, where the names do not say
        json: print one JSON object a line
        max_new_tokens: tokens of an answer at most; 256 if not given, for translations of long texts more
        num_beams: answers that are followed at once for the likeliest (beam search), where nothing is drawn; as the run
            was tuned to be measured if not given, 4 for translations
        temperature: 0, as if not given, takes the likeliest token; higher is more varied
        top_p: draw from the likeliest tokens that together have this probability
        repetition_penalty: above 1, tokens seen before become less likely
        seed: of what is drawn; 0 if not given
        device: where to compute; auto takes the best device present
    """

    data: list[str] | None = None
    columns: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None
    json: bool = False
    max_new_tokens: int | None = None
    num_beams: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    device: Device = "auto"

    @property
    def drawing(self) -> dict[str, Any]:
        """The options of :func:`bimo.tune.tuned.answers`."""
        names = ("max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def text_or_file(word: str) -> str:
    """A text as given on the command line: what a file of this name says, else the words themselves; - is stdin.

    Raises:
        UsageError: it is no text, or looks like the name of a file that is not there.
        DataError: the file holds no text.
    """
    if word == "-":
        return text_argument(word)
    path = Path(checked(word))
    try:
        found = path.is_file()
    except (OSError, ValueError):  # too long for a name
        found = False
    if found:
        if path.suffix.lower() in TABLE_SUFFIXES:
            raise UsageError(f"{word} is a table.", fix=f"Have its rows answered one by one: --data {word}.")
        from bimo.text.source import open_source

        source = open_source(word)
        text = "".join(document.text for document in source)
        if source.skipped:
            raise DataError(f"{word} cannot be read.", got=source.skipped[0].reason)
        return text
    if path.suffix.lower() in (*TEXT_SUFFIXES, *TABLE_SUFFIXES) and not any(map(str.isspace, word)):
        raise UsageError(f"There is no file {word}.", expected="a text, or a file that is there")
    return word


def answer_all(
    run: Path,
    task_name: str,
    asked: Sequence[Mapping[str, Any]],
    given: Answering,
    *,
    settings: Mapping[str, Any] | None = None,
    always: Mapping[str, Any] | None = None,
) -> None:
    """Answer what was asked on the command line, or every row of ``--data``, and print the answers in order.

    Args:
        asked: values by role.
        settings: of the task, which go before those of the run.
        always: further values of every row that has none of its own.

    Raises:
        BimoError: there is nothing to answer, the model cannot, or none of the questions could be asked.
    """
    if bool(asked) == (given.data is not None):
        raise UsageError(
            "There is nothing to answer.", expected="texts, or --data FILE", got="both" if asked else "neither"
        )
    told: set[str] = set()

    def warn(text: str) -> None:
        if text not in told:
            told.add(text)
            tell(text)

    from bimo.generate.language_model import load
    from bimo.train.display import Display
    from bimo.tune.tuned import answers, open_task

    model = load(run, device=given.device)
    task = open_task(model, task_name, {**(settings or {}), "num_beams": given.num_beams}, warn)
    rows = _rows(task, given, warn) if given.data is not None else _arguments(asked)
    values = [{**(always or {}), **row.values} for row in rows]
    display = Display(quiet=given.data is None or sys.stdout.isatty())  # a bar would cut through the answers
    found: list[Answer] = []
    with display.bar(f"answering {counted(len(rows), 'row')}") as advance:
        for row, answer in zip(rows, answers(model, task, values, warn=warn, **given.drawing), strict=True):
            if len(rows) == 1 and answer.finish_reason == "refused":
                raise UsageError("This cannot be answered.", got=answer.reason)
            _show(task, row, answer, json=given.json, alone=given.data is None and len(rows) == 1)
            found.append(answer)
            advance(len(found), len(rows))
    _tell(rows, found)


def _arguments(asked: Sequence[Mapping[str, Any]]) -> list[Row]:
    from bimo.tune.rows import Row

    return [Row(number, "", values) for number, values in enumerate(asked)]


def _rows(task: Asking, given: Answering, warn: Any) -> list[Row]:
    """All rows of the files, their values by role."""
    from bimo.tune.columns import by_role, find_columns
    from bimo.tune.rows import read_rows

    rows = read_rows(given.data or ())
    if rows.broken:
        warn(rows.told())
    columns = find_columns(rows, task.asked_roles, columns_of(given.columns or []))
    return [by_role(row, columns) for row in rows.rows]


def _show(task: Asking, row: Row, answer: Answer, *, json: bool, alone: bool) -> None:
    if json:
        asked = task.asked_roles[0].name
        line: dict[str, Any] = {"row": row.number, **({"where": row.where} if row.where else {})}
        line |= {asked: row.values.get(asked), **told_as(task, answer)}
        print(json_module.dumps(line, ensure_ascii=False), flush=True)
    elif alone:
        share = "" if answer.probability is None else f" ({answer.probability:.1%})"
        print(answer.text + share)
    else:
        share = "" if answer.probability is None else f"\t{answer.probability:.3f}"
        print(visible(answer.text) + share, flush=True)


def told_as(task: Asking, answer: Answer) -> dict[str, Any]:
    """An answer as JSON has it: under the name of its role; what says nothing about it is left out."""
    refused = answer.finish_reason == "refused"
    facts: dict[str, Any] = {task.answered: None if refused else answer.text, "finish_reason": answer.finish_reason}
    if answer.probability is not None:
        facts["probability"] = round(answer.probability, 6)
    if answer.start is not None:
        facts |= {"start": answer.start, "end": answer.end}
    return facts | ({"cut": answer.cut} if answer.cut else {}) | ({"reason": answer.reason} if refused else {})


def _tell(rows: Sequence[Row], found: Sequence[Answer]) -> None:
    """What was not as it should be, by row, on stderr."""
    reasons = Counter(answer.reason for answer in found if answer.reason)
    if len(rows) == sum(reasons.values()):
        raise DataError("No row can be answered.", got=", ".join(reasons))
    cut = [row for row, answer in zip(rows, found, strict=True) if answer.cut]
    ended = [row for row, answer in zip(rows, found, strict=True) if answer.finish_reason == "length"]
    for reason in reasons:
        _note([row for row, one in zip(rows, found, strict=True) if one.reason == reason], f"not answered: {reason}")
    _note(cut, "the end was left out, for which the model has no room")
    _note(ended, "the answer was broken off; --max-new-tokens gives it more room")


def _note(rows: Sequence[Row], what: str) -> None:
    if rows:
        names = ", ".join(row.where or f"text {row.number + 1}" for row in rows[:NAMED_ROWS])
        more = f" and {len(rows) - NAMED_ROWS:,} more" if len(rows) > NAMED_ROWS else ""
        tell(f"{names}{more}: {what}")
