"""The C backend: transformers is the witness in float32, our torch model in bfloat16, the batch of one of all else."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bimo.errors import ModelError
from bimo.generate import native
from bimo.generate.backend import PAGE, Batch
from bimo.generate.native import NativeBackend, bytes_needed, check, pack
from bimo.models import gpt2, llama, save_model

V, LENGTH = 77, 150
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "hidden_size": 24, "rope_scaling": LLAMA3, "tie_word_embeddings": False},
    "llama-biases": {"model_type": "llama", "hidden_size": 24, "attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", "sliding_window": 37, "num_key_value_heads": 4},
    "qwen2": {"model_type": "qwen2", "attention_bias": True, "num_key_value_heads": 1, "head_dim": 34},
    "qwen3": {"model_type": "qwen3", "qk_norm": True, "head_dim": 10},
    "many-heads": {"model_type": "qwen3", "qk_norm": True, "num_attention_heads": 14, "num_key_value_heads": 1},
}


def make_model(shape: str) -> llama.Model:
    """A model far from its first steps: no norm is all ones, and attention is not flat."""
    sizes = {
        "vocab_size": V,
        "hidden_size": 70,
        "intermediate_size": 90,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "max_position_embeddings": 256,
        "qk_norm": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    model = llama.Model(llama.Config(**sizes | SHAPES[shape]))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    model.init_weights(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.mul_(1.5)
    return model.eval()


def ids_of(seed: int, length: int = LENGTH) -> list[int]:
    return np.random.default_rng(seed).integers(0, V, length).tolist()


def together(parts: Sequence[tuple[Sequence[int], int, Sequence[int]]], *, all_rows: bool = True) -> Batch:
    """A batch of sequences' next tokens: (ids, position of the first, pages)."""
    width = max(len(pages) for _, _, pages in parts)
    lengths = [len(ids) for ids, _, _ in parts]
    ends = np.cumsum(lengths) - 1
    return Batch(
        tokens=np.concatenate([ids for ids, _, _ in parts]).astype(np.int32),
        positions=np.concatenate([np.arange(start, start + len(ids)) for ids, start, _ in parts]).astype(np.int32),
        sequence=np.repeat(np.arange(len(parts)), lengths).astype(np.int32),
        pages=np.array([[*pages, *[-1] * (width - len(pages))] for _, _, pages in parts], dtype=np.int32),
        wanted=(np.arange(sum(lengths)) if all_rows else ends).astype(np.int32),
    )


def alone(backend: NativeBackend, ids: Sequence[int], pages: Sequence[int] = (3, 1, 7, 0, 5)) -> NDArray[np.float32]:
    """Logits of all positions, computed one by one."""
    return np.concatenate([backend.logits(together([([token], i, pages)])) for i, token in enumerate(ids)])


