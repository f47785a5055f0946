"""The grid of small trainings that the forecast of bits per byte is fitted to.

    python benchmarks/scaling.py               # the cells that are missing, one after the other
    python benchmarks/scaling.py --jobs 2      # two at a time, one thread each
    python benchmarks/scaling.py --quick       # only the cells of a minute
    python benchmarks/scaling.py --fit         # the constants of bimo/train/predict.py, and how far off they are

A cell is a training whose budget is in tokens, so that its loss does not depend on the speed of the machine; its
figures are kept in benchmarks/results/scaling/. A cell is measured again when the defaults of the optimizer or the
schedule have changed since, or its file is deleted.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares  # type: ignore[import-untyped]

from bimo import files
from bimo.optim import OptimizerConfig
from bimo.optim.schedule import ScheduleConfig
from bimo.text.corpora import fetch
from bimo.train.anchor import Anchor
from bimo.train.predict import LAW, Law, predict
from bimo.train.probe import active_parameters

# Texts of prose and of programs; a package is that of this very environment, as constraints.txt has it. The first three
# are those that benchmarks/plan.py proves the forecast with, in other runs: --fit shows what it is worth without each.
CORPORA = (
    "shakespeare", "sanguo", "python-stdlib",
    "wiki-en", "wiki-fr", "wiki-es", "sotu", "gutenberg-mix", "boolq-passages",
)  # fmt: skip
PACKAGES = ("numpy", "pygments", "scipy", "sklearn", "sqlalchemy")
SIZES = ((64, 2, 400_000), (96, 3, 1_200_000), (192, 4, 2_000_000), (160, 3, 3_000_000))  # width, layers, tokens
EXTREMES = (  # long trainings, of which two repeat their text 7 and 12 times; large models that have read little
    ("numpy", 256, 4, 6_000_000), ("wiki-es", 256, 4, 6_000_000), ("sanguo", 256, 4, 6_000_000),
    ("numpy", 384, 6, 400_000), ("wiki-es", 384, 6, 400_000), ("wiki-en", 384, 6, 400_000),
)  # fmt: skip
QUICK_FLOPS = 4e12  # cells below take about a minute
VOCABULARY = 2048
# Where the search for the constants begins. Other powers are given, and ``data`` as a multiple of ``size``: the grid is
# too small to tell them (multiples of 0.5 to 2.3 fit it equally well; Hoffmann et al. 2022 have 2.3 with AdamW).
FITTED = {"floor": 0.7, "size": 0.1, "begins": 1.5}
DATA_OVER_SIZE = 1.6
PAIRED = {"copying": (0.5, 1.2, 0.25), "hardness": (0.2, 0.6)}
RESULTS = Path(__file__).parent / "results" / "scaling"


def grid() -> list[tuple[str, int, int, int]]:
    """Corpus, width, layers and tokens of all cells, the cheapest first."""
    every = [(corpus, *size) for corpus, size in itertools.product((*CORPORA, *PACKAGES), SIZES)]
    return sorted((*every, *EXTREMES), key=lambda cell: flops(*cell[1:]))


def text_of(corpus: str) -> str:
    """What ``bimo train --data`` is given: a name, or the folder of a package."""
    if corpus not in PACKAGES:
        fetch(corpus)
        return corpus
    found = importlib.util.find_spec(corpus)
    assert found and found.origin, f"{corpus} is not installed"
    return str(Path(found.origin).parent)


def flops(width: int, layers: int, tokens: int) -> float:
    """Arithmetic of a cell."""
    return 6.0 * (12 * layers * width**2 + VOCABULARY * width) * tokens


def measure(corpus: str, width: int, layers: int, tokens: int) -> dict[str, Any]:
    """Train once and return what the fit needs."""
    from bimo.text.source import open_source
    from bimo.train.anchor import measure_anchor
    from bimo.train.materials import TEST_FOLDER, open_materials
    from bimo.train.pretrain import train

    text, began = text_of(corpus), time.monotonic()
    pinned = (f"model.width={width}", f"model.layers={layers}", f"tokenizer.vocab_size={VOCABULARY}", "compile=false")
    with tempfile.TemporaryDirectory() as folder:
        run = train(text, f"{tokens}-tokens", Path(folder) / "run", overrides=pinned, quiet=True)
        lineage = run.read_lineage()
        materials = open_materials(run, lineage["data"])
        documents = open_source(run.checkpoints / TEST_FOLDER)
        anchor = measure_anchor(materials.train, documents, materials.tokenizer)
    return {
        "corpus": corpus,
        "width": width,
        "layers": layers,
        "tokens": tokens,
        "defaults": defaults(),
        "wall_seconds": round(time.monotonic() - began, 1),
        "anchor": asdict(anchor),
        "model": lineage["model"],
        "metrics": lineage["metrics"],
        "machine": lineage["machine"],
    }


def defaults() -> dict[str, Any]:
    """What the loss depends on besides the cell's own numbers: a cell with other defaults is measured again."""
    return {"optimizer": asdict(OptimizerConfig()), "schedule": asdict(ScheduleConfig())}


