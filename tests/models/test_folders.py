"""Model folders: written whole, read whole, or refused by name."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from bimo.errors import ModelError
from bimo.models import count_parameters, gpt2, llama, load_model, save_model

CONFIG = llama.Config(
    vocab_size=11,
    hidden_size=8,
    intermediate_size=14,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=3,
    head_dim=4,
    max_position_embeddings=16,
    bos_token_id=0,
    eos_token_id=0,
)
GPT2 = gpt2.Config(vocab_size=11, n_positions=7, n_embd=6, n_layer=2, n_head=3, eos_token_id=0)
IDS = torch.tensor([[1, 2, 3, 5, 7], [7, 5, 3, 2, 0]])


def make(config=CONFIG):
    model = (llama if isinstance(config, llama.Config) else gpt2).Model(config)
    model.init_weights(torch.Generator().manual_seed(0))
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    save_model(make(), tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder, **changes):
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(values))


def edit_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_saving_and_loading_returns_the_same_model(folder):
    model = load_model(folder)
    assert model.config == CONFIG
    assert not model.training
    assert torch.equal(model(IDS), make()(IDS))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")


def test_the_same_weights_are_the_same_bytes(folder, tmp_path):
    save_model(load_model(folder), tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_precision_can_be_chosen_and_is_saved(folder, tmp_path):
    model = load_model(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    save_model(model, tmp_path / "half")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    half = load_model(tmp_path / "half")
    assert half(IDS).dtype == torch.bfloat16
    assert torch.equal(half(IDS), model(IDS))


def test_the_model_outlives_its_folder(folder):
    model = load_model(folder)
    expected = model(IDS)
    (folder / "model.safetensors").write_bytes(b"")
    assert torch.equal(model(IDS), expected)


def test_parameters_are_counted_once():
    total, non_embedding = count_parameters(make())
    assert total == non_embedding + 11 * 8
    assert non_embedding == 2 * (8 * 24 + 2 * 8 * 12 + 24 * 8 + 3 * 8 * 14 + 2 * 8 + 2 * 4) + 8
    total, non_embedding = count_parameters(make(GPT2))
    assert total == non_embedding + 11 * 6 + 7 * 6


def test_shards_load_and_a_missing_one_is_named(folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(load_model(folder)(IDS), make()(IDS))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="no model-00002-of-00002"):
        load_model(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    with pytest.raises(ModelError, match="weight_map"):
        load_model(folder)


def test_old_gpt2_checkpoints_load(tmp_path):
    model = make(GPT2)
    save_model(model, tmp_path)
    state = {name.removeprefix("transformer."): tensor for name, tensor in model.state_dict().items()}
    state["h.0.attn.bias"] = torch.ones(1, 1, 7, 7).tril()
    state["lm_head.weight"] = state["wte.weight"].clone()
    save_file(state, tmp_path / "model.safetensors")
    assert torch.equal(load_model(tmp_path)(IDS), model(IDS))
    state["lm_head.weight"] += 1
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="another lm_head"):
        load_model(tmp_path)


def test_missing_unexpected_and_ill_shaped_tensors_are_refused(folder):
    edit_weights(folder, lambda state: state.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelError, match=r"no model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(folder)
    edit_weights(folder, lambda state: state.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(8, 14)}))
    with pytest.raises(ModelError, match=r"up_proj\.weight of shape \(8, 14\) instead of \(14, 8\)"):
        load_model(folder)
    edit_weights(folder, lambda state: state.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(14, 8)}))
    load_model(folder)
    edit_weights(folder, lambda state: state.update({"score.weight": torch.zeros(2, 8)}))
    with pytest.raises(ModelError, match=r"score\.weight, which this architecture does not have"):
        load_model(folder)


def test_integer_weights_are_refused(folder):
    name = "model.layers.1.mlp.up_proj.weight"
    edit_weights(folder, lambda state: state.update({name: torch.zeros(14, 8, dtype=torch.int8)}))
    with pytest.raises(ModelError, match=r"up_proj\.weight in I8"):
        load_model(folder)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_truncated_files_are_refused(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        load_model(folder)


def test_a_pickle_is_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="bimo reads no pickle"):
        load_model(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mixtral"}, "model_type mixtral"),
        ({"model_type": None}, "model_type None"),
        ({"model_type": "new", "auto_map": {"AutoModel": "x.Y"}}, "code of its own"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "Qwen3ForSequenceClassification"),
        ({"num_experts": 4}, "num_experts = 4"),
        ({"hidden_act": "relu"}, "relu"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ({"rope_scaling": None, "rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope"),
        ({"partial_rotary_factor": 0.5}, "0.5"),
        ({"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}, "sliding window"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "wide"}, "wide"),
        ({"num_attention_heads": 5}, "multiple"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"rms_norm_eps": "small"}, "small"),
        ({"rope_scaling": 3}, "wrong type"),
        ({"num_hidden_layers": 3}, r"no model\.layers\.2"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(folder, changes, words):
    edit_config(folder, **changes)
    with pytest.raises(ModelError, match=words):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"activation_function": "relu"}, "relu"),
        ({"n_head": 4}, "n_head"),
        ({"n_layer": None}, "n_layer"),
    ],
)
def test_what_gpt2_does_not_support_is_refused_by_name(tmp_path, changes, words):
    save_model(make(GPT2), tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"model_type": "llama"}, {"model_type": "qwen2", "qk_norm": False}, {"mlp_bias": True}, {"head_dim": 3}]
)
def test_a_configuration_that_stock_classes_cannot_hold_is_refused(changes):
    values = {field: getattr(CONFIG, field) for field in CONFIG.__dataclass_fields__}
    with pytest.raises(ModelError):
        llama.Config(**values | changes)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        load_model(tmp_path / "nothing")
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelError, match="JSON list"):
        load_model(tmp_path)


def test_a_failed_save_leaves_the_old_weights(folder, monkeypatch):
    before = (folder / "model.safetensors").read_bytes()

    def full(state, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bimo.models.save_file", full)
    with pytest.raises(ModelError, match="No space left"):
        save_model(make(), folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob(".*.tmp"))


@pytest.mark.parametrize("config", [CONFIG, replace(GPT2, tie_word_embeddings=False)])
def test_building_a_model_draws_nothing_from_the_global_random_state(config):
    before = torch.get_rng_state()
    make(config)
    assert torch.equal(torch.get_rng_state(), before)
