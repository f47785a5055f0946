"""What the layers of a model make a GPU do, recorded once as CUDA graphs and then played.

A GPU computes the kernels of a step as quickly as a processor launches them, and those of a small model much faster.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bimo.models import llama
from bimo.models.attention import Cache, Documents, Mask

ROOM = 2  # times the documents of the first batch that a batch may have; one with more is computed as before


@contextlib.contextmanager
def recorded(model: nn.Module, passes: int) -> Iterator[None]:
    """Inside, training passes of the first batch's shape are played, forward and back, where a GPU knows documents.

    Args:
        passes: of a step. The gradients of one lie where those of the next will, so several are not played.
    """
    decoder = getattr(model, "model", None)
    if passes != 1 or not isinstance(decoder, llama.Decoder):
        yield
        return
    decoder.forward = _Player(decoder)  # type: ignore[method-assign]
    try:
        with warnings.catch_warnings():  # that gradients are added up on the stream of the recording, as they should be
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
            yield
    finally:
        del decoder.forward


class _Player:
    """In place of a decoder's ``forward``."""

    def __init__(self, decoder: llama.Decoder) -> None:
        self._decoder, self._plain = decoder, decoder.forward
        self._play: Callable[..., Tensor] | None = None
        self._shape, self._places = torch.Size(), 0
        self._open = False  # a pass has gone forward and not yet back; the next one would overwrite it

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: Cache | None = None) -> Tensor:
        learning = self._decoder.training and torch.is_grad_enabled()
        if self._open or not learning or not isinstance(mask, Documents):
            return self._plain(x, cos, sin, mask, cache)
        if self._play is None:
            self._shape, self._places = x.shape, ROOM * len(mask.starts)
            self._play = self._recorded(x, cos, sin, mask)
        if x.shape != self._shape or len(mask.starts) > self._places:
            return self._plain(x, cos, sin, mask, cache)
        y = self._play(x, cos, sin, self._padded(mask))
        self._open = True
        y.register_hook(self._close)
        return y

    def _close(self, _: Tensor) -> None:
        self._open = False

    def _padded(self, mask: Documents) -> Tensor:
        """As many starts as were recorded: behind the last document come empty ones."""
        end = self._shape[0] * self._shape[1]
        return F.pad(mask.starts, (0, self._places - len(mask.starts)), value=end)

    def _recorded(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Documents) -> Callable[..., Tensor]:
        samples = (x.detach().clone().requires_grad_(x.requires_grad), cos.clone(), sin.clone(), self._padded(mask))
        torch.cuda.empty_cache()  # the recording has memory of its own
        with torch.random.fork_rng(devices=[x.device]):
            played: Any = torch.cuda.make_graphed_callables(_Layers(self._decoder, self._plain, mask), samples)
        return played


class _Layers(nn.Module):
    """A decoder's layers and final norm, with tensors as their only arguments."""

    def __init__(self, decoder: llama.Decoder, plain: Callable[..., Tensor], mask: Documents) -> None:
        super().__init__()
        self.layers, self.norm = decoder.layers, decoder.norm
        self._plain, self._mask = plain, mask

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, starts: Tensor) -> Tensor:
        return self._plain(x, cos, sin, self._mask._replace(starts=starts))
