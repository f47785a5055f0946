"""The parts of prepared text are made by a Ray cluster instead of the processes of this machine.

The machines of the cluster must see the input files and ``out`` under the same paths as this one, and have this version
of bimo installed. What they cannot do (a file that is not there, a worker that dies) is tried again here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bimo.errors import BimoError, DataError
from bimo.text.prepare.part import FACTS, Task, make_part
from bimo.text.prepare.workers import Worker, isolated

PATIENCE, CLIENT_PORT = 5, 10001  # seconds; the port of ray://host


def on_ray(address: str | None = None) -> Worker:
    """For ``prepare(run=...)``: does tasks with Ray Data.

    Args:
        address: of a cluster, such as ``"auto"``; without one, ``$RAY_ADDRESS``, else a cluster on this machine alone.

    Raises:
        BimoError: Ray is not installed, or there is no cluster at ``address``.
        DataError: what the cluster has made is not to be seen from here.
    """

    def run(tasks: Sequence[Task]) -> Iterator[Path]:
        if not tasks:
            return
        left = {task.name: task for task in tasks}
        with _cluster(address) as ray:
            rows = [{"task": _absolute(task)} for task in tasks]
            made = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_make, num_cpus=1)
            for row in made.iter_rows():
                part = Path(left.pop(row["name"]).folder) / row["name"]
                if not (part / FACTS).exists():
                    expected = "--out and all input files in folders that every machine of the cluster shares"
                    raise DataError(f"{part} was made by the cluster but is not here.", expected=expected)
                yield part
        for task in left.values():
            yield from isolated(task)

    return run


def _make(row: dict[str, Any]) -> dict[str, str]:
    """Make one part.

    Raises:
        OSError: a file is not on this machine, or a worker died of this task: Ray would give it to others for ever.
    """
    task: Task = row["task"]
    for file in task.files:
        file.path.stat()
    tried = Path(task.folder) / f".{task.name}.tried"
    tried.mkdir()
    part = make_part(task)
    tried.rmdir()
    return {"name": part.name}


def _absolute(task: Task) -> Task:
    """The same for a process that works in another folder."""
    files = tuple(replace(file, path=file.path.absolute()) for file in task.files)
    return replace(task, files=files, folder=os.path.abspath(task.folder))


def _check_reachable(address: str) -> None:
    """Knock at the door of a cluster, as Ray itself waits for minutes where nobody answers.

    Args:
        address: ``host:port`` or ``ray://host:port``; nothing is asked of others, such as ``"auto"`` and ``"local"``.

    Raises:
        BimoError: nobody answers within ``PATIENCE`` seconds.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = parts.port or (CLIENT_PORT if parts.scheme == "ray" else None)
        if parts.scheme in ("", "ray") and parts.hostname and port:
            socket.create_connection((parts.hostname, port), timeout=PATIENCE).close()
    except (OSError, ValueError) as cause:
        raise _no_cluster(address, cause) from None


def _no_cluster(address: str | None, cause: Exception) -> BimoError:
    fix = "Start it with `ray start --head`, correct the address (RAY_ADDRESS), or leave it out to work here."
    return BimoError(f"There is no Ray cluster at {address}.", got=str(cause), fix=fix)


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected; a task that fails costs its own part only. What is started here ends here."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise BimoError("Ray is not installed.", fix="pip install 'bimo[ray]'") from None
    ours = not ray.is_initialized()
    if ours:
        _check_reachable(address or os.environ.get("RAY_ADDRESS", ""))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
        except ConnectionError as cause:
            raise _no_cluster(address or os.environ.get("RAY_ADDRESS"), cause) from None
    context = ray.data.DataContext.get_current()
    before = context.max_errored_blocks, context.enable_progress_bars
    context.max_errored_blocks, context.enable_progress_bars = -1, False
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield ray
    finally:
        logger.setLevel(level)
        context.max_errored_blocks, context.enable_progress_bars = before
        if ours:
            ray.shutdown()
