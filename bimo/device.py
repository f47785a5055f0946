"""Where the arithmetic runs: device, precision, threads, named random streams, and the memory of the process."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bimo.errors import ConfigError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
MOST_KEPT = 2**31 - 1  # bytes at the end of the heap, and the largest number there is
USUAL_MAPS, LARGE = 65536, 4 << 20  # maps at most, glibc's own number; bytes of a block that is mapped


def resolve_device(name: str = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``mps`` into a device that is present here.

    Raises:
        ConfigError: the device asked for by name is not present.
    """
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, here in present.items() if here)
    if not present.get(name):
        found = ", ".join(kind for kind, here in present.items() if here)
        raise ConfigError(
            f"Device '{name}' is not available.",
            expected=f"one of auto, {found}",
            got=f"torch {torch.__version__} without it",
            fix="Use --device auto to take the best one present.",
        )
    return torch.device(name)


def seed_for(seed: int, *stream: str | int) -> int:
    """A 63-bit seed for the named stream, independent of every other name: ``seed_for(0, "dropout", step)``."""
    digest = hashlib.sha256(repr((seed, *stream)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def return_memory() -> None:
    """Give the system back what was freed; glibc keeps it otherwise, and it counts beside what comes next.

    A phase that has ended calls this; other C libraries have no such function, and nothing happens.
    """
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def reusing_memory() -> Iterator[None]:
    """Have glibc keep the memory of freed tensors for the next ones, as long as a model learns.

    Usually it gives every large one back, and the system clears each page of the next at its first touch: 5 to 15% of
    the processor time of a step. Afterwards large blocks are mapped again.
    """
    if not _has_glibc():
        yield
        return
    adjust = ctypes.CDLL(None).mallopt
    adjust(M_MMAP_MAX, 0)
    adjust(M_TRIM_THRESHOLD, MOST_KEPT)
    try:
        yield
    finally:
        adjust(M_MMAP_MAX, USUAL_MAPS)
        adjust(M_MMAP_THRESHOLD, LARGE)
        adjust(M_TRIM_THRESHOLD, 2 * LARGE)
        return_memory()


def keep_few_products() -> None:
    """Have oneDNN keep the products of 48 shapes and not of 1,024, each of which it compiles: about a megabyte.

    To be called before the first product. A training step needs some 20; generation meets a new shape at every token,
    and is better off with all of them.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "48")


@functools.cache
def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"  # reads the interpreter's file


def machine_facts() -> dict[str, str | int]:
    """What a reader of the lineage needs to know of this machine; no host or user name."""
    import torch

    facts: dict[str, str | int] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def processor_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
