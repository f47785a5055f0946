"""A frozen linear map in 5 bits a number: blocks of 32 inputs of 4 bits each, that share a scale and a least value.

It is ggml's Q4_1 with both in bfloat16. The weights are unpacked where they are multiplied, forward and backward, so
that only one matrix at a time is there as numbers. Shapes: O outputs, I inputs, n blocks of a row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bimo.models import gpt2, kernels, llama

BLOCK = 32
STEPS = 15  # between the least and the largest number of a block


class Quantised(llama.Linear):
    """Takes the place of a linear map, whose weights it packs.

    Attributes:
        transposed: whether that was a ``Conv1D``, which holds its weights as (I, O).
    """

    packed: Tensor
    scale: Tensor
    least: Tensor

    def __init__(self, plain: nn.Linear | gpt2.Conv1D) -> None:
        nn.Module.__init__(self)
        self.transposed = isinstance(plain, gpt2.Conv1D)
        weight = plain.weight.detach().t() if self.transposed else plain.weight.detach()
        self.out_features, self.in_features = weight.shape
        self.register_parameter("bias", plain.bias)
        packed, scale, least = pack(weight)
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("scale", scale.view(torch.int16), persistent=False)  # so that no cast of the model
        self.register_buffer("least", least.view(torch.int16), persistent=False)  # changes what they are

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The numbers, unpacked anew each time: (O, I) bfloat16."""
        scale, least = self.scale.view(torch.bfloat16), self.least.view(torch.bfloat16)
        return unpack(self.packed, scale, least, self.in_features)


def pack(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers (O, I) as steps (O, n, 16) uint8, low halves first, and each block's scale and least, (O, n)."""
    outputs, inputs = weight.shape
    wide = F.pad(weight.float()[None], (0, -inputs % BLOCK), mode="replicate")[0].view(outputs, -1, BLOCK)  # (O, n, 32)
    low, high = wide.aminmax(dim=-1)  # (O, n) each
    scale, least = ((high - low) / STEPS).bfloat16(), low.bfloat16()
    steps = (wide - least.float()[..., None]) / scale.float()[..., None]
    steps = steps.nan_to_num(0.0).round_().clamp_(0, STEPS).to(torch.uint8)  # a scale of 0: all are the least
    return steps[..., : BLOCK // 2] | steps[..., BLOCK // 2 :] << 4, scale, least


def unpack(packed: Tensor, scale: Tensor, least: Tensor, inputs: int) -> Tensor:
    """What :func:`pack` packed, (O, I) bfloat16 with I = ``inputs``; the same bits with and without a C compiler."""
    if kernels.usable(packed.device):
        return kernels.unpack(packed, scale, least, inputs)
    steps = torch.cat((packed & STEPS, packed >> 4), dim=-1)  # (O, n, 32)
    numbers = steps * scale.float()[..., None] + least.float()[..., None]
    return numbers.bfloat16().flatten(1)[:, :inputs]
