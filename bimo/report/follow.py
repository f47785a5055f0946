"""The record of a run while it grows: only new lines are read, and only as many points are given as can be seen."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bimo.report.facts import bits_of, number, validation_bits_of

MOST_POINTS = 2_000  # of a curve that is sent to a page
COLUMNS = {
    "seconds": "seconds",
    "tokens": "tokens",
    "loss": "loss",
    "bits": "bits_per_byte",
    "rate": "learning_rate",
    "adamw": "adamw_learning_rate",
    "norm": "gradient_norm",
    "speed": "tokens_per_second",
    "use": "utilisation",
}
LAST_OF = {"step", "seconds", "tokens", "rate", "adamw", "speed", "use"}  # not means, when points are put together

Row = tuple[float | None, ...]


class Follower:
    """Keeps the columns of a growing ``metrics.jsonl`` in memory.

    Attributes:
        rows: (step, one value a column) of each line that has a step.
        validations: (step, bits per byte).
        last: the newest line.
        generation: another one when the file was rewritten, so that what was given before counts no longer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.generation = time.time_ns() // 1_000_000  # not that of an earlier server at the same address
        self._forget()

    def _forget(self) -> None:
        self._place, self._file = 0, 0
        self.rows: list[Row] = []
        self.validations: list[tuple[float, float]] = []
        self.last: Mapping[str, Any] = {}

    def read(self) -> None:
        """Take in the whole lines that were added; a line that is still being written waits for the next time."""
        try:
            with self._path.open("rb") as file:
                found = self._path.stat()
                if found.st_ino != self._file or found.st_size < self._place:
                    if self._file:
                        self.generation += 1
                    self._forget()
                    self._file = found.st_ino
                file.seek(self._place)
                new, end, _ = file.read().rpartition(b"\n")
        except OSError:
            return
        self._place += len(new) + len(end)
        for line in new.split(b"\n"):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, Mapping) and (step := number(record.get("step"))) is not None:
                self._add(step, record)

    def _add(self, step: float, record: Mapping[str, Any]) -> None:
        columns = COLUMNS.items()
        values = (bits_of(record) if name == "bits" else number(record.get(key)) for name, key in columns)
        self.rows.append((step, *values))
        if (value := validation_bits_of(record)) is not None:
            self.validations.append((step, value))
        self.last = record

    def points(self, after: float) -> dict[str, list[float | None]]:
        """The columns of the steps after ``after``, at most ``MOST_POINTS`` of them."""
        begin = len(self.rows)
        while begin and (self.rows[begin - 1][0] or 0.0) > after:
            begin -= 1
        rows = self.rows[begin:]
        width = math.ceil(len(rows) / MOST_POINTS) or 1
        columns: dict[str, list[float | None]] = {}
        for place, name in enumerate(("step", *COLUMNS)):
            groups = (rows[start : start + width] for start in range(0, len(rows), width))
            columns[name] = [_together(group, place, last=name in LAST_OF) for group in groups]
        return columns

    def records(self) -> list[dict[str, Any]]:
        """Thinned lines for the coach: every validation, and what can be seen of the rest."""
        columns = self.points(-1)
        names = {"step": "step", **COLUMNS}
        found = {
            step: {names[name]: columns[name][place] for name in columns}
            for place, step in enumerate(columns["step"])
            if step is not None
        }
        for step, value in self.validations:
            found.setdefault(step, {"step": step})["validation_bits_per_byte"] = value
        tokens = 0.0
        for step in sorted(found):
            tokens = found[step].setdefault("tokens", tokens) or tokens
        multiplier = number(self.last.get("learning_rate_multiplier"))
        if multiplier and found:
            found[max(found)]["learning_rate_multiplier"] = multiplier
        return [found[step] for step in sorted(found)]


def _together(rows: list[Row], place: int, *, last: bool) -> float | None:
    known = [value for row in rows if (value := row[place]) is not None]
    if not known:
        return None
    value = known[-1] if last else sum(known) / len(known)
    return value if value == int(value) else float(f"{value:.6g}")
