"""The optimizer of a whole model: groups, clipping, state that can be saved; torch.optim is the witness."""

from __future__ import annotations

import math

import pytest
import torch

from bimo.errors import RunError
from bimo.models import llama
from bimo.optim import Optimizer, OptimizerConfig, adamw


def small_model(seed: int = 0) -> llama.Model:
    model = llama.Model(
        llama.Config(
            vocab_size=11,
            hidden_size=12,
            intermediate_size=20,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=4,
            max_position_embeddings=7,
            tie_word_embeddings=False,
        )
    )
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def learn(model: llama.Model, optimizer: Optimizer, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        ids = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(step))
        logits = model(ids[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step(0.5)


def test_adamw_equals_torch() -> None:
    """One rule for all parameters, no clipping, no decay: exactly torch.optim.AdamW at the scaled rate."""
    ours, theirs = small_model(), small_model()
    config = OptimizerConfig("adamw", learning_rate=0.02, adamw_learning_rate=0.02, weight_decay=0.0, clip=math.inf)
    optimizer = Optimizer(ours, config)
    witness = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
    for step in range(3):
        ids = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(step))
        for model in (ours, theirs):
            logits = model(ids[:, :-1])
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step(0.5)
        witness.step()
        witness.zero_grad()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6), name


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_saved_state_continues_bit_for_bit(name: str) -> None:
    config = OptimizerConfig(name)  # type: ignore[arg-type]
    whole, first = small_model(), small_model()
    learn(whole, Optimizer(whole, config), 5)
    optimizer = Optimizer(first, config)
    learn(first, optimizer, 2)
    second = small_model(seed=1)
    second.load_state_dict(first.state_dict())
    continued = Optimizer(second, config)
    continued.load_state_tensors({key: value.clone() for key, value in optimizer.state_tensors().items()})
    learn(second, continued, 3, first=2)
    for (key, one), other in zip(whole.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other), key


def test_saved_state_goes_to_the_device_of_its_parameter() -> None:
    """The counts of steps too: on a GPU, AdamW's kernel takes nothing that lies elsewhere."""
    model = small_model()
    optimizer = Optimizer(model, OptimizerConfig("adamw"))
    learn(model, optimizer, 1)
    elsewhere = Optimizer(small_model().to("meta"), OptimizerConfig("adamw"))
    elsewhere.load_state_tensors(optimizer.state_tensors())
    assert {tensor.device.type for tensor in elsewhere.state_tensors().values()} == {"meta"}


def test_matrices_of_the_layers_go_to_muon_and_nothing_else() -> None:
    model = small_model()
    optimizer = Optimizer(model, OptimizerConfig("muon"))
    learn(model, optimizer, 1)
    momentum = {key.removesuffix(".momentum") for key in optimizer.state_tensors() if key.endswith(".momentum")}
    inside = {name for name, parameter in model.named_parameters() if ".layers." in name and parameter.ndim == 2}
    assert momentum == inside and len(inside) == 14


def test_clipping_scales_the_whole_gradient() -> None:
    model = small_model()
    optimizer = Optimizer(model, OptimizerConfig("adamw", clip=0.25))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert optimizer.step(1.0) == pytest.approx(math.sqrt(count), rel=1e-5)
    first = optimizer.state_tensors()["model.embed_tokens.weight.exp_avg"]
    assert first.flatten()[0].item() == pytest.approx(0.1 * 0.25 / math.sqrt(count), rel=1e-4)


@pytest.mark.parametrize("size", [1e-4, 0.01, 0.2])
def test_clipping_is_that_of_torch_to_the_bit(size: float) -> None:
    """AdamW's first moment shows what it was given; a gradient below the limit is not touched."""
    model = small_model()
    optimizer = Optimizer(model, OptimizerConfig("adamw", clip=0.25))
    for seed, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) * size
    expected = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    twin = [torch.nn.Parameter(torch.zeros_like(one)) for one in expected.values()]
    for parameter, gradient in zip(twin, expected.values(), strict=True):
        parameter.grad = gradient
    norm = torch.nn.utils.clip_grad_norm_(twin, 0.25)
    assert optimizer.step(1.0) == norm.item()
    state = optimizer.state_tensors()
    for name, gradient in expected.items():
        moment = torch.zeros_like(gradient).lerp_(gradient, 1 - 0.9)
        torch.testing.assert_close(state[f"{name}.exp_avg"], moment, rtol=1e-6, atol=0)


@pytest.mark.parametrize("clip", [0.25, math.inf])
def test_a_sparse_gradient_does_what_the_same_numbers_among_zeros_do(
    clip: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are read twice, chunks without any row, two passes of a step: weights and moments of both agree."""
    monkeypatch.setattr(adamw, "ROWS", 4)
    found = []
    for sparse in (False, True):
        model = small_model()
        model.model.embed_tokens.sparse = sparse
        config = OptimizerConfig("adamw", clip=clip, weight_decay=0.1)
        optimizer = Optimizer(model, config)
        for step in range(4):
            for seed in (step, step + 9):
                ids = torch.randint(0, 3 + 4 * (step % 2), (2, 5), generator=torch.Generator().manual_seed(seed))
                model(ids).square().mean().backward()
            gradient = model.model.embed_tokens.weight.grad
            assert gradient is not None and gradient.is_sparse == sparse
            norm = optimizer.step(0.5)
        found.append(({**dict(model.named_parameters()), **optimizer.state_tensors()}, norm))
    (dense, norm), (rows, of_rows) = found
    assert of_rows == pytest.approx(norm, rel=1e-5) and dense.keys() == rows.keys()
    for name, tensor in dense.items():
        torch.testing.assert_close(rows[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    assert rows["model.embed_tokens.weight.step"] == 4


def test_a_sparse_gradient_that_is_not_finite_moves_nothing() -> None:
    model = small_model()
    model.model.embed_tokens.sparse = True
    optimizer = Optimizer(model, OptimizerConfig("adamw"))
    before = [parameter.clone() for parameter in model.parameters()]
    (model.model.embed_tokens(torch.tensor([3, 3])).sum() * math.inf).backward()
    assert not math.isfinite(optimizer.step(1.0))
    assert all(torch.equal(parameter, one) for parameter, one in zip(model.parameters(), before, strict=True))


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    model = small_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = Optimizer(model, OptimizerConfig())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.output_weight.grad[0, 0] = math.nan  # type: ignore[index]
    assert math.isnan(optimizer.step(1.0))
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_state_of_another_model_is_refused() -> None:
    optimizer = Optimizer(small_model(), OptimizerConfig())
    with pytest.raises(RunError, match="does not fit"):
        optimizer.load_state_tensors({"model.embed_tokens.weight.exp_avg": torch.zeros(3, 2)})


@pytest.mark.parametrize("name", ["muon", "adamw"])
@pytest.mark.parametrize("kept", ["q_proj.weight", "embed_tokens.weight"])
def test_frozen_parameters_stay_and_have_no_state(name: str, kept: str) -> None:
    """Whether matrices inside layers are left, or none of them."""
    model = small_model()
    for other, parameter in model.named_parameters():
        parameter.requires_grad_(other.endswith(kept))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = Optimizer(model, OptimizerConfig(name))  # type: ignore[arg-type]
    learn(model, optimizer, 2)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.endswith(kept)}
    assert {key.rpartition(".")[0] for key in optimizer.state_tensors()} == moved
