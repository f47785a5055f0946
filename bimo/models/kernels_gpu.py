"""Kernels for training on a GPU, in Triton, which torch for CUDA brings along.

What torch.compile does badly lies here: heads that are normalised and turned, a pass over memory each way in place of
five, and the loss, which makes its own gradients while a chunk of logits is at hand. Sums are float32. Shapes are those
of ``llama.py``.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from bimo.models.attention import Documents, attend_inside

BLOCK, WARPS = 4096, 8  # logits that a program looks at at once, and the warps that do
ROWS, STEPS = 64, 8  # heads that a program looks at at once; on the way back it does so 8 times


@triton.jit
def _halves(x, heads, pairs, PAIRS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Both halves of some heads, float32, with what is needed to write others in their place."""
    pair = tl.arange(0, PAIRS)[None, :]
    there = (heads[:, None] >= 0) & (pair < pairs)
    at = x + heads[:, None].to(tl.int64) * (2 * pairs) + pair
    first = tl.load(at, mask=there, other=0.0).to(tl.float32)
    second = tl.load(at + pairs, mask=there, other=0.0).to(tl.float32)
    return first, second, pair, there


# fmt: off
@triton.jit
def _heads(x, weight, cos, sin, y, inverse, count, per_token, angles, pairs, eps,  # type: ignore[no-untyped-def]
           NORM: tl.constexpr, ROWS: tl.constexpr, PAIRS: tl.constexpr):
    # fmt: on
    """Some heads, each normalised and turned by the angles of its token."""
    heads = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    heads = tl.where(heads < count, heads, -1)
    first, second, pair, there = _halves(x, heads, pairs, PAIRS)
    if NORM:
        squares = tl.sum(first * first + second * second, axis=1)
        rstd = 1 / tl.sqrt(squares / (2 * pairs) + eps)
        tl.store(inverse + heads, rstd, mask=heads >= 0)
        first *= rstd[:, None] * tl.load(weight + pair, mask=pair < pairs, other=0.0).to(tl.float32)
        second *= rstd[:, None] * tl.load(weight + pairs + pair, mask=pair < pairs, other=0.0).to(tl.float32)
    turn = (heads // per_token % angles)[:, None] * pairs + pair
    c, s = tl.load(cos + turn, mask=there, other=0.0), tl.load(sin + turn, mask=there, other=0.0)
    out = y + heads[:, None].to(tl.int64) * (2 * pairs) + pair
    tl.store(out, (first * c - second * s).to(y.dtype.element_ty), mask=there)
    tl.store(out + pairs, (second * c + first * s).to(y.dtype.element_ty), mask=there)


# fmt: off
@triton.jit
def _heads_backward(dy, x, weight, cos, sin, inverse, dx, d_weight,  # type: ignore[no-untyped-def]
                    count, per_token, angles, pairs,
                    NORM: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr, PAIRS: tl.constexpr):
    # fmt: on
    """The gradients of those heads, and what they add to that of the weight."""
    of_first = tl.zeros([PAIRS], dtype=tl.float32)
    of_second = tl.zeros([PAIRS], dtype=tl.float32)
    for step in range(STEPS):
        heads = (tl.program_id(0) * STEPS + step) * ROWS + tl.arange(0, ROWS)
        heads = tl.where(heads < count, heads, -1)
        first, second, pair, there = _halves(dy, heads, pairs, PAIRS)
        turn = (heads // per_token % angles)[:, None] * pairs + pair
        c, s = tl.load(cos + turn, mask=there, other=0.0), tl.load(sin + turn, mask=there, other=0.0)
        first, second = first * c + second * s, second * c - first * s
        if NORM:
            rstd = tl.load(inverse + heads, mask=heads >= 0, other=0.0)[:, None]
            x_first, x_second, _, _ = _halves(x, heads, pairs, PAIRS)
            x_first, x_second = x_first * rstd, x_second * rstd
            of_first += tl.sum(first * x_first, axis=0)
            of_second += tl.sum(second * x_second, axis=0)
            first *= tl.load(weight + pair, mask=pair < pairs, other=0.0).to(tl.float32)
            second *= tl.load(weight + pairs + pair, mask=pair < pairs, other=0.0).to(tl.float32)
            along = tl.sum(first * x_first + second * x_second, axis=1)[:, None] / (2 * pairs)
            first, second = rstd * (first - x_first * along), rstd * (second - x_second * along)
        out = dx + heads[:, None].to(tl.int64) * (2 * pairs) + pair
        tl.store(out, first.to(dx.dtype.element_ty), mask=there)
        tl.store(out + pairs, second.to(dx.dtype.element_ty), mask=there)
    if NORM:
        flat = tl.arange(0, PAIRS)
        row = d_weight + tl.program_id(0).to(tl.int64) * (2 * pairs)
        tl.store(row + flat, of_first, mask=flat < pairs)
        tl.store(row + pairs + flat, of_second, mask=flat < pairs)


@torch.library.custom_op("bimo::heads", mutates_args=())
def heads(x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Heads (B, T, H, D), normalised by RMSNorm where there is a ``weight`` (D,), and turned as ``llama.rotate`` does.

    Args:
        cos, sin: fp32 (B or 1, 1, T, D/2).

    Returns:
        (B, T, H, D); the inverse norms (B, T, H) for the way back.
    """
    B, T, H, D = x.shape
    y, inverse = torch.empty_like(x), x.new_empty((B, T, H) if weight is not None else 0, dtype=torch.float32)
    grid = (triton.cdiv(B * T * H, ROWS),)
    _heads[grid](
        x, x if weight is None else weight, cos, sin, y, inverse, B * T * H, H, cos.numel() // (D // 2), D // 2, eps,
        NORM=weight is not None, ROWS=ROWS, PAIRS=triton.next_power_of_2(D // 2),
    )  # fmt: skip
    return y, inverse


@heads.register_fake
def _(x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(x.shape[:3] if weight is not None else 0, dtype=torch.float32)


@torch.library.custom_op("bimo::heads_backward", mutates_args=())
def heads_backward(
    dy: Tensor, x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of x and, fp32 and in parts (N, D), of the weight."""
    B, T, H, D = x.shape
    dx, parts = torch.empty_like(x), triton.cdiv(B * T * H, ROWS * STEPS)
    d_weight = x.new_empty((parts if weight is not None else 0, D), dtype=torch.float32)
    _heads_backward[(parts,)](
        dy, x, x if weight is None else weight, cos, sin, inverse, dx, d_weight,
        B * T * H, H, cos.numel() // (D // 2), D // 2,
        NORM=weight is not None, ROWS=ROWS, STEPS=STEPS, PAIRS=triton.next_power_of_2(D // 2),
    )  # fmt: skip
    return dx, d_weight


@heads_backward.register_fake
def _(
    dy: Tensor, x: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    parts = -(-(x.numel() // x.shape[-1]) // (ROWS * STEPS)) if weight is not None else 0
    return torch.empty_like(x), x.new_empty((parts, x.shape[-1]), dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, cos, sin, _ = inputs
    ctx.save_for_backward(x, weight, cos, sin, output[1])


def _back(ctx: Any, dy: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, cos, sin, inverse = ctx.saved_tensors
    dx, parts = heads_backward(dy.contiguous(), x, weight, cos, sin, inverse)
    return dx, None if weight is None else parts.sum(0).to(weight.dtype), None, None, None


heads.register_autograd(_back, setup_context=_keep)


def attention(
    q: Tensor, k: Tensor, v: Tensor, q_norm: nn.Module, k_norm: nn.Module, cos: Tensor, sin: Tensor, mask: Documents
) -> Tensor:
    """Causal attention inside documents, as ``kernels.attention`` of a CPU.

    Args:
        q: (B, T, H, D); k and v: (B, T, K, D), none of them normalised or rotated yet.
        q_norm: an RMSNorm, or one without weights that changes nothing.
        cos, sin: fp32 (B or 1, 1, T, D/2).

    Returns:
        (B, T, H * D)
    """
    q, k = (
        heads(part.contiguous(), getattr(norm, "weight", None), cos, sin, getattr(norm, "eps", 0.0))[0]
        for part, norm in ((q, q_norm), (k, k_norm))
    )
    return attend_inside(q, k, v, mask).flatten(2)


@triton.jit
def _cross_entropy(logits, labels, losses, columns, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """One row: its loss, and in its place the gradient."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * columns
    highest, total = float("-inf"), 0.0
    for start in range(0, columns, BLOCK):  # the sum of exponentials, its highest exponent kept apart
        at = start + tl.arange(0, BLOCK)
        x = tl.load(logits + at, mask=at < columns, other=float("-inf")).to(tl.float32)
        before, highest = highest, tl.maximum(highest, tl.max(x))
        total = total * tl.exp(before - highest) + tl.sum(tl.exp(x - highest))
    log_total = highest + tl.log(total)
    label = tl.load(labels + row)
    tl.store(losses + row, log_total - tl.load(logits + label).to(tl.float32))
    tl.debug_barrier()  # all have read before one writes
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(logits + at, mask=at < columns, other=float("-inf")).to(tl.float32)
        gradient = tl.exp(x - log_total) - tl.where(at == label, 1.0, 0.0)
        tl.store(logits + at, gradient.to(logits.dtype.element_ty), mask=at < columns)


def cross_entropy_(logits: Tensor, labels: Tensor) -> Tensor:
    """Losses in nats, float32 (R,), of ``logits`` (R, V), which become their gradient, softmax minus one-hot.

    Args:
        labels: int64 (R,).
    """
    assert logits.is_contiguous()
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    if len(logits):
        columns = logits.shape[1]
        _cross_entropy[(len(logits),)](logits, labels.contiguous(), losses, columns, BLOCK=BLOCK, num_warps=WARPS)
    return losses
