"""What the world can do to a training: files cut short, clocks that jump, a compiler that dies, too little time."""

from __future__ import annotations

import ast
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from bimo.config import read_yaml
from bimo.errors import DataError, TrainingError
from bimo.run import Run
from bimo.train import build, pretrain
from bimo.train.anchor import Anchor
from bimo.train.budget import parse_budget
from bimo.train.config import BatchConfig, ModelConfig, TrainConfig
from bimo.train.plan import Plan, plan_shape, plan_steps
from bimo.train.pretrain import train
from bimo.train.probe import Machine

PACKAGE = Path(pretrain.__file__).parents[1]
MACHINE = Machine({"float32": 1e11, "bfloat16": 4e11}, {"float32": 1e11, "bfloat16": 3e11})


@pytest.fixture(scope="module")
def whole(text_folder: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nothing happened to."""
    return train(text_folder, None, tmp_path_factory.mktemp("runs") / "whole", config=tiny, quiet=True)


def weights(run: Run) -> bytes:
    return (run.path / "model.safetensors").read_bytes()


def test_a_shard_cut_short_while_training_is_named_and_nothing_is_lost(
    whole: Run, text_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    """Reading a memory map beyond the end of its file kills a process without a word."""
    shard, calls, original = tmp_path / "run/checkpoints/tokens/train.bin", [0], pretrain.next_token_loss

    def cutting(model: Any, batch: Any) -> Any:
        calls[0] += 1
        if calls[0] == 40:
            os.truncate(shard, 10)
        return original(model, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "next_token_loss", cutting)
        with pytest.raises(DataError, match=r"train.bin was cut short.*got 10.*Add --resume"):
            train(text_folder, None, tmp_path / "run", config=tiny, quiet=True)
    run = train(out=tmp_path / "run", resume=True, quiet=True)
    assert weights(run) == weights(whole)


def test_shards_and_test_text_that_vanished_are_made_again(whole: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(whole.path, tmp_path / "run"))
    run.lineage.write_text(run.lineage.read_text().replace('"finished"', '"running"'))
    shutil.rmtree(max(run.checkpoints.glob("step-*")))
    shutil.rmtree(run.checkpoints / "tokens")
    shutil.rmtree(run.checkpoints / "test")
    train(out=run, resume=True, quiet=True)
    assert weights(run) == weights(whole)
    before, after = (one.read_lineage()["metrics"]["test_bits_per_byte"] for one in (whole, run))
    assert before == after


def test_a_clock_that_jumps_changes_nothing(
    whole: Run, text_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock goes back a day, and on by two, between any two looks at it."""
    jumps = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 1.7e9 + (-86_400, 172_800)[next(jumps) % 2])
    run = train(text_folder, None, tmp_path / "run", config=tiny, quiet=True)
    assert weights(run) == weights(whole)
    seconds = [record["seconds"] for record in run.read_metrics()]
    assert seconds == sorted(seconds) and 0 <= run.read_lineage()["cost"]["wall_seconds"] < 10_000


def test_no_decision_reads_the_wall_clock() -> None:
    """Durations come from clocks that never jump; the time of day is only written down."""
    # When a run or an import began, a line of a log, a reply, a template that asks for the date, the age of a file.
    said = {"train/lineage.py": 1, "tokenizer/chat.py": 1, "report/live.py": 1, "train/sweep.py": 1}
    said |= {"serve/guard.py": 1, "serve/served.py": 1, "models/imported_lineage.py": 1}
    found: dict[str, int] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "time.time",
                "datetime.now",
                "datetime.datetime.now",
            ):
                name = path.relative_to(PACKAGE).as_posix()
                found[name] = found.get(name, 0) + 1
    assert found == said


def test_a_compiler_that_dies_is_announced_and_training_goes_on(
    text_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: object) -> None:
        from concurrent.futures.process import BrokenProcessPool

        raise BrokenProcessPool("A child process terminated abruptly")

    monkeypatch.setattr(build, "compile_layers", dying)
    eager = {**tiny, "kernels": False}
    plain = weights(train(text_folder, None, tmp_path / "plain", config=eager, quiet=True))
    run = train(text_folder, None, tmp_path / "run", config={**eager, "compile": True}, quiet=True)
    assert read_yaml(run.config)["compile"] is False and weights(run) == plain
    assert "the layers could not be compiled" in run.read_lineage()["events"]
    # The same on resuming a run that was compiled when it began.
    run.config.write_text(run.config.read_text().replace("compile: false", "compile: true"))
    run.lineage.write_text(run.lineage.read_text().replace('"finished"', '"running"'))
    shutil.rmtree(max(run.checkpoints.glob("step-*")))
    train(out=run, resume=True, quiet=True)
    assert weights(run) == plain
    assert "the layers could not be compiled any more" in run.read_lineage()["events"]


def steps_within(plan: Plan, seconds: float) -> int:
    plan_steps(plan, seconds, 0.5, Anchor(2.1, 10_000, 3.0, 2048), 1e9, 100)
    return plan.config.steps or 0


def test_a_budget_below_the_probe_is_told_the_smallest_that_could_work() -> None:
    shape = ModelConfig(width=32, layers=1, context=16, dropout=0.0)
    config = TrainConfig(budget="10s", model=shape, batch=BatchConfig(size=4))
    with pytest.raises(TrainingError, match=r"budget 10s is too short.*at least 20 steps.*--budget \d+s") as caught:
        steps_within(Plan(config), 2.0)
    smallest = re.search(r"--budget (\d+)s", str(caught.value))
    assert smallest is not None
    assert steps_within(Plan(config), 2.0 + int(smallest[1]) - 10) >= 20
    with pytest.raises(TrainingError, match="too short"):
        steps_within(Plan(config), 2.0 + 0.5 * (int(smallest[1]) - 10))


def test_a_budget_that_reading_has_used_up_still_ends_in_that_error() -> None:
    plan = Plan(TrainConfig(budget="1s", dtype="float32", device="cpu"))
    plan_shape(plan, parse_budget("1s"), MACHINE, -3.0, Anchor(2.1, 1_000_000, 3.0, 2048))
    with pytest.raises(TrainingError, match="too short to train anything"):
        steps_within(plan, -5.0)
