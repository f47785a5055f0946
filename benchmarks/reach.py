"""What tuning reaches: every task on real data, three seeds, beside baselines on the same held-out rows.

    python benchmarks/reach.py                               # the cells that are missing, then the table; interruptible
    python benchmarks/reach.py --cells sarcasm-en --seeds 0  # this one
    python benchmarks/reach.py --table                       # the table in docs/benchmarks.md, and measure nothing

A finished cell is a JSON file in benchmarks/results/reach/; delete a file to measure it again. Budgets are examples, so
that what is reached does not depend on what else the machine does; hours for the whole table. Models are imported or
pretrained once, into data/bench-reach/; runs are kept there too. What the chat models of seed 0 say is
put into docs/talks.md.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that `python benchmarks/reach.py` finds its own folder

from benchmarks.reaching import material
from benchmarks.reaching.rows import CACHE, RESULTS, ROOT, ROWS, Row
from benchmarks.reaching.table import reached, table
from benchmarks.reaching.transcripts import record, write_page
from benchmarks.reaching.witnesses import classes_by
from benchmarks.training.processes import machine
from benchmarks.training.table import replace_between
from bimo import files
from bimo.run import Run

SEEDS = (0, 1, 2)


def measure(row: Row, seed: int) -> dict[str, Any]:
    """Tune as a user would, or go on where that was cut off, and read what came of it."""
    start, folder = material.model(row.start), CACHE / "runs" / f"{row.name}-{seed}"
    command = ["tune", row.command[0], "--model", str(start), *material.data(row)]
    command += ["--out", str(folder), "--seed", str(seed)]
    command += row.command[1:]
    if folder.exists():
        command.append("--resume")
    subprocess.run([sys.executable, "-m", "bimo", *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    lineage = Run.open(folder).read_lineage()
    cell = {
        "row": row.name,
        "seed": seed,
        "start": row.start,
        "command": ["bimo", "tune", *row.command],
        "cost": lineage["cost"],
        "metrics": lineage["metrics"],
        "versions": lineage["versions"],
        "machine": machine(),
        "pretraining": _pretraining(start),
        **_figures(row, lineage),
    }
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return cell


def _pretraining(start: Path) -> dict[str, Any] | None:
    lineage = Run(start).read_lineage()
    if lineage["kind"] != "base":
        return None
    return {**lineage["cost"], "parameters": lineage["model"]["parameters"]}


def _figures(row: Row, lineage: Mapping[str, Any]) -> dict[str, Any]:
    """The figure on the rows to measure on, before and after, and the same of its baselines."""
    before = lineage["before"]
    name = row.figure.removeprefix("test_")
    baselines = {rival: one[name]["value"] for rival, one in before.get("baselines", {}).items() if name in one}
    baselines |= {rival: _rival(rival, row) for rival in row.rivals}
    return {
        "value": _value(lineage["metrics"][row.figure]),
        "interval": lineage["metrics"][row.figure],
        "before": _value(before[row.figure]) if row.figure in before else None,
        "baselines": baselines,
        "test_rows": lineage["data"]["test"]["documents"],
    }


def _value(figure: Any) -> float:
    return float(figure["value"] if isinstance(figure, dict) else figure)


def _rival(name: str, row: Row) -> float:
    """The accuracy of another classifier on the same rows."""
    rows = material.tested(row)
    found = classes_by(name, [one["text"] for one in rows])
    return sum(one == row["label"] for one, row in zip(found, rows, strict=True)) / len(rows)


def main() -> None:
    """Read the arguments, measure what is missing, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=list(ROWS), default=list(ROWS), help="rows of the table")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="of splits, order and new weights")
    parser.add_argument("--table", action="store_true", help="write the table and measure nothing")
    given = parser.parse_args()
    for seed in () if given.table else given.seeds:
        for name in given.cells:
            path = RESULTS / f"{name}-{seed}.json"
            if path.exists():
                continue
            if material.out_of_reach(ROWS[name].start):
                print(f"{name} is left out: {ROWS[name].start} wants to be pretrained on a GPU first", flush=True)
                continue
            print(f"{name}, seed {seed}", flush=True)
            cell = measure(ROWS[name], seed)
            files.write_json(path, cell)
            met, shown = reached(ROWS[name], cell)
            print(f"{name}, seed {seed}: {shown}, the goal is {'met' if met else 'missed'}", flush=True)
    for name in () if given.table else given.cells:
        if ROWS[name].talks and (RESULTS / f"{name}-0.json").is_file():
            record(ROWS[name], material.model(ROWS[name].start))
    write_page()
    content = table()
    replace_between(ROOT / "docs" / "benchmarks.md", "reach", content)
    print(content)


if __name__ == "__main__":
    main()
