"""Where the time of a training step goes on a GPU: kernels by what they are for, and what of the step has none."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bimo.train.loop import Progress

BEGIN, STEPS = 12, 6  # the step after which it is looked at, and how many are
WAITS, NAMED = 6, 32  # of the longest waits how many are told, and letters of a kernel's name
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
        facts: milliseconds of a step: of the wall clock, of all kernels, of each kind, and of the longest waits between
            two kernels; empty before it is known.
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
        kernels = [event for event in self._profile.events() if event.device_type.name == "CUDA"]
        found = waits((one.name, one.time_range.start, one.time_range.end) for one in kernels)
        self.facts |= {place: span / 1000 / STEPS for place, span in itertools.islice(found.items(), WAITS)}
        self.facts = {name: round(value, 2) for name, value in self.facts.items()}

    def _milliseconds(self, event: Any) -> float:
        """Of a step, without what it calls; on a GPU only what runs there."""
        if self._device == "cuda":
            on_gpu = event.device_type.name == "CUDA"
            return event.self_device_time_total / 1000 / STEPS if on_gpu else 0.0
        return event.self_cpu_time_total / 1000 / STEPS


def waits(kernels: Iterable[tuple[str, float, float]]) -> dict[str, float]:
    """How long nothing ran between one kernel and another, by their names; the longest first.

    Args:
        kernels: (name, begin, end) of each, in any order; several may run at once.
    """
    found: defaultdict[str, float] = defaultdict(float)
    last, busy_until = "", 0.0
    for name, begin, end in sorted(kernels, key=lambda one: one[1]):
        if last and begin > busy_until:
            found[f"none between {last[:NAMED]} and {name[:NAMED]}"] += begin - busy_until
        if end > busy_until:
            last, busy_until = name, end
    return dict(sorted(found.items(), key=lambda one: -one[1]))
