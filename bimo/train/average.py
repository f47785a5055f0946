"""Other weights than the newest: the best so far, and the mean of the last (Izmailov et al. 2018, §3), often better.

Averaging the tail of a training, with weight 1 for each sample, is Polyak and Ruppert's averaging begun late.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from bimo.models import trained_parameters
from bimo.train.loop import Progress

EVERY = 4  # steps between two samples: neighbouring weights say nearly the same
PREFIX = "average."  # of the tensors in a checkpoint


class Average:
    """A hook that keeps the mean of the weights once the tail of the training has begun; it goes before validation.

    Args:
        share: of the steps, the last ones, that are averaged; 0 = none.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        self._model, self._share = model, share
        self._mean: dict[str, Tensor] = {}
        self.count = 0

    def __call__(self, progress: Progress) -> None:
        begun = progress.step > (1 - self._share) * progress.steps
        if not self._share or not begun or (progress.steps - progress.step) % EVERY:
            return
        self.count += 1
        with torch.no_grad():
            for name, parameter in trained_parameters(self._model).items():
                if name in self._mean:
                    self._mean[name].lerp_(parameter, 1 / self.count)
                else:
                    self._mean[name] = parameter.detach().clone()

    def applied(self) -> AbstractContextManager[None]:
        """The model with the mean as its weights; afterwards it has its own again, bit for bit."""
        return having(self._model, self._mean)

    def state_tensors(self) -> dict[str, Tensor]:
        """The mean, for a checkpoint; empty before the tail."""
        return {PREFIX + name: tensor for name, tensor in self._mean.items()}

    def load(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Take back :meth:`state_tensors` from those of a checkpoint, and ``count``."""
        self.count = count
        for name, parameter in trained_parameters(self._model).items() if count else ():
            self._mean[name] = tensors[PREFIX + name].to(parameter.device)


class Kept:
    """The weights at the best validation so far, which are to be written.

    A GPU takes hundreds of steps in the time that writing takes: there they are held, and written with the next
    checkpoint, before which a crash would go back to the last one anyway.

    Args:
        write: saves the weights that the model has.
        held: keep a copy until :meth:`flush`; else they are written at once.
    """

    def __init__(self, model: nn.Module, write: Callable[[], None], *, held: bool) -> None:
        self._model, self._write, self._held = model, write, held
        self._weights: dict[str, Tensor] = {}

    def __call__(self) -> None:
        if self._held:
            self._weights = _copied(self._model)
        else:
            self._write()

    def flush(self) -> None:
        """Write what is held."""
        if self._weights:
            with having(self._model, self._weights):
                self._write()
            self._weights = {}


@contextlib.contextmanager
def having(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with other weights; afterwards it has its own again, bit for bit."""
    own = _copied(model)
    _fill(model, weights)
    try:
        yield
    finally:
        _fill(model, own)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trained_parameters(model).items()}


@torch.no_grad()
def _fill(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, parameter in trained_parameters(model).items():
        parameter.copy_(weights[name])
