"""An adapter and its base as a run of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bimo.errors import ModelError, RunError, TokenizerError, UsageError
from bimo.models import load_model, save_model
from bimo.models.lora import LoraConfig
from bimo.models.merge_adapter import merge_adapter
from bimo.run import Run
from bimo.tokenizer.train import train_tokenizer
from bimo.tune.tuned import tuned_options
from tests.models.test_adapter import saved
from tests.models.test_models import CASES, ids_of, trained

CONFIG = LoraConfig(rank=3, alpha=6, base="float32", dora=True)


@pytest.fixture
def adapted(tmp_path: Path) -> Any:
    return saved(tmp_path, "qwen2", CONFIG)


def with_tokenizer(folder: Path) -> None:
    train_tokenizer(["ab ab"], 270).save(folder)


def test_the_merged_run_computes_the_same_and_says_what_it_is(adapted: Any, tmp_path: Path) -> None:
    with_tokenizer(tmp_path / "adapter")  # as PEFT's trainers leave one there
    out = merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert torch.allclose(load_model(out)(ids_of(2, 7)), adapted(ids_of(2, 7)), atol=1e-5)
    lineage = Run(out).read_lineage()
    assert Run(out).imported and lineage["source"]["base_model"] == str(tmp_path / "base") and not lineage["events"]
    assert {path.name for path in out.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    narrow = merge_adapter(tmp_path / "adapter", tmp_path / "narrow", dtype="bfloat16")
    assert load_model(narrow).output_weight.dtype == torch.bfloat16
    with pytest.raises(RunError, match="already"):
        merge_adapter(tmp_path / "adapter", out)
    assert merge_adapter(tmp_path / "adapter", out, force=True) == out


def test_a_merged_run_is_asked_as_the_run_was_tuned(adapted: Any, tmp_path: Path) -> None:
    with_tokenizer(tmp_path / "adapter")
    (tmp_path / "adapter" / "bimo.yaml").write_text("task: qa\noptions: {kind: yes-no}\nseed: 3\n", encoding="utf-8")
    out = merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert tuned_options(out, "qa") == {"kind": "yes-no"} and tuned_options(out, "translate") is None


def test_what_cannot_be_merged_is_refused_and_nothing_is_left(adapted: Any, tmp_path: Path) -> None:
    adapter, out = tmp_path / "adapter", tmp_path / "merged"
    with pytest.raises(UsageError, match="float32"):
        merge_adapter(adapter, out, dtype="float23")
    with pytest.raises(ModelError, match="adapter_config.json"):
        merge_adapter(tmp_path / "nowhere", out)
    save_model(trained(CASES["qwen2"], seed=9), tmp_path / "other")
    with pytest.raises(ModelError, match="does not belong to this model"):
        merge_adapter(adapter, out, base=tmp_path / "other")
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(ModelError, match=r"bimo merge ADAPTER --base"):
        merge_adapter(adapter, out)
    with pytest.raises(TokenizerError):
        merge_adapter(adapter, out, base=tmp_path / "moved")
    assert not out.exists()
    with_tokenizer(tmp_path / "moved")
    (adapter / "base.json").unlink()
    merge_adapter(adapter, out, base=tmp_path / "moved")
    assert "nobody noted" in Run(out).read_lineage()["events"][0]
