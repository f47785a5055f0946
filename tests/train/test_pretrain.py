"""Pretraining as a whole: a run that stock transformers loads, exact resumption, refusals."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import bimo
from bimo.config import from_mapping, read_yaml
from bimo.errors import BimoError, ConfigError, DataError, RunError, TrainingError
from bimo.run import Run
from bimo.train import hooks, start
from bimo.train.config import TrainConfig
from bimo.train.pretrain import train

CHILD = """
import json, sys
from bimo.train.pretrain import train
exec(sys.argv[4])
train(sys.argv[1], None, sys.argv[2], config=json.loads(sys.argv[3]), resume=True, quiet=True)
"""
DIE_IN_CHECKPOINT = """
import os
from bimo import files
def write_json(path, content, original=files.write_json):
    if path.name == "state.json" and content["step"] == {step}:
        os.kill(os.getpid(), 9)
    original(path, content)
files.write_json = write_json
"""
DIE_BEFORE_THE_FIRST_STEP = """
import os
import bimo.train.start as start
def build_model(*_):
    os.kill(os.getpid(), 9)
start.build_model = build_model
"""


@pytest.fixture(scope="module")
def whole(text_folder: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The uninterrupted run."""
    return train(text_folder, None, tmp_path_factory.mktemp("runs") / "whole", config=tiny, quiet=True)


def start_child(text: Path, out: Path, config: dict[str, Any], before: str = "") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CHILD, str(text), str(out), json.dumps(config), before]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def weights(run: str | Path) -> bytes:
    return (Path(run) / "model.safetensors").read_bytes()


