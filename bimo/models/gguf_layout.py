"""What a GGUF file means: its architecture as one of ours, its tensors under Hugging Face's names and in their order.

Shapes as in ``llama.py``: C hidden_size, H query heads, K key/value heads, D head_dim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bimo.errors import ModelError
from bimo.models import gpt2, llama
from bimo.models.gguf import GGUF, unreadable
from bimo.models.gguf_blocks import DEQUANTISERS, Floats

if TYPE_CHECKING:
    from bimo.models import Model

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gpt2")
LARGEST = 1 << 28  # of any size, so that no product of two sizes and a precision overflows
MOST_LAYERS = 1024
# Llama 3's rotary scaling; a file holds only what it comes to, in a tensor of D/2 factors.
ROTARY = "rope_freqs.weight"
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
# Hugging Face's name -> the file's, without "weight" or "bias"; N is the number of a layer.
LLAMA_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.N.input_layernorm": "blk.N.attn_norm",
    "model.layers.N.self_attn.q_proj": "blk.N.attn_q",
    "model.layers.N.self_attn.k_proj": "blk.N.attn_k",
    "model.layers.N.self_attn.v_proj": "blk.N.attn_v",
    "model.layers.N.self_attn.o_proj": "blk.N.attn_output",
    "model.layers.N.self_attn.q_norm": "blk.N.attn_q_norm",
    "model.layers.N.self_attn.k_norm": "blk.N.attn_k_norm",
    "model.layers.N.post_attention_layernorm": "blk.N.ffn_norm",
    "model.layers.N.mlp.gate_proj": "blk.N.ffn_gate",
    "model.layers.N.mlp.up_proj": "blk.N.ffn_up",
    "model.layers.N.mlp.down_proj": "blk.N.ffn_down",
}
GPT2_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "transformer.h.N.ln_1": "blk.N.attn_norm",
    "transformer.h.N.attn.c_attn": "blk.N.attn_qkv",
    "transformer.h.N.attn.c_proj": "blk.N.attn_output",
    "transformer.h.N.ln_2": "blk.N.ffn_norm",
    "transformer.h.N.mlp.c_fc": "blk.N.ffn_up",
    "transformer.h.N.mlp.c_proj": "blk.N.ffn_down",
}


class Layout:
    """The model in a GGUF file, checked whole, without its numbers.

    Attributes:
        model: on the meta device: its configuration, and the shapes of its weights.

    Raises:
        ModelError: the architecture, a feature or a quantisation is not supported, or the tensors are not those that
            the metadata describe.
    """

    def __init__(self, file: GGUF) -> None:
        self._file = file
        facts = _Facts(file)
        tied = "output.weight" not in file.tensors or _same(file, "output.weight", "token_embd.weight")
        config = _gpt2(facts, tied) if facts.architecture == "gpt2" else _llama(facts, tied)
        with torch.device("meta"):
            self.model: Model = gpt2.Model(config) if isinstance(config, gpt2.Config) else llama.Model(config)
        self._stored = {name: _stored_name(name) for name in self.model.state_dict()}
        read_otherwise = {"output.weight"} if tied else set()
        self._check(read_otherwise | ({ROTARY} if isinstance(config, llama.Config) else set()))

    @property
    def numbers(self) -> int:
        """How many numbers :meth:`tensors` gives in all."""
        return sum(tensor.numel() for tensor in self.model.state_dict().values())

    def tensors(self) -> Iterator[tuple[str, Floats]]:
        """Each tensor of the model's ``state_dict()``, read when it is its turn."""
        config = self.model.config
        for name, stored in self._stored.items():
            numbers = self._file.tensor(stored)
            if self._transposed(name):
                numbers = numbers.T
            elif config.model_type in ("llama", "mistral") and ".q_proj." in name:
                numbers = _halves_together(numbers, config.num_attention_heads)
            elif config.model_type in ("llama", "mistral") and ".k_proj." in name:
                numbers = _halves_together(numbers, config.num_key_value_heads)
            yield name, numbers

    def _transposed(self, name: str) -> bool:
        """Whether Hugging Face keeps a matrix as (in, out): GPT-2's, but for its tables."""
        return isinstance(self.model.config, gpt2.Config) and ".h." in name and ".ln_" not in name

    def _check(self, read_otherwise: set[str]) -> None:
        problems = []
        for name, tensor in self.model.state_dict().items():
            stored, wanted = self._stored[name], tuple(tensor.shape)
            wanted = wanted[::-1] if self._transposed(name) else wanted
            entry = self._file.tensors.get(stored)
            if entry is None:
                problems.append(f"no {stored}")
            elif entry.shape != wanted:
                problems.append(f"{stored} of shape {entry.shape} instead of {wanted}")
        more = self._file.tensors.keys() - set(self._stored.values()) - read_otherwise
        problems += [f"{name}, which this architecture does not have" for name in sorted(more)]
        if problems:
            rest = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            expected = f"exactly the {len(self._stored)} tensors that its metadata describe"
            got = "; ".join(problems[:3]) + rest
            raise ModelError(f"The tensors in {self._file.path} do not fit.", expected=expected, got=got)
        kinds = {self._file.tensors[stored].kind for stored in self._stored.values()}
        if kinds - DEQUANTISERS.keys():
            raise unreadable(self._file.path, sorted(kinds - DEQUANTISERS.keys()))


