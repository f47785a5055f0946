"""Tuning with LoRA: what the run keeps, exact resumption, and a run that is only an adapter."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import bimo
from bimo.errors import ModelError, RunError
from bimo.models import load_model
from bimo.models.adapter import attach, read_adapter
from bimo.models.lora import LoraConfig, LowRank
from bimo.run import Run
from bimo.train.learn import Guard
from bimo.train.loop import Progress
from bimo.train.plan import Plan
from bimo.tune.adapting import plan_whole
from bimo.tune.config import TuneConfig
from bimo.tune.tune import tune

LORA = {"rank": 3, "dora": True, "dropout": 0.1}


@pytest.fixture(scope="module")
def settings(tiny: dict[str, Any]) -> dict[str, Any]:
    return {**tiny, "steps": 12, "patience": 0, "lora": LORA}


@pytest.fixture(scope="module")
def run(model_folder: Path, talks: Path, settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The uninterrupted run."""
    return tune("chat", model_folder, talks, tmp_path_factory.mktemp("lora") / "run", config=settings, quiet=True)


def adapter_bytes(run: Run) -> bytes:
    return (run.path / "adapter" / "adapter_model.safetensors").read_bytes()


def test_the_run_is_a_whole_model_and_its_adapter(run: Run, model_folder: Path) -> None:
    lineage = run.read_lineage()
    assert not [one for one in lineage["doctor"] if one["ok"] is False]
    before, after = (one["validation_bits_per_byte"] for one in (run.read_metrics()[5], run.read_metrics()[11]))
    assert after < before
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    plain = load_model(run.path)
    assert not any(isinstance(module, LowRank) for module in plain.modules())
    began = load_model(run.checkpoints / "start")
    adapter = read_adapter(run.path / "adapter")
    attach(began, adapter)
    began.compute_dtype = torch.float32  # the frozen matrices are bfloat16
    assert torch.allclose(plain(ids), began(ids), atol=1e-5)
    assert adapter.base.folder == str(model_folder) and adapter.base.weights == lineage["parent"]["weights"]


def test_checkpoints_hold_what_is_learned_and_what_is_frozen_stays(run: Run) -> None:
    adapter = read_adapter(run.path / "adapter")
    assert all("lora" in name for name in adapter.tensors)
    start, end = (load_file(folder / "model.safetensors") for folder in (run.checkpoints / "start", run.path))
    frozen = {name for name in start if "norm" in name or "embed" in name}
    assert frozen and all(torch.equal(start[name].bfloat16(), end[name].bfloat16()) for name in frozen)
    newest = load_file(max(run.checkpoints.glob("step-*")) / "state.safetensors")
    assert {name.removeprefix("model.") for name in newest if name.startswith("model.")} == set(adapter.tensors)


def test_tables_that_grew_and_new_heads_are_learned_as_a_whole(model_folder: Path) -> None:
    model = load_model(model_folder)
    plan = Plan(TuneConfig(start=str(model_folder), lora=LoraConfig()))
    plan_whole(plan, model)
    assert plan.config.lora.whole == () and not plan.reasons
    rows = model.config.vocab_size + 3
    model.config = dataclasses.replace(model.config, vocab_size=rows)
    for table in {id(table): table for table in (model.model.embed_tokens.weight, model.output_weight)}.values():
        table.data = torch.zeros(rows, 24)
    plan_whole(plan, model)
    tied = model.config.tie_word_embeddings
    assert plan.config.lora.whole == (("model.embed_tokens",) if tied else ("model.embed_tokens", "lm_head"))
    assert [reason[0] for reason in plan.reasons] == ["lora.whole"]
    model = load_model(model_folder)
    model.classifier = torch.nn.Linear(24, 2)
    plan = Plan(TuneConfig(start=str(model_folder), lora=LoraConfig()))
    plan_whole(plan, model)
    assert plan.config.lora.whole == ("classifier",)


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    run: Run, model_folder: Path, talks: Path, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Guard.__call__

    def dying(self: Guard, progress: Progress) -> None:
        original(self, progress)
        if progress.step == 8:
            raise MemoryError

    monkeypatch.setattr(Guard, "__call__", dying)
    with pytest.raises(MemoryError):
        tune("chat", model_folder, talks, tmp_path / "run", config=settings, quiet=True)
    monkeypatch.undo()
    resumed = tune("chat", model_folder, talks, tmp_path / "run", config=settings, resume=True, quiet=True)
    assert adapter_bytes(resumed) == adapter_bytes(run)
    with pytest.raises(RunError, match="another configuration"):
        other = {**settings, "lora": {"rank": 4}}
        tune("chat", model_folder, talks, resumed.path, config=other, resume=True, quiet=True)


def test_a_run_that_is_only_an_adapter_is_small_and_whole_when_loaded(
    run: Run, model_folder: Path, talks: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    wanted = {**settings, "lora": {**LORA, "adapter_only": True}}
    small = tune("chat", base, talks, tmp_path / "run", config=wanted, quiet=True)
    assert not list(small.path.rglob("model.safetensors")) and not small.checkpoints.exists()
    assert adapter_bytes(small) == adapter_bytes(run)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    whole, loaded = bimo.load(run.path), bimo.load(small.path)
    assert torch.allclose(loaded.model(ids), whole.model(ids), atol=1e-6)
    assert loaded.model.config == whole.model.config
    assert loaded.conventions.turn_ends == whole.conventions.turn_ends
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ModelError, match="was learned on other weights.*put them back"):
        bimo.load(small.path)
    shutil.rmtree(base)
    with pytest.raises(ModelError, match="bimo merge"):
        bimo.load(small.path)


@pytest.mark.parametrize("kept", ["bfloat16", "q4"])
def test_a_base_of_fewer_bits_learns_as_well(kept: str, model_folder: Path, talks: Path, settings: Any, tmp_path: Path):
    narrow = {**settings, "lora": {"rank": 3, "base": kept, "targets": ["q_proj", "up_proj"]}}
    run = tune("chat", model_folder, talks, tmp_path / "run", config=narrow, quiet=True)
    records = run.read_metrics()
    assert records[11]["validation_bits_per_byte"] < records[5]["validation_bits_per_byte"]
    assert not [one for one in run.read_lineage()["doctor"] if one["ok"] is False]
