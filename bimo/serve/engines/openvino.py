"""bimo's engine over OpenVINO, on an x86 CPU: all that the native engine can do, computed by another's kernels."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from bimo.device import free_memory
from bimo.errors import ModelError, UsageError
from bimo.generate.language_model import load
from bimo.generate.openvino_backend import OpenVinoBackend, computes_bfloat16
from bimo.generate.openvino_graph import require_openvino
from bimo.generate.watermark import Watermark
from bimo.models import empty_model, llama
from bimo.models.weights import stored_precision
from bimo.serve.engines import Feature, Opened
from bimo.serve.engines.native import engine_over
from bimo.serve.memory import KV_SHARE, need_of, require_memory

COPIES, FLOAT32_COPIES = 4, 6  # of weights of 16 bits, in memory while the graph is written and compiled


def open_engine(folder: Path, *, device: str, dtype: str, watermark: Watermark | None) -> Opened:
    """See :func:`bimo.serve.engines.open_engine`."""
    require_openvino()
    if device not in ("auto", "cpu"):
        raise UsageError("The OpenVINO engine computes on the CPU.", got=f"--device {device}", fix="Leave it out.")
    config = empty_model(folder).config
    if not isinstance(config, llama.Config):
        expected, fix = "a Llama, Mistral, Qwen2 or Qwen3", "Use the native engine: leave --engine out."
        got = str(config.model_type)
        raise ModelError("The OpenVINO engine cannot compute this family.", expected=expected, got=got, fix=fix)
    dtype = _natural(folder) if dtype == "auto" else dtype
    free = free_memory(torch.device("cpu"))
    need = need_of(folder, device="cpu", dtype=dtype, kv_bytes=free * KV_SHARE, stated=False)
    copies = FLOAT32_COPIES if dtype == "float32" else COPIES
    require_memory([dataclasses.replace(need, reading=(copies - 1) * need.reading)], free)
    model = load(folder, device="cpu")
    assert isinstance(model.model, llama.Model)
    backend = OpenVinoBackend(model.model, pages=need.pages, dtype=dtype)
    lacks: frozenset[Feature] = frozenset({"batch_invariance"})
    engine = engine_over(backend, model, name="openvino", dtype=dtype, watermark=watermark, lacks=lacks)
    return Opened(engine, model.tokenizer, model.conventions)


def _natural(folder: Path) -> str:
    """The precision of the weights, or float32 where they or the CPU have no other."""
    if (stored := stored_precision(folder)) != torch.bfloat16:
        return "float32"
    if computes_bfloat16():
        return str(stored).removeprefix("torch.")
    print("This CPU cannot compute in bfloat16, so in float32; --dtype int8 is faster.", file=sys.stderr)
    return "float32"
