"""Preparing text: speed, memory, datatrove beside it, tokenising, labelled samples, and what cleaning does to a model.

    make bench-text                  # the cells that are missing, then the tables in docs/benchmarks.md; interruptible
    make bench-text QUICK=1          # a tenth of the text and one run of each, minutes
    python benchmarks/text.py --cells speed memory
    python benchmarks/text.py --table
    python benchmarks/text.py --tiny # does it run at all? nothing is kept in benchmarks/results

A finished cell is a JSON file in benchmarks/results/text/; delete a file to measure it again. docs/benchmarks.md says
how it is measured, benchmarks/texts/cells.py at which sizes and against which goals.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that `python benchmarks/text.py` finds its own folder

from benchmarks.texts import speed
from benchmarks.texts.cells import FULL, PEERS_PYTHON, QUICK, ROOT, TINY, Scale
from benchmarks.texts.effect import effect
from benchmarks.texts.processes import own_process
from benchmarks.texts.table import tables
from benchmarks.training.processes import machine
from benchmarks.training.table import replace_between
from bimo import files

PAGE = ROOT / "docs" / "benchmarks.md"
CELLS = ("speed", "peer", "memory", "tokens", "labels", "effect")

Work = Callable[[], dict[str, Any]]


def parts(cell: str, scale: Scale) -> dict[str, Work]:
    """The results that a cell consists of, and how each is measured."""
    if cell == "speed":
        works: dict[str, Work] = {f"speed-{name}": functools.partial(speed.speed, scale, name) for name in speed.SPEED}
        return {**works, "speed-profile": lambda: {"kinds": speed.profile(scale)}}
    if cell == "tokens":
        return {"tokens": lambda: own_process("texts.tokens", scale.token_megabytes, scale.repeats)}
    if cell == "labels":
        names = ("language", "pii", "copies")
        return {f"labels-{name}": functools.partial(own_process, "texts.labels", name, scale.count) for name in names}
    if cell == "effect":
        return {f"effect-{seed}": functools.partial(effect, scale, seed) for seed in scale.seeds}
    return {cell: functools.partial({"peer": speed.peer, "memory": speed.memory}[cell], scale)}


def measure(scale: Scale, cells: list[str], limit: float) -> bool:
    """Measure what is missing; nothing is begun after ``limit`` seconds. Returns whether nothing failed."""
    began, well = time.monotonic(), True
    for cell in cells:
        for name, work in parts(cell, scale).items():
            path = scale.result(name)
            if path.exists():
                continue
            if time.monotonic() - began > limit:
                print(f"no time left for {name}", flush=True)
                continue
            if cell in ("peer", "labels") and not PEERS_PYTHON.exists():
                print(f"{name}: its peers are not installed; `make bench-text` makes .venv-text-peers", flush=True)
                well = False
                continue
            print(f"{name} ...", flush=True)
            load, started = machine(), time.monotonic()
            try:
                found = work()
            except SystemExit as failure:  # of this one: the others may run
                print(f"{name}: {failure}", flush=True)
                well = False
                continue
            facts = {"cell": name, "scale": scale.name, "machine": load}
            files.write_json(path, {**facts, **found, "measured_in_seconds": round(time.monotonic() - started, 1)})
            print(f"{name}: done in {time.monotonic() - started:.0f} s", flush=True)
    return well


def main() -> None:
    """Read the arguments, measure, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--table", action="store_true", help="write the tables and measure nothing")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_const", dest="scale", const=QUICK, help="20 MB, one run of each")
    sizes.add_argument("--tiny", action="store_const", dest="scale", const=TINY, help="does it run at all?")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--gigabytes", type=float, help="of the larger text that memory is measured on")
    parser.add_argument("--limit", type=float, default=float("inf"), help="begin nothing after so many seconds")
    parser.set_defaults(scale=FULL)
    given = parser.parse_args()
    scale: Scale = given.scale
    if given.gigabytes:
        scale = dataclasses.replace(scale, gigabytes=given.gigabytes)
    well = True
    if not given.table:
        try:
            well = measure(scale, given.cells, given.limit)
        except KeyboardInterrupt:
            print("\nStopped; finished cells are kept. Run the same command to go on.", flush=True)
    content = tables(scale, FULL.seeds)
    if scale.name != "tiny":
        replace_between(PAGE, "text", content)
    print(content)
    if not well:
        raise SystemExit("Not every cell could be measured; see above.")


if __name__ == "__main__":
    main()
