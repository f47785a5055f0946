"""The mean of the last weights: what it is, when it counts, and that a resumed run has it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bimo.models import load_model
from bimo.run import Run
from bimo.train.average import EVERY, Average, Kept
from bimo.train.checkpoint import load_checkpoint
from bimo.train.hooks import Best, Validate
from bimo.train.loop import Progress
from bimo.train.pretrain import train


def walked(share: float, steps: int) -> tuple[nn.Linear, Average, dict[int, float]]:
    """A model whose weights are all the square of the step's number, its average, and the mean at each step."""
    model = nn.Linear(3, 2)
    average, means = Average(model, share), {}
    for step in range(1, steps + 1):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(step**2)
        average(Progress(step=step, steps=steps))
        if average.count:
            with average.applied():
                means[step] = model.weight[1, 2].item()
    return model, average, means


def test_it_is_the_mean_of_every_fourth_of_the_last_weights() -> None:
    model, average, means = walked(0.25, 80)
    sampled = [step for step in range(61, 81) if (80 - step) % EVERY == 0]
    assert sampled == [64, 68, 72, 76, 80] and average.count == 5
    assert means[80] == pytest.approx(sum(step**2 for step in sampled) / 5)
    assert means[64] == means[67] == 64**2 and min(means) == 64
    assert float(model.weight[0, 0]) == 80**2  # its own weights are back
    assert not walked(0.0, 80)[2]


def test_the_better_of_the_two_is_kept() -> None:
    model, average, _ = walked(0.6, 12)  # weights are 144, the mean of those at steps 8 and 12 is 104
    for target, kept in ((103.0, 104.0), (145.0, 144.0)):
        saved: list[float] = []

        def measure(target: float = target) -> float:
            return abs(float(model.weight[0, 0]) - target)

        def keep(saved: list[float] = saved) -> None:
            saved.append(float(model.weight[0, 0]))

        best = Best()
        validate = Validate(measure, keep, every=1, patience=0, best=best, average=average)
        validate(Progress(step=12, steps=12))
        assert saved == [kept] and best.bits_per_byte == 1.0 and validate.last == (12, 1.0)
        assert float(model.weight[0, 0]) == 144.0


@pytest.mark.parametrize("held", [False, True])
def test_the_best_weights_are_written_at_once_or_with_the_checkpoint(held: bool) -> None:
    model = torch.nn.Linear(2, 2)
    written: list[float] = []
    kept = Kept(model, lambda: written.append(float(model.weight[0, 0])), held=held)
    for value in (1.0, 2.0, 3.0):
        with torch.no_grad():
            model.weight.fill_(value)
        if value < 3:
            kept()
    assert written == ([] if held else [1.0, 2.0])
    kept.flush()
    kept.flush()
    assert written == ([2.0] if held else [1.0, 2.0])
    assert float(model.weight[0, 0]) == 3.0


def test_held_weights_make_the_same_run(
    averaged: Run, text_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bimo.train.learn.Kept", lambda model, write, held: Kept(model, write, held=not held))
    config = {**tiny, "averaging": 0.5, "schedule": {"name": "constant"}, "optimizer": RATES}
    run = train(text_folder, None, tmp_path / "run", config=config, quiet=True)
    assert (run.path / "model.safetensors").read_bytes() == (averaged.path / "model.safetensors").read_bytes()


RATES = {"learning_rate": 0.08, "adamw_learning_rate": 0.02}


@pytest.fixture(scope="module")
def averaged(text_folder: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run at a constant, high rate, where the mean is much better than the last weights."""
    config = {**tiny, "averaging": 0.5, "schedule": {"name": "constant"}, "optimizer": RATES}
    return train(text_folder, None, tmp_path_factory.mktemp("runs") / "run", config=config, quiet=True)


def test_the_saved_model_is_the_mean_when_that_is_better(averaged: Run) -> None:
    checkpoint = load_checkpoint(averaged.checkpoints)
    assert checkpoint is not None and checkpoint.state["averaged"] == 20 // EVERY
    saved = load_model(averaged.path).state_dict()
    assert averaged.read_lineage()["metrics"]["best_step"] == 40
    assert all(torch.equal(saved[name], checkpoint.tensors[f"average.{name}"]) for name in saved)
    assert not all(torch.equal(saved[name], checkpoint.tensors[f"model.{name}"]) for name in saved)


def test_a_resumed_run_has_the_same_mean(averaged: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(averaged.path, tmp_path / "run"))
    (run.path / "lineage.json").write_text(json.dumps({**run.read_lineage(), "status": "running"}))
    shutil.rmtree(max(run.checkpoints.glob("step-*")))  # back to step 35, inside the tail
    train(out=run, resume=True, quiet=True)
    assert (run.path / "model.safetensors").read_bytes() == (averaged.path / "model.safetensors").read_bytes()
