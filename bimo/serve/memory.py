"""What models take of memory, known from the heads of their files: who is too large is refused before it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bimo.device import computed_in, resolve_device
from bimo.errors import ModelError, UsageError
from bimo.generate import native, torch_backend
from bimo.generate.backend import PAGE
from bimo.models import empty_model, llama
from bimo.models.weights import read_headers, stored_precision
from bimo.report.facts import size
from bimo.serve.engines.texts import precision_of

SHARE = 0.9  # of the free memory that all models together may take
KV_SHARE = 0.25  # of it that keys and values may take where nobody says how much
CONTEXTS = 16  # that the pages of one model hold, where memory allows
SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)\s*(?:([kMGT])(i?))?B?", re.IGNORECASE)


def read_size(text: str) -> int:
    """Bytes of a size such as ``800MB``, ``2GB`` or ``1.5GiB``.

    Raises:
        UsageError: it is none.
    """
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError("--kv-memory is wrong.", expected="a size such as 500MB or 2GB", got=repr(text))
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index((unit or " ").lower()))


@dataclass(frozen=True)
class Need:
    """What one model takes, in bytes.

    Attributes:
        reading: of its weights as they are read, given back before the next model is.
        weights: kept, in the order in which they are computed with, and what the work itself needs.
        pages: of keys and values, how many.
        page_bytes: of one.
        dtype: the precision to compute in.
    """

    folder: Path
    reading: int
    weights: int
    pages: int
    page_bytes: int
    dtype: str

    @property
    def kept(self) -> int:
        """For as long as it is served."""
        return self.weights + self.pages * self.page_bytes


def need_of(folder: Path, *, device: str, dtype: str, kv_bytes: float, stated: bool) -> Need:
    """What a model takes.

    Args:
        dtype: "auto", "int8" or a precision of torch.
        kv_bytes: for its keys and values at most.
        stated: they are meant to be used up; else several whole contexts are enough, and one is the least.

    Raises:
        ModelError: the folder holds no model that could be computed so.
        UsageError: ``kv_bytes`` were stated, and hold nothing.
    """
    where, model = resolve_device(device), empty_model(folder)
    config = model.config
    with_kernels = config if isinstance(config, llama.Config) and where.type == "cpu" else None
    if dtype in ("auto", "int8"):
        loaded = stored = stored_precision(folder)
        if dtype == "int8" or not with_kernels or stored != torch.bfloat16:  # which they multiply fast everywhere
            loaded = computed_in(stored, where)
    else:
        loaded = getattr(torch, dtype)
    precision = str(loaded).removeprefix("torch.") if dtype == "auto" else dtype
    read = loaded.itemsize * sum(parameter.numel() for parameter in model.parameters())

    def pages_of(page: int) -> int:
        return _pages(folder, page, config.max_position_embeddings, kv_bytes, stated)

    if with_kernels:
        native.require_dtype(precision)
        pages = pages_of(page := native.page_bytes(with_kernels, precision))
        weights = native.bytes_needed(with_kernels, precision, pages) - pages * page
        return Need(folder, read, weights, pages, page, precision)
    if dtype == "int8":
        expected, got = "a Llama, Mistral, Qwen2 or Qwen3 on a CPU", f"{config.model_type} on {where.type}"
        raise ModelError("int8 cannot be had here.", expected=expected, got=got, fix="Use --dtype bfloat16.")
    page = torch_backend.page_bytes(config, loaded)
    return Need(folder, 0, read, pages_of(page), page, precision)


def texts_need(folder: Path, *, device: str, dtype: str) -> Need:
    """What a model takes that only reads texts.

    Raises:
        BimoError: its weights are damaged.
    """
    precision = precision_of(folder, device=device, dtype=dtype)
    numbers = sum(math.prod(shape) for header in read_headers(folder).values() for shape, _ in header.values())
    return Need(folder, 0, numbers * precision.itemsize, 0, 0, str(precision).removeprefix("torch."))


def _pages(folder: Path, page: int, context: int, kv_bytes: float, stated: bool) -> int:
    """How many pages of ``page`` bytes a model gets."""
    whole, pages = -(-context // PAGE), int(min(kv_bytes, 1e15) // page)
    if not stated:
        return max(whole, min(CONTEXTS * whole, pages))
    if pages < 1:
        expected = f"at least {size(page)}, which {PAGE} positions of {folder.name} take"
        raise UsageError("--kv-memory is too small.", expected=expected, got=size(kv_bytes))
    return pages


def require_memory(needs: Sequence[Need], free: float) -> None:
    """Check before anything is read that all models fit together into ``free`` bytes of memory.

    Raises:
        ModelError: they do not; it names both numbers, and what each model takes.
    """
    kept = most = 0
    for need in needs:
        most = max(most, kept + need.reading + need.kept)
        kept += need.kept
    if most <= free * SHARE:
        return
    each = "; ".join(
        f"{need.folder.name}: {size(need.weights)} of weights, {size(need.pages * need.page_bytes)} of keys and values"
        for need in needs
    )
    raise ModelError(
        f"{'The model is' if len(needs) == 1 else 'The models are'} too large for this machine's memory.",
        expected=f"at most {size(free * SHARE)}, {SHARE:.0%} of what is free",
        got=f"{size(most)} while {'it is' if len(needs) == 1 else 'they are'} loaded ({each})",
        fix="Close other programs, serve a smaller model, or say less: --kv-memory 200MB, --dtype int8.",
    )
