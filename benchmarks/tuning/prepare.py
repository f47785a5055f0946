"""The rows that bimo is given, and the very examples that it makes of them, as ids for the peers.

python -m benchmarks.tuning.prepare CELL     # in a process of its own, whose memory does not count
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.tuning.cells import EVERY, WORK, Cell
from bimo import files
from bimo.text.labelled import fetch
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.display import Display
from bimo.tune.examples import Example
from bimo.tune.materials import Given, Materials, make_materials, read_given
from bimo.tune.start import configure
from bimo.tune.task import Task
from bimo.tune.tasks import make_task

QUIET = Display(quiet=True)


def prepare(cell: Cell, model: Path, source: Path, folder: Path) -> None:
    """Write ``rows.jsonl`` for bimo, ``ids.json`` for the peers, and ``meta.json`` with what both have in common.

    Rows are left out from the end until bimo's packed rows make whole steps: then an epoch is the same for everybody.
    """
    lines = (source / "train.jsonl").read_text(encoding="utf-8").splitlines()[: cell.rows]
    folder.mkdir(parents=True, exist_ok=True)
    task, tokenizer = _opened(cell, lines, model, folder)
    while True:
        given, materials = _materials(cell, lines, folder / "rows.jsonl", tokenizer)
        rows = _rows_per_epoch(task, materials.train, cell.length)
        batch = max(1, round(cell.examples * rows / len(materials.train)))
        if rows % batch == 0:
            break
        lines = lines[:-1]
    tested = (source / "test.jsonl").read_text(encoding="utf-8").splitlines()[: cell.tested]
    held_out = _materials(cell, tested, folder / "tested.jsonl", tokenizer, "reading.validation=0")[1].train
    classes = getattr(given.task, "classes", ())
    sides = {
        "train": [_as_lists(cell, one) for one in materials.train],
        "test": [_as_lists(cell, one) for one in held_out],
    }
    files.write_json(folder / "ids.json", {"classes": list(classes), **sides})
    learned = sum(one.learned for one in materials.train)
    counts = {"examples": len(materials.train), "learned": learned, "batch": batch, "steps": rows // batch}
    files.write_json(folder / "meta.json", {**counts, "data_hash": given.hash, "tested": len(held_out)})


def _opened(cell: Cell, lines: Sequence[str], model: Path, folder: Path) -> tuple[Task, Tokenizer]:
    """The task as the data settle it, and the tokenizer that it trains with."""
    path = _write(lines, folder / "rows.jsonl")
    config = configure(cell.task, {"start": str(model), "data": [str(path)]}, None, ())[1]
    task = read_given(config, make_task(cell.task, {}), QUIET).task
    return task, task.open(model, torch.device("cpu"))[1]


def _materials(
    cell: Cell, lines: Sequence[str], path: Path, tokenizer: Tokenizer, *overrides: str
) -> tuple[Given, Materials]:
    """What bimo makes of these rows."""
    said = {"start": "unused", "data": [str(_write(lines, path))]}
    config = configure(cell.task, said, None, ("reading.test=0", *overrides))[1]
    given = read_given(config, make_task(cell.task, {}), QUIET)
    return given, make_materials(given, tokenizer, cell.length, QUIET)


def _write(lines: Sequence[str], path: Path) -> Path:
    files.write_text(path, "".join(f"{line}\n" for line in lines))
    return path


def _rows_per_epoch(task: Task, examples: Sequence[Example], length: int) -> int:
    batches: Any = task.batches(examples, batch_size=1, length=length, seed=0)
    return int(batches.rows_per_epoch)


def _as_lists(cell: Cell, one: Any) -> dict[str, Any]:
    """An example in the words of the peers."""
    if cell.task == "classify":
        return {"input_ids": one.ids[:-1].tolist(), "label": int(one.ids[-1])}
    if cell.task == "prefer":
        chosen, rejected = one.sides
        sides = {
            f"{name}_ids": side.ids[side.counts].tolist() for name, side in (("chosen", chosen), ("rejected", rejected))
        }
        return {"prompt_ids": chosen.ids[~chosen.counts].tolist(), **sides}
    return {"input_ids": one.ids.tolist(), "completion_mask": one.counts.astype(int).tolist()}


if __name__ == "__main__":
    chosen = EVERY[sys.argv[1]]
    prepare(chosen, WORK / "models" / chosen.model, fetch(chosen.data), WORK / chosen.name)
