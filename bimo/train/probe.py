"""What this machine can do: its matmul peak in each precision, and how long one step of a model takes on it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
REPEATS = 5


@dataclass(frozen=True)
class Machine:
    """Measured matmul speeds of the device, FLOP/s.

    Attributes:
        peak: by precision, large square matrices.
        narrow: by precision, the shape of a small model's layers.
    """

    peak: dict[str, float]
    narrow: dict[str, float]

    def best_dtype(self) -> Literal["bfloat16", "float32"]:
        """bfloat16 where it is clearly faster at small widths too, otherwise float32."""
        return "bfloat16" if self.narrow["bfloat16"] > 1.2 * self.narrow["float32"] else "float32"


def probe(device: torch.device) -> Machine:
    """Measure the device for about a second."""
    sizes = (1024, 1024, 1024) if device.type == "cpu" else (4096, 4096, 4096)
    peak = {name: _matmul_speed(*sizes, dtype, device) for name, dtype in PRECISIONS.items()}
    narrow = {name: _matmul_speed(2048, 256, 768, dtype, device) for name, dtype in PRECISIONS.items()}
    return Machine({name: max(peak[name], narrow[name]) for name in PRECISIONS}, narrow)


def _matmul_speed(rows: int, inner: int, columns: int, dtype: torch.dtype, device: torch.device) -> float:
    left = torch.ones(rows, inner, dtype=dtype, device=device)
    right = torch.ones(columns, inner, dtype=dtype, device=device)
    best = min(seconds_of(lambda: left @ right.T, device) for _ in range(REPEATS))
    return 2 * rows * inner * columns / best


def seconds_of(work: Callable[[], object], device: torch.device, *, repeats: int = 4, at_least: float = 0.0) -> float:
    """Median wall-clock seconds of one call of ``work``; the first third of the calls warm up and do not count.

    Args:
        repeats: calls, or more until they have taken ``at_least`` seconds together.
    """
    times: list[float] = []
    while len(times) < repeats or sum(times) < at_least:
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[len(times) // 3 :])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
