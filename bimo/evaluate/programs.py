"""Runs programs that a model wrote, each in a process that can reach little; see ``confined.py``."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bimo.errors import UsageError

SECONDS = 5  # of processor time
MEMORY, DISK = 1 << 30, 1 << 20  # bytes; the second of one file
PATIENCE = 12  # times the processor time that a program may take by the clock
LAUNCHER = Path(__file__).with_name("confined.py")
KILLED = {signal.SIGXCPU: "takes too long", signal.SIGKILL: "takes too long", signal.SIGSEGV: "crashes"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended.

    Attributes:
        passed: it came to its end, with every assertion that stands in it.
        reason: else why not: the last line of its error, or how it was stopped.
        missing: what this system cannot keep a program from; empty on Linux.
    """

    passed: bool
    reason: str
    missing: tuple[str, ...]


def run_program(source: str, *, seconds: int = SECONDS, memory: int = MEMORY) -> Outcome:
    """Run Python source in a process of its own, in a new folder that is then removed, without the user's environment.

    A program that ends itself before its last line has not passed. Equal programs have equal ends: hashes are not
    salted.

    Raises:
        UsageError: this system has no limits for processes.
    """
    if os.name != "posix":
        raise UsageError("Programs cannot be run safely here.", expected="Linux or macOS", got=os.name)
    token = secrets.token_hex(16)
    job = {"source": source, "token": token, "seconds": seconds, "memory": memory, "disk": DISK}
    own = tempfile.TemporaryDirectory(prefix="bimo-program.", ignore_cleanup_errors=True)
    with own as folder, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-s", "-S", "-B", "-P", str(LAUNCHER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder},
            start_new_session=True,
        )
        try:
            answer, _ = process.communicate(json.dumps(job).encode(), timeout=PATIENCE * seconds)
        except subprocess.TimeoutExpired:
            answer = b""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.communicate()
        errors.seek(0)
        said = errors.read(DISK).decode("utf-8", "replace").strip().splitlines()
    first, _, rest = answer.partition(b"\n")
    missing = tuple(json.loads(first)) if first else ()
    if rest == token.encode():
        return Outcome(True, "", missing)
    ended = KILLED.get(signal.Signals(-process.returncode), "is killed") if process.returncode < 0 else ""
    return Outcome(False, ended or (said[-1] if said else "ends before its tests"), missing)


def run_programs(sources: Sequence[str], *, seconds: int = SECONDS) -> Iterator[Outcome]:
    """The outcomes in order, as they come; as many run together as there are cores."""
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        yield from pool.map(lambda source: run_program(source, seconds=seconds), sources)