def _stored_name(name: str) -> str:
    """The name in the file of a tensor that Hugging Face calls ``name``."""
    module, _, part = name.rpartition(".")
    words = module.split(".")
    number = next((word for word in words if word.isdigit()), "")
    general = ".".join("N" if word.isdigit() else word for word in words)
    return f"{(LLAMA_NAMES | GPT2_NAMES)[general].replace('N', number)}.{part}"


def _halves_together(rows: Floats, heads: int) -> Floats:
    """Rows (heads * D, ...) of a query or key projection, as pairs (i, i + D/2) are turned, not (2i, 2i + 1).

    llama.cpp turns neighbours, so its converter interleaved the halves of each head; this undoes it.
    """
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _same(file: GGUF, first: str, second: str) -> bool:
    entries = file.tensors.get(first), file.tensors.get(second)
    if entries[0] is None or entries[1] is None or entries[0].kind != entries[1].kind:
        return False
    return entries[0].shape == entries[1].shape and np.array_equal(file.packed(first), file.packed(second))


class _Facts:
    """The metadata of an architecture, each value checked as it is asked for."""

    def __init__(self, file: GGUF) -> None:
        self.file = file
        self.architecture = str(file.metadata.get("general.architecture"))
        if self.architecture not in ARCHITECTURES:
            expected = f"one of {', '.join(ARCHITECTURES)}"
            problem = f"{file.path} is of an architecture that bimo does not support."
            raise ModelError(problem, expected=expected, got=repr(self.architecture))
        parts = file.metadata.get("split.count", 1)
        if not isinstance(parts, int) or parts > 1:
            fix = "Merge the parts with llama-gguf-split --merge."
            raise ModelError(f"{file.path} is one part of a model.", expected="the whole model", fix=fix)

    def __contains__(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.file.metadata

    def whole(self, key: str, default: int | None = None) -> int:
        """A size: a whole number of at least 1; also where every layer has it for itself, and all have the same."""
        value = self._value(key, default)
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            value = value[0].item()
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < LARGEST:
            raise self.wrong(key, f"a whole number from 1 to {LARGEST:,}, the same for all layers", value)
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self._value(key, default)
        if not isinstance(value, float) or not 0 < value < float("inf"):
            raise self.wrong(key, "a number above 0", value)
        return float(str(np.float32(value)))  # 1e-5, not 9.99999974e-06, which that is as a float32

    def refuse(self, key: str, *allowed: Any) -> None:
        """Stop where a feature is on that our models do not compute."""
        value = self._value(key, allowed[0])
        if not isinstance(value, type(allowed[0])) or value not in allowed:
            expected = f"{self.architecture}.{key} {' or '.join(map(repr, allowed))}"
            problem = f"{self.file.path} has a feature that bimo does not support."
            raise ModelError(problem, expected=expected, got=_shown(value))

    def token(self, name: str) -> int | None:
        """The id of a token with a task, such as ``eos``."""
        key, rows = f"tokenizer.ggml.{name}_token_id", self.rows("token_embd.weight")
        value = self.file.metadata.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < rows):
            raise self._wrong(key, f"the id of one of {rows:,} tokens", value)
        return value

    def _value(self, key: str, default: Any) -> Any:
        value = self.file.metadata.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise self.wrong(key, "it to be there", None)
        return value

    def wrong(self, key: str, expected: str, value: Any) -> ModelError:
        """The error for a value that cannot be."""
        return self._wrong(f"{self.architecture}.{key}", expected, value)

    def _wrong(self, name: str, expected: str, value: Any) -> ModelError:
        got = "nothing" if value is None else _shown(value)
        return ModelError(f"{self.file.path} says {name} wrongly.", expected=expected, got=got)

    def ends(self) -> int | list[int] | None:
        """The ids that end a text or a turn."""
        found = dict.fromkeys(id for name in ("eos", "eot") if (id := self.token(name)) is not None)
        return next(iter(found), None) if len(found) < 2 else list(found)

    def rows(self, name: str) -> int:
        """The rows of a table, which must be there."""
        entry = self.file.tensors.get(name)
        if entry is None or len(entry.shape) != 2 or max(entry.shape) >= LARGEST:
            got = "none" if entry is None else f"shape {entry.shape}"
            raise ModelError(f"{self.file.path} holds no model.", expected=f"a table {name}", got=got)
        return entry.shape[0]

    def layers(self) -> int:
        """The number of layers."""
        layers = self.whole("block_count")
        if layers > MOST_LAYERS:
            raise self.wrong("block_count", f"at most {MOST_LAYERS:,}", layers)
        return layers


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _gpt2(facts: _Facts, tied: bool) -> gpt2.Config:
    width, inner = facts.whole("embedding_length"), facts.whole("feed_forward_length")
    return gpt2.Config(
        vocab_size=facts.rows("token_embd.weight"),
        n_positions=facts.rows("position_embd.weight"),
        n_embd=width,
        n_layer=facts.layers(),
        n_head=facts.whole("attention.head_count"),
        n_inner=None if inner == 4 * width else inner,
        layer_norm_epsilon=facts.real("attention.layer_norm_epsilon"),
        tie_word_embeddings=tied,
        bos_token_id=facts.token("bos"),
        eos_token_id=facts.ends(),
    )


