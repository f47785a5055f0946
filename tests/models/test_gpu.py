"""What only a GPU computes: documents kept apart by FlashAttention, the loss in Triton, compiled layers."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from bimo.batches.loader import Batch
from bimo.device import has_triton, resolve_device
from bimo.models import gpt2, llama
from bimo.models.attention import Documents, has_flash_attention, positions_and_mask, starts_of
from bimo.optim import Optimizer, OptimizerConfig
from bimo.train import objective
from bimo.train.build import compile_layers
from bimo.train.recorded import recorded

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CONFIG = llama.Config(
    vocab_size=300, hidden_size=128, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, head_dim=32, max_position_embeddings=96, model_type="qwen3", qk_norm=True,
    tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
)  # fmt: skip


def batch(share: float = 0.05, seed: int = 0) -> Batch:
    """Rows in which a document begins at about ``share`` of the positions."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 300, (4, 97), generator=generator)
    begins = torch.rand(4, 96, generator=generator) < share
    steps = torch.arange(96)
    return Batch(
        input_ids=ids[:, :-1],
        labels=ids[:, 1:],
        loss_mask=torch.rand(4, 96, generator=generator) < 0.9,
        position_ids=steps - torch.where(begins, steps, 0).cummax(dim=1).values,
        segment_ids=begins.cumsum(dim=1),
        positions=torch.zeros(4, dtype=torch.int64),
    )


def gpt2_model() -> gpt2.Model:
    """A small GPT-2."""
    config = gpt2.Config(vocab_size=300, n_positions=96, n_embd=128, n_layer=2, n_head=4, n_inner=256)
    return gpt2.Model(config)


def test_starts_are_those_of_the_segments_of_all_rows() -> None:
    segments = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [3, 4, 5, 5, 0]])
    assert starts_of(segments).tolist() == [0, 2, 5, 10, 11, 12, 14, 15]
    assert starts_of(segments).dtype == torch.int32


def test_no_device_but_an_nvidia_gpu_has_flash_attention() -> None:
    assert not has_flash_attention(torch.device("cpu")) and not has_flash_attention(torch.device("mps"))
    assert not has_triton(torch.device("cpu"))


