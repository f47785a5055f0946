"""One run of a peer or of bimo, in a process of its own, measured from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.training.cells import CACHE, PEERS, ROOT, THREADS, TUNED, Cell
from bimo import files
from bimo.device import bfloat16_instructions, processor_name
from bimo.text.corpora import fetch

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
WARMING_SECONDS = 60.0
PEER_LIBRARIES = ("torch", "transformers", "accelerate", "litgpt", "lightning")


def machine() -> dict[str, Any]:
    """The machine, for every cell."""
    return {
        "processor": processor_name(),
        "bfloat16": bfloat16_instructions(),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "load": os.getloadavg()[0],
    }


def spawn(
    command: list[str], environment: dict[str, str], log: Path, started: Callable[[int], object] = lambda pid: None
) -> tuple[int, float, int]:
    """Run to the end: (exit code, wall-clock seconds, peak resident bytes of the largest process of it).

    Args:
        started: called with the process's id, to watch it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            started(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            process.kill()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.monotonic() - began, usage.ru_maxrss * 1024


def environment_with(compiled: Path) -> dict[str, str]:
    """The environment of a run that keeps compiled code, and all that bimo remembers of this machine, in a folder."""
    compiled.mkdir(parents=True, exist_ok=True)
    corpora = compiled / "bimo" / "corpora"
    if not corpora.exists():  # texts are downloads, not compiled code: they are there before the clock starts
        corpora.parent.mkdir(parents=True, exist_ok=True)
        corpora.symlink_to((files.cache_folder() / "corpora").resolve())
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(THREADS),
        "TORCHINDUCTOR_CACHE_DIR": str(compiled / "inductor"),
        "BIMO_KERNEL_CACHE": str(compiled / "kernels"),
        "BIMO_CACHE": str(compiled / "bimo"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }


class Compiled:
    """A folder for compiled code: new and empty for a cold run, what the last run left for a warm one."""

    def __init__(self, name: str, *, warm: bool) -> None:
        self.folder = CACHE / "compiled" / name
        if not warm:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.was_warm = any(self.folder.glob("*")) if self.folder.is_dir() else False


def prepare(cell: Cell, seed: int) -> Path:
    """The folder of a cell's ids, made in a process of its own.

    Its memory would otherwise count as its children's: a process's peak begins with that of the one that forked it.
    """
    folder = CACHE / "ids" / f"{cell.name}-{seed}"
    if not (folder / "meta.json").is_file():
        command = [sys.executable, "-m", "benchmarks.training.prepare", str(folder), str(seed), *cell.corpora]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    return folder


def tuned_settings(peer: str) -> dict[str, Any] | None:
    """Learning rate and rows that the tuning runs chose; None while there are none."""
    settings: dict[str, Any] | None = files.read_json(TUNED).get(peer) if TUNED.is_file() else None
    return settings


