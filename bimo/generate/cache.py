"""The keys and values of the positions a model has seen, so that each new token costs one position.

Shape legend: L layers, B rows, H key/value heads, C capacity, D head size, S positions so far, T new positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class KVCache:
    """Room for ``capacity`` positions, allocated once; all rows have the same length.

    A forward pass asks for :meth:`positions` and :meth:`mask` first, then appends to each layer in order; the last
    layer's append makes the new positions part of the past.

    Attributes:
        length: S, positions that are in every layer.
    """

    def __init__(
        self,
        *,
        layers: int,
        batch: int,
        kv_heads: int,
        capacity: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        shape = (layers, batch, kv_heads, capacity, head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)  # (L, B, H, C, D)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    def positions(self, count: int) -> Tensor:
        """The position ids of the next ``count`` tokens, (B, T)."""
        ids = torch.arange(self.length, self.length + count, device=self.keys.device)
        return ids.expand(self.keys.shape[1], count)

    def mask(self, count: int) -> Tensor | None:
        """What the next ``count`` tokens may look at, (B, 1, T, S + T) bool; None for one token, which sees all."""
        if count == 1:
            return None
        total = self.length + count
        seen = torch.ones(count, total, dtype=torch.bool, device=self.keys.device).tril(self.length)
        return seen.expand(self.keys.shape[1], 1, count, total)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add new keys and values (B, H, T, D) of a layer and return all of that layer, (B, H, S + T, D) each."""
        end = self.length + keys.shape[2]
        assert end <= self.keys.shape[3], f"cache of {self.keys.shape[3]} positions cannot hold {end}"
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        if layer == len(self.keys) - 1:
            self.length = end
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order; a row may be named several times."""
        index = torch.tensor(rows, device=self.keys.device)
        self.keys, self.values = self.keys[:, index], self.values[:, index]
