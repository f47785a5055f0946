"""The shape of a Llama, Mistral, Qwen2 or Qwen3, and its translation from and to Hugging Face's ``config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bimo.errors import ModelError, did_you_mean

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# What a stock class of each family can express; where there is one choice, the class has it built in.
CHOICES: dict[str, dict[str, tuple[bool, ...]]] = {
    "llama": {"attention_bias": (False, True), "mlp_bias": (False, True), "qk_norm": (False,)},
    "mistral": {"attention_bias": (False,), "mlp_bias": (False,), "qk_norm": (False,)},
    "qwen2": {"attention_bias": (True,), "mlp_bias": (False,), "qk_norm": (False,)},
    "qwen3": {"attention_bias": (False, True), "mlp_bias": (False,), "qk_norm": (True,)},
}
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "max_position_embeddings"),
)
ROPE_FACTORS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


@dataclass(frozen=True)
class Config:
    """The architecture, under Hugging Face's names.

    ``attention_bias`` is on the query, key, value and output projections; in Qwen2 not on the output projection.

    Raises:
        ModelError: sizes that do not fit each other, or a combination that the stock class of the family lacks.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    model_type: str = "qwen3"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: Mapping[str, Any] | None = None
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = True
    sliding_window: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self) -> None:
        if self.model_type not in ARCHITECTURES:
            fix = did_you_mean(self.model_type, ARCHITECTURES)
            raise ModelError(f"Unknown model_type '{self.model_type}'.", fix=fix)
        for name in SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ModelError(f"{name} is wrong.", expected="a whole number of at least 1", got=repr(value))
        for name in ("rms_norm_eps", "rope_theta"):
            if not 0 < getattr(self, name) < math.inf:
                raise ModelError(f"{name} is wrong.", expected="a number above 0", got=repr(getattr(self, name)))
        if self.num_attention_heads % self.num_key_value_heads or self.head_dim % 2:
            raise ModelError(
                "The attention heads do not fit.",
                expected="num_attention_heads to be a multiple of num_key_value_heads, and head_dim to be even",
                got=f"{self.num_attention_heads}, {self.num_key_value_heads} and {self.head_dim}",
            )
        if self.model_type == "llama" and self.hidden_size % self.num_attention_heads:
            expected = "hidden_size to be a multiple of num_attention_heads, as the stock class demands"
            got = f"{self.hidden_size} and {self.num_attention_heads}"
            raise ModelError("The attention heads do not fit.", expected=expected, got=got)
        for name, allowed in CHOICES[self.model_type].items():
            if getattr(self, name) not in allowed:
                raise ModelError(f"The family '{self.model_type}' cannot have {name} = {getattr(self, name)}.")
        if self.sliding_window is not None and (self.model_type == "llama" or self.sliding_window < 1):
            raise ModelError(f"The family '{self.model_type}' cannot have sliding_window = {self.sliding_window}.")
        _check_rope(self.rope_scaling)

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> Config:
        """Read a ``config.json``, of transformers 4 or 5; what it leaves out gets the stock class's default.

        Raises:
            ModelError: a size is missing or wrong, or the model has a feature that this file does not compute.
        """
        family = values["model_type"]
        _refuse_unsupported(values)
        sizes = {name: values.get(name) for name in SIZES}
        heads = sizes["num_attention_heads"] or 1
        if values.get("num_key_value_heads") is None and (family == "llama" or "num_key_value_heads" in values):
            sizes["num_key_value_heads"] = heads
        if sizes["head_dim"] is None:
            sizes["head_dim"] = 128 if family == "qwen3" else (sizes["hidden_size"] or 0) // heads
        theta, scaling = _rotary(values)
        choices = {
            name: allowed[0] if len(allowed) == 1 else bool(values.get(name, False))
            for name, allowed in CHOICES[family].items()
        }
        return cls(
            **sizes,  # type: ignore[arg-type]
            **choices,
            model_type=family,
            rms_norm_eps=float(values.get("rms_norm_eps", cls.rms_norm_eps)),
            rope_theta=theta,
            rope_scaling=scaling,
            tie_word_embeddings=bool(values.get("tie_word_embeddings", False)),
            sliding_window=_sliding_window(values),
            bos_token_id=values.get("bos_token_id"),
            eos_token_id=values.get("eos_token_id"),
        )

    def to_hf(self) -> dict[str, Any]:
        """The ``config.json`` that stock transformers, 4 or 5, loads."""
        values: dict[str, Any] = {"architectures": [ARCHITECTURES[self.model_type]], "model_type": self.model_type}
        values |= {name: getattr(self, name) for name in SIZES}
        choices = CHOICES[self.model_type].items()
        values |= {name: getattr(self, name) for name, allowed in choices if len(allowed) > 1}
        values |= {
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": dict(self.rope_scaling) if self.rope_scaling else None,
            "rope_parameters": {"rope_type": "default", **(self.rope_scaling or {}), "rope_theta": self.rope_theta},
            "tie_word_embeddings": self.tie_word_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "dtype": "float32",
            "torch_dtype": "float32",
        }
        if self.model_type != "llama":
            values["sliding_window"] = self.sliding_window
        if self.model_type in ("qwen2", "qwen3"):
            windowed = self.sliding_window is not None
            values["use_sliding_window"] = windowed
            values["max_window_layers"] = 0 if windowed else self.num_hidden_layers
        return values