def test_the_compiler_is_not_imported_where_nothing_is_compiled(
    text_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    ended = "import atexit; atexit.register(lambda: print(f'{\"torch._dynamo\" in sys.modules=}', file=sys.stderr))"
    child = start_child(text_folder, tmp_path / "run", {**tiny, "steps": 8}, ended)
    assert child.communicate()[1].decode().endswith("in sys.modules=False\n") and child.returncode == 0


def test_the_run_directory_is_complete_and_the_model_has_learned(whole: Run) -> None:
    names = {path.name for path in whole.path.iterdir()}
    assert names == {
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
        *("bimo.yaml", "lineage.json", "metrics.jsonl", "samples.jsonl", "report.html", "README.md", "checkpoints"),
    }
    records = whole.read_metrics()
    assert [record["step"] for record in records] == list(range(1, 41))
    assert records[-1]["bits_per_byte"] < 0.7 * records[0]["bits_per_byte"]
    assert [record["step"] for record in records if "validation_bits_per_byte" in record] == [8, 16, 24, 32, 40]
    lineage = whole.read_lineage()
    assert lineage["status"] == "finished" and lineage["kind"] == "base"
    assert lineage["metrics"]["test_bits_per_byte"]["value"] < records[0]["bits_per_byte"]
    assert lineage["data"]["train"]["documents"] + lineage["data"]["validation"]["documents"] < 30
    assert lineage["cost"]["wall_seconds"] > 0 and lineage["cost"]["cpu_seconds"] > 0


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_trained_run_loads_in_stock_transformers_with_the_same_logits(
    family: str, tied: bool, text_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    if family == "gpt2" and not tied:
        pytest.skip("GPT-2 is always tied")
    shape = {**tiny["model"], "family": family, "tie_embeddings": tied}
    run = train(text_folder, None, tmp_path / "run", config={**tiny, "steps": 12, "model": shape}, quiet=True)
    ours = bimo.load(run)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(run.path, trust_remote_code=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.path)
    ids = ours.tokenizer.encode("the king sees 赤壁.")
    assert tokenizer("the king sees 赤壁.")["input_ids"] == ids
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits
        assert torch.allclose(ours.model(torch.tensor([ids])), expected, atol=1e-4)
        fresh = transformers.AutoModelForCausalLM.from_config(theirs.config)
        assert not torch.allclose(fresh(torch.tensor([ids])).logits, expected, atol=1e-1)


def test_the_same_configuration_gives_the_same_bytes(whole: Run, text_folder: Path, tmp_path: Path) -> None:
    """``bimo.yaml`` fed back repeats the run."""
    again = train(out=tmp_path / "again", config=whole.config, quiet=True)
    assert weights(again) == weights(whole)
    assert read_yaml(again.config) == read_yaml(whole.config)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kill_9_anywhere_and_resume_gives_the_same_bytes(
    seed: int, whole: Run, text_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    out, at = tmp_path / "run", random.Random(seed).randint(1, 39)
    child = start_child(text_folder, out, tiny)
    metrics = out / "metrics.jsonl"
    while child.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < at):
        time.sleep(0.001)
    child.kill()
    child.communicate()
    (out / ".model.safetensors.0badf00d.tmp").write_bytes(b"half of the weights")
    resumed = train(text_folder, None, out, config=tiny, resume=True, quiet=True)
    assert weights(resumed) == weights(whole) and not [*out.glob(".*")]
    steps = [record["step"] for record in resumed.read_metrics()]
    assert steps == list(range(1, 41))


def test_kill_9_inside_a_checkpoint_write(whole: Run, text_folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    for step in (7, 21):
        child = start_child(text_folder, out, tiny, DIE_IN_CHECKPOINT.format(step=step))
        _, errors = child.communicate()
        assert child.returncode == -signal.SIGKILL, errors.decode()
        assert not (out / "checkpoints" / f"step-{step:08d}").exists()
    assert weights(train(text_folder, None, out, config=tiny, resume=True, quiet=True)) == weights(whole)


def test_kill_9_before_the_first_step(whole: Run, text_folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    child = start_child(text_folder, tmp_path / "run", tiny, DIE_BEFORE_THE_FIRST_STEP)
    child.communicate()
    assert child.returncode == -signal.SIGKILL and (tmp_path / "run" / "tokenizer.json").exists()
    resumed = train(text_folder, None, tmp_path / "run", config=tiny, resume=True, quiet=True)
    assert weights(resumed) == weights(whole)


def test_ctrl_c_loses_nothing(whole: Run, text_folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    child = start_child(text_folder, out, tiny)
    while child.poll() is None and not (out / "metrics.jsonl").exists():
        time.sleep(0.001)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate()
    assert b"KeyboardInterrupt" in errors
    lineage = Run(out).read_lineage()
    assert lineage["status"] == "interrupted"
    done = Run(out).read_metrics()[-1]["step"]
    assert (out / "checkpoints" / f"step-{done:08d}").is_dir()
    assert weights(train(text_folder, None, out, resume=True, quiet=True)) == weights(whole)


def copied(run: Run, target: Path, *, finished: bool = False) -> Run:
    shutil.copytree(run.path, target)
    copy = Run(target)
    if not finished:
        copy.lineage.write_text(json.dumps({**copy.read_lineage(), "status": "running"}))
    return copy


def test_resume_with_another_configuration_is_refused(whole: Run, text_folder: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    with pytest.raises(RunError, match=r"model.width: 24 -> 32.*batch.size: 6 -> 3|batch.size.*model.width"):
        train(text_folder, out=run, overrides=["model.width=32", "batch.size=3"], resume=True, quiet=True)
    assert weights(run) == weights(whole)


def test_resume_on_changed_data_or_tokenizer_is_refused(whole: Run, text_folder: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    changed = shutil.copytree(text_folder, tmp_path / "text")
    run.config.write_text(run.config.read_text().replace(str(text_folder), str(changed)))
    train(out=run, resume=True, quiet=True)
    run = copied(whole, tmp_path / "other")
    run.config.write_text(run.config.read_text().replace(str(text_folder), str(changed)))
    (changed / "07.txt").write_text("another text\n" * 9)
    with pytest.raises(RunError, match="the data changed"):
        train(out=run, resume=True, quiet=True)
    run = copied(whole, tmp_path / "third")
    tokenizer = run.path / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"ignore_merges": false', '"ignore_merges": true'))
    with pytest.raises(RunError, match="the tokenizer changed"):
        train(out=run, resume=True, quiet=True)


def test_a_finished_run_is_left_as_it_is(whole: Run, text_folder: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run", finished=True)
    before = {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()}
    train(text_folder, out=run, resume=True, quiet=True)
    assert before == {path.name: path.stat().st_mtime_ns for path in run.path.iterdir()}
    with pytest.raises(RunError, match="is not empty"):
        train(text_folder, out=run, quiet=True)


def test_a_damaged_checkpoint_is_named(whole: Run, tmp_path: Path) -> None:
    run = copied(whole, tmp_path / "run")
    newest = max(run.checkpoints.glob("step-*"))
    path = newest / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(RunError, match=rf"{newest.name}.*damaged.*Delete this checkpoint"):
        train(out=run, resume=True, quiet=True)
    shutil.rmtree(newest)
    assert weights(train(out=run, resume=True, quiet=True)) == weights(whole)


def test_a_full_disk_while_saving_keeps_what_was_there(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(whole, tmp_path / "run")
    for checkpoint in sorted(run.checkpoints.glob("step-*"))[1:]:
        shutil.rmtree(checkpoint)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name != "lineage.json"}
    with monkeypatch.context() as patch:
        patch.setattr("bimo.train.checkpoint.write_safetensors", full)
        with pytest.raises(OSError, match="No space left"):
            train(out=run, resume=True, quiet=True)
    kept = {path: path.read_bytes() for path in before if path.name not in ("metrics.jsonl", "samples.jsonl")}
    assert all(before[path] == content for path, content in kept.items())
    assert weights(train(out=run, resume=True, quiet=True)) == weights(whole)


def test_nan_stops_with_the_step_and_the_documents(text_folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    optimizer = {"name": "adamw", "learning_rate": 1e30, "adamw_learning_rate": 1e30, "clip": 1e30}
    with pytest.raises(TrainingError, match=r"diverged at step \d+.*\d\d\.txt.*half the learning rates: add --resume"):
        train(text_folder, None, tmp_path / "run", config={**tiny, "optimizer": optimizer}, quiet=True)


def test_early_stopping_keeps_the_best_weights(text_folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    """A learning rate that ruins the model: validation turns, training ends, and what is saved is the best."""
    few = tmp_path / "few"
    few.mkdir()
    for name in ("01", "02", "03", "04"):
        shutil.copy(text_folder / f"{name}.txt", few)
    config = {**tiny, "steps": 600, "evaluate_every": 10, "patience": 3, "model": {**tiny["model"], "dropout": 0.0}}
    run = train(few, None, tmp_path / "run", config=config, overrides=["schedule.name=constant"], quiet=True)
    metrics = run.read_lineage()["metrics"]
    values = {r["step"]: r["validation_bits_per_byte"] for r in run.read_metrics() if "validation_bits_per_byte" in r}
    assert metrics["steps"] < 600 and metrics["best_step"] == min(values, key=lambda step: values[step])
    assert metrics["steps"] == metrics["best_step"] + 30
    assert any("validation has not improved" in event for event in run.read_lineage()["events"])


def test_budgets_in_tokens_and_epochs_become_steps(text_folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    config = {key: value for key, value in tiny.items() if key != "steps"}
    run = train(text_folder, "960-tokens", tmp_path / "tokens", config=config, quiet=True)
    assert run.read_lineage()["metrics"]["steps"] == 10
    run = train(text_folder, "0.5-epochs", tmp_path / "epochs", config=config, quiet=True)
    assert run.read_lineage()["metrics"]["epochs"] == pytest.approx(0.5, abs=0.02)


def test_a_wall_clock_budget_is_resolved_into_steps_and_recorded(text_folder: Path, tmp_path: Path) -> None:
    overrides = ["compile=false", "threads=1", "model.width=32", "model.layers=1"]
    run = train(text_folder, "14s", tmp_path / "run", overrides=overrides, quiet=True)
    config = from_mapping(TrainConfig, read_yaml(run.config), where="")
    lineage = run.read_lineage()
    assert config.steps and config.steps >= lineage["metrics"]["steps"] > 0
    assert {choice["key"] for choice in lineage["plan"]["choices"]} >= {"steps", "batch.size", "tokenizer.vocab_size"}
    assert config.model.width == 32 and "model.width" not in {c["key"] for c in lineage["plan"]["choices"]}


def test_a_lengthened_schedule_is_resumed_to_the_same_bytes(
    text_folder: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new number of steps is in the checkpoint; it is changed once, before and after the interruption."""

    def once(self: hooks.Deadline, step: int, steps: int, affordable: int) -> int:
        return 50 if steps == 40 else steps

    monkeypatch.setattr(hooks.Deadline, "_longer", once)
    config = {**tiny, "budget": "3000s"}
    whole = train(text_folder, None, tmp_path / "whole", config=config, quiet=True)
    events = whole.read_lineage()["events"]
    assert [record["step"] for record in whole.read_metrics()][-1] == 50
    assert len(events) == 1 and events[0].startswith("step 24: ") and "lengthened from 40 to 50" in events[0]

    report = hooks.Report.__call__

    def interrupting(self: hooks.Report, progress: Any) -> None:
        report(self, progress)
        if progress.step == 28:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(hooks.Report, "__call__", interrupting)
        with pytest.raises(KeyboardInterrupt):
            train(text_folder, None, tmp_path / "cut", config=config, quiet=True)
    resumed = train(text_folder, None, tmp_path / "cut", config=config, resume=True, quiet=True)
    assert weights(resumed) == weights(whole)
    assert sum("lengthened" in event for event in resumed.read_lineage()["events"]) == 1


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["modle.width=3"], ConfigError, "unknown key 'modle'. Did you mean 'model'"),
        (["model.widht=3"], ConfigError, "unknown key 'model.widht'. Did you mean 'width'"),
        (["model.width=wide"], ConfigError, "model.width is wrong"),
        (["model.width=25"], ConfigError, "even multiple of model.heads"),
        (["model.kv_heads=2"], ConfigError, "model.kv_heads to divide"),
        (["model.dropout=1.5"], ConfigError, "model.dropout"),
        (["batch.accumulate=4"], ConfigError, "divides batch.size"),
        (["model.layers=0"], ConfigError, "model.layers"),
        (["tokenizer.vocab_size=9"], ConfigError, "vocab"),
        (["batch.size=60000"], DataError, "smaller than one batch"),
        (["model.initial=bigram", "model.tie_embeddings=true"], ConfigError, "separate input and output"),
        (["optimizer.name=adam"], ConfigError, "Did you mean 'adamw'"),
        (["device=cuda"], ConfigError, "not available"),
        (["reading.test=0.7"], ConfigError, "held-out shares"),
        (["model.width=-24"], ConfigError, "model.width is wrong. Expected a whole number above 0"),
        (["model.heads=0"], ConfigError, "model.heads is wrong"),
        (["model.heads=24"], ConfigError, "even multiple of model.heads"),
        (["batch.size=0"], ConfigError, "batch.size is wrong. Expected a whole number of at least 1; got 0"),
        (["batch.accumulate=0"], ConfigError, "batch.accumulate is wrong"),
        (["steps=0"], ConfigError, "steps is wrong"),
        (["evaluate_every=0"], ConfigError, "evaluate_every is wrong"),
        (["checkpoint_every=-1"], ConfigError, "checkpoint_every is wrong"),
        (["optimizer.learning_rate=-0.1"], ConfigError, "optimizer.learning_rate is wrong"),
        (["optimizer.weight_decay=-1"], ConfigError, "optimizer.weight_decay is wrong"),
        (["schedule.cooldown=1.2"], ConfigError, "schedule.cooldown is wrong. Expected a share from 0 to 1"),
        (["averaging=1"], ConfigError, "averaging is wrong. Expected a share"),
    ],
)
def test_impossible_configurations_are_named(
    overrides: list[str], error: type[BimoError], message: str, text_folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    if overrides == ["device=cuda"] and torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(error, match=message):
        train(text_folder, None, tmp_path / "run", config=tiny, overrides=overrides, quiet=True)


def test_too_little_text_and_too_little_time(tiny: dict[str, Any], tmp_path: Path, text_folder: Path) -> None:
    small = tmp_path / "small.txt"
    small.write_text("abcde")
    with pytest.raises(DataError, match="too few different texts"):
        train(small, None, tmp_path / "run", config=tiny, quiet=True)
    with pytest.raises(TrainingError, match="too short to train anything"):
        train(text_folder, "1s", tmp_path / "short", overrides=["compile=false"], quiet=True)
    with pytest.raises(ConfigError, match="budget 'soon' is not understood"):
        train(text_folder, "soon", tmp_path / "soon", quiet=True)
    with pytest.raises(ConfigError, match="nothing to train on"):
        train(out=tmp_path / "none", quiet=True)


def test_the_module_is_the_function(text_folder: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    run = bimo.train(data=text_folder, out=tmp_path / "run", config={**tiny, "steps": 3}, quiet=True)
    assert run.read_lineage()["status"] == "finished"
    assert math.isfinite(bimo.load(run).logprob("the king"))
    assert start.DEFAULT_BUDGET
