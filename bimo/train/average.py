"""The mean of the weights of the last steps, which can be better than any of them (Izmailov et al. 2018, §3).

Averaging the tail of a training, with weight 1 for each sample, is Polyak and Ruppert's averaging begun late.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

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

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the mean as its weights; afterwards it has its own again, bit for bit."""
        with torch.no_grad():
            own = {name: parameter.detach().clone() for name, parameter in trained_parameters(self._model).items()}
            self._fill(self._mean)
        try:
            yield
        finally:
            with torch.no_grad():
                self._fill(own)

    def _fill(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in trained_parameters(self._model).items():
            parameter.copy_(tensors[name])

    def state_tensors(self) -> dict[str, Tensor]:
        """The mean, for a checkpoint; empty before the tail."""
        return {PREFIX + name: tensor for name, tensor in self._mean.items()}

    def load(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Take back :meth:`state_tensors` from those of a checkpoint, and ``count``."""
        self.count = count
        for name, parameter in trained_parameters(self._model).items() if count else ():
            self._mean[name] = tensors[PREFIX + name].to(parameter.device)
