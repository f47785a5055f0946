"""Wall-clock of bimo to the final loss of Hugging Face's Trainer, litgpt and a nanoGPT-shaped baseline.

    make bench-train                 # the cells that are missing, then the tables in docs/benchmarks.md; interruptible
    make bench-train QUICK=1         # the first cell with seed 0, in under 20 minutes
    python benchmarks/train.py --table
    python benchmarks/train.py --tune   # learning rate and rows of the tuned forms, on the second cell

A cell is one run of a peer or of bimo, kept as a JSON file in benchmarks/results/train/; delete a file to measure it
again. docs/benchmarks.md says how it is measured, benchmarks/training/cells.py what.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that `python benchmarks/train.py` finds its own folder

from benchmarks.training.cells import (
    BATCHES,
    CELLS,
    FORMS,
    GOALS,
    LEARNING_RATES,
    PEERS,
    RESULTS,
    ROOT,
    TUNED,
    TUNING_CELL,
    TUNING_SEED,
    Cell,
)
from benchmarks.training.ladder import next_rung
from benchmarks.training.processes import PEERS_PYTHON, run_bimo, run_peer, tuned_settings
from benchmarks.training.table import cost_table, known, machines, read_cells, replace_between, speed_table
from bimo import files

PAGE = ROOT / "docs" / "benchmarks.md"
QUICK_SECONDS = 1170.0  # under 20 minutes in all
AROUND_A_RUN = 25.0  # seconds to start, evaluate and write a run, roughly
QUICK = [("nano", "default"), ("hf-qwen3", "default"), ("hf-gpt2", "default"), ("litgpt", "default"), ("nano", "tuned")]
COLD_ONLY, BOTH = (False,), (False, True)


class Bench:
    """Runs what is missing.

    Args:
        limit: seconds after which no further run is begun.

    Attributes:
        reserved: seconds that bimo's runs leave to peers still to come.
    """

    def __init__(self, limit: float = float("inf")) -> None:
        self.end, self.reserved = time.monotonic() + limit, 0.0

    def fits(self, seconds: float) -> bool:
        """Whether a run of so many seconds ends in time."""
        return time.monotonic() + seconds + AROUND_A_RUN < self.end

    def peer(self, cell: Cell, seed: int, name: str, form: str, *, warm: bool) -> dict[str, Any] | None:
        """A peer's cell, measured if it is missing; None when there is no time for it."""
        path = RESULTS / f"{cell.name}-{seed}-{name}-{form}{'-warm' if warm else ''}.json"
        if not path.exists():
            if not self.fits(cell.seconds):
                print(f"no time left for {path.stem}", flush=True)
                return None
            print(f"{path.stem}: {cell.seconds:g} s ...", flush=True)
            files.write_json(path, run_peer(cell, seed, name, form, warm=warm))
        found: dict[str, Any] = files.read_json(path)
        print(f"{path.stem}: {found['test']['bits_per_byte']:.4f} bpb in {found['wall_seconds']:.1f} s", flush=True)
        return found

    def bimo(self, cell: Cell, seed: int, target: float, start: float, *, warm: bool) -> None:
        """Climb the ladder until the shortest budget that reaches the target is known, or time is over."""
        ladder = cell.ladder()
        while True:
            budget = next_rung(ladder, known(read_cells(), cell.name, seed, warm=warm), target, start)
            if budget is None:
                return
            path = RESULTS / f"{cell.name}-{seed}-bimo-{'warm-' if warm else ''}{budget:g}s.json"
            if not self.fits(budget + self.reserved):
                print(f"no time left for {path.stem}", flush=True)
                return
            result = run_bimo(cell, seed, budget, warm=warm)
            result["warm"] = warm  # whose compiled code the last cold run left; the folder may have been empty before
            files.write_json(path, result)
            value = result["test"] and f"{result['test']['bits_per_byte']:.4f} bpb in {result['wall_seconds']:.1f} s"
            print(f"  {path.stem}: {value or result['failed']}", flush=True)

    def pair(self, cell: Cell, seed: int, name: str, form: str, *, warm: bool) -> None:
        """A peer, then bimo until it is as good. What is not compiled is the same cold and warm: it runs once."""
        peer = self.peer(cell, seed, name, form, warm=warm and PEERS[name].compiles(form))
        if peer:
            self.bimo(cell, seed, peer["test"]["bits_per_byte"], cell.seconds * GOALS[form], warm=warm)


