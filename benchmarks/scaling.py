"""The grid of small trainings that the forecast of bits per byte is fitted to.

    python benchmarks/scaling.py               # the cells that are missing, one after the other
    python benchmarks/scaling.py --jobs 2      # two at a time, one thread each
    python benchmarks/scaling.py --quick       # only the cells of a few minutes
    python benchmarks/scaling.py --fit         # the constants of bimo/train/predict.py, and how far off they are

A cell is a training whose budget is in tokens, so that its loss does not depend on the speed of the machine; its
figures are kept in benchmarks/results/scaling/. Delete a file to measure its cell again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bimo import files
from bimo.text.corpora import fetch

CORPORA = ("shakespeare", "sanguo", "python-stdlib")
SHAPES = ((64, 2), (128, 3), (192, 4), (256, 6))
TOKENS = (250_000, 750_000, 2_250_000, 6_750_000)
QUICK_FLOPS = 4e12  # cells below are a few minutes of one core each
LARGEST_FLOPS = 4e13  # cells above would take hours
VOCABULARY = 2048
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
        "wall_seconds": round(time.monotonic() - began, 1),
        "anchor": asdict(anchor),
        "model": lineage["model"],
        "metrics": lineage["metrics"],
        "machine": lineage["machine"],
    }


def complete(jobs: int, quick: bool) -> None:
    """Measure the missing cells, each in a process of its own, ``jobs`` at a time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if jobs > 1 else dict(os.environ)
    running: list[subprocess.Popen[bytes]] = []
    for cell in grid():
        path = path_of(*cell)
        if path.exists() or (quick and flops(*cell[1:]) > QUICK_FLOPS):
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


def main() -> None:
    """Measure what is missing, or fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time; with more than one, a thread each")
    parser.add_argument("--quick", action="store_true", help="only the cheap cells")
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        corpus, *numbers = arguments.cell
        cell = (corpus, *map(int, numbers))
        files.write_json(path_of(*cell), measure(*cell))
    else:
        complete(arguments.jobs, arguments.quick)


if __name__ == "__main__":
    main()
