"""The command line run in this process, and one tiny finished run that all tests of the commands share."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from bimo import cli

TINY = [
    *("model.width=32", "model.layers=2", "model.heads=2", "model.context=64", "tokenizer.vocab_size=320"),
    *("batch.size=3", "compile=false", "threads=1", "dtype=float32", "patience=0"),
]
WORDS = ["the", "king", "said", "my lord", "good night", "of", "moon", "却说", "曹操", "引兵", "而来", ",", "."]


class Called(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def problem(self) -> str:
        """The error message, after checking that it is one paragraph without a traceback."""
        assert self.code in (1, 2) and "Traceback" not in self.err
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.err.endswith(line + "\n")
        return line


def call(*words: object, stdin: bytes = b"") -> Called:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["bimo", *map(str, words)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        patch.delenv("FORCE_COLOR", raising=False)
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert isinstance(end.value.code, int)
    return Called(end.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def bimo() -> Callable[..., Called]:
    """Calls the command line: ``bimo("train", "--data", folder)``."""
    return call


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """The options of a run that takes a second: a shape of a few thousand parameters."""
    return ["--set", *TINY]


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty documents, English and Chinese mixed, 60 kB in all."""
    folder = tmp_path_factory.mktemp("text")
    chance = random.Random(0)
    for number in range(30):
        paragraphs = (" ".join(chance.choice(WORDS) for _ in range(70)) for _ in range(5))
        (folder / f"{number:02}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, text_folder: Path, tiny: list[str]) -> Path:
    """A finished run that no test changes."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    called = call("train", "--data", text_folder, "--budget", "6k-tokens", "--out", out, "--seed", 3, *tiny)
    assert called.code == 0, called.err
    return out


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run for one test to damage."""
    return Path(shutil.copytree(finished_run, tmp_path / "copy"))