def values_and_gradients(
    model: llama.Model | gpt2.Model, one: Batch, *, dtype: torch.dtype
) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss on the GPU and all gradients."""
    model.compute_dtype = dtype
    model.zero_grad()
    loss, _ = objective.next_token_loss(model, one.to("cuda"))
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def apart(found: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """The largest distance of a gradient from the right one, as a share of its norm."""
    assert found.keys() == right.keys()
    return max(float((found[name] - one).norm() / one.norm()) for name, one in right.items())


@gpu
@pytest.mark.parametrize("family", ["llama", "window", "heads of 20", "gpt2"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.7])
def test_flash_attention_keeps_documents_apart_as_a_mask_does(
    family: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {"window": {"sliding_window": 9}, "heads of 20": {"head_dim": 20}}.get(family, {})
    model = gpt2_model() if family == "gpt2" else llama.Model(replace(CONFIG, **changed))
    model.init_weights(torch.Generator().manual_seed(0))
    model.to("cuda")
    one = batch(share)
    _, mask = positions_and_mask(one.input_ids.cuda(), None, one.segment_ids.cuda(), None, torch.bfloat16)
    assert isinstance(mask, Documents)
    loss, gradients = values_and_gradients(model, one, dtype=torch.bfloat16)
    with monkeypatch.context() as patched:
        patched.setattr("bimo.models.attention.has_flash_attention", lambda _: False)
        dense_loss, dense = values_and_gradients(model, one, dtype=torch.bfloat16)
        exact_loss, exact = values_and_gradients(model, one, dtype=torch.float32)
    assert abs(loss - exact_loss) < 2 * abs(dense_loss - exact_loss) + 2e-3
    assert apart(gradients, exact) < 1.5 * apart(dense, exact) + 5e-3


@gpu
@pytest.mark.parametrize("columns", [50, 300, 4096, 50_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_in_triton_is_that_of_torch(columns: int, dtype: torch.dtype) -> None:
    from bimo.models import kernels_gpu

    generator = torch.Generator("cuda").manual_seed(0)
    logits = torch.randn(37, columns, device="cuda", generator=generator).mul(4).to(dtype)
    labels = torch.randint(columns, (37,), device="cuda", generator=generator)
    wide = logits.double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(wide, labels, reduction="none")
    expected.sum().backward()
    losses = kernels_gpu.cross_entropy_(logits, labels)
    assert wide.grad is not None
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits.double(), wide.grad, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    assert len(kernels_gpu.cross_entropy_(logits[:0], labels[:0])) == 0


@gpu
def test_compiled_layers_compute_the_same_for_any_number_of_documents() -> None:
    model = llama.Model(CONFIG)
    model.init_weights(torch.Generator().manual_seed(0))
    model.to("cuda")
    plain = [values_and_gradients(model, batch(share, seed), dtype=torch.bfloat16) for seed, share in enumerate(
        (0.0, 0.02, 0.1, 0.5)
    )]  # fmt: skip
    compile_layers(model)
    torch._dynamo.utils.counters.clear()
    for seed, share in enumerate((0.0, 0.02, 0.1, 0.5)):
        loss, gradients = values_and_gradients(model, batch(share, seed), dtype=torch.bfloat16)
        assert abs(loss - plain[seed][0]) < 5e-3
        assert apart(gradients, plain[seed][1]) < 5e-2  # a norm of heads has a small gradient and much rounding
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_recorded_layers_learn_as_others_do(compiled: bool) -> None:
    models = [llama.Model(CONFIG).to("cuda") for _ in range(2)]
    for model in models:
        model.init_weights(torch.Generator("cuda").manual_seed(0))
        if compiled:
            compile_layers(model)
    optimizers = [Optimizer(model, OptimizerConfig()) for model in models]
    with recorded(models[1], passes=1):
        for seed, share in enumerate((0.02, 0.0, 0.05, 0.5, 0.01)):  # the fourth has more documents than were recorded
            (loss, gradients), (other, others) = (
                values_and_gradients(model, batch(share, seed), dtype=torch.bfloat16) for model in models
            )
            assert abs(loss - other) < 5e-3
            assert apart(others, gradients) < 5e-2
            for optimizer in optimizers:
                optimizer.step(1.0)
        held_out = [objective.mean_nats(model, [batch(0.5)]) for model in models]
        assert held_out[0] == pytest.approx(held_out[1], abs=2e-2)
        fewer = batch(0.05).rows(0, 2)
        losses = [values_and_gradients(model, fewer, dtype=torch.bfloat16)[0] for model in models]
        assert losses[0] == pytest.approx(losses[1], abs=2e-2)
    assert "forward" not in vars(models[1].model)


@gpu
def test_of_two_recorded_passes_before_one_way_back_the_second_is_computed_as_before() -> None:
    model = llama.Model(CONFIG).to("cuda")
    model.init_weights(torch.Generator("cuda").manual_seed(0))
    one, other = batch(0.02).to("cuda"), batch(0.02, seed=1).to("cuda")

    def learned() -> dict[str, torch.Tensor]:
        model.compute_dtype = torch.bfloat16
        model.zero_grad()
        sum(objective.next_token_loss(model, part)[0] for part in (one, other)).backward()  # type: ignore[union-attr]
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected = learned()
    with recorded(model, passes=1):
        for _ in range(2):
            assert apart(learned(), expected) < 5e-2


@gpu
def test_dropout_is_drawn_anew_each_time_a_recording_is_played_and_from_the_seed() -> None:
    model = llama.Model(CONFIG).to("cuda")
    model.init_weights(torch.Generator("cuda").manual_seed(0))
    model.dropout = 0.3

    def losses() -> list[float]:
        found = []
        with recorded(model, passes=1):
            for step in (0, 1, 0):
                torch.manual_seed(step)
                found.append(values_and_gradients(model, batch(0.02), dtype=torch.bfloat16)[0])
        return found

    found = losses()
    assert found[0] == pytest.approx(found[2], abs=1e-3) and abs(found[0] - found[1]) > 1e-3
    assert losses() == pytest.approx(found, abs=1e-3)


@gpu
@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_saved_optimizer_goes_on_on_a_gpu(name: str) -> None:
    def learn(model: llama.Model, optimizer: Optimizer) -> None:
        loss, _ = objective.next_token_loss(model, batch().to("cuda"))
        loss.backward()
        optimizer.step(1.0)

    config = OptimizerConfig(name)  # type: ignore[arg-type]
    model = llama.Model(CONFIG)
    model.init_weights(torch.Generator().manual_seed(0))
    optimizer = Optimizer(model.to("cuda"), config)
    learn(model, optimizer)
    other = copy.deepcopy(model)
    continued = Optimizer(other, config)
    continued.load_state_tensors({name: tensor.cpu().clone() for name, tensor in optimizer.state_tensors().items()})
    learn(model, optimizer)
    learn(other, continued)
    for one, same in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, same)


@gpu
def test_a_gpu_and_a_cpu_agree() -> None:
    model = llama.Model(CONFIG)
    model.init_weights(torch.Generator().manual_seed(0))
    one = batch()
    on_cpu, _ = objective.next_token_loss(model, one)
    on_cpu.backward()
    expected = {name: p.grad.cuda() for name, p in model.named_parameters() if p.grad is not None}
    loss, gradients = values_and_gradients(model.to(resolve_device("auto")), one, dtype=torch.float32)
    assert loss == pytest.approx(on_cpu.item(), rel=1e-5)
    assert apart(gradients, expected) < 1e-3


@gpu
@pytest.mark.parametrize(("rows", "size", "apart_angles"), [((2, 7, 3), 64, True), ((3, 300, 5), 20, False)])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_are_normalised_and_turned_as_by_torch(
    rows: tuple[int, int, int], size: int, apart_angles: bool, normalised: bool, dtype: torch.dtype
) -> None:
    from bimo.models import kernels_gpu

    generator = torch.Generator("cuda").manual_seed(0)
    drawn = {"device": "cuda", "generator": generator}
    x = torch.randn(*rows, size, **drawn).to(dtype).requires_grad_()
    angles = torch.rand(rows[0] if apart_angles else 1, 1, rows[1], size // 2, **drawn) * 6
    weight = (torch.rand(size, **drawn) + 0.5).requires_grad_() if normalised else None
    dy = torch.randn(*rows, size, **drawn).to(dtype)
    y, _ = kernels_gpu.heads(x, weight, angles.cos(), angles.sin(), 1e-5)
    y.backward(dy)
    found = [y.detach(), x.grad, *([weight.grad] if weight is not None else [])]
    wide, wide_weight = x.detach().double().requires_grad_(), None
    if weight is not None:
        wide_weight = weight.detach().double().requires_grad_()
        wide_y = torch.nn.functional.rms_norm(wide, (size,), wide_weight, 1e-5)
    else:
        wide_y = wide
    wide_y = llama.rotate(wide_y.transpose(1, 2), angles.cos(), angles.sin()).transpose(1, 2)
    wide_y.backward(dy.double())
    right = [wide_y.detach(), wide.grad, *([wide_weight.grad] if wide_weight is not None else [])]
    for one, other in zip(found, right, strict=True):
        assert one is not None and other is not None
        assert float((one.double() - other).norm() / other.norm()) < (3e-3 if dtype == torch.bfloat16 else 1e-6)
