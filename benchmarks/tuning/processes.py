"""Runs of bimo and of its peers, each in a process of its own that is measured from outside with what it starts."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.texts.processes import Tree
from benchmarks.training.processes import spawn
from benchmarks.tuning.cells import ROOT, THREADS, WORK, Cell
from bimo import files

PEERS_PYTHON = ROOT / ".venv-tune-peers" / "bin" / "python"
EVERY_SECONDS = 0.02
PEER_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "trl", "datasets")


def environment() -> dict[str, str]:
    """The environment of everybody."""
    fixed = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1", "TERM": "dumb"}
    return {**os.environ, **fixed, "HF_DATASETS_CACHE": str(WORK / "datasets")}


def model_of(name: str) -> Path:
    """A model by its name, imported where it is missing."""
    folder = WORK / "models" / name
    if not (folder / "lineage.json").is_file():
        command = [sys.executable, "-m", "bimo", "import", name, "--out", str(folder)]
        subprocess.run(command, check=True, cwd=ROOT, env=environment())
    return folder


def prepared(cell: Cell) -> dict[str, Any]:
    """What bimo and the peers have in common of a cell, made where it is missing."""
    meta = WORK / cell.name / "meta.json"
    if not meta.is_file():
        model_of(cell.model)
        command = [sys.executable, "-m", "benchmarks.tuning.prepare", cell.name]
        subprocess.run(command, check=True, cwd=ROOT, env=environment())
    return dict(files.read_json(meta))


def run_bimo(cell: Cell) -> dict[str, Any]:
    """Tune as a user does; the same examples and labels as everybody, or it ends.

    Raises:
        SystemExit: the run failed, or was another than the peers'.
    """
    common = prepared(cell)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "run"
        command = [sys.executable, "-m", "bimo", "tune", cell.task, "--model", str(model_of(cell.model))]
        command += ["--data", str(WORK / cell.name / "rows.jsonl"), "--out", str(out)]
        command += cell.command(common["batch"], common["steps"])
        watch = Steps(out / "metrics.jsonl")
        found = _measured(command, f"{cell.name}-bimo", watch)
        lineage = files.read_json(out / "lineage.json")
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        same = common["data_hash"] == lineage["data"]["data_hash"]
        if not same or common["examples"] != lineage["data"]["train"]["examples"]:
            raise SystemExit(f"{WORK / cell.name} was made from other rows than bimo's run; delete it and run again.")
        first, last = lines[0], lines[-2]  # the last step's time has the validation in it
        share = (last["tokens"] - first["tokens"]) / lines[-1]["tokens"]
        found |= {
            "examples": common["examples"],
            "learned": lines[-1]["tokens"],
            "steps": lines[-1]["step"],
            "step_examples": share * common["examples"],
            "step_seconds": round(last["seconds"] - first["seconds"], 3),
            "step_processor_seconds": round(watch.between(1, len(lines) - 1), 3),
            "saved_seconds": found["saved_seconds"](out),
            "last_loss": lines[-1]["loss"],
            "held_out": evaluate(cell, out),
            "versions": lineage["versions"],
        }
    return checked(found, common)


def run_peer(cell: Cell, form: str) -> dict[str, Any]:
    """Train a peer in one of its forms.

    Raises:
        SystemExit: the run failed, or learned other labels than bimo's.
    """
    common = prepared(cell)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        command = [str(PEERS_PYTHON), "-m", "benchmarks.peers.trainers", cell.name, form]
        command += [str(WORK / cell.name), str(model_of(cell.model)), str(out)]
        found = _measured(command, f"{cell.name}-{form}")
        found |= files.read_json(out / "result.json")
        found |= {"saved_seconds": found["saved_seconds"](out / "model"), "held_out": evaluate(cell, out / "model")}
    return checked({**found, "versions": versions()}, common)


def checked(found: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """The run as it was found.

    Raises:
        SystemExit: it learned from another number of examples or labels than everybody.
    """
    for key in ("examples", "learned"):
        if found[key] != common[key]:
            raise SystemExit(f"The work is not the same: {found[key]:,} {key} where there are {common[key]:,}.")
    return found


def _measured(command: list[str], name: str, watch: Steps | None = None) -> dict[str, Any]:
    """Run a command to its end; ``saved_seconds`` is a function of the folder in which its weights lie."""
    log, tree = WORK / "logs" / f"{name}.log", Tree()

    def started(pid: int) -> None:
        tree.follow(pid)
        if watch:
            watch.follow(pid)

    began, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        code, wall, largest = spawn(command, environment(), log, started)
    finally:
        tree.stop()
        if watch:
            watch.stop()
    if code:
        raise SystemExit(f"{name} failed, see {log}:\n{log.read_text(errors='replace')[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def saved(folder: Path) -> float:
        return round(max(path.stat().st_mtime for path in folder.glob("*.safetensors")) - began, 2)

    return {
        "process_seconds": round(wall, 2),
        "processor_seconds": round(processor, 2),
        "peak_memory_bytes": max(largest, tree.peak),
        "saved_seconds": saved,
    }


class Steps:
    """Reads the processor time of a process whenever its record of steps has another line."""

    def __init__(self, record: Path) -> None:
        self._record, self._seconds = record, list[float]()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, pid: int) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._ended.set()
        if self._thread:
            self._thread.join()

    def noted(self, lines: int, spent: float) -> None:
        """The record has so many lines now, after so many processor seconds."""
        self._seconds += [spent] * (lines - len(self._seconds))

    def between(self, first: int, last: int) -> float:
        """Processor seconds from the end of a step to that of another, both counted from 1."""
        return self._seconds[last - 1] - self._seconds[first - 1]

    def _watch(self, pid: int) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        while not self._ended.wait(EVERY_SECONDS):
            try:
                lines = self._record.read_bytes().count(b"\n")
                values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:  # not begun, or ended
                continue
            spent = (int(values[11]) + int(values[12])) / ticks
            self.noted(lines, spent)


def evaluate(cell: Cell, model: Path) -> dict[str, float]:
    """Stock transformers on the test examples, for everybody's final weights."""
    words = [cell.name, str(WORK / cell.name), str(model), str(model_of(cell.model))]
    command = [str(PEERS_PYTHON), "-m", "benchmarks.peers.tuned", *words]
    ran = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"The evaluator failed:\n{ran.stderr[-2000:]}")
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def versions() -> dict[str, str]:
    """Versions in the peers' environment."""
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    command = [str(PEERS_PYTHON), "-c", code, *PEER_LIBRARIES]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
