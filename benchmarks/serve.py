"""How fast models answer: bimo's engine, llama.cpp and Hugging Face ``generate``, and how near to what the machine can.

    make bench-serve                  # the cells that are missing, then the table in docs/benchmarks.md; half an hour
    python benchmarks/serve.py --cells speed-135M-1
    python benchmarks/serve.py --table
    python benchmarks/serve.py --without-llama-cpp     # where .venv-serve-peers was not built; nothing is kept

A finished cell is a JSON file in benchmarks/results/serve/; delete it to measure it again. docs/benchmarks.md says how
it is measured, benchmarks/serving/cells.py at which sizes and against which goals.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that `python benchmarks/serve.py` finds its own folder

from benchmarks.serving.cells import CONTENDERS, MODELS, PEERS_PYTHON, RESULTS, ROOT, ROUNDS, THREADS, Contender
from benchmarks.serving.models import gguf_of, run_of
from benchmarks.serving.servers import server
from benchmarks.serving.table import table, weights_of
from benchmarks.training.processes import machine
from benchmarks.training.table import replace_between
from bimo import files
from bimo.models import llama

PAGE = ROOT / "docs" / "benchmarks.md"
SERVERS = (CONTENDERS[0], CONTENDERS[1])
Work = Callable[[], dict[str, Any]]


def model_of(contender: Contender, model: str) -> Path:
    """What a contender reads."""
    return gguf_of(model, contender.precision) if contender.library == "llama.cpp" else run_of(model)


def own_process(*words: str, threads: int, python: str | Path = sys.executable) -> dict[str, Any]:
    """What a program of this folder prints, in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    command = [str(python), "-m", *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    if ran.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{ran.stderr[-2000:]}")
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def speed(model: str, threads: int, contenders: tuple[Contender, ...], rounds: int = ROUNDS) -> dict[str, Any]:
    """All contenders in turn, a round after the other."""
    paths = {contender: model_of(contender, model) for contender in contenders}  # made before anything is timed
    found: dict[str, list[dict[str, Any]]] = {"machine": []}
    for _ in range(rounds):
        found["machine"].append(own_process("benchmarks.serving.machine", str(threads), threads=threads))
        for contender, path in paths.items():
            words = ("benchmarks.serving.answering", contender.library, contender.precision, str(path), str(threads))
            python = PEERS_PYTHON if contender.library == "llama.cpp" else sys.executable
            found.setdefault(contender.name, []).append(own_process(*words, threads=threads, python=python))
            print(f"  {contender.name}: {found[contender.name][-1]}", flush=True)
    config = llama.Config.from_hf(files.read_json(run_of(model) / "config.json"))
    return {"model": model, "threads": threads, "weights": weights_of(config), "rounds": found}


def servers(model: str, threads: int) -> dict[str, Any]:
    """Cold starts and first tokens through HTTP, in turn."""
    found: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in SERVERS}
    for _ in range(ROUNDS):
        for contender in SERVERS:
            path = model_of(contender, model)
            found[contender.name].append(server(contender.library, contender.precision, path, threads))
            print(f"  {contender.name}: {found[contender.name][-1]}", flush=True)
    return {"model": model, "threads": threads, "rounds": found}


def quality(model: str) -> dict[str, Any]:
    """Bits per byte by precision."""
    found = own_process("benchmarks.serving.quality", str(run_of(model)), threads=max(THREADS))
    return {"model": model, "bits_per_byte": found}


def works() -> dict[str, Work]:
    """The cells, and how each is measured."""
    speeds: dict[str, Work] = {
        f"speed-{model}-{threads}": functools.partial(speed, model, threads, CONTENDERS)
        for model in MODELS
        for threads in THREADS
    }
    servings = {f"server-{MODELS[0]}-{threads}": functools.partial(servers, MODELS[0], threads) for threads in THREADS}
    return {**speeds, **servings, **{f"quality-{model}": functools.partial(quality, model) for model in MODELS}}


def main() -> None:
    """Measure the cells that are missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", choices=works(), default=list(works()))
    parser.add_argument("--table", action="store_true", help="only write the table of finished cells")
    parser.add_argument("--without-llama-cpp", action="store_true", help="one round of the others, of one model")
    given = parser.parse_args()
    if given.without_llama_cpp:
        speed(MODELS[1], 1, tuple(one for one in CONTENDERS if one.library != "llama.cpp"), rounds=1)
        return
    for name in [] if given.table else given.cells:
        path = RESULTS / f"{name}.json"
        if path.exists():
            continue
        print(f"{name} ...", flush=True)
        load, began = machine(), time.monotonic()
        found = works()[name]()
        files.write_json(path, {"machine": load, **found, "measured_in_seconds": round(time.monotonic() - began)})
    replace_between(PAGE, "serve", table(RESULTS))


if __name__ == "__main__":
    main()
