"""Fused kernels for training on a CPU: what lies between a decoder's matrix products, forward and backward.

``kernels.c`` is compiled by this machine's own C compiler in about a second, once, and kept in the cache folder. It
does what ``torch.compile`` does in half a minute at every new shape; where there is no compiler, models compute the
same in torch operations. Activations may be bfloat16 or float32; sums are float32. Shapes are those of ``llama.py``.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bimo import compiled
from bimo.errors import ModelError

SOURCE = compiled.TRAINING
BLOCKS, SMALLEST_BLOCK = 4, 256  # of queries that attention is computed for at once
KEPT_UP_TO = 512  # positions of a row
PARTS = 16  # of the rows of a norm, whose weight gradients are summed apart: fixed, so that threads do not change bits


@functools.cache
def load() -> ctypes.CDLL:
    """The compiled kernels, from the cache or made now; torch is loaded, and with it the OpenMP threads they share.

    Raises:
        ModelError: there is no C compiler, or it failed; the message holds what it said.
    """
    library = compiled.library(SOURCE, compiled.TRAINING_FLAGS, optional=compiled.OPTIONAL, error=ModelError)
    for function in (library.products, library.attention_scratch, library.orthogonal_scratch):
        function.restype = ctypes.c_int64
    return library


def usable(device: torch.device) -> bool:
    """Whether models on this device can compute with them; the first call may compile."""
    try:
        return device.type == "cpu" and load() is not None
    except ModelError:
        return False


def _call(name: str, like: Tensor, *arguments: Tensor | int | float | None) -> None:
    """Run a kernel for activations in the precision of ``like``; tensors are passed by address, numbers as C's own."""
    function = getattr(load(), f"{name}_{'bfloat16' if like.dtype is torch.bfloat16 else 'float32'}")
    function(*map(_as_c, arguments))


