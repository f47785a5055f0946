"""A server that runs as a process of its own, and never longer than the one that started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence

LINES = 30  # of its output that are kept
# The program, beside a watcher that ends the whole group once nobody holds the other end of its input.
WATCHED = 'exec 3<&0; (read -r _ <&3; kill -TERM 0) & exec "$@" 3<&- </dev/null'


class Child:
    """A process with its own group, whose output is read.

    Args:
        command: program and arguments.
        environment: variables besides those of this process.

    Raises:
        OSError: there is no shell to start it with.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", WATCHED, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._lines: deque[str] = deque(maxlen=LINES)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.decode(errors="replace").rstrip())

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """The end of what it printed."""
        if not self.alive():
            self._reading.join(timeout=1)
        return "\n".join(self._lines)

    def stop(self, seconds: float) -> None:
        """End it and all that it started: politely, and after ``seconds`` at once. It may have ended already."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
