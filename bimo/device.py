"""Where the arithmetic runs: device, precision, threads, named random streams, and the memory of the process."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bimo.errors import ConfigError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
MOST_KEPT = 2**31 - 1  # bytes at the end of the heap, and the largest number there is
LOOKS, BETWEEN_LOOKS = 3, 0.01  # at what runs, and the seconds from one to the next: many programs only wake up briefly
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


def peak_memory() -> int:
    """The most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_memory() -> int:
    """The bytes that this process has in memory now; the most it has had where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return peak_memory()
    return pages * os.sysconf("SC_PAGE_SIZE")


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


def running_elsewhere() -> int | None:
    """Threads of other programs that have work for the processor, the fewest at three looks; none, if one sees none.

    None where the system does not tell.
    """
    fewest = None
    for look in range(LOOKS):
        if look:
            time.sleep(BETWEEN_LOOKS)
        try:
            running = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0])
        except (OSError, IndexError, ValueError):
            return None
        others = max(0, running - _running_here())
        fewest = others if fewest is None else min(fewest, others)
        if not fewest:
            break
    return fewest


def _running_here() -> int:
    """Threads of this process that run: on some processors one that waits for work spins for 16 ms before it sleeps."""
    running = 0
    for stat in Path("/proc/self/task").glob("*/stat"):
        with suppress(OSError):  # one that has ended
            running += stat.read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].startswith("R")
    return max(1, running)  # we do


@contextmanager
def leaving_cores(device: str, *tell: Callable[[str], None]) -> Iterator[Callable[[], float]]:
    """A function that takes as many threads as there are cores without other programs' work; all again at the end.

    Threads wait for one another by spinning: with more than there are cores to themselves, steps take several times as
    long, with one less twice as long. Those that sleep in place of that (``GOMP_SPINCOUNT``) stay as they are.

    Args:
        device: that computes; where it is another than "cpu", threads stay as they are, too.
        tell: what is given a sentence at every change.
    """
    import torch

    most = torch.get_num_threads()

    def fit() -> float:
        """The share of the threads that compute from now on."""
        others = None if device != "cpu" or "GOMP_SPINCOUNT" in os.environ else running_elsewhere()
        wanted = most if others is None else max(1, min(most, (os.cpu_count() or most) - others))
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)
            told = "others use the processor" if wanted < most else "the processor is free again"
            for one in tell:
                one(f"{told}: {wanted} of {most} threads now")
        return wanted / most

    try:
        yield fit
    finally:
        torch.set_num_threads(most)


def free_memory(device: torch.device) -> float:
    """Bytes of the device's memory that could be used; infinite where the system does not tell."""
    if device.type == "cuda":
        import torch

        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024.0 * float(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return math.inf


def keep_few_products() -> None:
    """Have oneDNN keep the products of 128 shapes and not of 1,024, each of which it compiles: about a megabyte.

    To be called before the first product. A training step needs 20, or 50 to 90 where there are no C kernels, as each
    factor of Muon's polynomials makes a product another one; with room for fewer, every one of them would be compiled
    anew at every step. Generation meets a new shape at every token, and is better off with all of them.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


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
    return _processor("model name") or platform.processor() or platform.machine()


@functools.cache
def processor_features() -> frozenset[str]:
    """What the processor can do, in the system's own words; empty where it does not tell."""
    return frozenset((_processor("flags") or _processor("Features")).split())


def bfloat16_instructions() -> list[str]:
    """Which of the processor's features are for bfloat16, sorted."""
    return sorted(feature for feature in processor_features() if feature.endswith("bf16"))


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it; processors without are up to 60 times slower than in float32."""
    return device.type != "cpu" or bool(bfloat16_instructions())


@functools.cache
def has_triton(device: torch.device) -> bool:
    """Whether Triton compiles for the device: torch for CUDA brings it along, though not on every system."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    import torch

    return torch.cuda.get_device_capability(device) >= (7, 0)


def computed_in(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The precision to compute in what is stored in ``stored``: float32 where the device is slow at that one."""
    import torch

    if stored == torch.bfloat16:
        return stored if multiplies_bfloat16(device) else torch.float32
    return torch.float32 if stored == torch.float16 and device.type == "cpu" else stored


@functools.cache
def _processor(key: str) -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return ""
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")
