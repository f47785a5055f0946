"""Next-token prediction: the mean cross-entropy of the labels that count, without holding all logits at once.

Shapes: B rows, T positions, C width, V vocabulary, R positions of one chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bimo.batches.loader import Batch
from bimo.device import has_triton
from bimo.models import kernels

CHUNK_ELEMENTS = 1 << 19  # logits of one chunk: about what a core's cache holds
FEWEST_ROWS = 256  # but enough that the products do not wait for the weights, which every chunk reads anew
LARGER_CHUNK = 1 << 28  # elsewhere: enough for a GPU to be busy, half a gigabyte


class LanguageModel(Protocol):
    """What an objective needs of a model; see ``bimo/models/llama.py``."""

    @property
    def output_weight(self) -> Tensor:
        """(V, C)."""

    @property
    def fused(self) -> bool:
        """Whether it computes with ``bimo/models/kernels.py``."""

    def hidden(self, input_ids: Tensor, *, position_ids: Tensor | None, segment_ids: Tensor | None) -> Tensor:
        """(B, T, C)."""


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of ``hidden @ weight.T``; the gradients are made while a chunk's logits are at hand.

    A frozen ``weight`` gets none: that is a third of the work, and V x C numbers less in memory.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, fused: bool) -> Tensor:
        narrow = weight.to(hidden.dtype)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        total = hidden.new_zeros((), dtype=torch.float32)
        for part, losses, d_logits in _chunks(hidden, narrow, labels, fused):
            total += losses.sum()
            torch.mm(d_logits, narrow, out=d_hidden[part])
            if d_weight is not None:
                d_weight += d_logits.mT @ hidden[part]
        ctx.save_for_backward(d_hidden, d_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (grad,) = grads
        d_hidden, d_weight = ctx.saved_tensors
        # In place, since they are as large as the vocabulary and nobody else's.
        return d_hidden.mul_(grad.to(d_hidden.dtype)), None if d_weight is None else d_weight.mul_(grad), None, None


class _LabelNats(torch.autograd.Function):
    """Each cross-entropy of ``hidden @ weight.T`` by itself; the logits are computed again for the gradients.

    They depend on what becomes of each value, which is known only then; but that is a factor of each row, so that a
    frozen ``weight`` needs no second pass.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, fused: bool) -> Tensor:
        narrow = weight.to(hidden.dtype)
        nats = hidden.new_empty(len(hidden), dtype=torch.float32)
        frozen = ctx.needs_input_grad[0] and not ctx.needs_input_grad[1]
        d_hidden = torch.empty_like(hidden) if frozen else None
        for part, losses, d_logits in _chunks(hidden, narrow, labels, fused):
            nats[part] = losses
            if d_hidden is not None:
                torch.mm(d_logits, narrow, out=d_hidden[part])
        ctx.save_for_backward(*((d_hidden,) if frozen else (hidden, weight, labels)))
        ctx.fused = fused
        return nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        factor = grads[0][:, None]  # (N, 1)
        if len(ctx.saved_tensors) == 1:
            (d_hidden,) = ctx.saved_tensors
            return d_hidden * factor.to(d_hidden.dtype), None, None, None
        hidden, weight, labels = ctx.saved_tensors
        narrow = weight.to(hidden.dtype)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=torch.float32)
        for part, _, d_logits in _chunks(hidden, narrow, labels, ctx.fused):
            d_logits *= factor[part].to(d_logits.dtype)
            torch.mm(d_logits, narrow, out=d_hidden[part])
            d_weight += d_logits.mT @ hidden[part]
        return d_hidden, d_weight, None, None


def _chunks(hidden: Tensor, weight: Tensor, labels: Tensor, fused: bool) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """For a few rows at a time: which they are, their losses (R,), and the gradient of their logits (R, V)."""
    compute = _fused if fused else _on_gpu if has_triton(hidden.device) else _cross_entropy
    rows = _chunk_rows(weight, len(hidden))
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        yield part, *compute(F.linear(hidden[part], weight), labels[part])