def _check_rope(rope: Mapping[str, Any] | None) -> None:
    if rope is None:
        return
    kind = rope.get("rope_type")
    if kind not in ROPE_FACTORS:
        known = ", ".join(ROPE_FACTORS)
        raise ModelError("The rotary scaling is not supported.", expected=f"rope_type {known} or none", got=repr(kind))
    missing = [name for name in ROPE_FACTORS[kind] if not isinstance(rope.get(name), (int, float))]
    if missing:
        raise ModelError(f"The rotary scaling '{kind}' is incomplete.", expected=f"a number as {', '.join(missing)}")


def _refuse_unsupported(values: Mapping[str, Any]) -> None:
    """Name what this file does not compute, rather than compute something else."""
    if values.get("hidden_act", "silu") != "silu":
        raise ModelError("The activation is not supported.", expected="hidden_act silu", got=repr(values["hidden_act"]))
    experts = [name for name in ("num_experts", "num_local_experts", "n_routed_experts") if values.get(name)]
    if experts:
        raise ModelError("Mixtures of experts are not supported.", got=f"{experts[0]} = {values[experts[0]]}")


def _rotary(values: Mapping[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """Base and scaling from ``rope_theta`` and ``rope_scaling`` (transformers 4) or ``rope_parameters`` (5)."""
    rope = dict(values.get("rope_scaling") or values.get("rope_parameters") or {})
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise ModelError("Rotary positions that differ by layer are not supported.", got=f"rope_parameters {rope}")
    theta = rope.pop("rope_theta", None) or values.get("rope_theta", Config.rope_theta)
    partial = rope.pop("partial_rotary_factor", values.get("partial_rotary_factor"))
    if partial not in (None, 1):
        raise ModelError("Partly rotated heads are not supported.", got=f"partial_rotary_factor = {partial}")
    rope["rope_type"] = rope.pop("type", None) or rope.get("rope_type", "default")
    return float(theta), None if rope["rope_type"] == "default" else rope


def _sliding_window(values: Mapping[str, Any]) -> int | None:
    """The window that all layers share; as in the stock classes, Llama ignores it and Qwen has a switch for it."""
    family = values["model_type"]
    if family == "llama" or (family != "mistral" and not values.get("use_sliding_window", False)):
        return None
    window: int | None = values.get("sliding_window", 4096)
    if window is None or family == "mistral":
        return window
    layers, full = values["num_hidden_layers"], values.get("max_window_layers", 28)
    kinds = values.get("layer_types") or ["full_attention"] * min(full, layers) + ["sliding_attention"] * (
        layers - full
    )
    if len(set(kinds)) > 1:
        raise ModelError("Layers with and without a sliding window in one model are not supported.", got=str(kinds))
    return window if "sliding_attention" in kinds else None
