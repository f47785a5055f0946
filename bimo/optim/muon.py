"""Muon: momentum whose update is made orthogonal, so that every direction of a matrix learns equally fast."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bimo.device import multiplies_bfloat16
from bimo.models import kernels
from bimo.optim.rule import Rule

# Quintic polynomials that drive singular values towards 1, fastest first (Amsel et al. 2025, Polar Express, Alg. 2).
POLYNOMIALS = (
    (8.2051, -22.9019, 16.4607),
    (4.0664, -2.8612, 0.5184),
    (3.9096, -2.8234, 0.5250),
    (3.2856, -2.4153, 0.4853),
    (2.2779, -1.6198, 0.3985),
)
SAFETY = 1.01  # the polynomials want singular values below 1, and bf16 rounds


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values come out near 1.

    Args:
        matrices: (N, R, C), a stack of matrices of one shape.

    Returns:
        (N, R, C) bf16, or float32 where the device multiplies no bf16.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if tall else matrices
    x = wide.to(torch.bfloat16 if multiplies_bfloat16(matrices.device) else torch.float32)
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) * SAFETY + 1e-7).to(x.dtype)
    for a, b, c in POLYNOMIALS:
        gram = x @ x.mT  # (N, R, R), R <= C
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def orthogonalize_blocks(matrices: Tensor, block: int, *, columns: bool) -> Tensor:
    """Each block of so many rows, or columns, made semi-orthogonal by itself: several times cheaper than the whole.

    Args:
        matrices: (N, R, C), projections to heads or hidden units, or with ``columns`` from them; block 0 = the whole.

    Returns:
        (N, R, C), as :func:`orthogonalize`.
    """
    if columns:
        return orthogonalize_blocks(matrices.mT, block, columns=False).mT
    N, R, C = matrices.shape
    return orthogonalize(matrices.reshape(-1, block or R, C)).reshape(N, R, C)


class Muon(Rule):
    """Nesterov momentum, orthogonalised, with decoupled weight decay (Jordan et al. 2024).

    The update of a matrix (R, C) is scaled by sqrt(max(1, R / C)), so that one learning rate fits all shapes. A
    parameter group with ``block`` holds projections to heads or hidden units, or from them if ``columns``: so many of
    their rows or columns are orthogonalised at a time, and the update is made as large as that of the whole would be.

    Args:
        parameters: matrices only.
        lr: learning rate.
        momentum: share of the old momentum kept at each step.
        weight_decay: share of the weights, times ``lr``, that each step takes away.
    """

    def __init__(self, parameters: Iterable[Any], lr: float, momentum: float, weight_decay: float) -> None:
        whole = {"block": 0, "columns": False}
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, **whole})

    @torch.no_grad()
    def step(self) -> None:
        """Update the matrices; those of one shape are orthogonalised together."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for (rows, columns), parameters in shapes.items():
                size, across, share = group["block"], group["columns"], group["momentum"]
                block = ((rows, size) if across else (size, columns)) if size else (rows, columns)
                directions = (columns if across else rows) if size else min(rows, columns)
                scale = group["lr"] * (max(1.0, rows / columns) * min(rows, columns) / directions) ** 0.5
                decay = 1 - group["lr"] * group["weight_decay"]
                weights, gradients, momenta = self._tensors(parameters)
                if kernels.muon(weights, gradients, momenta, block, POLYNOMIALS, (SAFETY, share, decay, scale)):
                    continue
                torch._foreach_lerp_(momenta, gradients, 1 - share)
                updates = torch.stack(torch._foreach_lerp(gradients, momenta, share))
                updates = orthogonalize_blocks(updates, size, columns=across)
                torch._foreach_mul_(weights, decay)
                torch._foreach_add_(weights, updates.to(weights[0].dtype).unbind(), alpha=-scale)

    def _tensors(self, parameters: list[nn.Parameter]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Weights, gradients and momenta, in lists, which a GPU updates in one go."""
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return list(parameters), gradients, [self.state[parameter]["momentum"] for parameter in parameters]
