"""Updates of low rank: what they compute and learn, by arithmetic written out; PEFT is the witness in test_adapter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bimo.errors import ConfigError
from bimo.models import gpt2, kernels, llama, trained_parameters
from bimo.models.lora import LoraConfig, LowRank, adapt, linear_maps, matrix, merged
from bimo.models.quantised import Quantised
from tests.models.test_models import CASES, ids_of, trained

FAMILIES = ("qwen2", "qwen3", "gpt2")
BASES = ("float32", "bfloat16", "q4")


def adapted(case: str = "qwen2", *, learned: bool = True, **settings: object) -> Any:
    """An adapted model, whose updates are away from nothing if it has ``learned``."""
    model = trained(CASES[case])
    adapt(model, LoraConfig(**{"rank": 3, "alpha": 5, "base": "float32", **settings}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained_parameters(model).values() if learned else ():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("case", FAMILIES)
def test_at_first_nothing_changes_and_only_updates_learn(case: str, dora: bool) -> None:
    model = adapted(case, learned=False, dora=dora)
    assert torch.allclose(model(ids_of(2, 5)), trained(CASES[case])(ids_of(2, 5)), atol=1e-5)
    ends = ("lora_A.weight", "lora_B.weight", *(["lora_magnitude_vector"] if dora else []))
    assert all(name.endswith(ends) for name in trained_parameters(model))
    assert len(trained_parameters(model)) == len(ends) * len([m for m in model.modules() if isinstance(m, LowRank)])
    model(ids_of(2, 5)).square().sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trained_parameters(model).keys()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("kind", ["linear", "conv1d", "packed"])
def test_values_and_gradients_are_those_of_autograd(kind: str, dora: bool, dropout: float) -> None:
    generator = torch.Generator().manual_seed(0)
    plain = gpt2.Conv1D(7, 5) if kind == "conv1d" else llama.Linear(7, 5)
    for parameter in plain.parameters():
        nn.init.normal_(parameter, generator=generator)
        parameter.requires_grad_(False)
    update = LowRank(Quantised(plain) if kind == "packed" else plain, 2, 0.7, dropout=dropout, dora=dora).train()
    for parameter in trained_parameters(update).values():
        nn.init.normal_(parameter, generator=generator)
    x = torch.randn(3, 2, 7, generator=generator, requires_grad=True)
    weights = torch.randn(3, 2, 5, generator=generator)
    learned = trained_parameters(update)

    torch.manual_seed(4)
    found = update(x)
    gradients = torch.autograd.grad((found * weights).sum(), [x, *learned.values()])
    torch.manual_seed(4)
    low = F.dropout(x.reshape(6, 7), dropout).view(3, 2, 7) if dropout else x
    a, b, w = update.lora_A.weight, update.lora_B.weight, matrix(update.base, torch.float32)
    expected = x @ w.t() + 0.7 * (low @ a.t() @ b.t())
    if dora:
        expected = expected * (update.lora_magnitude_vector / (w + 0.7 * b @ a).norm(dim=1).detach())
    expected = expected + plain.bias
    assert torch.allclose(found, expected, atol=1e-5)
    wanted = torch.autograd.grad((expected * weights).sum(), [x, *learned.values()])
    for one, other in zip(gradients, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("case", FAMILIES)
def test_merged_is_the_same_up_to_rounding(case: str, dora: bool, base: str) -> None:
    model = adapted(case, dora=dora, base=base)
    model.compute_dtype = torch.float32
    plain = merged(model, torch.float32)
    assert not any(isinstance(module, (LowRank, Quantised)) for module in plain.modules())
    expected = model(ids_of(2, 7))
    assert torch.allclose(plain(ids_of(2, 7)), expected, atol=2e-5)
    assert not torch.allclose(trained(CASES[case])(ids_of(2, 7)), expected, atol=1e-2)
    names = trained(CASES[case]).state_dict()
    assert {name: tensor.shape for name, tensor in plain.state_dict().items()} == {n: t.shape for n, t in names.items()}
    assert any(isinstance(module, LowRank) for module in model.modules()), "the model itself goes on learning"


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("case", "targets"), [("qwen2", ("q_proj", "mlp.down_proj")), ("gpt2", ("mlp.c_proj",))])
def test_only_the_chosen_maps_are_adapted_and_all_are_kept_as_wanted(
    case: str, targets: tuple[str, ...], base: str
) -> None:
    model = adapted(case, targets=targets, base=base)
    updates = {name for name, module in model.named_modules() if isinstance(module, LowRank)}
    assert len(updates) == 3 * len(targets) and all(name.endswith(targets) for name in updates)
    if base == "q4":
        packed = [m for m in model.modules() if isinstance(m, Quantised)]
        assert len(packed) == len(linear_maps(trained(CASES[case])))
    else:
        matrices = [p for p in model.parameters() if p.ndim > 1 and not p.requires_grad]
        assert {parameter.dtype for parameter in matrices} == {getattr(torch, base)}
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad or p.ndim == 1)
    model.compute_dtype = torch.float32
    assert torch.allclose(merged(model, torch.float32)(ids_of(2, 5)), model(ids_of(2, 5)), atol=2e-5)


@pytest.mark.parametrize("case", ["qwen2", "llama-biases", "gpt2"])
def test_modules_learned_whole(case: str) -> None:
    """Tied to the output matrix or not."""
    whole = ("wte",) if case == "gpt2" else ("embed_tokens",)
    model = adapted(case, whole=whole, base="bfloat16")
    model.compute_dtype = torch.float32
    (name,) = [name for name in trained_parameters(model) if "lora" not in name]
    assert name.endswith(f"{whole[0]}.weight") and trained_parameters(model)[name].dtype == torch.float32
    model(ids_of(2, 5)).square().sum().backward()
    assert trained_parameters(model)[name].grad.any()
    assert torch.equal(merged(model).state_dict()[name], trained_parameters(model)[name])


def test_the_seed_decides_the_first_values() -> None:
    first, same = adapted(learned=False), adapted(learned=False)
    other = trained(CASES["qwen2"])
    adapt(other, LoraConfig(rank=3, base="float32"), seed=1)
    for name, parameter in trained_parameters(first).items():
        assert torch.equal(parameter, trained_parameters(same)[name])
        assert torch.equal(parameter, trained_parameters(other)[name]) == ("lora_A" not in name)
        if "lora_A" in name:
            assert parameter.abs().max() <= parameter.shape[1] ** -0.5


def test_rank_stabilised_divides_by_the_root_of_the_rank() -> None:
    scales = {adapted(rank=4, alpha=6, rank_stabilised=on).model.layers[0].mlp.up_proj.scale for on in (False, True)}
    assert scales == {1.5, 3.0}


@pytest.mark.parametrize("base", BASES)
def test_fused_kernels_in_bfloat16_learn_the_same(base: str) -> None:
    if not kernels.usable(torch.device("cpu")):
        pytest.skip("no C compiler")
    exact, fast = adapted("qwen3", base=base, dora=True), adapted("qwen3", base=base, dora=True)
    exact.compute_dtype = torch.float32
    fast.compute_dtype, fast.fused = torch.bfloat16, True
    for model in (exact, fast):
        F.cross_entropy(model(ids_of(5, 9)).float().flatten(0, 1), ids_of(5, 9, seed=1).flatten()).backward()
    for name, parameter in trained_parameters(exact).items():
        near = trained_parameters(fast)[name].grad
        assert near.dtype == torch.float32
        assert F.cosine_similarity(near.flatten(), parameter.grad.flatten(), dim=0) > 0.98, name


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"rank": 0}, "lora.rank"),
        ({"alpha": 0}, "lora.alpha"),
        ({"dropout": 1.0}, "lora.dropout"),
        ({"targets": ("q_pro",)}, "q_proj"),
        ({"targets": ("lm_head",)}, "lm_head"),
        ({"whole": ("embed_token",)}, "embed_tokens"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        adapted(**wrong)
