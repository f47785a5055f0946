"""Optimizers by name, and the one object the training loop steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bimo.config import setting
from bimo.errors import RunError
from bimo.models import trained_parameters
from bimo.optim.adamw import AdamW
from bimo.optim.muon import Muon
from bimo.optim.rule import Stepping, numbers

INSIDE_LAYERS = re.compile(r"\.(layers?|h)\.\d+\.")
IN_BLOCKS = re.compile(r"\.((?P<heads>[qkvo])|gate|up|down)_proj\.weight$")
SMALL = 1e-6  # which clipping adds to the norm
BLOCKWISE_FROM = 256  # rows and columns from which Muon goes block by block: it is cheaper, and as good
UNITS = 64  # of an MLP, that are one block; as heads are of attention


@dataclass(frozen=True)
class OptimizerConfig:
    """Which update rule, and its numbers."""

    name: Literal["muon", "adamw"] = setting("muon", "update rule of the weight matrices inside the layers")
    learning_rate: float = setting(0.02, "peak learning rate of those matrices")
    adamw_learning_rate: float = setting(0.006, "peak learning rate of embeddings, output matrix, norms and biases")
    weight_decay: float = setting(0.1, "decoupled decay of the matrices; embeddings and vectors do not decay")
    momentum: float = setting(0.95, "momentum of Muon")
    beta1: float = setting(0.9, "decay of AdamW's first moment")
    beta2: float = setting(0.95, "decay of AdamW's second moment")
    clip: float = setting(1.0, "largest norm of the whole gradient; above it the gradient is scaled down")


def _muon(matrices: list[dict[str, Any]], config: OptimizerConfig) -> Stepping:
    return Muon(matrices, config.learning_rate, config.momentum, config.weight_decay)


def _adamw(matrices: list[dict[str, Any]], config: OptimizerConfig) -> Stepping:
    return _adamw_of(
        [p for group in matrices for p in group["params"]], config, config.learning_rate, config.weight_decay
    )


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], OptimizerConfig], Stepping]] = {
    "muon": _muon,
    "adamw": _adamw,
}


def _adamw_of(
    parameters: list[nn.Parameter], config: OptimizerConfig, learning_rate: float, weight_decay: float
) -> Stepping:
    return AdamW(parameters, learning_rate, betas=(config.beta1, config.beta2), weight_decay=weight_decay)


def _by_kind(matrices: Mapping[str, nn.Parameter], head_dim: int) -> list[dict[str, Any]]:
    """The matrices as parameter groups: those in blocks of heads or units, where that pays, and the rest."""
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in matrices.items():
        block, columns = 0, False
        if min(parameter.shape) >= BLOCKWISE_FROM and (kind := IN_BLOCKS.search(name)):
            size, from_them = head_dim if kind["heads"] else UNITS, kind[1] in ("o", "down")
            if size and parameter.shape[from_them] % size == 0:
                block, columns = size, from_them
        groups.setdefault((block, columns), []).append(parameter)
    return [{"params": found, "block": size, "columns": columns} for (size, columns), found in groups.items()]


class Optimizer:
    """Steps every parameter that a model learns: matrices inside layers by the chosen rule, the rest by AdamW.

    Embeddings and the output matrix are kept from the rule of the matrices: each row of theirs is a token of its own
    (Jordan et al. 2024, Muon). Their learning rates follow one multiplier, which the schedule gives.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig) -> None:
        self.clip = config.clip
        self._named = trained_parameters(model)
        matrices = {name: p for name, p in self._named.items() if p.ndim == 2 and INSIDE_LAYERS.search(name)}
        others = [parameter for name, parameter in self._named.items() if name not in matrices]
        groups = _by_kind(matrices, getattr(getattr(model, "config", None), "head_dim", 0))
        self._parts = [OPTIMIZERS[config.name](groups, config)] if matrices else []
        self._parts += [_adamw_of(others, config, config.adamw_learning_rate, 0.0)] if others else []
        self._peaks = [[group["lr"] for group in part.param_groups] for part in self._parts]

    def step(self, multiplier: float) -> float:
        """Clip the gradients, update every parameter at ``multiplier`` x its peak rate, and drop the gradients.

        Returns:
            the norm of the whole gradient before clipping; not finite when a gradient is not, and then nothing moved.
        """
        for parameter in self._named.values():
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()  # once for norm, clipping and update
        gradients = [numbers(parameter.grad) for parameter in self._named.values() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        value = float(norm)
        if value - value == 0.0:  # neither NaN nor infinite
            if value + SMALL > self.clip:
                torch.nn.utils.clip_grads_with_norm_(self._named.values(), self.clip, norm)
            for part, peaks in zip(self._parts, self._peaks, strict=True):
                for group, peak in zip(part.param_groups, peaks, strict=True):
                    group["lr"] = peak * multiplier
                part.step()
        self.zero_grad()
        return value

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._named.values():
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """All state as tensors named ``parameter.moment``, for a safetensors file."""
        state = {}
        for name, parameter in self._named.items():
            for part in self._parts:
                for key, value in part.state.get(parameter, {}).items():
                    state[f"{name}.{key}"] = value
        return state

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state_tensors` gave.

        Raises:
            RunError: a tensor belongs to no parameter of this model.
        """
        owners = {id(p): part for part in self._parts for group in part.param_groups for p in group["params"]}
        for key, value in tensors.items():
            name, _, moment = key.rpartition(".")
            parameter = self._named.get(name)
            if parameter is None or (value.ndim and value.shape != parameter.shape):
                raise RunError(f"The optimizer state does not fit the model: {key}.", expected="the same model")
            owners[id(parameter)].state[parameter][moment] = value.to(parameter.device)