def _as_c(value: Tensor | int | float | None) -> Any:
    if isinstance(value, Tensor):
        assert value.is_contiguous() and value.device.type == "cpu"
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p()
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        n = x.shape[-1]
        rows = x.numel() // n
        y, rstd = torch.empty_like(x), torch.empty(rows)
        _call("rms_norm", x, x, weight, y, rstd, rows, n, eps)
        ctx.save_for_backward(x, weight, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, rstd = ctx.saved_tensors
        n = x.shape[-1]
        dx, d_weight = torch.empty_like(x), torch.zeros(PARTS, n) if ctx.needs_input_grad[1] else None
        _call("rms_norm_backward", x, grads[0].contiguous(), x, weight, rstd, dx, d_weight, x.numel() // n, n, PARTS)
        return dx, None if d_weight is None else d_weight.sum(0), None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        y = torch.empty_like(gate)
        _call("swiglu", gate, gate, up, y, gate.numel())
        ctx.save_for_backward(gate, up)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
        _call("swiglu_backward", gate, grads[0].contiguous(), gate, up, d_gate, d_up, gate.numel())
        return d_gate, d_up


class _Heads(torch.autograd.Function):
    """(B, T, H, D) -> (B, H, T, D), normalised, rotated and scaled on the way."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, eps: float, cos: Tensor | None, sin: Tensor | None, scale: float
    ) -> Tensor:
        x = x.contiguous()
        B, T, H, D = x.shape
        y, rstd = x.new_empty(B, H, T, D), torch.empty(B, T, H)
        rows = int(cos is not None and cos.shape[0] > 1)
        _call("heads", x, x, weight, cos, sin, y, rstd, B, T, H, D, rows, eps, scale)
        ctx.save_for_backward(x if weight is not None else None, weight, cos, sin, rstd)
        ctx.rows, ctx.scale = rows, scale
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, cos, sin, rstd = ctx.saved_tensors
        dy = grads[0].contiguous()
        B, H, T, D = dy.shape
        dx = dy.new_empty(B, T, H, D)
        d_weight = torch.zeros(B, D) if ctx.needs_input_grad[1] else None
        _call("heads_backward", dy, dy, x, weight, cos, sin, rstd, dx, d_weight, B, T, H, D, ctx.rows, ctx.scale)
        return dx, None if d_weight is None else d_weight.sum(0), None, None, None, None


class _BlockedAttention(torch.autograd.Function):
    """Projected heads (B, T, H, D) to (B, T, H * D): norms, rotation and attention, by blocks that caches hold."""

    @staticmethod
    def forward(ctx: Any, eps: tuple[float, float], q: Tensor, k: Tensor, v: Tensor, *others: Tensor | None) -> Tensor:
        B, T, H, D = q.shape
        y, lse = q.new_empty(B, T, H * D), torch.empty(B, H, T)
        ctx.eps, heads = eps, (q.contiguous(), k.contiguous(), v.contiguous())
        ctx.save_for_backward(*heads, *others, y, lse)
        _attend("attention", eps, *heads, *others, y, lse)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        B, _, K, D = tensors[1].shape
        dx = [torch.empty_like(x) for x in tensors[:3]]
        d_weights = [torch.zeros(B * K, D) if needed else None for needed in ctx.needs_input_grad[4:6]]
        _attend("attention_backward", ctx.eps, *tensors, grads[0].contiguous(), *dx, *d_weights)
        return None, *dx, *(None if d is None else d.sum(0) for d in d_weights), None, None, None


class _Attending(ctypes.Structure):
    """``Attention`` of kernels_attention.h, which says what is what."""

    TENSORS = (
        *("q", "k", "v", "q_weight", "k_weight", "cosine", "sine", "first", "y", "lse"),
        *("dy", "dq", "dk", "dv", "dq_weight", "dk_weight"),
    )
    SIZES = ("B", "T", "H", "K", "D", "angle_rows", "threads")
    _fields_ = (
        *((name, ctypes.c_void_p) for name in (*TENSORS, "scratch")),
        *((name, ctypes.c_int64) for name in SIZES),
        *((name, ctypes.c_float) for name in ("q_eps", "k_eps", "scale")),
    )


def _attend(name: str, eps: tuple[float, float], q: Tensor, k: Tensor, *others: Tensor | None) -> None:
    """Run a kernel of kernels_attention.h on the first of its tensors, or all."""
    tensors, threads = (q, k, *others), torch.get_num_threads()
    (B, T, H, D), K, angles = q.shape, k.shape[2], others[3]
    scratch = torch.empty(threads * load().attention_scratch(ctypes.c_int64(T), ctypes.c_int64(D)), dtype=torch.uint8)
    addresses = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    missing = [None] * (len(_Attending.TENSORS) - len(tensors))
    sizes = (B, T, H, K, D, int(angles is not None and angles.shape[0] > 1), threads)
    call = _Attending(*addresses, *missing, scratch.data_ptr(), *sizes, *eps, D**-0.5)
    getattr(load(), name)(ctypes.byref(call))


def _in_blocks(q: Tensor, k: Tensor) -> bool:
    """Whether kernels_attention.h takes these heads: if the processor has products for them, and each thread a task."""
    tasks = k.shape[0] * k.shape[2]
    possible = q.dtype is torch.bfloat16 and q.shape[-1] % 32 == 0 and tasks >= torch.get_num_threads()
    return possible and load().products() > 0


class _Attention(torch.autograd.Function):
    """Causal attention inside documents, some queries at a time: keys that none of them sees take no part.

    The weights of long rows are made again on the way back (FlashAttention, Dao et al. 2022, §3.1), so that memory
    grows with T and not with T * T; those of short ones are kept, which is faster.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, first: Tensor) -> Tensor:
        B, H, T, D = q.shape
        kept, parts, flat_v = [], [], v.flatten(0, 1)
        for queries, keys in _blocks(first):
            weights = _weights(q, k, first, queries, keys)
            parts.append(torch.bmm(weights, flat_v[:, keys]))
            if T <= KEPT_UP_TO:
                kept.append(weights)
        ctx.save_for_backward(q, k, v, first, *kept)
        y, merged = _joined(parts, q, k), q.new_empty(B, T, H, D)
        _call("heads_backward", y, y, None, None, None, None, None, merged, None, B, T, H, D, 0, 1.0)
        return merged.view(B, T, H * D)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, first, *kept = ctx.saved_tensors
        (B, H, T, D), dy = q.shape, torch.empty_like(q)
        _call("heads", q, grads[0].contiguous(), None, None, None, dy, None, B, T, H, D, 0, 0.0, 1.0)
        parts, dk, dv, flat_k, flat_v = [], None, None, k.flatten(0, 1), v.flatten(0, 1)
        for queries, keys in _blocks(first):
            weights = kept.pop(0) if kept else _weights(q, k, first, queries, keys)
            some_q, some_dy = _some(q, k, queries), _some(dy, k, queries)
            dv = _added(dv, T, keys, torch.bmm(weights.mT, some_dy))
            gradient = torch.bmm(some_dy, flat_v[:, keys].mT)
            _call("softmax_backward", q, weights, gradient, first, B, H, T, *_ends(queries), *_ends(keys))
            parts.append(torch.bmm(gradient, flat_k[:, keys]))
            dk = _added(dk, T, keys, torch.bmm(gradient.mT, some_q))
        assert dk is not None and dv is not None
        return _joined(parts, q, k), dk.to(q.dtype).view(k.shape), dv.to(q.dtype).view(k.shape), None


def _blocks(first: Tensor) -> Iterator[tuple[slice, slice]]:
    """At most ``BLOCKS`` runs of queries, with the keys that any of them sees; few lengths, as each costs compiling."""
    T = first.shape[1]
    size = max(SMALLEST_BLOCK, -(-T // (BLOCKS * SMALLEST_BLOCK)) * SMALLEST_BLOCK)
    for start, least in zip(range(0, T, size), first[:, ::size].amin(0).tolist(), strict=True):
        end = min(start + size, T)
        yield slice(start, end), slice(least // size * size, end)


def _weights(q: Tensor, k: Tensor, first: Tensor, queries: slice, keys: slice) -> Tensor:
    """What each of the queries makes of each of the keys, (B * K, G * Q, S)."""
    B, H, T, _ = q.shape
    weights = torch.bmm(_some(q, k, queries), k.flatten(0, 1)[:, keys].mT)
    _call("softmax", q, weights, first, B, H, T, *_ends(queries), *_ends(keys))
    return weights


def _some(x: Tensor, k: Tensor, part: slice) -> Tensor:
    """Some positions of (B, H, T, D), those of a key head's G query heads one after the other: (B * K, G * Q, D)."""
    B, H, T, D = x.shape
    K = k.shape[1]
    return x.view(B * K, H // K, T, D)[:, :, part].flatten(1, 2)


def _joined(parts: list[Tensor], q: Tensor, k: Tensor) -> Tensor:
    """All positions (B, H, T, D) from the parts (B * K, G * Q, D)."""
    B, H, _, D = q.shape
    K = k.shape[1]
    split = [part.view(B * K, H // K, -1, D) for part in parts]
    return (torch.cat(split, dim=2) if split[1:] else split[0]).view(q.shape)


def _added(total: Tensor | None, T: int, keys: slice, part: Tensor) -> Tensor:
    """What blocks of queries so far give to the keys, (B * K, T, D): float32, where there are several to add up."""
    if total is None and part.shape[1] == T:
        return part
    if total is None:
        total = part.new_zeros(part.shape[0], T, part.shape[2], dtype=torch.float32)
    total[:, keys] += part
    return total


def _ends(part: slice) -> tuple[int, int]:
    return part.start, part.stop - part.start


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS normalisation over the last axis of x, times weight, which is fp32."""
    return _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of one shape."""
    return _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_norm: nn.Module,
    k_norm: nn.Module,
    cos: Tensor,
    sin: Tensor,
    first: Tensor | None,
) -> Tensor:
    """Causal attention from projected heads, q (B, T, H, D), k and v (B, T, K, D), to (B, T, H * D).

    Args:
        q_norm: its ``weight`` (D,) and ``eps`` normalise the queries' heads, if it has them; as ``k_norm`` the keys'.
        cos: fp32 (B or 1, 1, T, D/2) as in ``llama.rotate``, as is sin.
        first: int32 (B, T), the first position that each may look at; the last is itself.
    """
    assert first is not None
    cos, sin, first = cos.contiguous(), sin.contiguous(), first.contiguous()
    if _in_blocks(q, k):
        (q_weight, q_eps), (k_weight, k_eps) = _weight_and_eps(q_norm), _weight_and_eps(k_norm)
        return _BlockedAttention.apply((q_eps, k_eps), q, k, v, q_weight, k_weight, cos, sin, first)  # type: ignore[no-untyped-call]
    q = _Heads.apply(q, *_weight_and_eps(q_norm), cos, sin, q.shape[-1] ** -0.5)  # type: ignore[no-untyped-call]
    k = _Heads.apply(k, *_weight_and_eps(k_norm), cos, sin, 1.0)  # type: ignore[no-untyped-call]
    v = _Heads.apply(v, None, 0.0, None, None, 1.0)  # type: ignore[no-untyped-call]
    return _Attention.apply(q, k, v, first)  # type: ignore[no-untyped-call]


def _weight_and_eps(norm: nn.Module) -> tuple[Tensor | None, float]:
    return getattr(norm, "weight", None), getattr(norm, "eps", 0.0)


def cross_entropy_(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropies in nats (R,), fp32; ``logits`` (R, V) become their gradient, softmax minus one-hot."""
    losses = torch.empty(logits.shape[0])
    _call("cross_entropy", logits, logits, labels.contiguous(), losses, *logits.shape)
    return losses


class _MuonStep(ctypes.Structure):
    """``MuonStep`` of kernels_muon.h, which says what is what."""

    POINTERS = ("weights", "gradients", "momenta", "factors", "scratch")
    SIZES = ("N", "rows", "columns", "height", "width", "polynomials", "threads")
    _fields_ = (
        *((name, ctypes.c_void_p) for name in POINTERS),
        *((name, ctypes.c_int64) for name in SIZES),
        *((name, ctypes.c_float) for name in ("safety", "share", "decay", "rate")),
    )


def muon(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor],
    block: tuple[int, int],
    polynomials: Sequence[tuple[float, float, float]],
    numbers: tuple[float, float, float, float],
) -> bool:
    """A step of ``optim.muon.Muon`` of matrices of one shape, whose blocks of such a shape are orthogonalised.

    Args:
        numbers: what the norm is multiplied by, the share of old momentum kept, and the factors of weights and update.

    Returns:
        whether it was made: not if the processor has no products for it, or some thread would have no block.
    """
    (R, C), threads = weights[0].shape, torch.get_num_threads()
    plain = all(w.device.type == "cpu" and w.dtype is torch.float32 and w.is_contiguous() for w in weights)
    enough = len(weights) * R * C >= threads * block[0] * block[1]
    if not (plain and enough and usable(weights[0].device) and load().products() > 0):
        return False
    gradients = [gradient.contiguous() for gradient in gradients]
    sides = (ctypes.c_int64(min(block)), ctypes.c_int64(max(block)))
    scratch = torch.empty(threads * load().orthogonal_scratch(*sides), dtype=torch.uint8)
    lists = [torch.tensor([x.data_ptr() for x in some]) for some in (weights, gradients, momenta)]
    factors = torch.tensor(polynomials)
    pointers = [x.data_ptr() for x in (*lists, factors, scratch)]
    step = _MuonStep(*pointers, len(weights), R, C, *block, len(factors), threads, *numbers)
    load().muon(ctypes.byref(step))
    return True


def unpack(packed: Tensor, scale: Tensor, least: Tensor, inputs: int) -> Tensor:
    """The numbers of ``quantised.unpack``, (O, inputs) bfloat16."""
    numbers = torch.empty(packed.shape[0], inputs, dtype=torch.bfloat16)
    _call("unpack", numbers, packed, scale, least, numbers, *numbers.shape)
    return numbers
