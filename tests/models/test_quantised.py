"""Linear maps in 5 bits a number; ggml's own layout, in numpy, is the witness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bimo.models import gpt2, kernels, llama
from bimo.models.gguf_blocks import dequantise
from bimo.models.lora import matrix
from bimo.models.quantised import BLOCK, STEPS, Quantised, pack, unpack


def random(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("compiler", [True, False])
def test_unpacking_is_what_ggml_reads(compiler: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scales of few bits, so that float16, which ggml keeps them in, holds the same."""
    if not compiler:
        monkeypatch.setattr(kernels, "usable", lambda device: False)
    packed, scale, least = pack(random(5, 3 * BLOCK))
    halves = torch.stack([scale, least], dim=-1).to(torch.float16).view(torch.uint8).view(*scale.shape, 4)
    assert torch.equal(halves.view(torch.float16), torch.stack([scale, least], dim=-1).to(torch.float16))
    blocks = torch.cat([halves, packed], dim=-1).numpy()
    expected = dequantise("Q4_1", np.ascontiguousarray(blocks).reshape(-1))
    found = unpack(packed, scale, least, 3 * BLOCK)
    assert torch.equal(found, torch.from_numpy(expected).view(5, -1).bfloat16())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 70), st.integers(0, 99), st.sampled_from([1e-6, 1.0, 1e4]), st.booleans())
def test_no_number_is_further_off_than_half_a_step_and_rounding(
    outputs: int, inputs: int, seed: int, size: float, constant: bool
) -> None:
    weight = torch.full((outputs, inputs), size) if constant else size * random(outputs, inputs, seed)
    packed, scale, least = pack(weight)
    found = unpack(packed, scale, least, inputs)
    assert found.shape == weight.shape and found.dtype == torch.bfloat16
    step = scale.float().repeat_interleave(BLOCK, dim=1)[:, :inputs]
    rounding = (
        STEPS * step + least.float().abs().repeat_interleave(BLOCK, dim=1)[:, :inputs] + found.float().abs()
    ) / 256
    assert ((found.float() - weight).abs() <= step / 2 + rounding).all()


def test_with_and_without_a_compiler_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernels.usable(torch.device("cpu")):
        pytest.skip("no C compiler")
    packed = pack(random(7, 2 * BLOCK + 9))
    fast = unpack(*packed, 2 * BLOCK + 9)
    monkeypatch.setattr(kernels, "usable", lambda device: False)
    assert torch.equal(fast, unpack(*packed, 2 * BLOCK + 9))


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_a_packed_map_computes_with_what_it_unpacks_and_is_five_bits_a_number(kind: str) -> None:
    plain: nn.Linear | gpt2.Conv1D = gpt2.Conv1D(64, 96) if kind == "conv1d" else llama.Linear(64, 96)
    with torch.no_grad():
        plain.weight.copy_(random(*plain.weight.shape))
        plain.bias.copy_(random(1, 96, seed=1)[0])
    packed, x = Quantised(plain), random(3, 64, seed=2)
    assert torch.allclose(packed(x), x @ packed.weight.float().t() + plain.bias, atol=1e-5)
    error = (packed.weight.float() - matrix(plain, torch.float32)).norm() / plain.weight.norm()
    assert 0.05 < error < 0.09  # of numbers that are normally distributed
    held = sum(buffer.numel() * buffer.itemsize for buffer in packed.buffers())
    assert held * 8 == 5 * 64 * 96
