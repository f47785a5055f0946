"""What every update rule has: groups of parameters with their numbers, and the state of each parameter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn


class Rule:
    """Parameters and their state, as in ``torch.optim.Optimizer``.

    Making one of those imports torch's compiler: a second of processor time and 76 MB that training does not need.

    Args:
        parameters: parameters, or groups of them as mappings with ``params``.
        defaults: the numbers of a group that says nothing else.
    """

    def __init__(self, parameters: Iterable[Any], defaults: Mapping[str, Any]) -> None:
        given = list(parameters)
        groups = given if given and isinstance(given[0], Mapping) else [{"params": given}]
        self.param_groups: list[dict[str, Any]] = [{**defaults, **group} for group in groups]
        self.state: defaultdict[nn.Parameter, dict[str, Tensor]] = defaultdict(dict)


def numbers(gradient: Tensor) -> Tensor:
    """The numbers of a gradient; of a sparse one those that it holds, each row once."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


class Stepping(Protocol):
    """A rule that can be stepped."""

    param_groups: list[dict[str, Any]]
    state: defaultdict[nn.Parameter, dict[str, Tensor]]

    def step(self) -> None:
        """Update every parameter that has a gradient."""
