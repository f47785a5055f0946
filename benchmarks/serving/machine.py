"""What the machine can do at most, so that speeds can be given as shares of it; ``main`` of a process of its own."""

from __future__ import annotations

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bimo import compiled
from bimo.generate.native import FLAGS, huge_memory

SIZE = 2_048  # of the square matrices
TIMES = 7


def limits(threads: int) -> dict[str, float]:
    """Bytes a second read from memory, and FLOP a second of bfloat16 products, by processor time."""
    torch.set_num_threads(threads)
    library = compiled.library(Path(__file__).with_name("bandwidth.c"), FLAGS, optional=compiled.OPTIONAL)
    memory = huge_memory(1 << 29).fill_(1)
    a, b = (torch.randn(SIZE, SIZE).bfloat16() for _ in range(2))
    address, size = ctypes.c_void_p(memory.data_ptr()), ctypes.c_int64(memory.nbytes)
    reading = _seconds(lambda: library.read_all(address, size, ctypes.c_int64(threads)))
    product = _seconds(lambda: torch.nn.functional.linear(a, b))
    return {"bandwidth": memory.nbytes / reading * threads, "peak": 2 * SIZE**3 / product * threads}


def _seconds(work: Callable[[], Any]) -> float:
    """The median of the processor time of a call."""
    times = []
    for _ in range(TIMES + 1):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return statistics.median(times[1:])


if __name__ == "__main__":
    print(json.dumps(limits(int(sys.argv[1]))))
