"""GGUF files for tests, written as the format says and as llama.cpp's converter arranges them; also wrong ones."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bimo.models import gpt2, llama
from bimo.models.gguf_layout import GPT2_NAMES, LLAMA_NAMES
from bimo.tokenizer.tokenizer import Tokenizer

TYPES = {"u1": 0, "i1": 1, "<u2": 2, "<i2": 3, "<u4": 4, "<i4": 5, "<f4": 6, "<u8": 10, "<i8": 11, "<f8": 12}
F32 = 0


class Stored(NamedTuple):
    """A tensor as the file lists it; the shape is ggml's, neighbours in memory first."""

    shape: tuple[int, ...]
    kind: int
    data: bytes
    offset: int | None = None  # None: after the one before


def number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little")


def text(value: str | bytes) -> bytes:
    content = value.encode("utf-8") if isinstance(value, str) else value
    return number(len(content)) + content


def value_bytes(value: Any) -> bytes:
    """The type and the bytes of a value; whole numbers are u32, others f32; ``bytes`` are taken as they are."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return number(7, 4) + bytes([value])
    if isinstance(value, int):
        return number(4, 4) + number(value, 4)
    if isinstance(value, float):
        return number(6, 4) + struct.pack("<f", value)
    if isinstance(value, str):
        return number(8, 4) + text(value)
    if isinstance(value, list):
        return number(9, 4) + number(8, 4) + number(len(value)) + b"".join(map(text, value))
    kind = 7 if value.dtype == np.bool_ else TYPES[value.dtype.str.replace("|", "")]
    return number(9, 4) + number(kind, 4) + number(len(value)) + value.tobytes()


def array(kind: int, count: int, content: bytes = b"") -> bytes:
    """An array of metadata; its count may lie."""
    return number(9, 4) + number(kind, 4) + number(count) + content


def gguf_bytes(
    metadata: dict[str, Any] | list[tuple[str, Any]],
    tensors: dict[str, Stored] | list[tuple[str, Stored]],
    *,
    version: int = 3,
    alignment: int = 32,
    n_tensors: int | None = None,
    n_pairs: int | None = None,
    more: bytes = b"",
) -> bytes:
    """A whole file; the counts may lie, and there may be more after the last pair of metadata."""
    pairs = list(metadata.items() if isinstance(metadata, dict) else metadata)
    entries = list(tensors.items() if isinstance(tensors, dict) else tensors)
    counts = (len(entries) if n_tensors is None else n_tensors, len(pairs) if n_pairs is None else n_pairs)
    head = b"GGUF" + number(version, 4) + b"".join(map(number, counts))
    head += b"".join(text(key) + value_bytes(value) for key, value in pairs) + more
    data = b""
    for name, stored in entries:
        offset = len(data) if stored.offset is None else stored.offset
        head += text(name) + number(len(stored.shape), 4) + b"".join(map(number, stored.shape))
        head += number(stored.kind, 4) + number(offset)
        data += stored.data + b"\0" * (-len(stored.data) % alignment)
    return head + b"\0" * (-len(head) % alignment) + data


def floats(numbers: Any) -> Stored:
    values = np.ascontiguousarray(numbers, dtype="<f4")
    return Stored(values.shape[::-1], F32, values.tobytes())


def interleaved(rows: Any, heads: int) -> Any:
    """What the converter does to the query and key rows of a Llama."""
    return rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def stored_tensors(model: llama.Model | gpt2.Model) -> dict[str, Stored]:
    """The weights of a model as the converter writes them."""
    config, result = model.config, {}
    for name, tensor in model.state_dict().items():
        module, _, part = name.rpartition(".")
        layer = next((word for word in module.split(".") if word.isdigit()), "")
        names = GPT2_NAMES if config.model_type == "gpt2" else LLAMA_NAMES
        stored = names[module.replace(f".{layer}.", ".N.") if layer else module].replace("N", layer)
        numbers = tensor.numpy()
        if config.model_type == "gpt2" and layer and ".ln_" not in name:
            numbers = numbers.T
        if config.model_type in ("llama", "mistral") and (".q_proj." in name or ".k_proj." in name):
            query = ".q_proj." in name
            numbers = interleaved(numbers, config.num_attention_heads if query else config.num_key_value_heads)
        result[f"{stored}.{part}"] = floats(numbers)
    return result


def described(config: llama.Config | gpt2.Config) -> dict[str, Any]:
    """The metadata of an architecture."""
    family = "llama" if config.model_type == "mistral" else config.model_type
    values = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "attention.head_count": config.num_attention_heads,
    }
    if isinstance(config, gpt2.Config):
        inner = config.n_inner or 4 * config.n_embd
        values |= {"feed_forward_length": inner, "attention.layer_norm_epsilon": config.layer_norm_epsilon}
    else:
        values |= {
            "feed_forward_length": config.intermediate_size,
            "attention.head_count_kv": config.num_key_value_heads,
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
            "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            "rope.dimension_count": config.head_dim,
            "rope.freq_base": config.rope_theta,
            "vocab_size": config.vocab_size,
        }
        if config.sliding_window:
            values["attention.sliding_window"] = config.sliding_window
    return {"general.architecture": family, **{f"{family}.{key}": value for key, value in values.items()}}


def tokenizer_metadata(tokenizer: Tokenizer, pre: str = "qwen2") -> dict[str, Any]:
    """A byte-level BPE as the converter writes it."""
    import json

    model = json.loads(tokenizer.definition)["model"]
    pieces = {id: piece for piece, id in (model["vocab"] | tokenizer.special).items()}
    control = set(tokenizer.special.values())
    ids = range(tokenizer.vocab_size)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [pieces[id] for id in ids],
        "tokenizer.ggml.token_type": np.array([3 if id in control else 1 for id in ids], dtype="<i4"),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": tokenizer.eos_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_id,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": tokenizer.chat_template,
    }


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
