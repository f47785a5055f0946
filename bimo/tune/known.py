"""What a model has read before: in the text that it was trained on, or in the rows that it was tuned on."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bimo.batches.shards import open_tokens
from bimo.errors import BimoError
from bimo.evaluate.contamination import MOST_IDS, Shared, find_shared, find_shared_rows
from bimo.run import Run
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.display import Display
from bimo.train.materials import TOKENS_FOLDER
from bimo.train.origin import lineage_of
from bimo.tune.materials import Given, rows_read
from bimo.tune.split import PASSAGE
from bimo.tune.task import Refused

SEARCHED = 5_000_000  # ids of a training text at most, before each tuning: some seconds


def find_read(
    run: Path,
    texts: Sequence[str],
    wholes: Sequence[str],
    progress: Callable[[int, int], object] | None = None,
    most: int = MOST_IDS,
) -> tuple[Shared, bool] | None:
    """Which texts a run has learned from, and whether in rows; None where what it learned from is not there any more.

    Args:
        texts, wholes: see :func:`bimo.evaluate.contamination.find_shared_rows`.
        most: ids of a training text that are searched.
    """
    folder = Run(run).checkpoints / TOKENS_FOLDER
    if (folder / "train.json").is_file():
        tokens = open_tokens(folder, "train", verify=False)
        return find_shared(texts, tokens, Tokenizer.load(run), progress, most), False
    rows = rows_read(Run(run))
    return None if rows is None else (find_shared_rows(texts, wholes, rows, progress), True)


def read_before(parent: Mapping[str, Any] | None, given: Given, display: Display) -> dict[str, int]:
    """How many held-out rows of each side the model to tune, or one that it was made from, has read; says so.

    Args:
        parent: what the lineage says of the model to tune.
    """
    sides = {"validation": given.parts.validation, "test": given.parts.test}
    said = [(side, given.task.texts(row)) for side, rows in sides.items() for row in rows]
    held = [(side, "\n".join(text), text[0]) for side, text in said if not isinstance(text, Refused)]
    names, texts, wholes = zip(*held, strict=True) if held else ((), (), ())
    known = [False] * len(texts)
    for one in lineage_of(parent) if texts else ():
        with display.bar("comparing with its text") as advance:
            try:
                found = find_read(Path(one["folder"]), texts, wholes, advance, SEARCHED)
            except (BimoError, OSError):
                found = None  # it is damaged, and not what is tuned
        if found:
            known = list(map(operator.or_, known, found[0].examples))
    counts = {side: sum(one for one, name in zip(known, names, strict=True) if name == side) for side in sides}
    if any(counts.values()):
        told = " and ".join(f"{counts[side]:,} of {names.count(side):,} {side} rows" for side in sides if side in names)
        display.warn(f"the model has read {PASSAGE} of {told} before: figures on them are too good")
    return counts