def distance(a: Any, b: Any) -> float:
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b)))


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_is_transformers(shape: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = make_model(shape)
    save_model(model, tmp_path)
    witness = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    backend = NativeBackend(model, pages=8, dtype="float32", threads=2)
    ids = ids_of(0)
    with torch.no_grad():
        found = witness(torch.tensor([ids]), output_hidden_states=True)
    batch = together([(ids, 0, (3, 1, 7, 0, 5))])
    assert np.abs(backend.logits(batch) - found.logits[0].numpy()).max() < 1e-4
    assert np.abs(backend.hidden(batch) - found.hidden_states[-1][0].numpy()).max() < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_bfloat16_is_no_further_from_float32_than_torch_is(shape: str) -> None:
    model = make_model(shape)
    ids = ids_of(0)
    with torch.no_grad():
        exact = model(torch.tensor([ids]))[0]
        model.compute_dtype = torch.bfloat16
        theirs = model(torch.tensor([ids]))[0].float()
    batch = together([(ids, 0, (3, 1, 7, 0, 5))])
    ours = NativeBackend(model, pages=8, dtype="bfloat16").logits(batch)
    assert distance(ours, exact) < 1.1 * distance(theirs, exact)
    assert distance(ours, theirs) < 2 * distance(theirs, exact)
    eight_bits = NativeBackend(model, pages=8, dtype="int8").logits(batch)
    assert distance(eight_bits, exact) < 0.1  # 2 layers of random weights, which suit it less than trained ones


@pytest.mark.parametrize("dtype", native.DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_around_a_row_changes_its_bits(shape: str, dtype: str) -> None:
    """Alone, in one piece, in random pieces among 31 strangers, after pages computed before, on two threads."""
    random = np.random.default_rng(1)
    backend = NativeBackend(make_model(shape), pages=120, dtype=dtype, threads=1)
    ids, pages = ids_of(0), (3, 1, 7, 0, 5)
    expected = alone(backend, ids, pages)
    for threads in (1, 2):
        backend.threads = threads
        whole = backend.logits(together([(ids, 0, pages)]))
        assert np.array_equal(whole, expected)
        start, others = 0, [(ids_of(9 + i, 90), [8 + 3 * i + j for j in range(3)]) for i in range(31)]
        starts = [0] * len(others)
        while start < LENGTH:  # strangers before and after, each with a piece of its own
            size = int(random.integers(1, 40))
            parts = [(ids[start : start + size], start, pages)]
            for i, (tokens, theirs) in enumerate(others):
                piece = tokens[starts[i] : starts[i] + int(random.integers(1, 9))]
                if piece:
                    parts.insert(int(random.integers(0, len(parts) + 1)), (piece, starts[i], theirs))
                    starts[i] += len(piece)
            batch = together(parts)
            rows = np.flatnonzero(batch.pages[batch.sequence, 0] == pages[0])
            assert np.array_equal(backend.logits(batch)[rows], expected[start : start + size])
            start += size
        shared = (3, 1, 110, 111, 112)  # two pages that the sequence before filled, then its own
        assert np.array_equal(backend.logits(together([(ids[2 * PAGE :], 2 * PAGE, shared)])), expected[2 * PAGE :])


def test_wanted_rows_are_rows_of_all() -> None:
    """Across the pieces in which C computes a long batch."""
    backend = NativeBackend(make_model("llama"), pages=24, threads=2)
    parts = [(ids_of(i, 140), 0, range(5 * i, 5 * i + 5)) for i in range(4)]
    every = together(parts)
    assert len(every.tokens) > 2 * native.ROWS
    rows = np.array([0, 5, 191, 192, 300, 559], dtype=np.int32)
    some = Batch(every.tokens, every.positions, every.sequence, every.pages, rows)
    none = Batch(every.tokens, every.positions, every.sequence, every.pages, rows[:0])
    assert np.array_equal(backend.logits(some), backend.logits(every)[rows])
    assert np.array_equal(backend.hidden(some), backend.hidden(every)[rows])
    assert backend.logits(none).shape == (0, V)


@pytest.mark.parametrize("dtype", native.DTYPES)
def test_what_a_page_held_before_does_not_matter(dtype: str) -> None:
    backend = NativeBackend(make_model("qwen3"), pages=6, dtype=dtype)
    ids = ids_of(0, 70)
    expected = alone(backend, ids, (2, 5, 1))
    ctypes.memset(backend._model.pages, 0xFF, backend.pages * backend.page_bytes)  # NaN everywhere
    assert np.isfinite(expected).all()
    assert np.array_equal(alone(backend, ids, (2, 5, 1)), expected)
    ctypes.memset(backend._model.pages, 0xFF, backend.pages * backend.page_bytes)
    assert np.array_equal(backend.logits(together([(ids, 0, (4, 0, 3))])), expected)


@given(st.integers(1, 70), st.integers(1, 140), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_packed_int8_is_within_half_a_step(channels: int, inputs: int, seed: int) -> None:
    weight = torch.randn(channels, inputs, generator=torch.Generator().manual_seed(seed))
    packed = torch.zeros(native._packed_bytes("int8", channels, inputs), dtype=torch.uint8)
    pack(weight, "int8", packed)
    groups = packed.view(-(-channels // 32), -1, 32 * 32 + 32 * 2)
    values = groups[..., : 32 * 32].reshape(*groups.shape[:2], 8, 32, 4).float() - 128
    scales = groups[..., 32 * 32 :].contiguous().view(torch.bfloat16).float()
    scales = scales.unflatten(2, (16, 2)).mT.flatten(2)  # (blocks, groups, 32)
    found = (values * scales[:, :, None, :, None]).permute(0, 3, 1, 2, 4).flatten(2).flatten(0, 1)
    padded = torch.zeros_like(found)
    padded[:channels, :inputs] = weight
    largest = padded.unflatten(1, (-1, 32)).abs().amax(2).repeat_interleave(32, 1)
    assert ((found - padded).abs() <= largest / 127 * 0.505).all()


@pytest.mark.parametrize("dtype", native.DTYPES)
@pytest.mark.parametrize("shape", ["llama", "qwen3"])
def test_bytes_needed_is_what_is_taken(shape: str, dtype: str) -> None:
    model = make_model(shape)
    backend = NativeBackend(model, pages=5, dtype=dtype)
    taken = sum(tensor.nbytes for tensor in (backend._pages, backend._scratch, *backend._kept))
    assert len(backend._room) == 0
    assert 0 < taken - bytes_needed(model.config, dtype, 5) < 10_000  # norms and biases
    assert backend.context == 5 * PAGE and backend.page_bytes * 5 == backend._pages.nbytes


@pytest.mark.parametrize("dtype", native.DTYPES)
def test_refreshed_weights_are_those_of_a_new_backend(dtype: str) -> None:
    model = make_model("llama-biases")
    backend = NativeBackend(model, pages=5, dtype=dtype)
    step = np.arange(7, dtype=np.int32)
    batch = Batch(step + 3, step, np.zeros(7, np.int32), np.array([[2]], np.int32), step)
    before = backend.logits(batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    assert np.array_equal(backend.logits(batch), before)
    backend.refresh(model)
    after = backend.logits(batch)
    assert not np.array_equal(after, before)
    assert np.array_equal(after, NativeBackend(model, pages=5, dtype=dtype).logits(batch))


def test_models_and_precisions_it_cannot_compute() -> None:
    other = gpt2.Model(gpt2.Config(vocab_size=V, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(ModelError, match="gpt2"):
        NativeBackend(other, pages=1)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"float32, bfloat16, int8; got int4"):
        NativeBackend(make_model("llama"), pages=1, dtype="int4")


def good_batch() -> dict[str, NDArray[Any]]:
    batch = together([(ids_of(0, 40), 0, (1, 0)), (ids_of(1, 3), 30, (2, 3))])
    return {name: getattr(batch, name).copy() for name in ("tokens", "positions", "sequence", "pages", "wanted")}


BAD: dict[str, tuple[str, Any, int]] = {
    "a token beyond the vocabulary": ("tokens", 5, V),
    "a negative token": ("tokens", 5, -1),
    "a position beyond the context": ("positions", 42, 160),
    "a position left out": ("positions", 41, 33),
    "a sequence that decreases": ("sequence", 41, 0),
    "a sequence without pages": ("sequence", 42, 2),
    "a page that does not exist": ("pages", (1, 1), 4),
    "no page": ("pages", (0, 1), -1),
    "a wanted row beyond the end": ("wanted", 42, 43),
    "wanted rows out of order": ("wanted", 3, 9),
}


@pytest.mark.parametrize("what", BAD)
def test_numbers_out_of_bounds_never_reach_c(what: str) -> None:
    bounds = {"vocab_size": V, "context": 160, "pages": 4}
    good = good_batch()
    check(Batch(**good), **bounds)
    name, at, value = BAD[what]
    good[name][at] = value
    with pytest.raises(AssertionError):
        check(Batch(**good), **bounds)


def test_arrays_of_another_type_never_reach_c() -> None:
    good = good_batch()
    good["tokens"] = good["tokens"].astype(np.int64)
    with pytest.raises(AssertionError):
        check(Batch(**good), vocab_size=V, context=160, pages=4)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names instruction sets of x86")
@pytest.mark.parametrize("architecture", ["x86-64", "haswell"])
def test_other_processors_compute_the_same(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same C without this machine's instructions: neither products of bfloat16 nor of int8, and narrow vectors."""
    model, ids = make_model("qwen3"), ids_of(0, 40)
    expected = {dtype: alone(NativeBackend(model, pages=2, dtype=dtype), ids, (1, 0)) for dtype in native.DTYPES}
    flags = [flag.replace("native", architecture) for flag in native.FLAGS]
    monkeypatch.setattr(native, "FLAGS", flags)
    library = native._library.__wrapped__()
    monkeypatch.setattr(native, "_library", lambda: library)
    for dtype, bound in {"float32": 1e-5, "bfloat16": 2e-2, "int8": 2e-2}.items():
        backend = NativeBackend(model, pages=2, dtype=dtype)
        one_by_one = alone(backend, ids, (1, 0))
        assert distance(one_by_one, expected[dtype]) < bound
        assert np.array_equal(backend.logits(together([(ids, 0, (1, 0))])), one_by_one)
