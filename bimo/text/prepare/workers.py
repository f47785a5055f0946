"""Tasks are done side by side in processes; what kills a process that works on it is left out, and nothing else."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path

from bimo.errors import ConfigError, DataError
from bimo.text.prepare.part import Task, make_broken_part, make_part
from bimo.text.readers import SAFE_SUFFIXES, suffixes_of

ALONE_BYTES = 8_000_000  # less of what cannot kill it is done by this process: others would take longer to start
DIED = "the process that read it died"

Worker = Callable[[Sequence[Task]], Iterator[Path]]


def local(workers: int | None) -> Worker:
    """Does tasks on this machine.

    Args:
        workers: processes; as many as there are cores by default.

    Raises:
        ConfigError: there are to be fewer than one.
    """
    if workers is not None and workers < 1:
        raise ConfigError("The number of workers is wrong.", expected="1 or more", got=str(workers))

    def run(tasks: Sequence[Task]) -> Iterator[Path]:
        if sum(task.size for task in tasks) < ALONE_BYTES and all(map(_is_safe, tasks)):
            yield from map(make_part, tasks)
        else:
            yield from _side_by_side(tasks, min(workers or os.cpu_count() or 1, len(tasks)))

    return run


def _is_safe(task: Task) -> bool:
    """Whether no library reads its files that may bring down the process."""
    return all(suffixes_of(file.path.name)[0] in SAFE_SUFFIXES for file in task.files)


def _side_by_side(tasks: Sequence[Task], workers: int) -> Iterator[Path]:
    waiting = deque(tasks)
    while waiting:
        running: dict[Future[Path], Task] = {}
        try:
            with _pool(workers) as pool:
                yield from _until_one_dies(pool, waiting, running, workers)
        except (BrokenProcessPool, MemoryError):
            for task in running.values():
                yield from isolated(task)


def _until_one_dies(
    pool: ProcessPoolExecutor, waiting: deque[Task], running: dict[Future[Path], Task], workers: int
) -> Iterator[Path]:
    while waiting or running:
        while waiting and len(running) <= workers:
            future = pool.submit(make_part, waiting[0])
            running[future] = waiting.popleft()
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            part = future.result()
            del running[future]
            yield part


def isolated(task: Task) -> Iterator[Path]:
    """Do a task in a process of its own; where that dies, its files by halves, until only the deadly one is left out.

    Raises:
        DataError: no process lives long enough to be given a task.
    """
    try:
        with _pool(1) as pool:
            try:
                pool.submit(os.getpid).result()
            except BrokenProcessPool:
                fix = "In a script of your own, call it below `if __name__ == '__main__':`."
                raise DataError("No process can be started that reads files.", fix=fix) from None
            part = pool.submit(make_part, task).result()
    except (BrokenProcessPool, MemoryError):
        if len(task.files) == 1:
            yield make_broken_part(task, DIED)
        else:
            half = len(task.files) // 2
            for some in (task.files[:half], task.files[half:]):
                yield from isolated(replace(task, files=some))
    else:
        yield part


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """In a new process: end when interrupted, without a word, and when the process that started it is killed."""
    gc.freeze()  # what was imported stays: looking through it again and again for garbage is a twentieth of the work
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "only called in a child"
    parent.join()
    os._exit(1)
