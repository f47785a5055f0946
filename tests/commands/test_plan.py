"""``bimo plan``: every block, nothing written where the user is, both answers to the reverse question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_every_block_is_printed_and_nothing_is_written(
    bimo: Any, here: Path, text_folder: Path, tiny: list[str]
) -> None:
    prices = ("--watts", 50, "--price-kwh", 0.3, "--price-hour", 1.2)
    called = bimo("plan", "--data", text_folder, "--budget", "9k-tokens", *prices, *tiny)
    assert called.code == 0, called.err
    blocks = called.out.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == ["this machine", "the plan", "what to expect"]
    rows = {line.split("  ")[0]: line for line in called.out.splitlines()}
    machine = {"processor", "matrix products", "memory", "training step", "this model"}
    choices = {"steps", "model.mlp_width", "model.dropout", "evaluate_every", "tokens", "learning rates"}
    expected = {"wall-clock", "peak memory", "disk", "electricity", "rent", "held-out text"}
    assert machine | choices | expected <= set(rows), called.out
    assert "GFLOP/s" in rows["matrix products"] and "GB/s" in rows["memory"] and "tokens/s" in rows["this model"]
    assert "training" in rows["wall-clock"] and "measuring at the end" in rows["wall-clock"]
    assert "50 W" in rows["electricity"] and "at 0.3 a kWh" in rows["electricity"]
    assert "at 1.2 an hour" in rows["rent"] and "bits per byte" in rows["held-out text"]
    assert not list(here.iterdir())


def test_json_has_the_same(bimo: Any, here: Path, text_folder: Path, tiny: list[str]) -> None:
    called = bimo("plan", "--data", text_folder, "--budget", "9k-tokens", "--json", *tiny)
    values = json.loads(called.out)
    predicted = values["predicted"]
    assert predicted["wall_seconds"] == pytest.approx(sum(predicted["parts"].values()), abs=0.3)
    bits = predicted["bits_per_byte"]
    assert 0 < bits["low"] < bits["value"] < bits["high"]
    assert predicted["disk_bytes"] > 0 and predicted["peak_memory_bytes"] > 1e8
    steps = next(choice for choice in values["choices"] if choice["key"] == "steps")
    assert steps["value"] == round(9_000 / 3 / 64) and steps["reason"]


def test_a_training_by_the_clock_keeps_two_checkpoints_in_any_case(
    bimo: Any, here: Path, text_folder: Path, tiny: list[str]
) -> None:
    disk = []
    for budget in ("9k-tokens", "60s"):
        words = ("--data", text_folder, "--budget", budget, "--json", *tiny, "steps=46", "checkpoint_every=1000")
        disk.append(json.loads(bimo("plan", *words).out)["predicted"]["disk_bytes"])
    assert disk[1] > 1.5 * disk[0]


def test_how_long_until_a_target(bimo: Any, here: Path, text_folder: Path, tiny: list[str]) -> None:
    called = bimo("plan", "--data", text_folder, "--target-bpb", 7, *tiny)
    assert called.code == 0, called.err
    assert called.out.startswith("About ") and "width 32" in called.out and "what to expect" in called.out
    assert not list(here.iterdir())


def test_a_target_out_of_reach_is_answered_not_refused(
    bimo: Any, here: Path, text_folder: Path, tiny: list[str]
) -> None:
    called = bimo("plan", "--data", text_folder, "--target-bpb", 0.01, *tiny)
    assert called.code == 0 and called.out.startswith("Not with this much text: about "), called
    answer = json.loads(bimo("plan", "--data", text_folder, "--target-bpb", 0.01, "--json", *tiny).out)
    assert answer["reachable"] is False and answer["best"] > 0.01 and answer["seconds"] > 0


def test_training_for_an_impossible_target_is_refused(
    bimo: Any, here: Path, text_folder: Path, tiny: list[str]
) -> None:
    called = bimo("train", "--data", text_folder, "--budget", "0.01-bpb", "--out", here / "run", *tiny)
    assert called.code == 1 and "not to be expected with this much text" in called.problem
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["--budget", "1s"], 1, ["1s", "too short"]),
        (["--budget", "soon"], 2, ["soon", "1.6-bpb"]),
        (["--budget", "3m", "--target-bpb", "1.5"], 2, ["two questions"]),
        (["--target-bpb", "0"], 2, ["--target-bpb", "above 0"]),
        (["--watts", "-1"], 2, ["--watts", "at least 0"]),
        (["--price-kwh", "nan"], 2, ["--price-kwh"]),
        (["--set", "model.widht=3"], 2, ["'width'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_options(
    bimo: Any, here: Path, text_folder: Path, tiny: list[str], words: list[str], code: int, parts: list[str]
) -> None:
    called = bimo("plan", "--data", text_folder, *tiny, *words)
    assert called.code == code, called
    assert all(part in called.problem for part in parts), called.problem
    assert not list(here.iterdir())


def test_train_scores_its_own_plan_and_info_shows_it(bimo: Any, finished_run: Path) -> None:
    plan = json.loads((finished_run / "lineage.json").read_text(encoding="utf-8"))["plan"]
    names = {"wall_seconds", "training_seconds", "peak_memory_bytes", "disk_bytes", "bits_per_byte"}
    assert names <= set(plan["predicted"]) and set(plan["errors"]) == names
    assert abs(plan["errors"]["disk_bytes"]) < 0.2 and abs(plan["errors"]["peak_memory_bytes"]) < 0.2
    shown = bimo("info", finished_run).out
    assert "plan against reality" in shown and f"{plan['errors']['disk_bytes']:+.1%}" in shown
