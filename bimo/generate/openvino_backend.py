"""OpenVINO as the engine's backend on an x86 CPU: the attention over pages that OpenVINO GenAI computes with.

A row's last bits can depend on what is computed beside it, as with every library that picks its kernels by shape. All
else is the engine's own: sampling, seeds, grammars, log-probabilities, the cache of equal beginnings.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bimo.errors import ModelError
from bimo.generate.backend import PAGE, Batch
from bimo.generate.openvino_graph import paged_graph, require_openvino
from bimo.models import llama

DTYPES = ("float32", "bfloat16", "int8")


class OpenVinoBackend:
    """A :class:`~bimo.generate.backend.Backend`, but for equality to the last bit; one call at a time, others wait.

    Args:
        model: its weights are copied, so that it may be dropped; left as it is.
        pages: how many pages of keys and values there are.
        dtype: ``float32``, ``bfloat16`` or ``int8``: matrices of 8 bits, the rest in ``bfloat16`` where the CPU has it.

    Raises:
        ModelError: a precision that is not supported, here or by this CPU.
        UsageError: OpenVINO is not installed.
    """

    def __init__(self, model: llama.Model, *, pages: int, dtype: str) -> None:
        openvino = require_openvino()
        if dtype not in DTYPES:
            raise ModelError("The OpenVINO engine lacks this precision.", expected=", ".join(DTYPES), got=dtype)
        if dtype == "bfloat16" and not computes_bfloat16():
            raise ModelError("This CPU cannot compute in bfloat16.", fix="Use --dtype float32 or int8.")
        kind = getattr(openvino.Type, _kind(dtype))
        self.vocab_size, self.context = model.config.vocab_size, model.config.max_position_embeddings
        self.page_bytes, self.pages = page_bytes(model.config, dtype), pages
        options = {
            "INFERENCE_PRECISION_HINT": kind,
            "KV_CACHE_PRECISION": kind,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        compiled = openvino.Core().compile_model(paged_graph(model, int8=dtype == "int8"), "CPU", options)
        self._request, self._lock = compiled.create_infer_request(), threading.Lock()
        self._memory: list[Any] = []  # keys or values of a layer, by page; only ever copied, as numpy has no bfloat16
        for port in compiled.inputs:
            if "_cache." in (name := port.get_any_name()):
                shape = [pages, *(size.get_length() for size in list(port.partial_shape)[1:])]
                assert shape[2] == PAGE and port.element_type == kind, f"{name}: {port}"
                tensor = openvino.Tensor(port.element_type, openvino.Shape(shape))
                self._request.set_tensor(name, tensor)
                self._memory.append(tensor.data)

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """See :meth:`bimo.generate.backend.Backend.logits`."""
        return self._compute(batch, "logits")

    def hidden(self, batch: Batch) -> NDArray[np.float32]:
        """See :meth:`bimo.generate.backend.Backend.hidden`."""
        return self._compute(batch, "hidden")

    def copy_page(self, source: int, target: int) -> None:
        """See :meth:`bimo.generate.backend.Backend.copy_page`."""
        with self._lock:
            for memory in self._memory:
                memory[target] = memory[source]

    def _compute(self, batch: Batch, output: str) -> NDArray[np.float32]:
        rows, firsts, counts = np.unique(batch.sequence, return_index=True, return_counts=True)
        past = batch.positions[firsts]  # (Q,)
        used = [row[: -(-length // PAGE)] for row, length in zip(batch.pages[rows], past + counts, strict=True)]
        none = np.zeros(0, np.int32)
        inputs = {
            "input_ids": batch.tokens.astype(np.int64),
            "position_ids": batch.positions.astype(np.int64),
            "past_lens": past,
            "subsequence_begins": _begins(counts),
            "block_indices": np.concatenate(used),
            "block_indices_begins": _begins(list(map(len, used))),
            "max_context_len": np.array((past + counts).max(), np.int32),
            "logit_rows": batch.wanted if output == "logits" else none,
            "hidden_rows": batch.wanted if output == "hidden" else none,
        }
        with self._lock:
            found: NDArray[np.float32] = self._request.infer(inputs)[output]
        return found.reshape(len(batch.wanted), -1)


def _begins(counts: Any) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def computes_bfloat16() -> bool:
    """Whether this machine's CPU does."""
    return "BF16" in require_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _kind(dtype: str) -> str:
    """In which OpenVINO keeps all that is not a matrix."""
    return "bf16" if dtype != "float32" and computes_bfloat16() else "f32"


def page_bytes(config: llama.Config, dtype: str) -> int:
    """Memory in bytes of one page: keys and values of ``PAGE`` positions in all layers."""
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * PAGE
    return numbers * (2 if _kind(dtype) == "bf16" else 4)
