"""Divergence ends a training soon, a spike does not, and the last good checkpoint survives."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from bimo.config import read_yaml
from bimo.errors import RunError, TrainingError
from bimo.run import Run
from bimo.train.checkpoint import load_checkpoint
from bimo.train.guard import Diverged, Trend
from bimo.train.pretrain import train

LABELS = 2048


def falling(steps: int, noise: float = 0.08, seed: int = 0) -> list[float]:
    """The losses of a healthy training: a power law with noise."""
    generator = random.Random(seed)
    return [2.5 + 5.0 * (step + 1) ** -0.4 + generator.gauss(0, noise) for step in range(steps)]


def stops_at(losses: list[float], labels: float = LABELS) -> tuple[int | None, Trend]:
    """The step at which training stops, and the trend then."""
    trend = Trend()
    for step, loss in enumerate(losses, start=1):
        if trend.update(step, loss, labels):
            return step, trend
    return None, trend


@pytest.mark.parametrize("seed", range(10))
def test_a_healthy_training_goes_on(seed: int) -> None:
    assert stops_at(falling(2000, seed=seed))[0] is None
    assert stops_at(falling(2000, noise=0.6, seed=seed), labels=20)[0] is None


@pytest.mark.parametrize(("at", "rise"), [(1, 2.0), (8, 3.0), (8, 30.0), (40, 1.0), (40, 4.0), (300, 1.0), (300, 30.0)])
def test_a_loss_that_leaves_its_trend_for_good_stops_within_20_steps(at: int, rise: float) -> None:
    losses = falling(400)
    generator = random.Random(1)
    bad = [losses[at - 1] + rise * generator.uniform(0.9, 1.1) for _ in range(30)]
    step, trend = stops_at(losses[:at] + bad)
    assert step is not None and at < step <= at + 20
    assert at - 4 <= trend.good <= at  # noise may hide the last good step, never a bad one


def test_a_slow_rise_stops_and_what_came_after_its_beginning_is_not_good() -> None:
    losses = falling(200)
    step, trend = stops_at([*losses, *(losses[-1] + 0.04 * number for number in range(100))])
    assert step is not None and step < 230 and trend.good <= 206


def test_a_beginning_that_loses_some_of_the_word_pairs_goes_on() -> None:
    """Width 384 on three English texts, started from counted word pairs: measured losses, which then fell on."""
    seen = [4.56, 4.64, 5.21, 5.91, 5.7, 5.36, 5.4, 5.21, 5.11, 5.27, 5.16, 5.21, 5.27, 5.17, 5.03, 4.96, 5.03, 5.04]
    step, trend = stops_at([*seen, *([4.95, 4.9] * 20)])
    assert step is None and trend.on == len(seen) + 40


@pytest.mark.parametrize("length", [1, 3, 8])
def test_a_spike_does_not_stop_it(length: int) -> None:
    losses = falling(200)
    losses[100 : 100 + length] = [11.0] * length
    step, trend = stops_at(losses)
    assert step is None and trend.streak == 0 and trend.good > 190


def test_a_learning_rate_that_ruins_the_model_is_stopped_and_the_last_good_checkpoint_kept(
    text_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    """The rate is normal for 30 steps and absurd after them, so the divergence is known to begin at step 31."""
    config = {**tiny, "steps": 80, "checkpoint_every": 1, "dtype": "float32"}
    run = diverging(text_folder, config, tmp_path / "run")
    steps = sorted(int(path.name[-8:]) for path in run.checkpoints.glob("step-*"))
    last = run.read_metrics()[-1]["step"]
    assert 31 <= last <= 31 + 20
    assert steps and 26 <= steps[-1] <= 31
    checkpoint = load_checkpoint(run.checkpoints)
    assert checkpoint is not None and all(bool(tensor.isfinite().all()) for tensor in checkpoint.tensors.values())
    lineage = run.read_lineage()
    assert lineage["status"] == "diverged" and any("left its trend" in event for event in lineage["events"])

    with pytest.raises(RunError, match=r"diverged, and would again.*lower learning rate"):
        train(out=run, resume=True, quiet=True)
    with pytest.raises(RunError, match=r"cannot be resumed so.*batch.size"):
        train(out=run, resume=True, overrides=["batch.size=3"], quiet=True)
    with pytest.raises(RunError, match=r"optimizer.name"):
        train(out=run, resume=True, overrides=["optimizer.name=adamw"], quiet=True)
    lower = ["optimizer.learning_rate=0.005", "optimizer.adamw_learning_rate=0.001"]
    train(out=run, resume=True, overrides=lower, quiet=True)
    lineage = run.read_lineage()
    assert lineage["status"] == "finished" and lineage["metrics"]["steps"] == 80
    assert any("optimizer.learning_rate: 0.02 -> 0.005" in event for event in lineage["events"])
    assert read_yaml(run.config)["optimizer"]["learning_rate"] == 0.005
    losses = [record["loss"] for record in run.read_metrics()]
    assert len(losses) == 80 and max(losses[35:]) < losses[0]


def diverging(text: Path, config: dict[str, Any], out: Path) -> Run:
    """A run whose learning rates are multiplied by thousands from step 31 on."""
    from bimo.train import learn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn, "multiplier", lambda schedule, step, steps: 1.0 if step < 30 else 3000.0)
        with pytest.raises(Diverged) as caught:
            train(text, None, out, config=config, quiet=True)
    said = str(caught.value)
    assert "--resume --set optimizer.learning_rate=0.01 optimizer.adamw_learning_rate=0.003" in said
    assert "last good one" in said and "learning rate of 60" in said
    assert 29 <= caught.value.step <= 33
    return Run(out)


def test_divergence_before_the_first_checkpoint_goes_on_from_the_beginning(
    text_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    optimizer = {"learning_rate": 500.0, "adamw_learning_rate": 500.0}
    config = {**tiny, "checkpoint_every": 40, "optimizer": optimizer}
    with pytest.raises(TrainingError, match=r"diverged at step \d.*from the beginning"):
        train(text_folder, None, tmp_path / "run", config=config, quiet=True)
    lower = ["optimizer.learning_rate=0.01", "optimizer.adamw_learning_rate=0.003"]
    run = train(out=tmp_path / "run", resume=True, overrides=lower, quiet=True)
    assert math.isfinite(run.read_lineage()["metrics"]["test_bits_per_byte"]["value"])


def test_nan_after_a_rise_keeps_the_checkpoint_from_before_the_rise(
    text_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    """Losses that rise for five steps and then are NaN: what was saved in between is dropped."""
    from bimo.train import pretrain

    original, calls = pretrain.next_token_loss, [0]

    def ruined(model: Any, batch: Any) -> Any:
        calls[0] += 1
        loss, metrics = original(model, batch)
        step = (calls[0] - 1) // 2  # two passes a step
        return (loss * math.nan if step >= 25 else loss + 3.0 if step >= 20 else loss), metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "next_token_loss", ruined)
        with pytest.raises(TrainingError, match=r"step 25: the loss is not finite.*\.txt.*last good one"):
            config = {**tiny, "checkpoint_every": 1}
            train(text_folder, None, tmp_path / "run", config=config, quiet=True)
    steps = sorted(int(path.name[-8:]) for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert steps and 16 <= steps[-1] <= 19


def test_resuming_keeps_the_trend(text_folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    run = train(text_folder, None, tmp_path / "run", config=tiny, quiet=True)
    final = load_checkpoint(run.checkpoints)
    assert final is not None and final.state["guard"]["on"] > 30
    shutil.rmtree(max(run.checkpoints.glob("step-*")))
    run.lineage.write_text(run.lineage.read_text().replace('"finished"', '"running"'))
    train(out=run, resume=True, quiet=True)
    again = load_checkpoint(run.checkpoints)
    assert again is not None and again.state["guard"] == final.state["guard"]
