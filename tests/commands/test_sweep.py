"""``bimo sweep`` as a user types it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytest.importorskip("optuna")

SPACE = {
    "trials": 2,
    "trial_budget": "3k-tokens",
    "model.layers": [1, 2],
    "optimizer.learning_rate": {"low": 0.005, "high": 0.05, "log": True},
}


@pytest.fixture
def written(tmp_path: Path, text_folder: Path) -> Callable[[dict], Path]:
    """Writes a configuration with a ``sweep:`` section."""

    def write(section: dict) -> Path:
        path = tmp_path / "搜索.yaml"
        path.write_text(yaml.safe_dump({"data": [str(text_folder)], "sweep": section}), encoding="utf-8")
        return path

    return write


def test_a_sweep_from_the_command_line(
    bimo: Callable, tiny: list[str], written: Callable[[dict], Path], tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "扫描"
    words = ("sweep", written(SPACE), "--budget", "10m", "--out", out, *tiny)
    called = bimo(*words)
    assert called.code == 0, called.err
    assert "up to 2 trials of 3k-tokens each, as many as fit into 10m" in called.err
    rows = [line for line in called.out.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and "learning_rate" in rows[0] and rows[2].rstrip("| ").endswith("best")
    assert "test text, looked at once" in called.out and "take what each key mattered as a hint" in called.out
    assert (out / "sweep.html").is_file() and (out / "best.yaml").is_file()
    assert "data" in yaml.safe_load((out / "best.yaml").read_text(encoding="utf-8"))
    again = bimo(*words)
    assert again.code == 0 and "is finished" in again.err and again.out == called.out
    other = bimo("sweep", written({**SPACE, "trials": 3}), "--out", out, *tiny)
    assert other.code == 1 and "is another sweep" in other.problem
    info = bimo("info", out / "trials" / "0001")
    assert info.code == 0 and "finished" in info.out


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"modell.width": [1, 2]}, "Did you mean 'model.width'?"),
        ({"model.width": {"low": 9, "high": 3}}, "is empty"),
        ({"mix": {"shakespear": [0, 1]}}, "which is not in data"),
    ],
)
def test_mistakes_are_one_paragraph(
    bimo: Callable, written: Callable[[dict], Path], tmp_path: Path, section: dict, said: str
) -> None:
    called = bimo("sweep", written(section), "--out", tmp_path / "out")
    assert called.code == 2 and said in called.problem
    assert not (tmp_path / "out").exists()


def test_what_is_no_configuration_is_refused(bimo: Callable, tmp_path: Path) -> None:
    assert "bimo sweep --data books.txt" in bimo("sweep", "books.txt").problem
    assert "nothing to train on" in bimo("sweep", "--out", tmp_path / "out").problem


def test_without_optuna_the_extra_is_named(
    bimo: Callable, written: Callable[[dict], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    called = bimo("sweep", written(SPACE), "--out", tmp_path / "out")
    assert called.code == 2 and "pip install 'bimo[sweep]'" in called.problem
