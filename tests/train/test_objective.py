"""The chunked linear cross-entropy: torch's own cross-entropy and its gradients are the witness."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bimo.batches.loader import Batch
from bimo.train import objective
from bimo.train.loop import divide
from bimo.train.objective import label_nats, mean_nats, next_token_loss


class Bigrams(nn.Module):
    """The smallest language model: an embedding and an output matrix."""

    def __init__(self, dtype: torch.dtype = torch.float32, fused: bool = False) -> None:
        super().__init__()
        self.fused = fused
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Parameter(torch.randn(11, 6, generator=generator))
        self.output = nn.Parameter(torch.randn(11, 6, generator=generator))
        self.dtype = dtype

    @property
    def output_weight(self) -> Tensor:
        return self.output

    def hidden(self, input_ids: Tensor, *, position_ids: Tensor | None, segment_ids: Tensor | None) -> Tensor:
        return self.embedding[input_ids].to(self.dtype)


def make_batch(rows: int = 5, length: int = 7) -> Batch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 11, (rows, length + 1), generator=generator)
    mask = torch.rand(rows, length, generator=generator) < 0.7
    steps = torch.arange(length).expand(rows, length)
    zeros = torch.zeros(rows, length, dtype=torch.int32)
    return Batch(ids[:, :-1], ids[:, 1:], mask, steps, zeros, torch.arange(rows))


def witness(model: Bigrams, batch: Batch) -> Tensor:
    logits = F.linear(model.embedding[batch.input_ids], model.output)
    return F.cross_entropy(logits[batch.loss_mask], batch.labels[batch.loss_mask])


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("chunk", [1, 23, 1 << 19])
def test_loss_and_gradients_equal_torch(chunk: int, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(objective, "FEWEST_ROWS", 1)
    ours, theirs, batch = Bigrams(fused=fused), Bigrams(), make_batch()
    loss, _ = next_token_loss(ours, batch)
    (3 * loss).backward()
    expected = witness(theirs, batch)
    (3 * expected).backward()
    assert torch.allclose(loss, expected, atol=1e-6)
    assert torch.allclose(ours.embedding.grad, theirs.embedding.grad, atol=1e-6)
    assert torch.allclose(ours.output.grad, theirs.output.grad, atol=1e-6)


def test_a_frozen_output_matrix_gets_no_gradient_and_no_memory_for_one() -> None:
    ours, theirs, batch = Bigrams(), Bigrams(), make_batch()
    ours.output.requires_grad_(False)
    loss, _ = next_token_loss(ours, batch)
    d_hidden, d_weight = loss.grad_fn.next_functions[0][0].saved_tensors
    assert d_hidden.shape == (batch.tokens, 6) and d_weight is None
    loss.backward()
    expected = witness(theirs, batch)
    expected.backward()
    assert ours.output.grad is None
    assert torch.allclose(loss, expected, atol=1e-6)
    assert torch.allclose(ours.embedding.grad, theirs.embedding.grad, atol=1e-6)


def test_bfloat16_is_near_float32() -> None:
    batch = make_batch()
    narrow, wide = Bigrams(torch.bfloat16), Bigrams()
    loss, _ = next_token_loss(narrow, batch)
    loss.backward()
    expected = witness(wide, batch)
    expected.backward()
    assert loss.dtype == torch.float32 and torch.allclose(loss, expected, atol=0.03)
    assert narrow.output.grad.dtype == torch.float32
    assert torch.allclose(narrow.output.grad, wide.output.grad, atol=0.01)


def test_large_logits_stay_finite() -> None:
    model, batch = Bigrams(), make_batch()
    with torch.no_grad():
        model.output.mul_(1e4)
    loss, _ = next_token_loss(model, batch)
    assert torch.isfinite(loss) and torch.allclose(loss, witness(model, batch), rtol=1e-5)


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_accumulated_parts_equal_the_whole_batch(parts: int) -> None:
    """Parts hold different numbers of labels: a mean of means would differ."""
    whole, divided, batch = Bigrams(), Bigrams(), make_batch(rows=5)
    loss, _ = next_token_loss(whole, batch)
    loss.backward()
    value = 0.0
    for part, share in divide(batch, parts):
        part_loss, _ = next_token_loss(divided, part)
        (part_loss * share).backward()
        value += part_loss.item() * share
    assert value == pytest.approx(loss.item(), abs=1e-6)
    assert torch.allclose(whole.output.grad, divided.output.grad, atol=1e-6)


def test_a_part_without_labels_is_left_out() -> None:
    batch = make_batch(rows=4)
    mask = batch.loss_mask.clone()
    mask[:2] = False
    pieces = divide(dataclasses.replace(batch, loss_mask=mask), 2)
    assert len(pieces) == 1 and pieces[0][1] == 1.0


def test_mean_nats_weighs_labels_not_batches() -> None:
    model = Bigrams()
    first, second = make_batch(rows=2), make_batch(rows=5)
    counts = [first.tokens, second.tokens]
    expected = sum(witness(model, batch).item() * batch.tokens for batch in (first, second)) / sum(counts)
    assert mean_nats(model, [first, second]) == pytest.approx(expected, abs=1e-6)


def label_witness(model: Bigrams, batch: Batch, temperature: float) -> Tensor:
    logits = F.linear(model.embedding[batch.input_ids], model.output) / temperature
    return F.cross_entropy(logits[batch.loss_mask], batch.labels[batch.loss_mask], reduction="none")


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("chunk", [1, 23, 1 << 19])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_each_label_has_its_own_gradient(
    chunk: int, fused: bool, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective, "CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(objective, "FEWEST_ROWS", 1)
    ours, theirs, batch = Bigrams(fused=fused), Bigrams(), make_batch()
    nats = label_nats(ours, batch, temperature=temperature)
    factor = torch.randn(nats.shape, generator=torch.Generator().manual_seed(2))
    (nats * factor).sum().backward()
    expected = label_witness(theirs, batch, temperature)
    (expected * factor).sum().backward()
    assert torch.allclose(nats, expected, atol=1e-6)
    assert torch.allclose(ours.embedding.grad, theirs.embedding.grad, atol=1e-5)
    assert torch.allclose(ours.output.grad, theirs.output.grad, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_a_frozen_output_layer_changes_no_other_gradient(fused: bool) -> None:
    free, frozen, batch = Bigrams(fused=fused), Bigrams(fused=fused), make_batch()
    frozen.output.requires_grad_(False)
    for model in (free, frozen):
        label_nats(model, batch).square().sum().backward()
    assert torch.allclose(free.embedding.grad, frozen.embedding.grad, atol=1e-5) and frozen.output.grad is None


def test_without_gradients_nothing_is_kept() -> None:
    with torch.no_grad():
        nats = label_nats(Bigrams(), make_batch())
    assert not nats.requires_grad and nats.shape == (make_batch().tokens,)


def test_a_gpu_gets_chunks_of_one_size() -> None:
    weight = torch.empty(50_304, 8, device="meta")
    rows = objective._chunk_rows(weight, 32_768)
    assert rows == 4864 and rows * weight.shape[0] <= objective.LARGER_CHUNK and 7 * rows >= 32_768
    assert objective._chunk_rows(weight, 0) == objective._chunk_rows(weight, 3) == objective.FEWEST_ROWS
