"""What this machine can do: matmul peaks, memory bandwidth, and how near to the peak a training step of each width is.

Measured in a few seconds and kept in the cache folder, until processor, cores, threads or versions change.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from bimo import __version__, files
from bimo.batches.loader import Batch
from bimo.device import machine_facts, multiplies_bfloat16, processor_features, return_memory, reusing_memory
from bimo.errors import BimoError
from bimo.files import cache_folder
from bimo.models import kernels, llama
from bimo.optim import Optimizer, OptimizerConfig
from bimo.train.objective import next_token_loss

EDITION = 2  # of the training step that is timed, raised when it is another one, so that old speeds are forgotten
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
REPEATS = 5
EFFICIENCY = 0.45  # share of the matmul peak that training reaches, before it is measured
WIDTHS = {"cpu": (64, 128, 384), "cuda": (256, 768, 1536), "mps": (128, 384)}
TRIAL_LAYERS, TRIAL_VOCABULARY, TRIAL_CONTEXT = 2, 2048, 256
COPIED_BYTES = 1 << 26
GPU_ROWS = 64
PATIENCE = 6.0  # seconds, after which no further width is begun
BUSY = 0.7  # share of the time in which this process computes, below which other programs took it away
# Rows, inner size and columns of the products that are timed: a large square, and a small model's layer on as many
# tokens as it gets there. On a GPU a smaller one takes as long as its launch, whatever the precision.
SIZES = {
    "cpu": ((1024, 1024, 1024), (2048, 256, 768)),
    "other": ((4096, 4096, 4096), (32768, 512, 1536)),
}
TRIALS, LONGEST_TRIAL = 2, 3.0  # steps of each width, and the seconds of one that are too many


@dataclass(frozen=True)
class Machine:
    """Measured speeds of the device.

    Attributes:
        peak: matmul FLOP/s by precision, large square matrices.
        narrow: matmul FLOP/s by precision, the shape of a small model's layers.
        bandwidth: bytes of memory read and written in a second; 0 where it was not measured.
        efficiency: share of ``peak`` that an uncompiled training step reaches, by width.
        cached: whether these were measured by an earlier process.
    """

    peak: Mapping[str, float]
    narrow: Mapping[str, float]
    bandwidth: float = 0.0
    efficiency: Mapping[int, float] = field(default_factory=dict)
    cached: bool = False

    def best_dtype(self) -> Literal["bfloat16", "float32"]:
        """bfloat16 where it is clearly faster at small widths too, otherwise float32."""
        return "bfloat16" if self.narrow["bfloat16"] > 1.2 * self.narrow["float32"] else "float32"

    def speed(self, width: int, dtype: str) -> float:
        """FLOP/s of a training step of a model of ``width``: interpolated between the widths that were measured."""
        known = sorted(self.efficiency.items())
        if not known:
            return EFFICIENCY * self.peak[dtype]
        (lower, share) = next((one for one in reversed(known) if one[0] <= width), known[0])
        (upper, further) = next((one for one in known if one[0] >= width), known[-1])
        if lower != upper:
            way = (math.log(width) - math.log(lower)) / (math.log(upper) - math.log(lower))
            share += min(1.0, max(0.0, way)) * (further - share)
        return share * self.peak[dtype]


def probe(device: torch.device, *, fresh: bool = False, width: int | None = None) -> Machine:
    """Measure the device for a few seconds, or remember what an earlier process measured.

    Args:
        fresh: measure in any case.
        width: of the only model that is asked about, which leaves out steps of others; None = all.
    """
    path, identity = _kept(device)
    if not fresh and path.exists():
        try:
            values = files.read_json(path)
            if values["identity"] == identity and values["width"] in (None, width):
                return _from_values(values["machine"])
        except (BimoError, KeyError, TypeError, ValueError, AttributeError):
            pass  # written by another version, or damaged: it is only a cache
    began, computed = time.perf_counter(), time.process_time()
    with reusing_memory():
        machine = measure(device, width)
    taken, computed = time.perf_counter() - began, time.process_time() - computed
    if device.type == "cpu" and computed < BUSY * taken:
        return machine  # others had the processor: true for now, but not worth remembering
    try:
        files.write_json(path, {"identity": identity, "width": width, "machine": dataclasses.asdict(machine)})
    except OSError:
        pass  # a cache folder that cannot be written to costs only time
    return machine


def forget(device: torch.device) -> None:
    """Have the next :func:`probe` measure again."""
    _kept(device)[0].unlink(missing_ok=True)


def measure(device: torch.device, only: int | None = None) -> Machine:
    """Measure everything, or of training steps what a model of the width ``only`` needs."""
    peak, narrow = _matmul_speeds(device)
    machine = Machine({name: max(peak[name], narrow[name]) for name in PRECISIONS}, narrow)
    dtype = machine.best_dtype()
    efficiency: dict[int, float] = {}
    began = time.perf_counter()
    for width in _around(only, WIDTHS[device.type]):
        if time.perf_counter() - began > PATIENCE:
            break
        if efficiency and _trial_flops(width, device) > LONGEST_TRIAL * min(efficiency.values()) * machine.peak[dtype]:
            break  # a slow or busy machine will not train such widths in any short time
        efficiency[width] = _step_speed(width, dtype, device) / machine.peak[dtype]
        return_memory()
    return dataclasses.replace(machine, bandwidth=_bandwidth(device), efficiency=efficiency)


def _around(wanted: int | None, widths: tuple[int, ...]) -> Iterable[int]:
    """Those that ``wanted`` lies between, or the nearest; all if it is not given."""
    if wanted is None:
        return widths
    below, above = ([one for one in widths if one <= wanted], [one for one in widths if one >= wanted])
    return sorted({*below[-1:], *above[:1]})


def _kept(device: torch.device) -> tuple[Path, dict[str, Any]]:
    """Where the measurements are kept, and all that they depend on."""
    versions = {"torch": torch.__version__, "bimo": __version__, "step": EDITION}
    identity = {**machine_facts(), "device": device.type, **versions}
    identity["features"] = " ".join(sorted(processor_features()))  # processors of one name differ in them
    identity["affinity"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "machine" / f"{name}.json", identity


def _from_values(values: Mapping[str, Any]) -> Machine:
    peak, narrow = ({name: float(values[key][name]) for name in PRECISIONS} for key in ("peak", "narrow"))
    efficiency = {int(width): float(share) for width, share in values["efficiency"].items()}
    measured = [*peak.values(), *narrow.values(), *efficiency.values()]
    if not all(math.isfinite(value) and value > 0 for value in measured):
        raise ValueError("speeds are above 0")
    return Machine(peak, narrow, float(values["bandwidth"]), efficiency, cached=True)


def _matmul_speeds(device: torch.device) -> list[dict[str, float]]:
    """FLOP/s by precision, for each of ``SIZES``; in turns, so that a bad moment does not meet one precision alone."""
    sizes = SIZES["cpu" if device.type == "cpu" else "other"]
    best = [dict.fromkeys(PRECISIONS, math.inf) for _ in sizes]
    for turn in range(REPEATS):
        for (rows, inner, columns), seconds in zip(sizes, best, strict=True):
            for name, dtype in PRECISIONS.items():
                if turn and dtype is torch.bfloat16 and not multiplies_bfloat16(device):
                    continue  # known to be slow
                left = torch.ones(rows, inner, dtype=dtype, device=device)
                right = torch.ones(columns, inner, dtype=dtype, device=device)
                seconds[name] = min(seconds[name], seconds_of(functools.partial(torch.mm, left, right.T), device))
    return [
        {name: 2 * math.prod(size) / taken for name, taken in seconds.items()}
        for size, seconds in zip(sizes, best, strict=True)
    ]


def _bandwidth(device: torch.device) -> float:
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / min(seconds_of(lambda: target.copy_(source), device) for _ in range(2))


def _step_speed(width: int, dtype: str, device: torch.device) -> float:
    """FLOP/s of a whole training step of a small model with the default optimizer."""
    heads = max(1, width // 64)
    config = llama.Config(
        vocab_size=TRIAL_VOCABULARY,
        hidden_size=width,
        intermediate_size=inner_width(width),
        num_hidden_layers=TRIAL_LAYERS,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=width // heads,
        max_position_embeddings=TRIAL_CONTEXT,
        model_type="qwen3",
        qk_norm=True,
        tie_word_embeddings=False,
    )
    model = llama.Model(config)
    generator = torch.Generator().manual_seed(0)
    model.init_weights(generator)
    model.to(device).train()
    model.compute_dtype, model.fused = PRECISIONS[dtype], kernels.usable(device)
    optimizer = Optimizer(model, OptimizerConfig())
    rows = default_batch(width, device.type)
    batch = _random_batch(rows, generator).to(device)

    def step() -> None:
        loss, _ = next_token_loss(model, batch)
        loss.backward()
        optimizer.step(0.0)

    step()  # the first is slower
    return _trial_flops(width, device) / min(seconds_of(step, device, repeats=1) for _ in range(TRIALS))


def _trial_flops(width: int, device: torch.device) -> float:
    """FLOPs of one step of the trial."""
    tokens = default_batch(width, device.type) * TRIAL_CONTEXT
    return step_flops(width, TRIAL_LAYERS, TRIAL_VOCABULARY, TRIAL_CONTEXT) * tokens


def _random_batch(rows: int, generator: torch.Generator) -> Batch:
    ids = torch.randint(TRIAL_VOCABULARY, (rows, TRIAL_CONTEXT + 1), generator=generator)
    positions = torch.arange(TRIAL_CONTEXT).expand(rows, -1).contiguous()
    return Batch(
        input_ids=ids[:, :-1].contiguous(),
        labels=ids[:, 1:].contiguous(),
        loss_mask=torch.ones(rows, TRIAL_CONTEXT, dtype=torch.bool),
        position_ids=positions,
        segment_ids=torch.zeros(rows, TRIAL_CONTEXT, dtype=torch.int32),
        positions=torch.zeros(rows, dtype=torch.int64),
    )


def inner_width(width: int) -> int:
    """The size inside a gated MLP: 8/3 of the width, in whole 64s."""
    return -(-width * 8 // 3 // 64) * 64


def default_batch(width: int, device: str = "cpu") -> int:
    """Rows of a step: small batches make more steps of the same text, large matrices fill the machine anyway.

    Nothing small fills a GPU: whatever is launched takes its time, and the rows beside it are free.
    """
    return GPU_ROWS if device == "cuda" else 8 if width < 512 else 32


def active_parameters(width: int, layers: int, vocabulary: int) -> int:
    """Roughly the parameters that take part in every token's arithmetic: the layers and the output matrix."""
    return 12 * layers * width**2 + vocabulary * width


def step_flops(width: int, layers: int, vocabulary: int, context: int) -> float:
    """FLOPs of one token in training: forward and twice that backward, the masked half of attention included."""
    return 6.0 * active_parameters(width, layers, vocabulary) + 12.0 * layers * width * context


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
