"""The tuning benchmark: what its table makes of rounds, and that runs of other work are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tuning.cells import CELLS, EVERY, PEERS
from benchmarks.tuning.processes import Steps, checked
from benchmarks.tuning.table import table


def run(speed: float, whole: float, memory: float, loss: float) -> dict[str, Any]:
    return {
        "step_examples": 60 * speed,
        "step_seconds": 60.0,
        "step_processor_seconds": 120.0,
        "examples": 100,
        "saved_seconds": 100 / whole,
        "peak_memory_bytes": memory * 1e9,
        "held_out": {"loss": loss},
    }


def test_ratios_are_medians_round_by_round(tmp_path: Path) -> None:
    rounds = [(2.0, 5.0), (1.0, 4.0), (4.0, 6.0)]  # ratios 2.5, 4 and 1.5; of the medians it would be another
    for number, (theirs, ours) in enumerate(rounds):
        runs = {"tuned": run(theirs, 2.0, 8.0, 1.5), "bimo": run(ours, 1.0, 2.0, 1.25)}
        facts = {"processor": "one", "threads": 2, "load": number / 2}
        (tmp_path / f"dpo-{number}.json").write_text(json.dumps({"machine": facts, "runs": runs}))
    lines = table(tmp_path).splitlines()
    (row,) = [line for line in lines if line.startswith("| `dpo`")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["`dpo`", PEERS["dpo"], "tuned, 3 rounds"]
    assert cells[3:8] == ["2.00 / 5.00", "**2.50**", "2.00 / 1.00", "0.50", "2.50"]
    assert cells[8:] == ["8.00 / 2.00 GB", "**0.25**", "1.500 / 1.250", "≥ 1.5, ≤ 0.7"]
    assert sum("not measured yet" in line for line in lines) == len(CELLS) - 1
    assert "load 0.0 to 1.0" in lines[-1]
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_a_run_of_other_work_is_refused() -> None:
    common = {"examples": 7, "learned": 30}
    assert checked({"examples": 7, "learned": 30, "more": 1}, common)["more"] == 1
    with pytest.raises(SystemExit, match="29 learned where there are 30"):
        checked({"examples": 7, "learned": 29}, common)


def test_processor_time_is_that_of_the_steps_between(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "metrics.jsonl")
    steps.noted(1, 3.0)
    steps.noted(1, 4.0)
    steps.noted(3, 7.5)
    assert steps.between(1, 2) == 4.5 and steps.between(2, 3) == 0


def test_bimo_is_told_the_shape_of_the_work_and_no_more() -> None:
    words = CELLS["sft-lora"].command(6, 11)
    assert {"batch.size=6", "steps=11", "model.context=512", "--lora"} <= set(words)
    assert not any(word.startswith(("dtype", "kernels", "compile")) or word == "--no-doctor" for word in words)
    assert "--lora" not in CELLS["sft-full"].command(6, 11)


def test_every_cell_has_a_quick_form_of_the_same_work() -> None:
    for name, cell in CELLS.items():
        quick = EVERY[f"quick-{name}"]
        assert quick.rows < cell.rows and (quick.task, quick.model, quick.lora) == (cell.task, cell.model, cell.lora)
