"""Which rows are learned from and which are held out: no row twice, no question on both sides, no passage shared.

A passage is 13 words in a row, or 20 characters where words are not spaced, as in ``text/clean/decontaminate.py``. A
held-out row that shares one with the training rows goes to training, so that nothing is lost and no figure is too good.

Where rows name the document that they are from (the role ``group``), whole documents are held out. What training has
too is then left out of them: in training it would put their document on both sides.

Shapes: G passages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bimo.device import seed_for
from bimo.text.clean.decontaminate import grams_of
from bimo.text.document import text_digest
from bimo.text.shingles import Hashes, places_of
from bimo.tune.rows import Row
from bimo.tune.task import Refused

WORDS, CHARACTERS = 13, 20
PASSAGE = f"{WORDS} words or {CHARACTERS} characters in a row"
FORMULA = 10  # training rows with a passage from which it is a common phrase (Brown et al. 2020, appendix C)
FEWEST_GROUPS = 8  # questions below which nothing is held out, documents below which they are not held out whole
GROUP = "group"  # the role of the column that names the document of a row
PASSES = 4  # what goes over to training may itself share passages with what is still held out

Texts = Callable[[Row], "tuple[str, str] | Refused"]


@dataclass(frozen=True)
class Parts:
    """The rows of each side.

    Attributes:
        refused: rows that cannot be used: how many by reason, and the first of each.
        duplicates: rows that another one equals.
        conflicts: questions with several answers, and one of them.
        moved: rows that would be held out but share a passage with training; they are in training.
        shared: held-out rows that still share one.
        documents: that are held out whole; 0 where rows do not say which they are from.
        left_out: rows of these that share a question or a passage with training.
        known: rows that ask what the rows of a test file ask, and are not learned.
    """

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    refused: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    duplicates: int = 0
    duplicate: str = ""
    conflicts: int = 0
    conflict: str = ""
    moved: int = 0
    shared: int = 0
    documents: int = 0
    left_out: int = 0
    known: int = 0
    sharing: int = 0

    def told(self) -> list[str]:
        """What the user should know, a line each."""
        lines = []
        if self.duplicates:
            lines.append(f"rows left out, as they equal another one: {self.duplicates:,} (first: {self.duplicate})")
        if self.conflicts:
            lines.append(f"questions with several answers: {self.conflicts:,} (such as {self.conflict})")
        if not self.validation:
            lines.append("there are too few rows to hold any out: watch for learning by heart")
        if self.moved:
            lines.append(f"rows moved from held out to training, as they share {PASSAGE} with it: {self.moved:,}")
        if self.left_out:
            lines.append(f"rows of held-out documents left out, as training has their words too: {self.left_out:,}")
        if self.known:
            lines.append(f"rows not learned, as the test file asks the same: {self.known:,}")
        if self.sharing:
            lines.append(f"rows not learned, as they share {PASSAGE} with the test file: {self.sharing:,}")
        return lines


def split_rows(rows: Sequence[Row], texts: Texts, *, seed: int, validation: float, test: float, most: int) -> Parts:
    """Drop duplicates and hold rows out, those with the same question together, or of the same ``group``.

    Args:
        texts: question and answer of a row as plain text, or why it has none.
        validation, test: shares of the rows to hold out.
        most: rows of each that are held out at most.
    """
    refused: dict[str, tuple[int, str]] = {}
    seen: dict[bytes, str] = {}
    groups: dict[bytes, list[Row]] = defaultdict(list)
    answers: dict[bytes, set[bytes]] = defaultdict(set)
    said: dict[int, str] = {}
    asked: dict[int, bytes] = {}
    duplicates, duplicate = 0, ""
    for row in rows:
        found = texts(row)
        if isinstance(found, Refused):
            count, where = refused.get(found.reason, (0, row.where))
            refused[found.reason] = count + 1, where
            continue
        question, answer = (text_digest(_folded(text)) for text in found)
        if question + answer in seen:
            duplicate = duplicate or f"{row.where}, which equals {seen[question + answer]}"
            duplicates += 1
            continue
        seen[question + answer] = row.where
        groups[question].append(row)
        answers[question].add(answer)
        said[row.number], asked[row.number] = "\n".join(found), question
    conflicts = [groups[question] for question, known in answers.items() if len(known) > 1]
    conflict = " and ".join(row.where for row in conflicts[0][:2]) if conflicts else ""
    units = _by_document(groups)
    sides, moved, shared = _sides(list((units or groups).values()), bool(units), said, seed, (validation, test), most)
    documents = 0
    if units:
        sides = [sides[0], *_unseen(sides, asked, said)]
        documents = sum(len({row.values.get(GROUP) for row in side} - {None}) for side in sides[1:])
    train, held_out, tested = sides
    left_out = len(said) - sum(map(len, sides))
    return Parts(
        train, held_out, tested, refused, duplicates, duplicate, len(conflicts), conflict, moved=moved, shared=shared,
        documents=documents, left_out=left_out,
    )  # fmt: skip


def with_test(parts: Parts, rows: Sequence[Row], texts: Texts) -> Parts:
    """The parts of some data with all ``rows`` of a test file as their test.

    It is their owner's choice to measure on these. So what they ask is not learned, nor is a row that shares a passage
    with them.
    """
    found = split_rows(rows, texts, seed=0, validation=0.0, test=0.0, most=0)
    usable = (*parts.train, *parts.validation, *found.train)
    pairs = {row.number: cast("tuple[str, str]", texts(row)) for row in usable}
    questions = {number: _folded(question) for number, (question, _) in pairs.items()}
    asked = {questions[row.number] for row in found.train}
    train, validation = (
        [row for row in side if questions[row.number] not in asked] for side in (parts.train, parts.validation)
    )
    known = len(parts.train) + len(parts.validation) - len(train) - len(validation)
    said = {number: "\n".join(pair) for number, pair in pairs.items()}
    learned = [[row] for row in (*train, *validation)]
    sharing = _holding(learned, _leaked([[row] for row in found.train], learned, said), said)
    train, validation = ([row for row in side if row.number not in sharing] for side in (train, validation))
    shared = _contaminated([[row] for row in (*validation, *found.train)], [[row] for row in train], said)
    refused = dict(parts.refused)
    for why, (count, first) in found.refused.items():
        before, where = refused.get(why, (0, first))
        refused[why] = before + count, where
    return replace(
        parts, train=train, validation=validation, test=found.train, refused=refused, shared=len(shared),
        duplicates=parts.duplicates + found.duplicates, duplicate=parts.duplicate or found.duplicate,
        known=known, sharing=len(sharing),
    )  # fmt: skip


def _by_document(groups: Mapping[bytes, list[Row]]) -> dict[Any, list[Row]]:
    """The rows by the document they are from, or by question where they do not say; empty where there are too few."""
    units: dict[Any, list[Row]] = defaultdict(list)
    for question, rows in groups.items():
        for row in rows:
            name = row.values.get(GROUP)
            units[question if name is None else str(name)].append(row)
    return units if sum(isinstance(name, str) for name in units) >= FEWEST_GROUPS else {}


def _unseen(sides: Sequence[list[Row]], asked: Mapping[int, bytes], said: Mapping[int, str]) -> list[list[Row]]:
    """The held-out rows of documents without those whose question or passage training, or the side before, has too."""
    train, *held = sides
    known = {asked[row.number] for row in train}
    dirty = _contaminated([[row] for side in held for row in side], [[row] for row in train], said)
    kept = []
    for side in held:
        kept.append([row for row in side if asked[row.number] not in known and row.number not in dirty])
        known |= {asked[row.number] for row in side}
    return kept


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _sides(
    groups: list[list[Row]],
    whole: bool,
    said: Mapping[int, str],
    seed: int,
    shares: tuple[float, float],
    most: int,
) -> tuple[list[list[Row]], int, int]:
    """Training, validation and test rows in their original order, rows moved to training, and what is shared yet.

    Args:
        whole: the groups are documents, which stay where they are.
    """
    total = sum(map(len, groups))
    if len(groups) < FEWEST_GROUPS:
        return [_in_order(groups), [], []], 0, 0
    order = np.random.Generator(np.random.PCG64(seed_for(seed, "held out"))).permutation(len(groups))
    waiting = [groups[place] for place in order]
    held: list[list[list[Row]]] = []
    for share in shares:
        wanted = min(most, max(1, round(share * total))) if share else 0
        taken: list[list[Row]] = []
        large = [group for group in waiting if whole and len(group) > wanted]
        waiting = [group for group in waiting if not (whole and len(group) > wanted)]
        while sum(map(len, taken)) < wanted and len(waiting) + len(large) > 1 and waiting:
            taken.append(waiting.pop())
        waiting = [*large, *waiting]
        held.append(taken)
    if whole:
        return [_in_order(waiting), *map(_in_order, held)], 0, 0
    moved = 0
    for _ in range(PASSES):
        dirty = _contaminated([group for side in held for group in side], waiting, said)
        if not dirty:
            break
        waiting += [group for side in held for group in side if group[0].number in dirty]
        moved += sum(len(group) for side in held for group in side if group[0].number in dirty)
        held = [[group for group in side if group[0].number not in dirty] for side in held]
    dirty = _contaminated([group for side in held for group in side], waiting, said)
    return [_in_order(waiting), *map(_in_order, held)], moved, len(dirty)


def _in_order(groups: Iterable[Sequence[Row]]) -> list[Row]:
    return sorted((row for group in groups for row in group), key=lambda row: row.number)


def _contaminated(held: list[list[Row]], train: list[list[Row]], said: Mapping[int, str]) -> Collection[int]:
    """The first row of each held-out group that shares a passage with training which is no common phrase."""
    return _holding(held, _leaked(held, train, said), said)


def _leaked(held: list[list[Row]], train: list[list[Row]], said: Mapping[int, str]) -> Hashes:
    """The passages (G,), ascending, that held-out groups and at most a few training groups have."""
    passages = (_passages(group, said) for group in held)
    known = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *passages]))
    if not len(known):
        return known
    times = np.zeros(len(known), dtype=np.int64)
    for group in train:
        times[_places(_passages(group, said), known)] += 1
    return known[(times > 0) & (times <= FORMULA)]


def _holding(groups: list[list[Row]], passages: Hashes, said: Mapping[int, str]) -> set[int]:
    """The first row of each group that holds one of the passages, which are ascending."""
    if not len(passages):
        return set()
    return {group[0].number for group in groups if len(_places(_passages(group, said), passages))}


def _places(some: Hashes, known: Hashes) -> NDArray[np.int64]:
    """Where those of ``some`` stand that are in ``known``, which is ascending."""
    places = places_of(some, known)
    return places[places >= 0]


def _passages(group: Sequence[Row], said: Mapping[int, str]) -> Hashes:
    return np.unique(np.concatenate([grams_of(said[row.number], WORDS, CHARACTERS) for row in group]))
