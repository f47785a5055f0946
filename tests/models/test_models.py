"""The contract of every architecture file, and the parity of each family with transformers, both ways."""

import importlib
import math
from pathlib import Path

import pytest
import torch

import bimo.models
from bimo.models import ENCODERS, MODELS, count_parameters, load_masked, load_model, save_model

FOLDER = Path(bimo.models.__file__).parent
FILES = sorted(
    path.stem for path in FOLDER.glob("*.py") if path.stem != "ngram" and "\nclass Model(" in path.read_text("utf-8")
)
V = 23
LLAMA = {
    "vocab_size": V,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 32,
    "rope_theta": 5000.0,
    "bos_token_id": 1,
    "eos_token_id": [1, 2],
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}
GPT2 = {"model_type": "gpt2", "vocab_size": V, "n_positions": 32, "n_embd": 24, "n_layer": 3, "n_head": 6}
GELU = {"n_inner": 20, "activation_function": "gelu", "layer_norm_epsilon": 1e-3, "eos_token_id": 0}
BERT = {
    "model_type": "bert",
    "vocab_size": V,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 20,
    "max_position_embeddings": 32,
}
# The values of config.json, as transformers' own classes take them.
DECODERS = {
    "llama": LLAMA | {"model_type": "llama", "tie_word_embeddings": False},
    "llama-biases": LLAMA
    | {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "llama-llama3": LLAMA | {"model_type": "llama", "tie_word_embeddings": True, "rope_scaling": LLAMA3},
    "llama-linear": LLAMA | {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.5}},
    "mistral-window": LLAMA | {"model_type": "mistral", "sliding_window": 3},
    "mistral-full": LLAMA | {"model_type": "mistral", "sliding_window": None, "tie_word_embeddings": True},
    "qwen2": LLAMA | {"model_type": "qwen2"},
    "qwen2-window": LLAMA
    | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0},
    "qwen3": LLAMA | {"model_type": "qwen3", "tie_word_embeddings": True},
    "qwen3-untied": LLAMA | {"model_type": "qwen3", "attention_bias": True, "tie_word_embeddings": False},
    "qwen3-wide-heads": LLAMA | {"model_type": "qwen3", "head_dim": 10, "num_key_value_heads": 6},
    "gpt2": GPT2,
    "gpt2-untied": GPT2 | GELU | {"tie_word_embeddings": False},
}
CASES = DECODERS | {
    "bert": BERT,
    "bert-new": BERT | {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3, "type_vocab_size": 5, "pad_token_id": 3},
}
FAMILIES = MODELS | ENCODERS


def config_of(values):
    return importlib.import_module(FAMILIES[values["model_type"]]).Config.from_hf(values)


def stock_class(values):
    """The class of transformers that has the same head."""
    import transformers

    return transformers.AutoModelForCausalLM if values["model_type"] in MODELS else transformers.AutoModelForMaskedLM