def _llama(facts: _Facts, tied: bool) -> llama.Config:
    facts.refuse("expert_count", 0)
    facts.refuse("attention.causal", True)
    width, heads = facts.whole("embedding_length"), facts.whole("attention.head_count")
    head_dim = facts.whole("attention.key_length", max(1, width // heads))
    if heads * head_dim >= LARGEST:
        raise facts.wrong("attention.head_count", f"heads of {head_dim} channels that fit", heads)
    facts.refuse("attention.value_length", head_dim)
    facts.refuse("rope.dimension_count", head_dim)
    window = facts.whole("attention.sliding_window") if "attention.sliding_window" in facts else None
    family = "mistral" if facts.architecture == "llama" and window else facts.architecture
    biases = {name for name in facts.file.tensors if name.endswith(".bias")}
    config = llama.Config(
        vocab_size=facts.rows("token_embd.weight"),
        hidden_size=width,
        intermediate_size=facts.whole("feed_forward_length"),
        num_hidden_layers=facts.layers(),
        num_attention_heads=heads,
        num_key_value_heads=facts.whole("attention.head_count_kv", heads),
        head_dim=head_dim,
        max_position_embeddings=facts.whole("context_length"),
        model_type=family,
        rms_norm_eps=facts.real("attention.layer_norm_rms_epsilon"),
        rope_theta=facts.real("rope.freq_base", llama.Config.rope_theta),
        tie_word_embeddings=tied,
        attention_bias="blk.0.attn_q.bias" in biases,
        mlp_bias="blk.0.ffn_up.bias" in biases,
        qk_norm="blk.0.attn_q_norm.weight" in facts.file.tensors,
        sliding_window=window,
        bos_token_id=facts.token("bos"),
        eos_token_id=facts.ends(),
    )
    return dataclasses.replace(config, rope_scaling=_rope_scaling(facts, config))


def _rope_scaling(facts: _Facts, config: llama.Config) -> Mapping[str, Any] | None:
    facts.refuse("rope.scaling.type", "linear", "none")
    off = facts.file.metadata.get(f"{facts.architecture}.rope.scaling.type") == "none"
    factor = 1.0 if off else facts.real("rope.scaling.factor", facts.real("rope.scale_linear", 1.0))
    if ROTARY not in facts.file.tensors:
        return {"rope_type": "linear", "factor": factor} if factor != 1 else None
    factors = facts.file.tensor(ROTARY)
    scaling = {"rope_type": "llama3", "factor": float(factors.max()), **LLAMA3}
    plain = llama.rotary_frequencies(config, torch.device("cpu"))
    scaled = llama.rotary_frequencies(dataclasses.replace(config, rope_scaling=scaling), torch.device("cpu"))
    expected = (plain / scaled).numpy()
    if factor != 1 or factors.shape != expected.shape or not np.allclose(factors, expected, rtol=1e-4):
        problem = f"{facts.file.path} scales its rotary positions in a way that bimo does not support."
        raise ModelError(problem, expected="Llama 3's scaling, linear, or none", got=_shown(factors))
    return scaling
