"""The cache against plain concatenation."""

from __future__ import annotations

import pytest
import torch

from bimo.generate.cache import KVCache

L, B, H, C, D = 2, 3, 5, 7, 4


def new_cache() -> KVCache:
    return KVCache(layers=L, batch=B, kv_heads=H, capacity=C, head_dim=D, dtype=torch.float32, device="cpu")


def test_append_returns_everything_so_far() -> None:
    cache = new_cache()
    pieces = torch.randn(L, 2, B, H, C, D)
    for start, end in ((0, 3), (3, 4), (4, 7)):
        assert cache.positions(end - start).tolist() == [list(range(start, end))] * B
        for layer in range(L):
            keys, values = cache.append(layer, *pieces[layer, :, :, :, start:end])
            assert torch.equal(keys, pieces[layer, 0, :, :, :end]) and torch.equal(values, pieces[layer, 1, :, :, :end])
        assert cache.length == end


def test_mask_is_causal_over_the_past_and_the_new() -> None:
    cache = new_cache()
    whole = torch.ones(C, C, dtype=torch.bool).tril()
    first = cache.mask(3)
    assert first is not None and torch.equal(first, whole[:3, :3].expand(B, 1, 3, 3))
    for layer in range(L):
        cache.append(layer, torch.zeros(B, H, 3, D), torch.zeros(B, H, 3, D))
    second = cache.mask(4)
    assert second is not None and torch.equal(second, whole[3:].expand(B, 1, 4, C))
    assert cache.mask(1) is None


def test_select_repeats_and_drops_rows() -> None:
    cache = new_cache()
    for layer in range(L):
        cache.append(layer, torch.randn(B, H, 2, D), torch.randn(B, H, 2, D))
    before = cache.keys[:, :, :, :2].clone(), cache.values[:, :, :, :2].clone()
    cache.select([2, 0, 0, 1])
    assert torch.equal(cache.keys[:, :, :, :2], before[0][:, [2, 0, 0, 1]])
    assert torch.equal(cache.values[:, :, :, :2], before[1][:, [2, 0, 0, 1]])
    assert cache.positions(1).tolist() == [[2]] * 4


def test_overflow_is_a_bug_and_says_so() -> None:
    cache = new_cache()
    with pytest.raises(AssertionError, match="cannot hold 8"):
        cache.append(0, torch.zeros(B, H, 8, D), torch.zeros(B, H, 8, D))