def trained(values, seed=0):
    """A model whose every weight, norms and biases included, is away from where it started."""
    config = config_of(values)
    model = importlib.import_module(FAMILIES[values["model_type"]]).Model(config)
    generator = torch.Generator().manual_seed(seed)
    model.init_weights(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def ids_of(rows, length, seed=0):
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


class ListCache:
    """The plainest cache there can be: concatenation."""

    def __init__(self):
        self.pairs = {}
        self.length = 0

    def positions(self, count):
        return torch.arange(self.length, self.length + count)[None].expand(2, count)

    def mask(self, count):
        if count == 1:
            return None
        return torch.ones(2, 1, count, self.length + count, dtype=torch.bool).tril(self.length)

    def append(self, layer, keys, values):
        if layer in self.pairs:
            keys = torch.cat((self.pairs[layer][0], keys), dim=2)
            values = torch.cat((self.pairs[layer][1], values), dim=2)
        self.pairs[layer] = keys, values
        return keys, values


def test_every_architecture_file_is_listed_and_listed_files_exist():
    assert FILES
    assert {*FAMILIES.values()} == {f"bimo.models.{stem}" for stem in FILES}


@pytest.fixture(params=FILES)
def values(request):
    """One configuration for each architecture file; a new file adds its model_type to CASES."""
    module = f"bimo.models.{request.param}"
    return next(case for case in CASES.values() if FAMILIES[case["model_type"]] == module)


def test_shapes_and_attributes(values):
    model = trained(values)
    hidden = model.hidden(ids_of(2, 5))
    assert hidden.shape == (2, 5, 24)
    assert model.logits(hidden).shape == model(ids_of(2, 5)).shape == (2, 5, V)
    assert model.output_weight.shape == (V, 24)
    assert isinstance(model.output_weight, torch.nn.Parameter)
    config = model.config
    names = ("hidden_size", "num_hidden_layers", "num_key_value_heads", "head_dim", "max_position_embeddings")
    assert all(isinstance(getattr(config, name), int) for name in (*names, "vocab_size"))
    assert type(config).from_hf(config.to_hf()) == config


def test_init_weights_sets_every_weight_from_the_generator_alone(values):
    first, second, other = (trained(values).train() for _ in range(3))
    with torch.no_grad():
        for parameter in (*first.parameters(), *second.parameters()):
            parameter.fill_(math.nan)
    torch.manual_seed(1)
    first.init_weights(torch.Generator().manual_seed(7))
    torch.manual_seed(2)
    second.init_weights(torch.Generator().manual_seed(7))
    other.init_weights(torch.Generator().manual_seed(8))
    for name, weight in first.state_dict().items():
        assert weight.isfinite().all(), name
        assert torch.equal(weight, second.state_dict()[name]), name
    assert not torch.equal(first.output_weight, other.output_weight)
    loss = torch.nn.functional.cross_entropy(first(ids_of(3, 7)).flatten(0, 1), ids_of(3, 7, seed=1).flatten())
    assert abs(loss.item() - math.log(V)) < 0.5
    loss.backward()
    assert all(parameter.grad is not None for parameter in first.parameters())


def test_other_segments_are_invisible(values):
    model = trained(values)
    rows = [ids_of(1, length, seed=length) for length in (2, 3, 5)]
    packed = torch.cat(rows, dim=1)
    segment_ids = torch.tensor([[0] * 2 + [1] * 3 + [2] * 5])
    position_ids = torch.tensor([[*range(2), *range(3), *range(5)]])
    together = model(packed, segment_ids=segment_ids, position_ids=position_ids)
    apart = torch.cat([model(row) for row in rows], dim=1)
    assert torch.allclose(together, apart, atol=1e-5)
    assert not torch.allclose(model(packed), apart, atol=1e-2)


@pytest.mark.parametrize("name", CASES)
def test_decoders_do_not_see_the_future_and_encoders_do(name):
    model, packed = trained(CASES[name]), ids_of(1, 10)
    changed = packed.clone()
    changed[0, 7:] = (changed[0, 7:] + 1) % V
    same = torch.allclose(model(changed)[:, :7], model(packed)[:, :7], atol=1e-6)
    assert same == (name in DECODERS)
    assert not torch.allclose(model(changed)[:, 7:], model(packed)[:, 7:], atol=1e-2)


def test_dropout_acts_in_training_only(values):
    model = trained(values)
    still = model(ids_of(2, 5))
    model.dropout = 0.5
    assert model.dropout == 0.5
    assert torch.equal(model(ids_of(2, 5)), still)
    model.train()
    torch.manual_seed(0)
    first = model(ids_of(2, 5))
    assert not torch.allclose(first, still, atol=1e-2)
    torch.manual_seed(0)
    assert torch.equal(model(ids_of(2, 5)), first)
    model.dropout = 0.0
    assert torch.equal(model(ids_of(2, 5)), still)


def test_fp32_weights_with_bf16_activations(values):
    model = trained(values)
    exact = model.hidden(ids_of(2, 5))
    model.compute_dtype = torch.bfloat16
    hidden = model.hidden(ids_of(2, 5))
    assert hidden.dtype == model.logits(hidden).dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(hidden.float(), exact, dim=-1).min() > 0.99
    model.logits(hidden).float().logsumexp(-1).sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_compiles_without_graph_breaks(values):
    model = trained(values)
    ids, segment_ids = ids_of(2, 6), torch.tensor([[0, 0, 1, 1, 1, 2]] * 2)
    expected = model.hidden(ids, segment_ids=segment_ids)
    whole = torch.compile(model.hidden, fullgraph=True, backend="eager")
    assert torch.allclose(whole(ids, segment_ids=segment_ids), expected, atol=1e-5)
    compiled = torch._dynamo.testing.CompileCounter()
    torch._dynamo.reset()
    for layer in next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList)):
        layer.compile(fullgraph=True, backend=compiled)
    assert torch.allclose(model.hidden(ids, segment_ids=segment_ids), expected, atol=1e-5)
    assert compiled.frame_count == 1, "the layers share one compilation"
    assert trained(values).state_dict().keys() == model.state_dict().keys()


def test_flops_are_those_that_torch_counts(values):
    from torch.utils.flop_counter import FlopCounterMode

    model = trained(values)
    with FlopCounterMode(display=False) as counter:
        model(ids_of(2, 7))
    assert counter.get_total_flops() == pytest.approx(2 * 7 * model.forward_flops(7))


@pytest.mark.parametrize("written_out", [True, False])
@pytest.mark.parametrize("name", ["llama", "mistral-window", "qwen3", "gpt2"])
def test_a_cache_changes_nothing(name, written_out, monkeypatch):
    if not written_out:
        monkeypatch.setattr("bimo.models.attention.WRITTEN_OUT_UP_TO", 0)
    model = trained(CASES[name])
    ids = ids_of(2, 11)
    expected = model(ids)
    cache, parts = ListCache(), []
    for part in ids.split([5, 1, 3, 1, 1], dim=1):
        parts.append(model(part, cache=cache))
        cache.length += part.shape[1]
    assert torch.allclose(torch.cat(parts, dim=1), expected, atol=1e-5)


@pytest.mark.parametrize("written_out", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_transformers_reads_ours_and_computes_the_same(name, written_out, tmp_path, monkeypatch):
    if not written_out:
        monkeypatch.setattr("bimo.models.attention.WRITTEN_OUT_UP_TO", 0)
    model = trained(CASES[name])
    save_model(model, tmp_path)
    theirs, report = stock_class(CASES[name]).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.config.eos_token_id == getattr(model.config, "eos_token_id", None)
    ids = ids_of(3, 13)
    assert torch.allclose(model(ids), theirs.eval()(ids).logits, atol=2e-5)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == count_parameters(model)[0]


@pytest.mark.parametrize("name", CASES)
def test_we_read_what_transformers_writes(name, tmp_path):
    from transformers import AutoConfig

    torch.manual_seed(3)
    theirs = stock_class(CASES[name]).from_config(AutoConfig.for_model(**CASES[name])).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path)
    model = (load_model if name in DECODERS else load_masked)(tmp_path)
    ids = ids_of(3, 13)
    assert torch.allclose(model(ids), theirs(ids).logits, atol=2e-5)
    assert type(model.config).from_hf(theirs.config.to_dict()) == model.config
    assert model.config.tie_word_embeddings == theirs.config.tie_word_embeddings
