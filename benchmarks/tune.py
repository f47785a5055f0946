"""Tuning: examples a second and peak memory of bimo, of Hugging Face's ``Trainer`` with PEFT, and of TRL.

    make bench-tune                                  # the rounds that are missing, then the table in docs/benchmarks.md
    python benchmarks/tune.py --cells sft-lora dpo   # some cells
    python benchmarks/tune.py --rounds 1             # once each, bimo and the peers in turn
    python benchmarks/tune.py --quick --cells dpo    # a few steps once, shown and kept apart: does everything work?
    OMP_NUM_THREADS=1 python benchmarks/tune.py      # where another program has a core
    python benchmarks/tune.py --table                # only write the table
    python benchmarks/tune.py --peers-python PYTHON  # an environment other than .venv-tune-peers

A finished round is a JSON file in benchmarks/results/tune/; delete it to measure it again. docs/benchmarks.md says how
it is measured, benchmarks/tuning/cells.py what.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that `python benchmarks/tune.py` finds its own folder

from benchmarks.training.processes import machine
from benchmarks.training.table import replace_between
from benchmarks.tuning import processes
from benchmarks.tuning.cells import CELLS, EVERY, FORMS, MEASURED_FORMS, RESULTS, ROOT, ROUNDS, THREADS, WORK, Cell
from benchmarks.tuning.table import table
from bimo import files

PAGE = ROOT / "docs" / "benchmarks.md"


def measure(cell: Cell, forms: list[str], path: Path) -> None:
    """A round: bimo between the forms of the peer, so that what else the machine does meets all of them."""
    load, began = {**machine(), "threads": THREADS}, time.monotonic()
    runs = {}
    for name in (*forms[:1], "bimo", *forms[1:]):
        runs[name] = processes.run_bimo(cell) if name == "bimo" else processes.run_peer(cell, name)
        told = {key: runs[name][key] for key in ("step_seconds", "saved_seconds", "peak_memory_bytes", "held_out")}
        print(f"  {name}: {told}", flush=True)
    found = {"cell": cell.name, "machine": load, "runs": runs, "measured_in_seconds": round(time.monotonic() - began)}
    files.write_json(path, found)


def main() -> None:
    """Measure the rounds that are missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=tuple(CELLS), default=list(CELLS))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(MEASURED_FORMS), help="of the peers")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each cell")
    parser.add_argument("--quick", action="store_true", help="a few steps of each cell, once; the page stays as it is")
    parser.add_argument("--table", action="store_true", help="only write the table of finished rounds")
    parser.add_argument("--peers-python", type=Path, help="the Python that has the peers")
    given = parser.parse_args()
    if given.peers_python:
        processes.PEERS_PYTHON = given.peers_python
    folder, prefix, rounds = (WORK / "quick", "quick-", 1) if given.quick else (RESULTS, "", given.rounds)
    if not given.table:
        if not processes.PEERS_PYTHON.exists():
            raise SystemExit("The peers are not installed: use `make bench-tune`, which makes .venv-tune-peers.")
        for number in range(rounds):
            for name in given.cells:
                path = folder / f"{name}-{number}.json"
                if not path.exists():
                    print(f"{name}, round {number + 1} ...", flush=True)
                    measure(EVERY[prefix + name], given.forms, path)
    if given.quick:
        print(table(folder))
    else:
        replace_between(PAGE, "tune", table(folder))


if __name__ == "__main__":
    main()
