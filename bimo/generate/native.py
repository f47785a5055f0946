"""The engine's fast backend on a CPU: the whole forward pass of a Llama, Mistral, Qwen2 or Qwen3 is one call of C.

``native.c`` is compiled by this machine's own C compiler in about two seconds, once, and kept in the cache folder.
Weights are packed once, in the order in which they are read. Residual stream, norms and softmax are float32 in every
precision; ``bfloat16`` rounds weights, the inputs of every product, keys and values; ``int8`` has weights and inputs of
8 bits with a scale for each 32 of them, keys and values in bfloat16; ``float32`` rounds nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import threading
from collections.abc import Iterator
from ctypes import POINTER, c_float, c_int64, c_void_p
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bimo import compiled
from bimo.errors import ModelError
from bimo.generate.backend import PAGE, Batch
from bimo.models import llama

SOURCE = Path(__file__).with_name("native.c")
# Sums keep their order, so nothing of -ffast-math: results would come to depend on how many rows are computed at once.
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-fopenmp")
DTYPES = {"float32": 0, "bfloat16": 1, "int8": 2}
BLOCK = 32  # channels that lie together, inputs that share a scale; both are padded to a multiple of it
ROWS = 192  # positions computed at once: their values stay in the cache between products


class _Matrix(ctypes.Structure):
    _fields_ = (("out", c_int64), ("in", c_int64), ("type", c_int64), ("blocks", c_void_p), ("bias", c_void_p))


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("attention_norm", "mlp_norm", "q_norm", "k_norm")),
        *((name, _Matrix) for name in ("qkv", "o", "gate_up", "down")),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *(
            (name, c_int64)
            for name in ("layers", "C", "H", "K", "D", "F", "V", "window", "rows", "kv_type", "kv_bytes")
        ),
        ("eps", c_float),
        *((name, c_void_p) for name in ("cosine", "sine", "norm")),
        ("layer", POINTER(_Layer)),
        ("embedding", _Matrix),
        ("head", _Matrix),
        ("pages", c_void_p),
        ("scratch", c_void_p),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("N", "R", "width")),
        *((name, c_void_p) for name in ("token", "position", "sequence", "pages", "wanted")),
    )


def require_dtype(dtype: str) -> None:
    """Check that the engine computes in this precision.

    Raises:
        ModelError: it does not.
    """
    if dtype not in DTYPES:
        raise ModelError("The native engine lacks this precision.", expected=", ".join(DTYPES), got=dtype)


def bytes_needed(config: llama.Config, dtype: str, pages: int) -> int:
    """Memory in bytes that a backend takes for packed weights, pages and its own work."""
    angles = 4 * config.head_dim * _context(config, pages)
    scratch = _library().scratch_bytes(ctypes.byref(_sizes(config, dtype)))
    return _weight_bytes(config, dtype) + pages * page_bytes(config, dtype) + angles + scratch


def page_bytes(config: llama.Config, dtype: str) -> int:
    """Memory in bytes of one page: keys and values of ``PAGE`` positions in all layers."""
    return config.num_hidden_layers * config.num_key_value_heads * 2 * _kv_bytes(config, dtype)


def is_plain(model: Any) -> TypeGuard[llama.Model]:
    """Whether it is a Llama with its own weights alone: adapters beside them are what the C backend would not see."""
    if not isinstance(model, llama.Model):
        return False
    with torch.device("meta"):
        return model.state_dict().keys() == llama.Model(model.config).state_dict().keys()


class NativeBackend:
    """A :class:`~bimo.generate.backend.Backend` that computes in C, one call at a time; other threads wait.

    Args:
        model: its weights are copied, so that it may be dropped; left as it is.
        pages: how many pages of keys and values there are.
        dtype: ``float32``, ``bfloat16`` or ``int8``, see the head of this file.
        threads: that compute together; None = as many as torch uses. Results do not depend on it.

    Raises:
        ModelError: a family or precision that is not supported, or no C compiler.
    """

    def __init__(self, model: llama.Model, *, pages: int, dtype: str = "bfloat16", threads: int | None = None) -> None:
        if not isinstance(model, llama.Model):
            expected = "a Llama, Mistral, Qwen2 or Qwen3"
            raise ModelError("The native engine cannot compute this family.", expected=expected, got=_family(model))
        require_dtype(dtype)
        assert pages > 0
        config = model.config
        self.vocab_size, self.context = config.vocab_size, _context(config, pages)
        self.page_bytes, self.pages = page_bytes(config, dtype), pages
        self.width, self.dtype = config.hidden_size, dtype
        self.threads = threads or torch.get_num_threads()
        self._library = _library()
        self._lock = threading.Lock()
        self._model, self._config = _sizes(config, dtype), config
        self._pages = huge_memory(pages * self.page_bytes)
        self._scratch = huge_memory(self._library.scratch_bytes(ctypes.byref(self._model)))
        self._model.pages, self._model.scratch = self._pages.data_ptr(), self._scratch.data_ptr()
        self._weights = huge_memory(_weight_bytes(config, dtype))
        self.refresh(model)

    def refresh(self, model: llama.Model) -> None:
        """Copy the weights again, which training has changed; in memory that is there, it takes half the time.

        Keys and values in the pages stay those of the weights before: what continues them continues another model.
        """
        assert model.config == self._config
        with self._lock, torch.no_grad():
            self._kept: list[Any] = []  # what C has addresses of
            self._room = self._weights
            self._load(model)

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """See :meth:`bimo.generate.backend.Backend.logits`."""
        return self._forward(batch, hidden=False)

    def hidden(self, batch: Batch) -> NDArray[np.float32]:
        """See :meth:`bimo.generate.backend.Backend.hidden`."""
        return self._forward(batch, hidden=True)

    def copy_page(self, source: int, target: int) -> None:
        """See :meth:`bimo.generate.backend.Backend.copy_page`."""
        pages = self._pages.view(self.pages, self.page_bytes)
        with self._lock:
            pages[target] = pages[source]

    def _forward(self, batch: Batch, *, hidden: bool) -> NDArray[np.float32]:
        check(batch, vocab_size=self.vocab_size, context=self.context, pages=self.pages)
        arrays = (batch.tokens, batch.positions, batch.sequence, batch.pages, batch.wanted)
        addresses = [array.ctypes.data for array in arrays]
        given = _Batch(len(batch.tokens), len(batch.wanted), batch.pages.shape[1], *addresses)
        result = np.empty((len(batch.wanted), self.width if hidden else self.vocab_size), np.float32)
        outputs = (result.ctypes.data, None) if hidden else (None, result.ctypes.data)
        with self._lock:
            self._library.forward(ctypes.byref(self._model), ctypes.byref(given), *outputs, self.threads)
        return result

    def _load(self, model: llama.Model) -> None:
        config, decoder = model.config, model.model
        layers: Any = decoder.layers
        self._layers = (_Layer * config.num_hidden_layers)()
        for to, layer in zip(self._layers, layers, strict=True):
            attention, mlp = layer.self_attn, layer.mlp
            to.attention_norm = self._vector(layer.input_layernorm.weight)
            to.mlp_norm = self._vector(layer.post_attention_layernorm.weight)
            if config.qk_norm:
                to.q_norm, to.k_norm = self._vector(attention.q_norm.weight), self._vector(attention.k_norm.weight)
            heads = (attention.q_proj, attention.k_proj, attention.v_proj)
            to.qkv = self._matrix(torch.cat([part.weight for part in heads]), _together([part.bias for part in heads]))
            to.o = self._matrix(attention.o_proj.weight, attention.o_proj.bias)
            halves = [_padded(part.weight, BLOCK) for part in (mlp.gate_proj, mlp.up_proj)]
            biases = [None if part.bias is None else _padded(part.bias, BLOCK) for part in (mlp.gate_proj, mlp.up_proj)]
            to.gate_up = self._matrix(torch.cat(halves), _together(biases))
            to.down = self._matrix(mlp.down_proj.weight, mlp.down_proj.bias)
        self._model.layer = self._layers
        self._model.norm = self._vector(decoder.norm.weight)
        self._model.embedding = self._model.head = self._matrix(decoder.embed_tokens.weight, None)
        if not config.tie_word_embeddings:
            self._model.head = self._matrix(model.output_weight, None)
        frequencies = llama.rotary_frequencies(config, torch.device("cpu"))
        angles = torch.arange(self.context)[:, None] * frequencies  # (S, D/2)
        self._model.cosine, self._model.sine = self._address(angles.cos()), self._address(angles.sin())

    def _matrix(self, weight: Tensor, bias: Tensor | None) -> _Matrix:
        size = _packed_bytes(self.dtype, *weight.shape)
        packed, self._room = self._room[:size], self._room[size:]
        pack(weight, self.dtype, packed)
        channels, inputs = _round_up(weight.shape[0], BLOCK), _round_up(weight.shape[1], BLOCK)
        bias_at = None if bias is None else self._vector(bias)
        return _Matrix(channels, inputs, DTYPES[self.dtype], self._address(packed), bias_at)

    def _vector(self, values: Tensor) -> int:
        return self._address(_padded(values.float(), BLOCK).contiguous())

    def _address(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()


def pack(weight: Tensor, dtype: str, to: Tensor) -> None:
    """Write a matrix as ``native_tile.h`` reads it.

    Args:
        weight: (M, K).
        to: uint8, as many as the packed matrix has bytes; channels and inputs are padded with zeros.
    """
    blocks = to.view(_round_up(weight.shape[0], BLOCK) // BLOCK, -1)
    for begin in range(0, len(blocks), 128):  # so that copies stay small beside the matrix
        part = _padded(weight[begin * BLOCK : (begin + 128) * BLOCK].float(), BLOCK)
        part = _padded(part.T, BLOCK).T.reshape(-1, BLOCK, _round_up(weight.shape[1], BLOCK))  # (blocks, 32, K)
        if dtype == "float32":
            packed = part.mT.contiguous()
        elif dtype == "bfloat16":
            packed = part.bfloat16().unflatten(2, (-1, 2)).transpose(1, 2).contiguous()
        else:
            packed = _pack_int8(part)
        blocks[begin : begin + 128] = packed.view(len(part), -1).view(torch.uint8)


def _pack_int8(part: Tensor) -> Tensor:
    """(blocks, 32, K) -> uint8 (blocks, K / 32, 32 * 32 + 32 * 2)."""
    groups = part.unflatten(2, (-1, BLOCK))  # (blocks, 32, K/32, 32)
    least = groups.abs().amax(dim=-1) / 127
    scale = least.bfloat16()  # rounded up to what is kept, so that no value is beyond 127
    scale = torch.where(scale.float() < least, torch.nextafter(scale, torch.full_like(scale, torch.inf)), scale)
    steps = scale.float().clamp(min=torch.finfo(torch.float32).tiny)[..., None]
    values = ((groups / steps).round() + 128).to(torch.uint8)
    values = values.unflatten(3, (-1, 4)).permute(0, 2, 3, 1, 4).flatten(2)  # (blocks, K/32, 32 * 32)
    scales = scale.unflatten(1, (2, 16)).permute(0, 3, 2, 1).flatten(2).contiguous()  # (blocks, K/32, 32)
    return torch.cat((values, scales.view(torch.uint8)), dim=2)


def huge_memory(size: int) -> Tensor:
    """Bytes that no one has touched yet, in huge pages where the system has them: weights stream 1.4 times as fast."""
    block = mmap.mmap(-1, size + 8192, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory has no huge pages
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel built without them
            block.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(block, dtype=torch.uint8)[:size]


def check(batch: Batch, *, vocab_size: int, context: int, pages: int) -> None:
    """Assert all that ``native.c`` relies on: types, order, and every number within its bounds."""
    arrays = (batch.tokens, batch.positions, batch.sequence, batch.wanted, batch.pages)
    assert all(array.dtype == np.int32 and array.flags.c_contiguous for array in arrays)
    count = len(batch.tokens)
    assert count and len(batch.positions) == len(batch.sequence) == count and batch.pages.ndim == 2
    assert batch.tokens.min() >= 0 and batch.tokens.max() < vocab_size
    assert batch.positions.min() >= 0 and batch.positions.max() < context
    step, further = np.diff(batch.sequence), np.diff(batch.positions)
    assert batch.sequence[0] >= 0 and batch.sequence[-1] < len(batch.pages) and step.min(initial=0) >= 0
    assert (further[step == 0] == 1).all()
    last = batch.positions[np.append(step != 0, True)] // PAGE  # of each sequence
    assert last.max() < batch.pages.shape[1]
    used = batch.pages[np.unique(batch.sequence)][np.arange(batch.pages.shape[1]) <= last[:, None]]
    assert used.min() >= 0 and used.max() < pages
    if len(batch.wanted):
        assert batch.wanted[0] >= 0 and batch.wanted[-1] < count and np.diff(batch.wanted).min(initial=1) > 0


@functools.cache
def _library() -> ctypes.CDLL:
    """The compiled source, from the cache or made now; torch is loaded, and with it the OpenMP threads they share."""
    library = compiled.library(SOURCE, FLAGS, optional=compiled.OPTIONAL, error=ModelError)
    library.scratch_bytes.restype = c_int64
    library.forward.argtypes = (c_void_p, c_void_p, c_void_p, c_void_p, c_int64)
    library.forward.restype = None
    return library


def _sizes(config: llama.Config, dtype: str) -> _Model:
    return _Model(
        layers=config.num_hidden_layers,
        C=config.hidden_size,
        H=config.num_attention_heads,
        K=config.num_key_value_heads,
        D=config.head_dim,
        F=config.intermediate_size,
        V=config.vocab_size,
        window=config.sliding_window or config.max_position_embeddings,
        rows=ROWS,
        kv_type=DTYPES["float32" if dtype == "float32" else "bfloat16"],
        kv_bytes=_kv_bytes(config, dtype),
        eps=config.rms_norm_eps,
    )


def _matrices(config: llama.Config) -> Iterator[tuple[int, int]]:
    """Shapes of the four matrices of a layer, of the embedding and, if it is another, of the output."""
    C, D, H, F = config.hidden_size, config.head_dim, config.num_attention_heads, config.intermediate_size
    yield (H + 2 * config.num_key_value_heads) * D, C
    yield C, H * D
    yield 2 * _round_up(F, BLOCK), C
    yield C, F
    yield config.vocab_size, C
    if not config.tie_word_embeddings:
        yield config.vocab_size, C


def _weight_bytes(config: llama.Config, dtype: str) -> int:
    sizes = [_packed_bytes(dtype, *shape) for shape in _matrices(config)]
    return config.num_hidden_layers * sum(sizes[:4]) + sum(sizes[4:])


def _packed_bytes(dtype: str, channels: int, inputs: int) -> int:
    group = {"float32": 4 * BLOCK, "bfloat16": 2 * BLOCK, "int8": BLOCK + 2}[dtype]  # bytes of so many inputs
    return _round_up(channels, BLOCK) * _round_up(inputs, BLOCK) // BLOCK * group


def _kv_bytes(config: llama.Config, dtype: str) -> int:
    return PAGE * _round_up(config.head_dim, BLOCK) * (4 if dtype == "float32" else 2)


def _context(config: llama.Config, pages: int) -> int:
    return min(config.max_position_embeddings, pages * PAGE)


def _together(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def _padded(values: Tensor, multiple: int) -> Tensor:
    """Zeros after the end of the first axis, up to a multiple."""
    rest = -len(values) % multiple
    return torch.cat((values, values.new_zeros(rest, *values.shape[1:]))) if rest else values


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _family(model: Any) -> str:
    return getattr(getattr(model, "config", None), "model_type", type(model).__name__)
