"""``bimo doctor``, ``--show-batch`` and ``--no-doctor``: what is printed, recorded and left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from bimo.train import patient
from bimo.train.doctor import PROOFS, SKIPPED

BUDGET = ("--budget", "6k-tokens")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place to work in, and a place for scratch files of its own."""
    monkeypatch.setattr(patient, "OVERFIT_SECONDS", float("inf"))
    here, scratch = tmp_path / "here", tmp_path / "scratch"
    here.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    return tmp_path


def nothing_is_left(folder: Path) -> bool:
    return os.listdir(folder / "here") == [] and os.listdir(folder / "scratch") == []


def test_a_new_training_is_examined(bimo: Any, text_folder: Path, tiny: list[str], elsewhere: Path) -> None:
    called = bimo("doctor", "--data", text_folder, *BUDGET, *tiny)
    assert called.code == 0, called.err
    for proof in PROOFS:
        assert proof.name in called.out and proof.meaning in called.out
    assert "✗" not in called.out and "labels count" in called.out and "endoftext" in called.out
    assert nothing_is_left(elsewhere)


def test_a_run_is_examined_and_not_changed(bimo: Any, run_copy: Path, elsewhere: Path) -> None:
    before = {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()}
    called = bimo("doctor", run_copy)
    assert called.code == 0, called.out + called.err
    assert "first loss" in called.out and "transformers" in called.out
    assert {path: path.read_bytes() for path in run_copy.rglob("*") if path.is_file()} == before
    assert nothing_is_left(elsewhere)


def test_a_failed_proof_is_an_exit_code(bimo: Any, text_folder: Path, tiny: list[str], tmp_path: Path) -> None:
    """An optimizer that moves nothing."""
    rates = ["optimizer.learning_rate=1e-30", "optimizer.adamw_learning_rate=1e-30"]
    called = bimo("doctor", "--data", text_folder, *BUDGET, *tiny, *rates)
    assert called.code == 1 and called.problem == f"error: 1 of {len(PROOFS)} proofs failed: optimizer."
    assert "✗  optimizer" in called.out and re.search(r"0 of \d+ parameters moved", called.out)
    out = tmp_path / "run"
    called = bimo("train", "--data", text_folder, *BUDGET, "--out", out, *tiny, *rates)
    assert called.code == 1 and "optimizer: 0 of" in called.problem and "--no-doctor" in called.problem
    assert not out.exists()


def test_the_findings_are_recorded(bimo: Any, finished_run: Path) -> None:
    recorded = json.loads((finished_run / "lineage.json").read_text())["doctor"]
    assert [one["name"] for one in recorded] == [proof.name for proof in PROOFS]
    assert all(one["measured"] for one in recorded) and all(one["ok"] is not False for one in recorded)


def test_without_the_doctor_the_same_model(
    bimo: Any, text_folder: Path, tiny: list[str], finished_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    called = bimo("train", "--data", text_folder, *BUDGET, "--out", out, "--seed", 3, "--no-doctor", *tiny)
    assert called.code == 0, called.err
    assert json.loads((out / "lineage.json").read_text())["doctor"] == SKIPPED
    assert "examining" not in called.err
    assert (out / "model.safetensors").read_bytes() == (finished_run / "model.safetensors").read_bytes()
    assert yaml.safe_load((out / "bimo.yaml").read_text()) == yaml.safe_load((finished_run / "bimo.yaml").read_text())


def test_training_shows_the_findings_and_the_mask(
    bimo: Any, text_folder: Path, tiny: list[str], tmp_path: Path
) -> None:
    called = bimo("train", "--data", text_folder, "--budget", "1k-tokens", "--out", tmp_path / "run", *tiny)
    assert called.code == 0, called.err
    assert called.err.index("✓  save and load") < called.err.index("the first batch: ") < called.err.index("\nstep ")


def test_show_batch_prints_and_leaves_nothing(bimo: Any, text_folder: Path, tiny: list[str], elsewhere: Path) -> None:
    called = bimo("train", "--data", text_folder, *BUDGET, "--show-batch", *tiny)
    assert called.code == 0, called.err
    assert "192 of 192 labels count" in called.out and "曹操" in called.out and "row 3" in called.out
    assert nothing_is_left(elsewhere)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["no/such/run"], ["no/such/run", "no such folder"]),
        ([], ["--data"]),
        (["RUN", "--data", "shakespeare"], ["options"]),
    ],
)
def test_wrong_words(bimo: Any, finished_run: Path, words: list[str], parts: list[str]) -> None:
    called = bimo("doctor", *(str(finished_run) if word == "RUN" else word for word in words))
    assert called.code in (1, 2) and all(part in called.problem for part in parts)


def test_a_run_without_its_text_says_so(bimo: Any, run_copy: Path) -> None:
    shutil.rmtree(run_copy / "checkpoints")
    called = bimo("doctor", run_copy)
    assert called.code == 1 and "--data" in called.problem
