"""The run directory: a Hugging Face model folder that also says how it came about."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bimo import files
from bimo.errors import RunError

BEFORE_THE_FIRST_STEP = {
    "checkpoints",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "lineage.json",
}


class Run:
    """Paths and small files of one run; it holds no state beyond its path.

    ``config.json``, ``model.safetensors`` and the tokenizer files lie at the top, where Hugging Face tools look.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "bimo.yaml"
        self.lineage = self.path / "lineage.json"
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples.jsonl"
        self.checkpoints = self.path / "checkpoints"

    @classmethod
    def create(cls, path: str | Path) -> Run:
        """Make the folder of a new run.

        Raises:
            RunError: the path exists and is not an empty folder; nothing in it is touched.
        """
        run = cls(path)
        if run.path.exists() and not run.path.is_dir():
            raise RunError(f"{run.path} is a file.", expected="a folder that does not exist yet or is empty")
        if run.path.is_dir() and any(run.path.iterdir()):
            fix = (
                "Add --resume to continue it, or choose another --out."
                if run.config.exists()
                else "Choose another --out."
            )
            raise RunError(
                f"{run.path} is not empty.", expected="a folder that does not exist yet or is empty", fix=fix
            )
        try:
            run.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise RunError(f"{run.path} cannot be created.", got=str(cause), fix="Choose another --out.") from None
        return run

    @classmethod
    @contextlib.contextmanager
    def starting(cls, path: str | Path, *, again: bool = False) -> Iterator[Run]:
        """The folder of a new run; what a failure before the first step leaves in it is removed.

        Args:
            again: a folder whose run was cut off before its first step may be there, and is begun anew.

        Raises:
            RunError: the folder holds anything that a run's preparation does not write; nothing in it is touched.
        """
        run = cls(path)
        if again and run.path.is_dir():
            left = {entry.name for entry in run.path.iterdir() if not files.is_unfinished(entry)}
            if strange := sorted(left - BEFORE_THE_FIRST_STEP):
                got = f"a folder with {strange[0]}"
                raise RunError(
                    f"{run.path} is not a bimo run.", expected="a folder made by `bimo train --out`", got=got
                )
            _remove(run.path.iterdir())
        existed = run.path.exists()
        run = cls.create(path)
        try:
            yield run
        finally:
            if not run.config.exists():
                _remove(run.path.iterdir())
                if not existed:
                    run.path.rmdir()

    def remove_unfinished(self) -> None:
        """Remove what a killed process left of files that it was writing."""
        _remove(filter(files.is_unfinished, self.path.iterdir()))

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a run that `bimo train` began.

        Raises:
            RunError: the path does not exist or holds no ``bimo.yaml``.
        """
        run = cls(path)
        if not run.config.is_file():
            got = "a folder without bimo.yaml" if run.path.is_dir() else "no such folder"
            raise RunError(f"{run.path} is not a bimo run.", expected="a folder made by `bimo train --out`", got=got)
        return run

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def imported(self) -> bool:
        """Whether `bimo import` made the folder: a model that others trained."""
        return self.lineage.is_file() and self.read_lineage().get("kind") == "imported"

    def read_lineage(self) -> dict[str, Any]:
        """The lineage as plain values."""
        return files.read_json(self.lineage, error=RunError, expected="the lineage.json of a run")

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``."""
        _append_line(self.metrics, record)

    def append_sample(self, sample: Mapping[str, Any]) -> None:
        """Add one line to ``samples.jsonl``."""
        _append_line(self.samples, sample)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole lines of ``metrics.jsonl``; a last line cut short by a crash is left out."""
        return _read_lines(self.metrics)

    def read_samples(self) -> list[dict[str, Any]]:
        """All whole lines of ``samples.jsonl``."""
        return _read_lines(self.samples)

    def forget_metrics_after(self, step: int) -> None:
        """Drop the lines of steps that a resumed run will take again."""
        _write_lines(self.metrics, (record for record in self.read_metrics() if record["step"] <= step))

    def keep_samples_until(self, step: int) -> list[dict[str, Any]]:
        """Drop the samples of steps that a resumed run will take again, and return the others."""
        kept = [sample for sample in self.read_samples() if sample["step"] <= step]
        if self.samples.exists():
            _write_lines(self.samples, kept)
        return kept


def _remove(entries: Iterable[Path]) -> None:
    for entry in entries:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _append_line(path: Path, record: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    records = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""  # cut inside a character
    for line in text.split("\n"):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    files.write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
