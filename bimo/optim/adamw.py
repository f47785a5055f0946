"""AdamW: each number moves by its mean gradient over the root of its mean square (Loshchilov & Hutter 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from bimo.optim.rule import Rule

ROWS = 1024  # of a table that are updated at once: their gradient, most of it zeros, stays in a core's cache


class AdamW(Rule):
    """``torch.optim.AdamW``, whose arithmetic it calls, to the same bits.

    A sparse gradient, of a table of which few rows were read, gives what the same numbers among zeros would give.

    Args:
        lr: learning rate.
        betas: decay of the first moment and of the second.
        weight_decay: share of the weights, times ``lr``, that each step takes away.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            tables = [parameter for parameter in learning if parameter.grad.is_sparse]
            learning = [parameter for parameter in learning if not parameter.grad.is_sparse]
            gradients, states = [parameter.grad for parameter in learning], [self._state(one) for one in learning]
            if learning:
                _update(group, learning, gradients, states)
            for table in tables:
                self._update_rows(group, table)

    def _update_rows(self, group: Mapping[str, Any], table: nn.Parameter) -> None:
        """All rows, as the moments of all decay, some at a time."""
        assert table.grad is not None
        gradient, state = table.grad.coalesce(), self._state(table)
        places, values = gradient.indices()[0], gradient.values()
        for start in range(0, len(table), ROWS):
            part = slice(start, start + ROWS)
            first, last = torch.searchsorted(places, torch.tensor([start, start + ROWS])).tolist()
            whole = torch.zeros_like(table[part])
            whole[places[first:last] - start] = values[first:last]
            moments = {name: state[name][part] for name in ("exp_avg", "exp_avg_sq")}
            _update(group, [table[part]], [whole], [{**moments, "step": state["step"].clone()}])
        state["step"] += 1

    def _state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state


def _update(
    group: Mapping[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Tensor]]
) -> None:
    adamw(
        weights,
        gradients,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
