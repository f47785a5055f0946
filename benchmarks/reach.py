"""What tuning reaches: every task on real data, three seeds, beside baselines on the same held-out rows.

    python benchmarks/reach.py                               # the cells that are missing, then the table; interruptible
    python benchmarks/reach.py --cells sarcasm-en --seeds 0  # this one
    python benchmarks/reach.py --table                       # the table in docs/benchmarks.md, and measure nothing

A finished cell is a JSON file in benchmarks/results/reach/; delete a file to measure it again. Budgets are examples, so
that what is reached does not depend on what else the machine does; hours for the whole table. Models are imported or
pretrained once, into data/bench-reach/; runs are kept there too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that `python benchmarks/reach.py` finds its own folder

from benchmarks.reaching import material
from benchmarks.reaching.rows import CACHE, RESULTS, ROOT, ROWS, Row
from benchmarks.reaching.table import reached, table
from benchmarks.reaching.witnesses import classes_by
from benchmarks.training.processes import machine
from benchmarks.training.table import replace_between
from bimo import files
from bimo.evaluate.tfidf import TfIdf
from bimo.run import Run

SEEDS = (0, 1, 2)


def measure(row: Row, seed: int) -> dict[str, Any]:
    """Tune as a user would, or go on where that was cut off, and read what came of it."""
    start, folder = material.model(row.start), CACHE / "runs" / f"{row.name}-{seed}"
    data = [part for path in material.data(row.data) for part in ("--data", str(path))]
    command = ["tune", row.command[0], "--model", str(start), *data, "--out", str(folder), "--seed", str(seed)]
    command += row.command[1:]
    if folder.exists():
        command.append("--resume")
    bimo(*command)
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
        **(_classes(row, folder) if row.kind == "classes" else _figures(row, lineage)),
    }
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return cell


def bimo(*command: str) -> str:
    """What a command of bimo prints on standard output."""
    run = [sys.executable, "-m", "bimo", *command]
    return subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def _pretraining(start: Path) -> dict[str, Any] | None:
    lineage = Run.open(start).read_lineage()
    if lineage["kind"] != "pretrain":
        return None
    return {**lineage["cost"], "parameters": lineage["model"]["parameters"]}


def _figures(row: Row, lineage: Mapping[str, Any]) -> dict[str, Any]:
    """The figure of the run's own held-out rows, before and after, and the same of its baselines."""
    before = lineage["before"]
    name = row.figure.removeprefix("test_")
    baselines = {rival: one[name]["value"] for rival, one in before.get("baselines", {}).items() if name in one}
    return {
        "value": _value(lineage["metrics"][row.figure]),
        "interval": lineage["metrics"][row.figure],
        "before": _value(before[row.figure]) if row.figure in before else None,
        "baselines": baselines,
        "test_rows": lineage["data"]["test"]["documents"],
    }


def _value(figure: Any) -> float:
    return float(figure["value"] if isinstance(figure, dict) else figure)


def _classes(row: Row, folder: Path) -> dict[str, Any]:
    """The accuracy on the whole test split of the labelled set, and that of rivals on the same rows."""
    test, train = (material.read(material.split(row.data, part)) for part in ("test", "train"))
    path = str(material.split(row.data, "test"))
    found = [json.loads(line)["label"] for line in bimo("classify", str(folder), "--data", path, "--json").splitlines()]
    truth, texts = [one["label"] for one in test], [one["text"] for one in test]
    commonest = Counter(one["label"] for one in train).most_common(1)[0][0]
    classifier = TfIdf([one["text"] for one in train], [one["label"] for one in train])
    rivals = {"commonest class": [commonest] * len(truth), "TF-IDF + LR": classifier.predict(texts)}
    rivals |= {name: classes_by(name, texts) for name in row.rivals}
    return {
        "value": _share(found, truth),
        "before": None,
        "baselines": {name: _share(said, truth) for name, said in rivals.items()},
        "test_rows": len(truth),
    }


def _share(found: list[str], truth: list[str]) -> float:
    return sum(one == label for one, label in zip(found, truth, strict=True)) / len(truth)


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
            print(f"{name}, seed {seed}", flush=True)
            cell = measure(ROWS[name], seed)
            files.write_json(path, cell)
            met, shown = reached(ROWS[name], cell)
            print(f"{name}, seed {seed}: {shown}, the goal is {'met' if met else 'missed'}", flush=True)
    content = table()
    replace_between(ROOT / "docs" / "benchmarks.md", "reach", content)
    print(content)


if __name__ == "__main__":
    main()
