"""Processes that are measured from outside, with everything they start."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.texts.cells import PEERS_PYTHON, ROOT, WORK
from benchmarks.training.processes import spawn
from bimo import files

EVERY_SECONDS = 0.1
BIMO = [sys.executable, "-m", "bimo"]


@dataclass(frozen=True)
class Ran:
    """A process that has ended well.

    Attributes:
        seconds: of wall-clock, from start to exit.
        largest_bytes: the most memory that one process of the tree had (``ru_maxrss``).
        tree_bytes: the most that all of them had at once, sampled; what they share is counted for each; 0 where there
            is no ``/proc``.
        output: what it printed.
    """

    seconds: float
    largest_bytes: int
    tree_bytes: int
    output: str


def environment() -> dict[str, str]:
    """The environment of everything that is run: this checkout's bimo, and nothing from the network."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TERM": "dumb", "NO_COLOR": "1"}


def run_tree(command: list[str], name: str) -> Ran:
    """Run a command and measure it; its output is kept in ``data/bench-text/logs``.

    Raises:
        SystemExit: it failed.
    """
    log, tree = WORK / "logs" / f"{name}.log", Tree()
    try:
        code, seconds, largest = spawn(command, environment(), log, tree.follow)
    finally:
        tree.stop()
    output = log.read_text(encoding="utf-8", errors="replace")
    if code:
        raise SystemExit(f"{' '.join(command[:6])} ... failed, see {log}:\n{output[-2000:]}")
    return Ran(round(seconds, 3), largest, tree.peak, output)


def own_process(module: str, *arguments: object, python: Path | str = sys.executable) -> dict[str, Any]:
    """Run a module of this folder or of the peers' with a file for its result before the arguments; returns the result.

    The caller stays small: the peak memory of a process begins with that of the one that starts it.
    """
    with tempfile.TemporaryDirectory() as temporary:
        result = Path(temporary) / "result.json"
        command = [str(python), "-m", f"benchmarks.{module}", str(result), *map(str, arguments)]
        run_tree(command, module)
        return files.read_json(result)


def peers_version(package: str) -> str:
    """The version of a package in the peers' environment, empty where it is not installed."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    if not PEERS_PYTHON.exists():
        return ""
    found = subprocess.run([str(PEERS_PYTHON), "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip()


class Tree:
    """Samples the resident memory of a process and of all that descend from it."""

    def __init__(self) -> None:
        self.peak = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, pid: int) -> None:
        self._thread = threading.Thread(target=self._sample, args=(pid,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()

    def _sample(self, pid: int) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            self.peak = max(self.peak, sum(map(resident_bytes, descendants(pid))))


def descendants(pid: int) -> Iterator[int]:
    """A process and those that it and its descendants have started."""
    yield pid
    try:
        children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it has ended
        return
    for child in itertools.chain.from_iterable(children):
        yield from descendants(int(child))


def resident_bytes(pid: int) -> int:
    """The memory of a process; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