def run_peer(
    cell: Cell,
    seed: int,
    name: str,
    form: str,
    *,
    warm: bool = False,
    part: str = "test",
    seconds: float | None = None,
    choice: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a peer for the cell's time and evaluate its final weights."""
    peer, data = PEERS[name], prepare(cell, seed)
    shape, limit = cell.shape(name), seconds or cell.seconds
    chosen = choice or (tuned_settings(name) if form == "tuned" else None) or {}
    compiled = Compiled(f"{cell.name}-{name}-{form}", warm=warm)
    if warm and not compiled.was_warm:  # nothing is left of a cold run: a short one first
        run_peer(cell, seed, name, form, seconds=WARMING_SECONDS, choice=choice)
        compiled = Compiled(f"{cell.name}-{name}-{form}", warm=True)
    with tempfile.TemporaryDirectory() as temporary:
        out, log = Path(temporary) / "out", CACHE / "logs" / f"{cell.name}-{seed}-{name}-{form}.log"
        command = [
            *(str(PEERS_PYTHON), "-m", f"benchmarks.peers.{peer.module}", "--family", peer.family),
            *("--data", str(data), "--out", str(out), "--shape", json.dumps(shape), "--form", form),
            *("--seed", str(seed), "--threads", str(THREADS), "--seconds", str(limit)),
        ]
        for key in ("learning_rate", "batch"):
            if key in chosen:
                command += [f"--{key.replace('_', '-')}", str(chosen[key])]
        environment = environment_with(compiled.folder)
        load = machine()
        code, wall, memory = spawn([*command, "--began", repr(time.monotonic())], environment, log)
        if code:
            raise SystemExit(f"{name} failed, see {log}:\n{log.read_text(errors='replace')[-2000:]}")
        result = files.read_json(out / "result.json")
        measured = evaluate(peer.kind, out, data, shape, part)
    return {
        "cell": cell.name,
        "seed": seed,
        "peer": name,
        "form": form,
        "warm": compiled.was_warm,
        "tuned_by_runs": bool(chosen),
        "limit_seconds": limit,
        "wall_seconds": result["seconds"]["trained"],
        "process_seconds": round(wall, 2),
        "peak_memory_bytes": memory,
        part: measured,
        "shape": shape,
        "machine": load,
        "versions": versions(),
        **result,
    }


def versions() -> dict[str, str]:
    """Versions in the peers' environment."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    printed = subprocess.run(
        [str(PEERS_PYTHON), "-c", code, *PEER_LIBRARIES], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(printed.stdout)
    return found


def evaluate(kind: str, model: Path, data: Path, shape: dict[str, int], part: str = "test") -> dict[str, Any]:
    """The one evaluator, in the peers' environment."""
    command = [
        *(str(PEERS_PYTHON), "-m", "benchmarks.peers.evaluate", "--kind", kind, "--model", str(model)),
        *("--data", str(data), "--part", part, "--shape", json.dumps(shape), "--threads", str(THREADS)),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(THREADS)}
    printed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if printed.returncode:
        raise SystemExit(f"The evaluator failed:\n{printed.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(printed.stdout.strip().splitlines()[-1])
    return found


def run_bimo(cell: Cell, seed: int, budget: float, *, warm: bool = False) -> dict[str, Any]:
    """Train with ``bimo train`` as a user does, then evaluate the saved folder as a peer's."""
    for corpus in cell.corpora:
        fetch(corpus)
    data = prepare(cell, seed)
    compiled = Compiled(f"{cell.name}-bimo", warm=warm)
    if warm and not compiled.was_warm:
        run_bimo(cell, seed, budget)
        compiled = Compiled(f"{cell.name}-bimo", warm=True)
    with tempfile.TemporaryDirectory() as temporary:
        out, log = Path(temporary) / "run", CACHE / "logs" / f"{cell.name}-{seed}-bimo-{budget:g}.log"
        command = [sys.executable, "-m", "bimo", "train"]
        for corpus in cell.corpora:
            command += ["--data", corpus]
        command += ["--budget", f"{budget:g}s", "--seed", str(seed), "--out", str(out), "--set", *cell.overrides()]
        load, began = machine(), time.time()
        code, wall, memory = spawn(command, environment_with(compiled.folder), log)
        found = {
            "cell": cell.name,
            "seed": seed,
            "peer": "bimo",
            "warm": compiled.was_warm,
            "budget_seconds": budget,
            "process_seconds": round(wall, 2),
            "peak_memory_bytes": memory,
            "machine": load,
        }
        if code or not (out / "model.safetensors").is_file():
            tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
            return {**found, "test": None, "failed": " ".join(tail)}
        _check_same_ids(out, data)
        measured = evaluate("hf", out, data, cell.shape("hf-qwen3"))
        return {**found, **_of_run(out, began), "test": measured}


def _of_run(out: Path, began: float) -> dict[str, Any]:
    """What a finished run says of itself; ``wall_seconds`` ends with the last step or the saving of final weights."""
    lineage = files.read_json(out / "lineage.json")
    ended = max((out / name).stat().st_mtime for name in ("metrics.jsonl", "model.safetensors"))
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    half = steps[len(steps) // 2 :]
    spent = half[-1]["seconds"] - half[0]["seconds"]
    settings = yaml.safe_load((out / "bimo.yaml").read_text(encoding="utf-8"))
    return {
        "wall_seconds": round(ended - began, 2),
        "parameters": lineage["model"]["parameters"],
        "non_embedding_parameters": lineage["model"]["non_embedding_parameters"],
        "steps": steps[-1]["step"],
        "tokens": steps[-1]["tokens"],
        "tokens_per_second": round((half[-1]["tokens"] - half[0]["tokens"]) / spent, 1) if spent > 0 else None,
        "own_test_bits_per_byte": lineage["metrics"]["test_bits_per_byte"]["value"],
        "settings": {key: settings[key] for key in ("dtype", "compile", "threads", "batch", "optimizer", "schedule")},
        "events": lineage["events"],
        "versions": lineage["versions"],
        "plan_step_seconds": lineage["plan"]["step_seconds"],
    }


def _check_same_ids(out: Path, data: Path) -> None:
    """Refuse to compare when bimo made of the text other ids than the peers were given."""
    meta, lineage = files.read_json(data / "meta.json"), files.read_json(out / "lineage.json")
    if (meta["data_hash"], meta["tokenizer_hash"]) != (lineage["data"]["data_hash"], lineage["tokenizer"]["hash"]):
        raise SystemExit(f"{data} was made from other text than bimo's run; delete the folder and run again.")
