"""The fused C kernels: the same model in torch operations is the witness, whose own witness is transformers."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bimo import compiled
from bimo.errors import ModelError
from bimo.generate.cache import KVCache
from bimo.models import kernels, llama
from bimo.models.attention import first_visible

VOCABULARY, ROWS = 11, 3


def make_model(*, heads: int = 4, kv_heads: int = 2, qk_norm: bool = True, window: int | None = None) -> llama.Model:
    config = llama.Config(
        vocab_size=VOCABULARY,
        hidden_size=20,
        intermediate_size=28,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=6,
        max_position_embeddings=64,
        model_type="qwen3" if qk_norm else "mistral" if window else "llama",
        qk_norm=qk_norm,
        sliding_window=window,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = llama.Model(config)
    generator = torch.Generator().manual_seed(0)
    model.init_weights(generator)
    with torch.no_grad():  # norms that are not all ones
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def documents(length: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, positions and segments of rows that hold the ends, wholes and beginnings of documents."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (ROWS, length), generator=generator)
    segments = (torch.rand(ROWS, length, generator=generator) < 0.15).cumsum(1).int()
    begins = first_visible(segments)
    return ids, torch.arange(length) - begins, segments


def loss_and_gradients(model: llama.Model, length: int, *, fused: bool) -> tuple[Tensor, dict[str, Tensor]]:
    model.fused = fused
    model.zero_grad()
    ids, positions, segments = documents(length)
    logits = model(ids, position_ids=positions, segment_ids=segments).float()
    F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


SHAPES = [
    {"heads": 4, "kv_heads": 4},
    {"heads": 4, "kv_heads": 2},
    {"heads": 4, "kv_heads": 1, "qk_norm": False},
    {"heads": 2, "kv_heads": 2, "qk_norm": False, "window": 5},
]


def test_frozen_norms_get_no_gradient_and_change_no_other() -> None:
    model = make_model()
    logits, expected = loss_and_gradients(model, 17, fused=True)
    norms = {name for name, parameter in model.named_parameters() if parameter.ndim == 1}
    for name in norms:
        model.get_parameter(name).requires_grad_(False)
    again, found = loss_and_gradients(model, 17, fused=True)
    assert norms and torch.equal(again, logits) and found.keys() == expected.keys() - norms
    assert all(torch.equal(grad, expected[name]) for name, grad in found.items())


@pytest.fixture(params=[kernels.SMALLEST_BLOCK, 4], ids=["one block", "blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention that computes short rows at once, and in blocks as it does long ones."""
    monkeypatch.setattr(kernels, "SMALLEST_BLOCK", request.param)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("length", [1 + 1, 17, 37])
@pytest.mark.parametrize("shape", SHAPES)
def test_float32_equals_torch(shape: dict[str, int], length: int) -> None:
    model = make_model(**shape)  # type: ignore[arg-type]
    expected, expected_gradients = loss_and_gradients(model, length, fused=False)
    logits, gradients = loss_and_gradients(model, length, fused=True)
    assert torch.allclose(logits, expected, atol=2e-6)
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected_gradients[name], atol=2e-6, rtol=1e-4), name


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_no_further_from_float32_than_torch_is(shape: dict[str, int]) -> None:
    model = make_model(**shape)  # type: ignore[arg-type]
    exact, exact_gradients = loss_and_gradients(model, 37, fused=False)
    model.compute_dtype = torch.bfloat16
    theirs, their_gradients = loss_and_gradients(model, 37, fused=False)
    ours, our_gradients = loss_and_gradients(model, 37, fused=True)
    assert (ours - exact).norm() < 1.2 * (theirs - exact).norm()
    for name, gradient in exact_gradients.items():
        error, their_error = ((found[name] - gradient).norm() for found in (our_gradients, their_gradients))
        assert error < 1.5 * their_error + 1e-3 * gradient.norm(), name


class Norm(torch.nn.Module):
    """What normalises heads, of D numbers."""

    def __init__(self, D: int, *, trained: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(0.7, 1.3, D), requires_grad=trained)
        self.eps = 1e-5


