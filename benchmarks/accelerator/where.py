"""Where the time of a training step goes on a GPU: kernels by what they are for, and what of the step has none."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bimo.train.loop import Progress

BEGIN, STEPS = 12, 6  # the step after which it is looked at, and how many are
KINDS = (  # what stands in the names of kernels; the first that fits
    ("attention", ("flash", "scaled_dot_product")),
    ("the loss", ("_cross_entropy",)),
    ("heads: norm and rotation", ("_heads",)),
    ("matrix products", ("nvjet", "gemm", "cutlass", "splitK", "aten::mm", "aten::addmm", "bmm")),
    ("other fused kernels", ("triton_",)),
    ("all else, of the optimizer too", ("",)),
)


class Where:
    """A hook of the training loop that profiles some steps.

    Attributes:
        facts: milliseconds of a step: of the wall clock, of all kernels, and of each kind; empty before it is known.
    """

    def __init__(self, device: str) -> None:
        self.facts: dict[str, float] = {}
        self._device, self._began = device, 0.0
        on_gpu = [ProfilerActivity.CUDA] if device == "cuda" else []
        self._profile: Any = profile(activities=[ProfilerActivity.CPU, *on_gpu], acc_events=True)

    def __call__(self, progress: Progress) -> None:
        """Begin or end."""
        if progress.step not in (BEGIN, BEGIN + STEPS):
            return
        if self._device == "cuda":
            torch.cuda.synchronize()
        if progress.step == BEGIN:
            self._profile.start()
            self._began = time.perf_counter()
            return
        self.facts["wall clock"] = round((time.perf_counter() - self._began) / STEPS * 1000, 2)
        self._profile.stop()
        self.facts |= {"kernels": 0.0, **dict.fromkeys((kind for kind, _ in KINDS), 0.0)}
        for event in self._profile.key_averages():
            own = self._milliseconds(event)
            self.facts[next(kind for kind, names in KINDS if any(name in event.key for name in names))] += own
            self.facts["kernels"] += own
        self.facts = {name: round(value, 2) for name, value in self.facts.items()}

    def _milliseconds(self, event: Any) -> float:
        """Of a step, without what it calls; on a GPU only what runs there."""
        if self._device == "cuda":
            on_gpu = event.device_type.name == "CUDA"
            return event.self_device_time_total / 1000 / STEPS if on_gpu else 0.0
        return event.self_cpu_time_total / 1000 / STEPS