def _chunk_rows(weight: Tensor, rows: int) -> int:
    """How many of the rows at once: on a GPU chunks of one size, as small ones leave most of it idle."""
    if weight.device.type == "cpu":
        return max(FEWEST_ROWS, CHUNK_ELEMENTS // weight.shape[0])
    chunks = max(1, math.ceil(rows * weight.shape[0] / LARGER_CHUNK))
    return max(1, math.ceil(rows / chunks / FEWEST_ROWS)) * FEWEST_ROWS


def _cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Losses in nats (R,) of ``logits`` (R, V) and their gradient, softmax minus one-hot, in the same precision."""
    wide, target = logits.float(), labels[:, None]
    log_probabilities = wide.log_softmax(dim=-1)
    d_logits = log_probabilities.exp().scatter_add_(-1, target, wide.new_full(target.shape, -1.0))
    return -log_probabilities.gather(-1, target)[:, 0], d_logits.to(logits.dtype)


def _fused(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same in one pass, in the memory of the logits."""
    return kernels.cross_entropy_(logits, labels), logits


def _on_gpu(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same, on an NVIDIA GPU."""
    from bimo.models import kernels_gpu

    return kernels_gpu.cross_entropy_(logits, labels), logits


def next_token_loss(model: LanguageModel, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Mean nats of the labels that count, and no further metrics.

    The gradient is exact up to the precision of the activations. Linear map and cross-entropy are one operation, as
    in Hsu et al. 2024 (Liger kernel, §3.2), so that memory does not grow with tokens x vocabulary.
    """
    hidden = model.hidden(batch.input_ids, position_ids=batch.position_ids, segment_ids=batch.segment_ids)
    hidden, labels = hidden.flatten(0, 1), batch.labels.flatten()  # (B * T, C), (B * T,)
    counts = batch.loss_mask.flatten()
    if not bool(counts.all()):
        hidden, labels = hidden[counts], labels[counts]
    total: Tensor = _LinearCrossEntropy.apply(hidden, model.output_weight, labels, model.fused)  # type: ignore[no-untyped-call]
    return total / labels.shape[0], {}


def label_nats(model: LanguageModel, batch: Batch, *, temperature: float = 1.0) -> Tensor:
    """The negative log-probability of each label that counts, in nats, float32 (N,), in the order of the loss mask.

    What is learned may be any function of them: the gradient is that of each by itself. Memory does not grow with
    tokens x vocabulary here either.

    Args:
        temperature: by which the logits are divided, as in sampling.
    """
    hidden = model.hidden(batch.input_ids, position_ids=batch.position_ids, segment_ids=batch.segment_ids)
    hidden, labels = hidden[batch.loss_mask], batch.labels[batch.loss_mask]  # (N, C), (N,)
    hidden = hidden if temperature == 1 else hidden / temperature
    nats: Tensor = _LabelNats.apply(hidden, model.output_weight, labels, model.fused)  # type: ignore[no-untyped-call]
    return nats


@torch.no_grad()
def mean_nats(model: LanguageModel, batches: list[Batch]) -> float:
    """Mean nats per label over all batches, without gradients."""
    device = model.output_weight.device
    total, count = 0.0, 0
    for batch in (batch.to(device) for batch in batches):
        hidden = model.hidden(batch.input_ids, position_ids=batch.position_ids, segment_ids=batch.segment_ids)
        hidden, labels = hidden[batch.loss_mask], batch.labels[batch.loss_mask]
        weight = model.output_weight.to(hidden.dtype)
        rows = _chunk_rows(weight, len(hidden))
        for part, target in zip(hidden.split(rows), labels.split(rows), strict=True):
            total += F.cross_entropy(F.linear(part, weight).float(), target, reduction="sum").item()
        count += labels.shape[0]
    return total / count if count else math.nan