def attended(
    sizes: tuple[int, ...], begins: Tensor, dtype: torch.dtype, *, normed: bool = True, trained: bool = True
) -> dict[str, Tensor]:
    """Attention from random heads, of rows whose documents begin where ``begins`` is true, and all gradients."""
    (B, T), (H, K, D) = begins.shape, sizes
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, T, n, D, generator=generator).to(dtype).requires_grad_() for n in (H, K, K))
    q_norm, k_norm = (Norm(D, trained=trained) if normed else torch.nn.Identity() for _ in range(2))
    angles = torch.rand(B, 1, T, D // 2, generator=generator) * 6
    first = first_visible(begins.cumsum(1))
    y = kernels.attention(q, k, v, q_norm, k_norm, angles.cos(), angles.sin(), first)
    y.backward(torch.randn(B, T, H * D, generator=generator).to(dtype))
    weights = {"dqn": getattr(q_norm, "weight", q), "dkn": getattr(k_norm, "weight", k)}
    grads = {name: x.grad for name, x in {"dq": q, "dk": k, "dv": v, **weights}.items() if x.grad is not None}
    return {"y": y.detach(), **grads}


def beginnings(rows: int, length: int, share: float = 0.02) -> Tensor:
    return torch.rand(rows, length, generator=torch.Generator().manual_seed(1)) < share


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("length", [32, 33, 300, 600])
@pytest.mark.parametrize("sizes", [(2, 2, 64), (6, 2, 32), (4, 2, 96)])
def test_attention_in_blocks_is_no_further_from_float32_than_torch(
    sizes: tuple[int, int, int], length: int, normed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = beginnings(3, length)
    exact = attended(sizes, begins, torch.float32, normed=normed)
    ours = attended(sizes, begins, torch.bfloat16, normed=normed)
    monkeypatch.setattr(kernels, "_in_blocks", lambda q, k: False)
    theirs = attended(sizes, begins, torch.bfloat16, normed=normed)
    for name, wanted in exact.items():
        error, their_error = ((found[name].float() - wanted).norm() for found in (ours, theirs))
        assert 0 < error < 1.25 * their_error, name


@pytest.mark.usefixtures("products")
@given(st.lists(st.booleans(), min_size=1, max_size=80), st.integers(1, 3), st.integers(1, 2))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_attention_in_blocks_of_any_documents(begins: list[bool], K: int, G: int) -> None:
    rows = torch.tensor([begins, begins[::-1]])
    exact, ours = (attended((K * G, K, 32), rows, dtype) for dtype in (torch.float32, torch.bfloat16))
    largest = max(float(wanted.abs().max()) for wanted in exact.values())
    for name, wanted in exact.items():
        assert torch.allclose(ours[name].float(), wanted, atol=0.03 * largest), name


@pytest.mark.usefixtures("products")
def test_attention_in_blocks_stays_inside_documents_and_the_past() -> None:
    begins, D = beginnings(2, 100, 0.03), 32
    first = first_visible(begins.cumsum(1))
    angles = torch.rand(1, 1, 100, D // 2)
    heads = [torch.randn(2, 100, 2, D, dtype=torch.bfloat16) for _ in range(3)]

    def attention() -> Tensor:
        none = torch.nn.Identity()
        return kernels.attention(*heads, none, none, angles.cos(), angles.sin(), first)  # type: ignore[arg-type]

    before = attention()
    for x in heads:
        x[1, 50] += 1
    moved = (before != attention()).any(dim=-1)
    assert torch.equal(moved[1], (first[1] == first[1, 50]) & (torch.arange(100) >= 50)) and not moved[0].any()


@pytest.mark.usefixtures("products")
def test_attention_in_blocks_has_the_same_bits_whatever_the_threads() -> None:
    begins, threads = beginnings(3, 70), torch.get_num_threads()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(attended((4, 2, 32), begins, torch.bfloat16))
    torch.set_num_threads(threads)
    assert all(torch.equal(one, found[0][name]) for other in found[1:] for name, one in other.items())


@pytest.mark.usefixtures("products")
def test_attention_in_blocks_with_frozen_norms_and_what_is_not_finite() -> None:
    begins = beginnings(2, 40)
    found, frozen = (attended((2, 2, 32), begins, torch.bfloat16, trained=trained) for trained in (True, False))
    assert frozen.keys() == found.keys() - {"dqn", "dkn"}
    assert all(torch.equal(one, found[name]) for name, one in frozen.items())
    q = torch.full((2, 40, 2, 32), float("nan"), dtype=torch.bfloat16)
    none, angle = torch.nn.Identity(), torch.zeros(1, 1, 40, 16)
    first = first_visible(begins.cumsum(1))
    k = torch.ones_like(q)
    assert kernels.attention(q, k, k, none, none, angle.cos(), angle.sin(), first).isnan().all()


@given(st.lists(st.lists(st.booleans(), min_size=31, max_size=31), min_size=2, max_size=2), st.integers(1, 12))
@settings(deadline=None)
def test_blocks_hold_all_keys_that_are_seen(begins: list[list[bool]], smallest: int) -> None:
    first = first_visible(torch.tensor(begins).cumsum(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "SMALLEST_BLOCK", smallest)
        blocks = list(kernels._blocks(first))
    assert [place for queries, _ in blocks for place in range(31)[queries]] == list(range(31))
    assert len(blocks) <= kernels.BLOCKS
    for queries, keys in blocks:
        assert keys.start <= int(first[:, queries].min()) and keys.stop == queries.stop


@pytest.mark.usefixtures("blocks")
def test_attention_stays_inside_documents_and_the_past() -> None:
    model = make_model()
    model.fused = True
    ids, positions, segments = documents(23)
    before = model(ids, position_ids=positions, segment_ids=segments)
    changed = ids.clone()
    changed[1, 11] = (changed[1, 11] + 1) % VOCABULARY
    after = model(changed, position_ids=positions, segment_ids=segments)
    moved = (before != after).any(dim=-1)  # (B, T)
    document = (segments[1] == segments[1, 11]) & (torch.arange(23) >= 11)
    assert torch.equal(moved[1], document)
    assert not moved[0].any() and not moved[2].any()


@given(st.lists(st.floats(-200, 200, width=32), min_size=2, max_size=40), st.data())
@settings(deadline=None)
def test_cross_entropy_is_torch_cross_entropy(row: list[float], data: st.DataObject) -> None:
    label = data.draw(st.integers(0, len(row) - 1))
    logits, labels = torch.tensor([row, row[::-1]]), torch.tensor([label, 0])
    wanted = logits.clone().requires_grad_()
    losses = F.cross_entropy(wanted, labels, reduction="none")
    losses.sum().backward()
    gradient, strided = logits.clone(), labels.repeat_interleave(2)[::2]
    assert torch.allclose(kernels.cross_entropy_(gradient, strided), losses, atol=2e-5, rtol=1e-5)
    assert torch.allclose(gradient, wanted.grad, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    model = make_model()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = value
    logits, gradients = loss_and_gradients(model, 9, fused=True)
    assert not logits.isfinite().all()
    assert any(not gradient.isfinite().all() for gradient in gradients.values())


def test_the_same_bits_every_time() -> None:
    model = make_model()
    first, second = (loss_and_gradients(model, 37, fused=True) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(gradient, second[1][name]) for name, gradient in first[1].items())


def test_generation_with_a_cache_is_unchanged() -> None:
    """Fused models are asked for samples while they train."""
    model = make_model().eval()
    ids, _, _ = documents(13)
    expected = model(ids)
    model.fused = True
    cache = KVCache(layers=2, batch=ROWS, kv_heads=2, capacity=13, head_dim=6, dtype=torch.float32, device="cpu")
    assert torch.allclose(model(ids, cache=cache), expected, atol=1e-5)


def test_without_a_compiler_the_error_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernels.load.cache_clear()
    monkeypatch.setenv("BIMO_KERNEL_CACHE", str(tmp_path))
    monkeypatch.setattr(compiled, "compiler", lambda: None)
    with pytest.raises(ModelError, match="C compiler"):
        kernels.load()
    kernels.load.cache_clear()


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "kernels.c"
    broken.write_text("this is not C", encoding="utf-8")
    kernels.load.cache_clear()
    monkeypatch.setenv("BIMO_KERNEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "SOURCE", broken)
    with pytest.raises(ModelError, match=r"cannot compile kernels\.c.*error"):
        kernels.load()
    assert not list((tmp_path / "cache").iterdir())
    kernels.load.cache_clear()


def test_the_library_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernels.load.cache_clear()
    monkeypatch.setenv("BIMO_KERNEL_CACHE", str(tmp_path))
    assert isinstance(kernels.load(), ctypes.CDLL)
    (library,) = tmp_path.iterdir()
    before = library.stat().st_mtime_ns
    kernels.load.cache_clear()
    kernels.load()
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [before]
    kernels.load.cache_clear()
