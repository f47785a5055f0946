"""From a person's rows to examples on every side, and what the lineage and the user are told of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bimo.config import from_mapping, read_yaml
from bimo.errors import BimoError, DataError
from bimo.run import Run
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.display import Display
from bimo.train.patient import Finding
from bimo.tune.columns import by_role, find_columns
from bimo.tune.config import TuneConfig
from bimo.tune.examples import Example, Question
from bimo.tune.rows import Row, Rows, read_rows
from bimo.tune.split import Parts, split_rows, with_test
from bimo.tune.task import Refused, Task
from bimo.tune.tasks import make_task

SIDES = ("train", "validation", "test")


@dataclass(frozen=True)
class Given:
    """The rows of the data under the names that the task knows, not yet tokens.

    Attributes:
        columns: role -> column.
    """

    name: str
    hash: str
    columns: dict[str, str]
    task: Task
    parts: Parts
    broken: str = ""


@dataclass(frozen=True)
class Materials:
    """What a tuning run learns from.

    Attributes:
        rows: by their numbers.
        questions: of test rows, which the tuned model answers itself.
        facts: for the lineage.
        bytes_per_token: of what is learned.
    """

    tokenizer: Tokenizer
    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    rows: dict[int, Row]
    facts: dict[str, Any] = field(default_factory=dict)
    bytes_per_token: float = 1.0
    questions: Sequence[Question] = ()

    def document_at(self, position: int) -> str:
        """The row that an example was made from, by its place among the training examples."""
        return self.rows[self.train[position].row].where


def read_given(config: TuneConfig, task: Task, display: Display) -> Given:
    """Read the data, find its columns, and hold rows out.

    Raises:
        DataError: there is no row that can be used.
        UsageError: a column is not there.
    """
    reading = config.reading
    with display.bar("reading") as advance:
        rows, *tests = (
            read_rows(names, encoding=reading.encoding, documents=task.documents, tested=bool(place), progress=advance)
            for place, names in enumerate((config.data, config.test))
            if names
        )
    columns = find_columns(rows, task.roles, config.columns)
    if columns:
        shown = ", ".join(f"{role} = {column}" for role, column in columns.items())
        display.note(f"columns: {shown}   (another: --columns ROLE=COLUMN)")
    learned, tested = _named(rows.rows, columns), [_named(_numbered(one, len(rows.rows)), columns) for one in tests]
    task = task.settled([*learned, *(row for one in tested for row in one)])
    share = 0.0 if tests else reading.test
    parts = split_rows(
        learned, task.texts, seed=config.seed, validation=reading.validation, test=share, most=config.most_held_out
    )
    broken, digest = rows.told(), rows.hash
    for one, found in zip(tests, tested, strict=True):
        parts = with_test(parts, found, task.texts)
        broken = "; ".join(filter(None, (broken, one.told())))
        digest = hashlib.sha256((digest + one.hash).encode()).hexdigest()
        if not parts.test:
            expected = " and ".join(columns.values()) or "texts"
            got = "; ".join(why for why, _ in parts.refused.items()) or "none"
            fix = "Let its columns be called as those of the data."
            raise DataError(f"No row to measure on is in {one.name}.", expected=expected, got=got, fix=fix)
    return Given(rows.name, digest, columns, task, parts, broken)


def _named(rows: list[Row], columns: Mapping[str, str]) -> list[Row]:
    """The rows with their values under the names of their roles, where the task has any."""
    return [by_role(row, columns) for row in rows] if columns else rows


def _numbered(rows: Rows, first: int) -> list[Row]:
    """The rows of a test file, whose numbers go on where those of the data end."""
    return [replace(row, number=first + row.number) for row in rows.rows]


def rows_read(run: Run) -> list[tuple[str, str]] | None:
    """Question and answer of the rows that a finished run was tuned by; None where its data is not there any more."""
    try:
        config = from_mapping(TuneConfig, read_yaml(run.config), where=str(run.config))
        given = read_given(config, make_task(config.task, config.options), Display(quiet=True))
        if given.hash != run.read_lineage()["data"]["data_hash"]:
            return None
    except (BimoError, KeyError):
        return None
    said = [given.task.texts(row) for row in (*given.parts.train, *given.parts.validation)]
    return [one for one in said if not isinstance(one, Refused)]


def make_materials(given: Given, tokenizer: Tokenizer, longest: int, display: Display) -> Materials:
    """Tokenise every side, and tell what could not be used.

    Raises:
        DataError: no row gives an example; says why.
    """
    parts = given.parts
    sides: dict[str, list[Example]] = {side: [] for side in SIDES}
    refused = dict(parts.refused)
    used: dict[str, int] = dict.fromkeys(SIDES, 0)
    known: dict[int, Row] = {}
    with display.bar("tokenising") as advance:
        rows: list[tuple[str, Row]] = [(side, row) for side in SIDES for row in getattr(parts, side)]
        for done, (side, row) in enumerate(rows):
            found = given.task.prepare(row, tokenizer, longest)
            if isinstance(found, Refused):
                count, first = refused.get(found.reason, (0, row.where))
                refused[found.reason] = count + 1, first
            else:
                sides[side] += found
                used[side] += 1
                known[row.number] = row
            if done % 64 == 0:
                advance(done, len(rows))
    told = [given.broken] if given.broken else []
    told += [f"rows that cannot be used, {why}: {count:,} (first: {first})" for why, (count, first) in refused.items()]
    cut = [example for examples in sides.values() for example in examples if example.cut]
    if cut:
        where = known[cut[0].row].where
        told.append(f"rows of which not all fits into {longest:,} tokens: {len(cut):,} (first: {where})")
    told += parts.told()
    if not sides["train"]:
        got = "; ".join(told) or "none"
        fix = "Check the columns, or give rows of another shape: see `bimo tune --help`."
        raise DataError(f"No row of {given.name} can be learned from.", expected="at least one", got=got, fix=fix)
    for line in told:
        display.warn(line)
    facts: dict[str, Any] = {
        "source": given.name,
        "licence": "",
        "data_hash": given.hash,
        "documents": sum(used.values()),
        "bytes": 0,
        "columns": given.columns,
        "duplicates": parts.duplicates,
        "conflicts": parts.conflicts,
        "moved_to_training": parts.moved,
        "shared_passages": parts.shared,
        "documents_held_out": parts.documents,
        "left_out": parts.left_out,
        "refused": {why: count for why, (count, _) in refused.items()},
        "skipped": [],
        "note": " ".join(f"{line}." for line in told),
    }
    learned = tokens = 0
    for side, examples in sides.items():
        nbytes = sum(given.task.learned_bytes(example, tokenizer) for example in examples)
        facts[side] = {"documents": used[side], "bytes": nbytes, "examples": len(examples)}
        facts["bytes"] += nbytes
        learned, tokens = learned + nbytes, tokens + sum(example.learned for example in examples)
    made = (sides["train"], sides["validation"], sides["test"])
    return Materials(tokenizer, *made, known, facts, learned / max(1, tokens) or 1.0)


def overlap_finding(parts: Parts) -> Finding:
    """What the doctor says of passages that both sides hold."""
    held = len(parts.validation) + len(parts.test)
    if not held:
        return Finding(None, "nothing is held out")
    measured = f"{parts.shared:,} of {held:,} held-out rows share a passage with training"
    measured += f"; {parts.moved:,} that did are in training now" if parts.moved else ""
    fix = "Remove copies from the data, or hold out less: --set reading.test=0.02."
    return Finding(parts.shared <= 0.1 * held, measured, "at most a tenth", fix)
