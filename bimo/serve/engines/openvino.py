"""bimo's engine over OpenVINO, on an x86 CPU: all that the native engine can do, computed by another's kernels."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from bimo.errors import ModelError, UsageError
from bimo.generate.language_model import load
from bimo.generate.openvino_backend import OpenVinoBackend, computes_bfloat16, page_bytes
from bimo.generate.openvino_graph import require_openvino
from bimo.generate.watermark import Watermark
from bimo.models import llama
from bimo.serve.engines import Facts, Opened
from bimo.serve.engines.memory import require_memory
from bimo.serve.engines.native import engine_over, fingerprint, pages_within
from bimo.train.probe import free_memory

COPIES, FLOAT32_COPIES = 4, 6  # of weights of 16 bits, in memory while the graph is written and compiled


def open_engine(folder: Path, *, device: str, dtype: str, watermark: Watermark | None) -> Opened:
    """See :func:`bimo.serve.engines.open_engine`."""
    openvino = require_openvino()
    if device not in ("auto", "cpu"):
        raise UsageError("The OpenVINO engine computes on the CPU.", got=f"--device {device}", fix="Leave it out.")
    cpu = torch.device("cpu")
    require_memory(folder, free_memory(cpu), FLOAT32_COPIES if dtype == "float32" else COPIES)
    model = load(folder, device="cpu")
    network = model.model
    if not isinstance(network, llama.Model):
        expected, got = "a Llama, Mistral, Qwen2 or Qwen3", str(network.config.model_type)
        fix = "Use the native engine: leave --engine out."
        raise ModelError("The OpenVINO engine cannot compute this family.", expected=expected, got=got, fix=fix)
    precision = _natural(network) if dtype == "auto" else dtype
    config = network.config
    pages = pages_within(config.max_position_embeddings, page_bytes(config, precision), free_memory(cpu))
    backend = OpenVinoBackend(network, pages=pages, dtype=precision)
    facts = Facts(
        engine="openvino",
        context=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        width=config.hidden_size,
        precision=precision,
        fingerprint=fingerprint(folder, "openvino", openvino.__version__, precision),
        lacks=frozenset({"batch_invariance"}),
    )
    engine = engine_over(backend, facts, model.tokenizer, model.conventions.turn_ends, watermark)
    return Opened(engine, model.tokenizer, model.conventions)


def _natural(model: llama.Model) -> str:
    """The precision of the weights, or float32 where the CPU has no other."""
    precision = str(model.output_weight.dtype).removeprefix("torch.")
    if precision == "float32" or computes_bfloat16():
        return precision
    print("This CPU cannot compute in bfloat16, so in float32; --dtype int8 is faster.", file=sys.stderr)
    return "float32"