def tune(seconds: float | None) -> None:
    """Find learning rate and rows of each tuned peer, by the validation text of the second cell."""
    cell = CELLS[TUNING_CELL]
    best: dict[str, Any] = {}
    for name in PEERS:
        for rate in LEARNING_RATES:
            for rows in BATCHES:
                path = RESULTS / f"tuning-{name}-{rate:g}-{rows}.json"
                if not path.exists():
                    print(f"{path.stem} ...", flush=True)
                    choice = {"learning_rate": rate, "batch": rows}
                    files.write_json(
                        path,
                        run_peer(
                            cell, TUNING_SEED, name, "tuned", warm=True, part="validation",
                            seconds=seconds, choice=choice,
                        ),
                    )  # fmt: skip
                found = files.read_json(path)
                value = found["validation"]["bits_per_byte"]
                print(f"{path.stem}: {value:.4f}", flush=True)
                if name not in best or value < best[name]["validation_bits_per_byte"]:
                    best[name] = {
                        "learning_rate": rate,
                        "batch": rows,
                        "validation_bits_per_byte": value,
                        "seconds": found["limit_seconds"],
                    }
    files.write_json(TUNED, best)


def write_tables() -> None:
    """Write both tables into docs/benchmarks.md."""
    cells = read_cells()
    content = cost_table(cells) + "\n" + speed_table(cells) + "\n" + machines(cells)
    replace_between(PAGE, "train", content)
    print(content)


def measure(given: argparse.Namespace) -> None:
    """Run what is missing, the most telling pairs first."""
    if given.quick:
        bench, cell = Bench(QUICK_SECONDS), next(iter(CELLS.values()))
        for again in (False, True):  # the second time only to finish bimo's searches, where time is left
            for number, (name, form) in enumerate(QUICK, start=1):
                bench.reserved = 0.0 if again else (len(QUICK) - number) * (cell.seconds + AROUND_A_RUN)
                bench.pair(cell, cell.seeds[0], name, form, warm=False)
        return
    bench = Bench(given.limit)
    for cell in [CELLS[name] for name in given.cells]:
        for form in given.forms:
            for seed in cell.seeds[: given.seeds]:
                for name in given.peers:
                    if form == "tuned" and tuned_settings(name) is None:
                        print(f"{name} is not tuned yet: documented settings are used (--tune finds better ones)")
                    for warm in BOTH if given.warm else COLD_ONLY:
                        bench.pair(cell, seed, name, form, warm=warm)


def main() -> None:
    """Read the arguments, measure, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--table", action="store_true", help="write the tables and measure nothing")
    parser.add_argument("--quick", action="store_true", help="the first cell, seed 0, under 20 minutes")
    parser.add_argument("--tune", action="store_true", help="tune the peers on the second cell")
    parser.add_argument("--tune-seconds", type=float, help="of each tuning run; the cell's own time by default")
    parser.add_argument("--cells", nargs="+", choices=tuple(CELLS), default=list(CELLS))
    parser.add_argument("--peers", nargs="+", choices=tuple(PEERS), default=list(PEERS))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--seeds", type=int, default=3, help="how many of a cell's seeds")
    parser.add_argument("--warm", action=argparse.BooleanOptionalAction, default=True, help="the warm-cache column too")
    parser.add_argument("--limit", type=float, default=float("inf"), help="begin no run that would end after so many s")
    given = parser.parse_args()
    if not given.table:
        if not PEERS_PYTHON.exists():
            raise SystemExit("The peers are not installed: use `make bench-train`, which makes .venv-peers.")
        try:
            tune(given.tune_seconds) if given.tune else measure(given)
        except KeyboardInterrupt:
            print("\nStopped; finished cells are kept. Run the same command to go on.", flush=True)
    write_tables()


if __name__ == "__main__":
    main()