def finished() -> list[dict[str, Any]]:
    """The cells that were measured with today's defaults."""
    cells = [files.read_json(path) for path in sorted(RESULTS.glob("*.json"))]
    return [cell for cell in cells if cell["defaults"] == defaults()]


def complete(jobs: int, quick: bool) -> None:
    """Measure the missing cells, each in a process of its own, ``jobs`` at a time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if jobs > 1 else dict(os.environ)
    running: list[subprocess.Popen[bytes]] = []
    there = {(cell["corpus"], cell["width"], cell["layers"], cell["tokens"]) for cell in finished()}
    for cell in grid():
        path = path_of(*cell)
        if cell in there or (quick and flops(*cell[1:]) > QUICK_FLOPS):
            continue
        while len([one for one in running if one.poll() is None]) >= jobs:
            time.sleep(0.5)
        print(f"{path.stem}", flush=True)
        command = [sys.executable, __file__, "--cell", *map(str, cell)]
        running.append(subprocess.Popen(command, env=environment))
    for one in running:
        one.wait()


def path_of(corpus: str, width: int, layers: int, tokens: int) -> Path:
    """Where a cell is kept."""
    return RESULTS / f"{corpus}-{width}x{layers}-{tokens // 1000}k.json"


def fit(cells: list[dict[str, Any]]) -> Law:
    """The law with the smallest squared errors of the logarithm."""
    facts, actual = [_facts(cell) for cell in cells], np.array([_actual(cell) for cell in cells])

    def errors(constants: NDArray[np.float64]) -> NDArray[np.float64]:
        law = _law(constants)
        return np.log([predict(*one, law).value for one in facts] / actual)

    start = np.array([*FITTED.values(), *itertools.chain(*PAIRED.values())])
    found = least_squares(errors, start, bounds=(0.0, 4.0), x_scale=start)
    spread = math.sqrt(2 * found.cost / max(1, len(cells) - len(start)))
    ranges = [(min(one) / 1e6, max(one) / 1e6) for one in list(zip(*facts, strict=True))[1:]]
    return replace(_law(found.x), spread=spread, parameters=ranges[0], tokens=ranges[1])


def _law(constants: NDArray[np.float64]) -> Law:
    left = iter(constants.tolist())
    single: dict[str, Any] = {name: next(left) for name in FITTED}
    paired: dict[str, Any] = {name: tuple(itertools.islice(left, len(one))) for name, one in PAIRED.items()}
    return replace(LAW, data=DATA_OVER_SIZE * single["size"], **single, **paired)


def _facts(cell: dict[str, Any]) -> tuple[Anchor, int, int]:
    """What the forecast is made from: text, parameters and tokens."""
    anchor = Anchor(**cell["anchor"])
    return anchor, active_parameters(cell["width"], cell["layers"], anchor.vocab_size), cell["metrics"]["tokens"]


def _actual(cell: dict[str, Any]) -> float:
    return float(cell["metrics"]["test_bits_per_byte"]["value"])


def show(cells: list[dict[str, Any]]) -> None:
    """Print the constants to copy into bimo/train/predict.py, and each cell's error with all and without its corpus."""
    law = fit(cells)
    print("LAW = Law(")
    for field, value in asdict(law).items():
        shown = f"({', '.join(f'{one:.3g}' for one in value)})" if isinstance(value, tuple) else f"{value:.4g}"
        print(f"    {field}={shown},")
    print(")  # fmt: skip\n\nerrors: with these constants; with those in the code; fitted without the corpus")
    unseen = {name: fit([cell for cell in cells if cell["corpus"] != name]) for name in {c["corpus"] for c in cells}}
    every = []
    for cell in cells:
        facts, actual, laws = _facts(cell), _actual(cell), (law, LAW, unseen[cell["corpus"]])
        off = [predict(*facts, one).value / actual - 1 for one in laws]
        name = f"{cell['corpus']} {cell['width']}x{cell['layers']} {facts[2] / 1e6:.2f}M"
        print(f"{name:36} {actual:.3f}  " + "  ".join(f"{one:+6.1%}" for one in off))
        every.append(off)
    print(f"{'root mean square':43}" + "  ".join(f"{one:6.1%}" for one in np.sqrt(np.square(every).mean(axis=0))))


def main() -> None:
    """Measure what is missing, or fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time; with more than one, a thread each")
    parser.add_argument("--quick", action="store_true", help="only the cheap cells")
    parser.add_argument("--fit", action="store_true", help="print the constants that fit the cells")
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        corpus, *numbers = arguments.cell
        cell = (corpus, *map(int, numbers))
        files.write_json(path_of(*cell), measure(*cell))
    elif arguments.fit:
        show(finished())
    else:
        complete(arguments.jobs, arguments.quick)


if __name__ == "__main__":
    main()
