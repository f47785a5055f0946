"""Attention as all models here compute it: who sees whom, once a forward pass, and the product, once a layer.

B  rows of the batch           H  query heads                        D  head size
T  positions computed now      K  key/value heads, H = G * K
S  positions attended to: T, plus those a cache holds
"""

from __future__ import annotations

import functools
import importlib.util
import math
import sys
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from bimo.device import has_triton

# Up to so many positions attention on a CPU is written out: faster than the fused kernel, but its memory is T * S.
WRITTEN_OUT_UP_TO = 1024
FLASH_PRECISIONS = (torch.bfloat16, torch.float16)

# Takes a layer's new keys and values (B, K, T, D) into a cache and returns all of them so far (B, K, S, D).
Extend: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Documents(NamedTuple):
    """Who sees whom on a GPU, as FlashAttention wants it: nobody across two documents, nothing after itself.

    Attributes:
        starts: where each document of the batch starts if its rows are put end to end, and at last B * T, int32 (N,).
        longest: of a document, or more.
        window: how many positions, itself included, a token sees; None = all.
    """

    starts: Tensor
    longest: int
    window: int | None


Mask: TypeAlias = Tensor | Documents | None


class Cache(Protocol):
    """The keys and values of earlier positions, as a model needs them; all rows are equally long."""

    def positions(self, count: int, /) -> Tensor:
        """Position ids (B, T) of the next ``count`` tokens."""

    def mask(self, count: int, /) -> Tensor | None:
        """What the next ``count`` tokens may look at, bool (B, 1, T, S); None = everything up to themselves."""

    def append(self, layer: int, keys: Tensor, values: Tensor, /) -> tuple[Tensor, Tensor]:
        """See :data:`Extend`."""


def positions_and_mask(
    input_ids: Tensor,
    position_ids: Tensor | None,
    segment_ids: Tensor | None,
    cache: Cache | None,
    dtype: torch.dtype,
    window: int | None = None,
    fused: bool = False,
) -> tuple[Tensor, Mask]:
    """Where each token stands and what it may look at: itself, and what came before in its segment and the window.

    Args:
        input_ids: int (B, T).
        position_ids: int (B, T); by default 0 to T - 1, or what the cache says.
        segment_ids: int (B, T), the document that each token belongs to; not together with a cache.
        dtype: precision of the scores, and so of the mask.
        window: how many positions, itself included, a token sees.
        fused: give the mask as ``kernels.attention`` wants it; not together with a cache.

    Returns:
        position ids, int (B or 1, T); mask (B or 1, 1, T, S) to add to the scores, 0 = visible and -inf = not, or None
        = causal; if fused, where the view of each begins, int32 (B, T); documents where a GPU can keep them apart.
    """
    T, device = input_ids.shape[1], input_ids.device
    steps = torch.arange(T, device=device)
    if cache is not None:
        position_ids, visible = cache.positions(T), cache.mask(T)
        if window is not None:
            S = int(position_ids[0, -1]) + 1 if visible is None else visible.shape[-1]
            distance = position_ids[:, None, :, None] - torch.arange(S, device=device)  # (B, 1, T, S)
            near = (distance >= 0) & (distance < window)
            visible = near if visible is None else visible & near
        return position_ids, None if visible is None else _additive(visible, dtype)
    if position_ids is None:
        position_ids = steps[None]
    if fused:
        return position_ids, first_visible(torch.zeros_like(input_ids) if segment_ids is None else segment_ids, window)
    if segment_ids is None and window is None and device.type != "cpu":
        return position_ids, None  # fused kernels are fastest without a mask
    if dtype in FLASH_PRECISIONS and has_flash_attention(device):
        segment_ids = torch.zeros_like(input_ids) if segment_ids is None else segment_ids
        return position_ids, Documents(starts_of(segment_ids), T, window)
    distance = steps[:, None] - steps  # (T, T)
    visible = (distance >= 0)[None, None]
    if window is not None:
        visible = visible & (distance < window)
    if segment_ids is not None:
        visible = visible & (segment_ids[:, None, :, None] == segment_ids[:, None, None, :])
    return position_ids, _additive(visible, dtype)


def first_visible(segment_ids: Tensor, window: int | None = None) -> Tensor:
    """The first position that each may look at, int32 (B, T): where its segment, one stretch, or its window begins."""
    steps = torch.arange(segment_ids.shape[1], device=segment_ids.device)
    begins = torch.nn.functional.pad(segment_ids.diff(dim=1) != 0, (1, 0))  # (B, T)
    first = (steps * begins).cummax(dim=1).values
    return (first if window is None else torch.maximum(first, steps - window + 1)).int()


