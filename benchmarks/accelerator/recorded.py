"""What the layers of a model make a GPU do, recorded once as CUDA graphs and then played.

A fast GPU computes the kernels of a step about as quickly as a processor launches them, and waits in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bimo.models import llama
from bimo.models.attention import Cache, Documents, Mask

ROOM = 2  # times the documents of the first batch that a batch may have; one with more is computed as before


def record_layers(model: llama.Model) -> None:
    """Have all training passes of the first batch's shape played from a recording, forward and back.

    The gradients of one backward pass lie where those of the next will: whoever adds several up must not record.
    """
    model.model.forward = _Player(model.model)  # type: ignore[method-assign]


class _Player:
    """In place of a decoder's ``forward``."""

    def __init__(self, decoder: llama.Decoder) -> None:
        self._decoder, self._plain = decoder, decoder.forward
        self._play: Callable[..., Tensor] | None = None
        self._shape, self._places = torch.Size(), 0

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: Cache | None = None) -> Tensor:
        if not (isinstance(mask, Documents) and self._decoder.training and torch.is_grad_enabled()):
            return self._plain(x, cos, sin, mask, cache)
        if self._play is None:
            self._shape, self._places = x.shape, ROOM * len(mask.starts)
            self._play = self._recorded(x, cos, sin, mask)
        if x.shape != self._shape or len(mask.starts) > self._places:
            return self._plain(x, cos, sin, mask, cache)
        return self._play(x, cos, sin, self._padded(mask))

    def _padded(self, mask: Documents) -> Tensor:
        """As many starts as were recorded: behind the last document come empty ones."""
        end = self._shape[0] * self._shape[1]
        return F.pad(mask.starts, (0, self._places - len(mask.starts)), value=end)

    def _recorded(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Documents) -> Callable[..., Tensor]:
        samples = (x.detach().clone().requires_grad_(), cos.clone(), sin.clone(), self._padded(mask))
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
