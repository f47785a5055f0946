"""Adapters as files; PEFT, which reads ours and writes others for us, is the witness of what is computed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bimo.errors import ModelError
from bimo.models import load_model, save_model, trained_parameters
from bimo.models.adapter import Base, attach, check_base, read_adapter, save_adapter, weights_hash
from bimo.models.lora import LoraConfig, LowRank, adapt, merged
from tests.models.test_models import CASES, ids_of, trained

SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"rank_stabilised": True, "dropout": 0.1},
    "dora": {"dora": True},
    "some": {"targets": ("q_proj", "mlp.down_proj", "c_attn", "mlp.c_proj")},
    "whole": {"whole": ("embed_tokens", "wte")},
}


def settings_for(case: str, name: str) -> LoraConfig:
    """Those of the settings that name something in this family."""
    foreign = {"gpt2": ("q_proj", "mlp.down_proj", "embed_tokens")}.get(case, ("c_attn", "mlp.c_proj", "wte"))
    named = {
        key: tuple(one for one in value if one not in foreign) if isinstance(value, tuple) else value
        for key, value in SETTINGS[name].items()
    }
    return LoraConfig(rank=3, alpha=6, base="float32", **named)


def saved(folder: Path, case: str, config: LoraConfig, kept: str = "float32") -> Any:
    """A base model in ``base``, an adapter in ``adapter``, and the adapted model, away from where it began."""
    save_model(trained(CASES[case]), folder / "base")
    model = load_model(folder / "base")
    adapt(model, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    base = Base(str(folder / "base"), weights_hash(folder / "base"), kept)
    save_adapter(model, config, folder / "adapter", base)
    return model


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("case", ["qwen2", "llama-biases", "gpt2"])
def test_what_is_written_is_read_to_the_bit(case: str, name: str, tmp_path: Path) -> None:
    config = settings_for(case, name)
    model = saved(tmp_path, case, config)
    again, adapter = load_model(tmp_path / "base"), read_adapter(tmp_path / "adapter")
    assert check_base(adapter, tmp_path / "base")
    attach(again, adapter)
    assert torch.equal(again(ids_of(2, 7)), model(ids_of(2, 7)))
    assert trained_parameters(again).keys() == trained_parameters(model).keys()
    one = next(module for module in again.modules() if isinstance(module, LowRank))
    assert one.dropout == config.dropout


@pytest.mark.slow  # importing peft takes seconds
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("case", ["qwen2", "qwen3", "llama-biases", "gpt2"])
def test_peft_reads_ours_and_computes_and_learns_the_same(case: str, name: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    model = saved(tmp_path, case, settings_for(case, name))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True).eval()
    logits, expected = model(ids_of(3, 11)), theirs(ids_of(3, 11)).logits
    assert torch.allclose(logits, expected, atol=1e-5, rtol=1e-5)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2)) / logits.numel()
    (logits * weights).sum().backward()
    (expected * weights).sum().backward()
    found = {
        name.removeprefix("base_model.model.").replace(".default", "").replace(".modules_to_save", ""): parameter.grad
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    assert len(found) == len(trained_parameters(model))
    for own, parameter in trained_parameters(model).items():
        other = found[own if own in found else f"{own}.weight"]
        assert torch.allclose(parameter.grad, other, atol=1e-5, rtol=1e-5), own
    plain = theirs.merge_and_unload()
    assert torch.allclose(merged(model)(ids_of(3, 11)), plain(ids_of(3, 11)).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": "all-linear", "use_dora": True, "use_rslora": True},
        {"target_modules": r".*\.(q_proj|down_proj)", "rank_pattern": {"q_proj": 5}, "alpha_pattern": {"0.*q_proj": 9}},
        {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ],
)
def test_we_read_what_peft_writes(settings: dict[str, Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    save_model(trained(CASES["qwen2"]), tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.get_peft_model(base, peft.LoraConfig(r=3, lora_alpha=7, task_type="CAUSAL_LM", **settings)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    theirs.save_pretrained(tmp_path / "adapter")
    model, adapter = load_model(tmp_path / "base"), read_adapter(tmp_path / "adapter")
    assert not check_base(adapter, tmp_path / "base"), "PEFT notes no hash"
    attach(model, adapter)
    expected = theirs(ids_of(3, 11)).logits
    assert torch.allclose(model(ids_of(3, 11)), expected, atol=1e-5, rtol=1e-5)
    assert torch.allclose(merged(model)(ids_of(3, 11)), expected, atol=1e-5, rtol=1e-4)


def test_a_grown_vocabulary_grows_the_model(tmp_path: Path) -> None:
    saved(tmp_path, "qwen3", settings_for("qwen3", "whole"))
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    for name in ("base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.ones(4, 24)])
    save_file(tensors, path)
    model = load_model(tmp_path / "base")
    attach(model, read_adapter(tmp_path / "adapter"))
    save_model(merged(model), tmp_path / "merged")
    again = load_model(tmp_path / "merged")
    assert again.config.vocab_size == 27 and again(ids_of(2, 5)).shape == (2, 5, 27)
    assert torch.allclose(again(ids_of(2, 5)), model(ids_of(2, 5)), atol=1e-5)


def test_another_base_is_refused_by_its_hash_and_by_its_shapes(tmp_path: Path) -> None:
    saved(tmp_path, "qwen2", settings_for("qwen2", "lora"))
    adapter = read_adapter(tmp_path / "adapter")
    save_model(trained(CASES["qwen2"], seed=9), tmp_path / "other")
    with pytest.raises(ModelError, match=r"does not belong .* Use the model that it was learned on: .*base"):
        check_base(adapter, tmp_path / "other")
    with pytest.raises(ModelError, match=r"k_proj of \(8, 3\) x \(3, 24\) instead of \(60, r\) x .* and [0-9]+ more"):
        attach(load_wide(tmp_path), adapter)
    gpt2 = trained(CASES["gpt2"])
    before = {name: tensor.clone() for name, tensor in gpt2.state_dict().items()}
    with pytest.raises(ModelError, match="which the model does not have"):
        attach(gpt2, adapter)
    assert all(torch.equal(tensor, before[name]) for name, tensor in gpt2.state_dict().items())


def load_wide(folder: Path) -> Any:
    save_model(trained(CASES["qwen3-wide-heads"]), folder / "wide")
    return load_model(folder / "wide")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"peft_type": "IA3"}, "no LoRA adapter"),
        ({"lora_bias": True}, "lora_bias"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights pissa"),
        ({"a_later_invention": {"on": True}}, "a_later_invention"),
    ],
)
def test_what_is_not_computed_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    saved(tmp_path, "qwen2", settings_for("qwen2", "lora"))
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=told):
        read_adapter(tmp_path / "adapter")


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    model = saved(tmp_path, "qwen2", settings_for("qwen2", "dora"))
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    incomplete = {name: tensor for name, tensor in tensors.items() if "0.mlp.up_proj.lora_B" not in name}
    save_file(incomplete, path)
    with pytest.raises(ModelError, match=r"no model.layers.0.mlp.up_proj.lora_B.weight"):
        attach(load_model(tmp_path / "base"), read_adapter(tmp_path / "adapter"))
    save_file({"lora_A": torch.ones(2, 2)}, path)
    with pytest.raises(ModelError, match="begin with base_model.model"):
        read_adapter(tmp_path / "adapter")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ModelError, match="damaged"):
        read_adapter(tmp_path / "adapter")
    path.rename(path.with_name("adapter_model.bin"))
    with pytest.raises(ModelError, match="pickle"):
        read_adapter(tmp_path / "adapter")
    with pytest.raises(ModelError, match="adapter_config.json"):
        read_adapter(tmp_path / "nowhere")
    assert model is not None


def test_a_tied_output_matrix_of_its_own_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "qwen3", settings_for("qwen3", "whole"))
    adapter = read_adapter(tmp_path / "adapter")
    twin = dataclasses.replace(adapter, tensors=adapter.tensors | {"lm_head.weight": torch.zeros(23, 24)})
    with pytest.raises(ModelError, match="one with it"):
        attach(load_model(tmp_path / "base"), twin)


@pytest.mark.parametrize("kept", ["bfloat16", "q4"])
def test_the_base_is_kept_as_the_adapter_learned_on_it(kept: str, tmp_path: Path) -> None:
    config = dataclasses.replace(settings_for("qwen2", "lora"), base=kept)
    model = saved(tmp_path, "qwen2", config, kept)
    again = load_model(tmp_path / "base")
    attach(again, read_adapter(tmp_path / "adapter"))
    assert torch.equal(again(ids_of(2, 7)), model(ids_of(2, 7)))
    assert not torch.equal(again(ids_of(2, 7)).float(), trained(CASES["qwen2"])(ids_of(2, 7)))
