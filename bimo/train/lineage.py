"""``lineage.json``: what a run was made from, on what, at what cost, and what came of it."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import torch

from bimo import __version__, files
from bimo.device import machine_facts
from bimo.models import count_parameters
from bimo.run import Run
from bimo.tokenizer.tokenizer import Tokenizer
from bimo.train.loop import Progress
from bimo.train.plan import Plan
from bimo.train.probe import Machine

if TYPE_CHECKING:
    from bimo.models import Model

LIBRARIES = ("torch", "numpy", "tokenizers", "safetensors")


class Made(Protocol):
    """What a run's lineage says of its data."""

    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def facts(self) -> dict[str, Any]: ...
    @property
    def bytes_per_token(self) -> float: ...


class Stopwatch:
    """Wall-clock and processor time of this session, its child processes included.

    Args:
        began: ``time.monotonic()`` at its start; now by default.
    """

    def __init__(self, began: float | None = None) -> None:
        self.began = time.monotonic() if began is None else began
        self._cpu = self._cpu_seconds()

    @staticmethod
    def _cpu_seconds() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    def read(self) -> tuple[float, float]:
        """Seconds of both since the start."""
        return time.monotonic() - self.began, self._cpu_seconds() - self._cpu


class Lineage:
    """The lineage of one run; every change is written at once."""

    def __init__(self, run: Run, values: dict[str, Any], stopwatch: Stopwatch) -> None:
        self._run, self.values, self._stopwatch = run, values, stopwatch
        self._before = (values["cost"]["wall_seconds"], values["cost"]["cpu_seconds"])

    @classmethod
    def begin(
        cls,
        run: Run,
        plan: Plan,
        made: Made,
        machine: Machine,
        stopwatch: Stopwatch,
        parent: dict[str, Any] | None = None,
        kind: str = "base",
    ) -> Lineage:
        """The lineage of a run that is about to start, from scratch or from a ``parent``.

        Args:
            kind: ``base`` for a model that continues texts, else the task it was tuned for.
        """
        tokenizer = made.tokenizer
        values: dict[str, Any] = {
            "kind": kind,
            "status": "running",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "parent": parent,
            "seed": plan.config.seed,
            "data": made.facts,
            "tokenizer": {
                "hash": tokenizer.hash,
                "vocab_size": tokenizer.vocab_size,
                "bytes_per_token": round(made.bytes_per_token, 4),
            },
            "versions": {
                "bimo": __version__,
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in LIBRARIES},
            },
            "machine": {
                **machine_facts(),
                "matmul_peak": {key: round(speed) for key, speed in machine.peak.items()},
                "memory_bandwidth": round(machine.bandwidth),
            },
            "events": [],
            "cost": {"wall_seconds": 0.0, "cpu_seconds": 0.0},
            "metrics": {},
        }
        return cls(run, values, stopwatch)

    @classmethod
    def open(cls, run: Run, stopwatch: Stopwatch) -> Lineage:
        """The lineage of a run that is to be continued."""
        return cls(run, run.read_lineage(), stopwatch)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.values["status"] == "finished")

    @property
    def training_seconds(self) -> float | None:
        """Seconds planned for the training loop; None when the budget is not a time."""
        planned: float | None = self.values["plan"]["training_seconds"]
        return planned

    @property
    def closing_seconds(self) -> float:
        """Seconds planned for what follows the training loop."""
        planned: float = self.values["plan"].get("closing_seconds", 0.0)  # which older runs have not
        return planned

    @property
    def most_steps(self) -> int | None:
        """The steps that the schedule may be lengthened to; None where they were not the plan's choice."""
        most: int | None = self.values["plan"].get("most_steps")
        return most

    def planned(
        self,
        plan: Plan,
        seconds: float | None,
        step_seconds: float,
        predicted: dict[str, Any],
        most_tokens: float,
        closing_seconds: float = 0.0,
        test_share: float = 1.0,
    ) -> None:
        """Record the plan, what it expects, how far its schedule may be lengthened, and the share of the test text."""
        choices = [{"key": key, "value": value, "reason": reason} for key, value, reason in plan.reasons]
        batch = plan.config.batch.size or 1, plan.config.model.context or 1
        chosen = any(key == "steps" for key, _, _ in plan.reasons) and seconds is not None
        self.values["plan"] = {
            "training_seconds": seconds,
            "step_seconds": round(step_seconds, 5),
            "closing_seconds": round(closing_seconds, 3),
            "most_steps": int(most_tokens / (batch[0] * batch[1])) if chosen else None,
            "predicted": predicted,
            "test_share": round(test_share, 4),
            "choices": choices,
        }
        self.write()

    def score_plan(self, found: dict[str, float]) -> None:
        """Record how far off the plan was."""
        self.values["plan"]["errors"] = found
        self.write()

    def event(self, text: str) -> None:
        """Record a fallback, a correction or an interruption."""
        self.values["events"].append(text)
        if "plan" in self.values:
            self.write()

    def announce(self, text: str, tell: Callable[[str], None]) -> None:
        """Record and tell something the user must know; nothing where the text is empty."""
        if text:
            tell(text)
            self.event(text)

    def interrupted(self, progress: Progress) -> None:
        """Record that training was stopped and can be resumed."""
        self.values["status"] = "interrupted"
        self.event(f"interrupted after step {progress.step}")

    def finish(self, model: Model, metrics: dict[str, Any]) -> None:
        """Record the end of the run."""
        total, inner = count_parameters(model)
        self.values["model"] = {"parameters": total, "non_embedding_parameters": inner}
        self.values["metrics"] = metrics
        self.values["status"] = "finished"
        self.write()

    def write(self) -> None:
        """Write everything, with what the run has cost so far."""
        spent = [round(before + now, 1) for before, now in zip(self._before, self._stopwatch.read(), strict=True)]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        self.values["cost"] = {"wall_seconds": spent[0], "cpu_seconds": spent[1], "peak_memory_bytes": peak}
        if torch.cuda.is_available():
            self.values["cost"]["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
        files.write_json(self._run.lineage, self.values)