def starts_of(segment_ids: Tensor) -> Tensor:
    """Where the segments of rows (B, T) start, each one stretch, rows put end to end, and B * T; int32 (N,)."""
    begins = F.pad(segment_ids.diff(dim=1) != 0, (1, 0), value=True).flatten()
    starts = F.pad(begins.nonzero()[:, 0], (0, 1), value=begins.numel()).int()
    if "torch._dynamo" in sys.modules:  # else layers would be compiled anew for each number of documents
        torch._dynamo.maybe_mark_dynamic(starts, 0)
    return starts


@functools.cache
def has_flash_attention(device: torch.device) -> bool:
    """Whether FlashAttention (Dao 2023) can keep documents apart there: on NVIDIA's since Ampere, with Triton."""
    if not has_triton(device) or importlib.util.find_spec("torch.nn.attention.varlen") is None:  # new in torch 2.10
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def own_segment(input_ids: Tensor, segment_ids: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The mask of an encoder, (B or 1, 1, T or 1, T or 1): each token sees its whole segment, before it and after.

    Args:
        input_ids: int (B, T).
        segment_ids: int (B, T), the text that each token belongs to; None = a row is one text.
        dtype: precision of the scores, and so of the mask.
    """
    if segment_ids is None:
        return torch.zeros(1, 1, 1, 1, dtype=dtype, device=input_ids.device)
    return _additive(segment_ids[:, None, :, None] == segment_ids[:, None, None, :], dtype)


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Made once a pass: measured on a CPU, adding it costs a layer a tenth less than choosing by a boolean mask."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, -math.inf)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, §3.2.1) in which G query heads share a key head.

    Args:
        q: (B, H, T, D).
        k: (B, K, S, D), as is v.
        mask: (B or 1, 1, T, S), added to the scores; or the documents; None = causal, the queries being the last T of
            the S positions.

    Returns:
        (B, H, T, D)
    """
    B, H, T, D = q.shape
    K, S = k.shape[1:3]
    if isinstance(mask, Documents):
        return attend_inside(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask).transpose(1, 2)
    written_out = q.device.type == "cpu" and S <= WRITTEN_OUT_UP_TO
    if mask is None and T > 1 and (written_out or T < S):
        mask = _additive(torch.ones(1, 1, T, S, dtype=torch.bool, device=q.device).tril(S - T), q.dtype)
    if not written_out:
        if mask is not None and H != K:  # fused kernels take shared heads or a mask, not both
            k, v = k.repeat_interleave(H // K, dim=1), v.repeat_interleave(H // K, dim=1)
        causal = mask is None and T > 1
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=k.shape[1] != H)
    q = (q * D**-0.5).reshape(B, K, H // K * T, D)  # the queries of a key head as one matrix: k and v are not copied
    scores = (q @ k.transpose(-2, -1)).view(B, K, H // K, T, S)
    if mask is not None:
        scores = scores + mask[:, None]
    weights = scores.softmax(dim=-1).view(B, K, H // K * T, S)
    return (weights @ v).view(B, H, T, D)


def attend_inside(q: Tensor, k: Tensor, v: Tensor, documents: Documents) -> Tensor:
    """The same by FlashAttention, which takes rows end to end, no shared heads, and heads of whole 8s.

    Args:
        q: (B, T, H, D); k and v: (B, T, K, D).

    Returns:
        (B, T, H, D)
    """
    from torch.nn.attention.varlen import varlen_attn  # imports the compiler, which takes seconds

    B, T, H, D = q.shape
    if k.shape[2] != H:
        k, v = k.repeat_interleave(H // k.shape[2], dim=2), v.repeat_interleave(H // v.shape[2], dim=2)
    q, k, v = ((F.pad(part, (0, -D % 8)) if D % 8 else part).flatten(0, 1) for part in (q, k, v))  # (B * T, H, D)
    sees = (-1 if documents.window is None else documents.window - 1, 0)  # before itself, and after
    starts, longest = documents.starts, documents.longest
    y = varlen_attn(q, k, v, starts, starts, longest, longest, scale=D**-0.5, window_size=sees)
    assert isinstance(y, Tensor)
    return y.view(B, T, H, -1)[..., :D]
