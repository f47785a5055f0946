"""The grid of small trainings that the forecast of bits per byte is fitted to.

    python benchmarks/scaling.py               # the cells that are missing, one after the other
    python benchmarks/scaling.py --jobs 2      # two at a time, one thread each
    python benchmarks/scaling.py --quick       # only the cells of a few minutes
    python benchmarks/scaling.py --fit         # the constants of bimo/train/predict.py, and how far off they are

A cell is a training whose budget is in tokens, so that its loss does not depend on the speed of the machine; its
figures are kept in benchmarks/results/scaling/. A cell is measured again when the defaults of the optimizer or the
schedule have changed since, or its file is deleted.
"""

from __future__ import annotations

import argparse
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

from bimo import files
from bimo.optim import OptimizerConfig
from bimo.optim.schedule import ScheduleConfig
from bimo.text.corpora import fetch
from bimo.train.anchor import Anchor
from bimo.train.predict import LAW, Law, effective_parameters, predict, terms
from bimo.train.probe import active_parameters

CORPORA = ("shakespeare", "sanguo", "python-stdlib")
SHAPES = ((64, 2), (128, 3), (192, 4), (256, 6))
TOKENS = (250_000, 750_000, 2_250_000, 6_750_000)
QUICK_FLOPS = 4e12  # cells below are a few minutes of one core each
LARGEST_FLOPS = 4e13  # cells above would take hours
VOCABULARY = 2048
POWERS = (  # of parameters, text and data, and the share of the text that is known ahead
    [0.3, 0.35, 0.4],  # as in Hoffmann et al. 2022: the grid's models are too alike to tell
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0],
    [0.3, 0.4, 0.5, 0.6, 0.8],
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
)
UNKNOWN = 6
RESULTS = Path(__file__).parent / "results" / "scaling"


def grid() -> list[tuple[str, int, int, int]]:
    """Corpus, width, layers and tokens of all cells, the cheapest first."""
    cells = itertools.product(CORPORA, SHAPES, TOKENS)
    every = [(corpus, width, layers, tokens) for corpus, (width, layers), tokens in cells]
    return sorted((cell for cell in every if flops(*cell[1:]) <= LARGEST_FLOPS), key=lambda cell: flops(*cell[1:]))


def flops(width: int, layers: int, tokens: int) -> float:
    """Arithmetic of a cell."""
    return 6.0 * (12 * layers * width**2 + VOCABULARY * width) * tokens


def measure(corpus: str, width: int, layers: int, tokens: int) -> dict[str, Any]:
    """Train once and return what the fit needs."""
    from bimo.text.source import open_source
    from bimo.train.anchor import measure_anchor
    from bimo.train.materials import TEST_FOLDER, open_materials
    from bimo.train.pretrain import train

    fetch(corpus)
    began = time.monotonic()
    pinned = (f"model.width={width}", f"model.layers={layers}", f"tokenizer.vocab_size={VOCABULARY}", "compile=false")
    with tempfile.TemporaryDirectory() as folder:
        run = train(corpus, f"{tokens}-tokens", Path(folder) / "run", overrides=pinned, quiet=True)
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
    """The law that is nearest to the cells in squared relative error: exponents by grid, the rest by least squares."""
    found = min((_solved(cells, *powers) for powers in itertools.product(*POWERS)), key=lambda one: one[0])
    error, law = found
    spread = math.sqrt(error / max(1, len(cells) - UNKNOWN))
    sizes = [_parameters(cell) / 1e6 for cell in cells]
    tokens = [cell["metrics"]["tokens"] / 1e6 for cell in cells]
    return replace(law, spread=spread, parameters=(min(sizes), max(sizes)), tokens=(min(tokens), max(tokens)))


def _parameters(cell: dict[str, Any]) -> int:
    return active_parameters(cell["width"], cell["layers"], cell["anchor"]["vocab_size"])


def _solved(
    cells: list[dict[str, Any]], size_power: float, text_power: float, data_power: float, ahead: float
) -> tuple[float, Law]:
    """Squared relative error and law for given exponents; constants below 0 count as infinitely wrong."""
    law = replace(LAW, size_power=size_power, text_power=text_power, data_power=data_power, ahead=ahead)
    features = []
    for cell in cells:
        anchor, metrics = Anchor(**cell["anchor"]), cell["metrics"]
        size = effective_parameters(_parameters(cell), anchor.unique_tokens) / 1e6
        scale = anchor.bits_per_byte / metrics["test_bits_per_byte"]["value"]
        features.append([term * scale for term in terms(anchor, size, metrics["tokens"], law)])
    matrix = np.array(features)
    constants = np.linalg.lstsq(matrix, np.ones(len(cells)), rcond=None)[0]
    error = math.inf if min(constants) < 0 else float(np.square(matrix @ constants - 1).sum())
    floor, size, text, data = map(float, constants)
    return error, replace(law, floor=floor, size=size, text=text, data=data)


def show(cells: list[dict[str, Any]]) -> None:
    """Print the constants to copy into bimo/train/predict.py, and each cell's error with all and without its corpus."""
    law = fit(cells)
    print("LAW = Law(")
    for field, value in asdict(law).items():
        shown = f"({value[0]:.3g}, {value[1]:.3g})" if isinstance(value, tuple) else f"{value:.4g}"
        print(f"    {field}={shown},")
    print(")  # fmt: skip\n\nerrors: with these constants; with those in the code; fitted without the corpus")
    unseen = {name: fit([cell for cell in cells if cell["corpus"] != name]) for name in {c["corpus"] for c in cells}}
    for cell in cells:
        anchor, actual = Anchor(**cell["anchor"]), cell["metrics"]["test_bits_per_byte"]["value"]
        parameters = _parameters(cell)
        laws = (law, LAW, unseen[cell["corpus"]])
        off = [predict(anchor, parameters, cell["metrics"]["tokens"], one).value / actual - 1 for one in laws]
        name = f"{cell['corpus']} {cell['width']}x{cell['layers']} {cell['metrics']['tokens'] / 1e6:.2f}M"
        print(f"{name:36} {actual:.3f}  " + "  ".join(f"{one:+6.1%}" for one in off))


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
