"""``sweep.json``: all that a sweep knows of itself, written whole after every change, so that it can always go on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bimo import files
from bimo.errors import RunError
from bimo.train.sweep_space import Value

FORMAT = "bimo-sweep-1"
FILE = "sweep.json"
TRIALS = "trials"
FINISHED, PRUNED, FAILED, DIVERGED, RUNNING = "finished", "pruned", "failed", "diverged", "running"


@dataclass
class Trial:
    """One trial.

    Attributes:
        number: from 0 up, also the name of its run.
        parameters: the values that were searched.
        state: running, finished, pruned, failed (its reason says why) or diverged.
        value: bits per byte of the validation text with its best weights; only of a finished one.
        reports: (twentieths of its budget, bits per byte) of the validations on the way.
        size: parameters of its model.
        seconds: of training.
        wall_seconds: in all.
    """

    number: int
    parameters: dict[str, Value]
    state: str = RUNNING
    value: float | None = None
    reports: list[tuple[int, float]] = field(default_factory=list)
    reason: str = ""
    size: int | None = None
    steps: int | None = None
    seconds: float | None = None
    wall_seconds: float = 0.0

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.number:04d}"


class Record:
    """The record of one sweep, in its folder.

    Attributes:
        settings: the shared configuration and the space, as plain values; a sweep goes on only with the same ones.
        plan: what was settled before the first trial: budgets, pinned values, the hash of the text.
        spent: seconds of the budget used so far.
    """

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder = folder
        self.status: str = values["status"]
        self.created: str = values["created"]
        self.budget: str = values["budget"]
        self.settings: dict[str, Any] = values["settings"]
        self.plan: dict[str, Any] = values["plan"]
        self.spent = float(values["spent_seconds"])
        self.best: int | None = values["best"]
        self.test: dict[str, Any] | None = values["test_bits_per_byte"]
        self.events: list[str] = values["events"]
        self.trials = [
            Trial(**{**one, "reports": [(int(share), float(value)) for share, value in one["reports"]]})
            for one in values["trials"]
        ]

    @classmethod
    def begin(cls, folder: Path, settings: dict[str, Any], budget: str, created: str) -> Record:
        """The record of a new sweep.

        Raises:
            RunError: the folder holds something else.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            expected = "a folder that does not exist yet, is empty or holds a sweep"
            raise RunError(f"{folder} is in use.", expected=expected, fix="Choose another --out.")
        empty: dict[str, Any] = {"plan": {}, "spent_seconds": 0.0, "best": None, "test_bits_per_byte": None}
        values = {"status": RUNNING, "created": created, "budget": budget, "settings": settings, **empty}
        return cls(folder, {**values, "events": [], "trials": []})

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record in ``folder``; None where there is none.

        Raises:
            RunError: it is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        values = files.read_json(path, error=RunError, expected="the record of a sweep")
        try:
            if values["format"] != FORMAT:
                raise RunError(f"{path} is not usable.", expected=f"format {FORMAT}", got=repr(values["format"]))
            return cls(folder, values)
        except (KeyError, TypeError, ValueError) as cause:
            got, fix = f"{type(cause).__name__}: {cause}", "Choose another --out."
            raise RunError(f"{path} is damaged.", expected="what bimo sweep wrote", got=got, fix=fix) from None

    def write(self, spent: float | None = None) -> None:
        """Write everything."""
        if spent is not None:
            self.spent = spent
        values = {
            "format": FORMAT,
            "status": self.status,
            "created": self.created,
            "budget": self.budget,
            "spent_seconds": round(self.spent, 1),
            "best": self.best,
            "test_bits_per_byte": self.test,
            "settings": self.settings,
            "plan": self.plan,
            "events": self.events,
            "trials": [dataclasses.asdict(trial) for trial in self.trials],
        }
        files.write_json(self.folder / FILE, values)

    def folder_of(self, trial: Trial) -> Path:
        """The run of a trial."""
        return self.folder / TRIALS / trial.name

    @property
    def finished(self) -> list[Trial]:
        """The trials that came to their end, best first."""
        done = [trial for trial in self.trials if trial.state == FINISHED and trial.value is not None]
        return sorted(done, key=lambda trial: (trial.value or 0.0, trial.number))
