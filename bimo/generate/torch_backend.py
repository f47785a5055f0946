"""Any model of ``bimo.models`` on any device as the engine's backend: plain torch, with bits that nothing else changes.

A pass computes the next position of each of several sequences. Its matrix products are of fixed shapes: so many rows,
filled up where some are missing, and attention over so many keys as a row's position alone says. In products of one
shape a row's bits depend neither on its place nor on its neighbours. In float32 they are equal between some numbers of
rows too (measured: from 4); which, is found out at the start. In half precision there is one number only: rounding
hides a difference until the one token that it decides.

Shape legend: M rows of a pass, S positions attended to, P pages of them, L layers, K key/value heads, D head size,
C width, V vocabulary, N, R and Q as in ``backend.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bimo.errors import ModelError
from bimo.generate.backend import PAGE, Batch

if TYPE_CHECKING:
    from bimo.models import Model

SIZES = (1, 4, 8, 16, 32, 64)  # of passes, in rows
HALF_PRECISION_SIZE = 16
STRETCH = 4  # pages by which the positions attended to grow


def page_bytes(config: Any, dtype: torch.dtype) -> int:
    """Memory in bytes of one page: keys and values of ``PAGE`` positions in all layers."""
    positions = config.num_hidden_layers * config.num_key_value_heads * PAGE
    return int(2 * positions * config.head_dim * dtype.itemsize)


class TorchBackend:
    """See :class:`bimo.generate.backend.Backend`; made for being right, and fast enough where nothing faster is.

    Args:
        model: in evaluation mode.
        kv_bytes: memory for keys and values; more than the whole context of ``sequences`` is not taken.
        sequences: that may be in work together.

    Attributes:
        sizes: how many rows a pass may have.

    Raises:
        ModelError: ``kv_bytes`` do not hold a page, or the device does not have them.
    """

    def __init__(self, model: Model, *, kv_bytes: int, sequences: int = 32) -> None:
        config, weight = model.config, model.output_weight
        dtype = model.compute_dtype or weight.dtype
        self._model, self._device = model, weight.device
        self.vocab_size, self.context = int(config.vocab_size), int(config.max_position_embeddings)
        shape = (config.num_key_value_heads, PAGE, config.head_dim)
        self.page_bytes = page_bytes(config, dtype)
        self.pages = min(kv_bytes // self.page_bytes, sequences * -(-self.context // PAGE))
        if self.pages < 1:
            expected = f"at least {self.page_bytes:,} bytes, which is {PAGE} positions"
            raise ModelError("The memory for keys and values is too small.", expected=expected, got=f"{kv_bytes:,}")
        try:  # two pages more: one that is always empty, one that rows without a sequence write to
            self._keys = torch.zeros(
                config.num_hidden_layers, self.pages + 2, *shape, dtype=dtype, device=weight.device
            )
            self._values = torch.zeros_like(self._keys)
        except RuntimeError as cause:
            fix = "Give the engine less memory for keys and values."
            got = str(cause).splitlines()[0]
            raise ModelError(f"{self.pages * self.page_bytes:,} bytes cannot be had.", got=got, fix=fix) from None
        sizes = SIZES if dtype.itemsize >= 4 else (HALF_PRECISION_SIZE,)
        self.sizes = self._agreeing([size for size in sizes if size <= self.pages] or [1])

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """See :class:`bimo.generate.backend.Backend`."""
        hidden = self._hidden(batch)  # (R, C)
        parts = [self._logits_of(hidden[part], size) for part, size in self._passes(len(hidden))]
        return np.concatenate(parts) if parts else np.zeros((0, self.vocab_size), np.float32)

    def hidden(self, batch: Batch) -> NDArray[np.float32]:
        """See :class:`bimo.generate.backend.Backend`."""
        result: NDArray[np.float32] = self._hidden(batch).float().cpu().numpy()
        return result

    def copy_page(self, source: int, target: int) -> None:
        """See :class:`bimo.generate.backend.Backend`."""
        for memory in (self._keys, self._values):
            memory[:, target] = memory[:, source]

    @torch.inference_mode()
    def _logits_of(self, hidden: Tensor, size: int) -> NDArray[np.float32]:
        """Logits (R, V) of at most M = ``size`` hidden states (R, C), as part of a full pass."""
        full = hidden.new_zeros(size, 1, hidden.shape[1])
        full[: len(hidden), 0] = hidden
        result: NDArray[np.float32] = self._model.logits(full)[: len(hidden), 0].float().cpu().numpy()
        return result

    @torch.inference_mode()
    def _hidden(self, batch: Batch) -> Tensor:
        """Hidden states (R, C) of the wanted rows."""
        fresh = batch.positions % PAGE == 0
        begun = batch.pages[batch.sequence[fresh], batch.positions[fresh] // PAGE]
        self._keys[:, begun] = 0  # what another sequence left there could be no number, which no mask hides
        self._values[:, begun] = 0
        stretches = batch.positions // (PAGE * STRETCH)
        hidden = self._keys.new_empty(len(batch.tokens), self._model.output_weight.shape[1])  # (N, C)
        for stretch in np.unique(stretches):  # ascending, so that no position comes before an earlier one
            members = np.flatnonzero(stretches == stretch)
            for part, size in self._passes(len(members)):
                hidden[members[part]] = self._pass(batch, members[part], size, (int(stretch) + 1) * STRETCH)
        return hidden[batch.wanted]

    def _passes(self, count: int) -> Iterator[tuple[slice, int]]:
        """Cut ``count`` rows into passes: which rows, and the size of the pass."""
        start = 0
        while start < count:
            size = next((size for size in self.sizes if size >= count - start), self.sizes[-1])
            yield slice(start, start + size), size
            start += size

    def _pass(self, batch: Batch, part: NDArray[np.intp], size: int, width: int) -> Tensor:
        """Hidden states (R, C) of at most M = ``size`` of a batch's positions, which look at ``width`` pages."""
        tokens, positions = np.zeros((2, size), np.int64)
        pages = np.full((size, width), self.pages, np.int64)  # the empty page
        pages[:, 0] = self.pages + 1
        count = len(part)
        tokens[:count], positions[:count] = batch.tokens[part], batch.positions[part]
        for row, index in enumerate(part):
            used = batch.positions[index] // PAGE + 1
            pages[row, :used] = batch.pages[batch.sequence[index], :used]
        past = _PagedRows(self._keys, self._values, *(self._place(array) for array in (positions, pages)))
        return self._model.hidden(self._place(tokens)[:, None], cache=past)[:count, 0]

    def _place(self, array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _agreeing(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The sizes of passes in which rows have the bits that they have in the largest, at any place there."""
        generator = torch.Generator().manual_seed(0)
        for memory in (self._keys, self._values):  # something to attend to, in the page that is else empty
            memory[:, self.pages] = torch.randn(memory[:, 0].shape, generator=generator).to(memory)
        self.sizes = (sizes[-1],)
        first, turned = self._trial(sizes[-1]), self._trial(sizes[-1], turn=True)
        agreeing = [sizes[-1]] if _same(first, turned) else []
        for size in sizes[:-1] if agreeing else ():
            self.sizes = (size,)
            if _same(self._trial(min(max(size, 8), sizes[-1])), first):
                agreeing.append(size)
        for memory in (self._keys, self._values):
            memory[:, [*range(sizes[-1]), self.pages]] = 0
        return tuple(sorted(agreeing)) or (1,)

    def _trial(self, count: int, *, turn: bool = False) -> list[NDArray[np.float32]]:
        """States and logits of ``count`` rows that are all different, near the beginning and far from it."""
        ids = np.arange(count, dtype=np.int32)
        order = ids[::-1] if turn else ids
        results = []
        for position in (0, min(self.context, 2 * STRETCH * PAGE) - 1):
            pages = np.full((count, position // PAGE + 1), self.pages, np.int32)
            pages[:, -1] = order
            batch = Batch(order % self.vocab_size, np.full_like(ids, position), ids, pages, ids)
            results += [part[order] for part in (self.hidden(batch), self.logits(batch))]
        return results


def _same(some: Sequence[NDArray[np.float32]], all_: Sequence[NDArray[np.float32]]) -> bool:
    """Whether the first rows are equal, to the bit."""
    pairs = zip(some, all_, strict=True)
    return all(np.array_equal(part, whole[: len(part)], equal_nan=True) for part, whole in pairs)


class _PagedRows:
    """The past of M rows, each of its own sequence and length, as :class:`bimo.models.attention.Cache` has it."""

    def __init__(self, keys: Tensor, values: Tensor, positions: Tensor, pages: Tensor) -> None:
        self._keys, self._values = keys, values  # (L, all pages, K, PAGE, D)
        self._positions, self._pages = positions, pages  # (M,), (M, P)
        self._target = pages.gather(1, positions[:, None] // PAGE).squeeze(1)  # (M,)

    def positions(self, count: int) -> Tensor:
        """The position ids, (M, 1)."""
        assert count == 1
        return self._positions[:, None]

    def mask(self, count: int) -> Tensor:
        """What each row looks at, bool (M, 1, 1, S)."""
        assert count == 1
        steps = torch.arange(self._pages.shape[1] * PAGE, device=self._positions.device)
        return (steps <= self._positions[:, None])[:, None, None]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values (M, K, 1, D) to their pages and return those looked at, (M, K, S, D) each."""
        return self._write_and_read(self._keys[layer], keys), self._write_and_read(self._values[layer], values)

    def _write_and_read(self, memory: Tensor, new: Tensor) -> Tensor:
        memory[self._target, :, self._positions % PAGE] = new[:, :, 0]
        return memory[self._pages].transpose(1, 2).flatten(2, 3)  # (M, P, K, PAGE, D) -> (M, K, S, D)
