"""Llama, Mistral, Qwen2 and Qwen3: one pre-norm decoder with rotary positions, grouped heads and a gated MLP.

Modules carry Hugging Face's names, so that ``state_dict()`` is the checkpoint. Shapes, here and below:

    B  rows of the batch             C  hidden_size               H  num_attention_heads
    T  positions computed now        V  vocab_size                K  num_key_value_heads (H = G * K)
    S  positions attended to: T, plus those a cache holds         D  head_dim
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bimo.models import kernels
from bimo.models.attention import Cache, Documents, Extend, Mask, attend, positions_and_mask
from bimo.models.llama_config import Config as Config

EMBEDDING_STD = 0.02


class Linear(nn.Linear):
    """A linear map in the precision of its input, whatever the precision its weights are kept in."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is: :meth:`Model.init_weights` or a checkpoint fills it."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Embedding(nn.Embedding):
    """A table of vectors, filled by :meth:`Model.init_weights` or a checkpoint."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is, and the global random state too."""


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis (Zhang & Sennrich 2019), summed in fp32 whatever the precision of x."""

    fused = False

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return kernels.rms_norm(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def rotary_frequencies(config: Config, device: torch.device) -> Tensor:
    """Radians a position for each pair of channels, fp32 (D/2,): RoPE (Su et al. 2021, §3.2) and its scalings."""
    exponent = torch.arange(0, config.head_dim, 2, device=device, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponent
    if config.rope_scaling is None:
        return frequencies
    slowed = frequencies / config.rope_scaling["factor"]
    if config.rope_scaling["rope_type"] == "linear":
        return slowed
    # Llama 3.1: slow wavelengths that pretraining never saw whole, keep short ones, blend in between.
    low, high = config.rope_scaling["low_freq_factor"], config.rope_scaling["high_freq_factor"]
    turns = config.rope_scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - keep) * slowed + keep * frequencies


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each channel pair (i, i + D/2) of x (B, H, T, D) by its angle, cos and sin fp32 (B or 1, 1, T, D/2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention with grouped key/value heads, rotary positions and, in Qwen3, normalised heads."""

    fused = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        C, H, K, D = config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.head_dim = D
        self.q_proj = Linear(C, H * D, bias=config.attention_bias)
        self.k_proj = Linear(C, K * D, bias=config.attention_bias)
        self.v_proj = Linear(C, K * D, bias=config.attention_bias)
        self.o_proj = Linear(H * D, C, bias=config.attention_bias and config.model_type != "qwen2")
        self.q_norm = RMSNorm(D, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(D, config.rms_norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Mask, extend: Extend | None) -> Tensor:
        B, T, _ = x.shape
        q, k, v = (part(x).view(B, T, -1, self.head_dim) for part in (self.q_proj, self.k_proj, self.v_proj))
        if isinstance(mask, Documents):
            from bimo.models import kernels_gpu  # needs Triton, which only torch for CUDA brings

            return self.o_proj(kernels_gpu.attention(q, k, v, self.q_norm, self.k_norm, cos, sin, mask))
        if self.fused and extend is None:
            return self.o_proj(kernels.attention(q, k, v, self.q_norm, self.k_norm, cos, sin, mask))
        q = rotate(self.q_norm(q).transpose(1, 2), cos, sin)  # (B, H, T, D)
        k = rotate(self.k_norm(k).transpose(1, 2), cos, sin)  # (B, K, T, D)
        v = v.transpose(1, 2)  # (B, K, T, D)
        if extend is not None:
            k, v = extend(k, v)  # (B, K, S, D)
        y = attend(q, k, v, mask).transpose(1, 2).reshape(B, T, -1)  # (B, T, H * D)
        return self.o_proj(y)


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020): silu(gate) * up, and down again."""

    fused = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x), self.up_proj(x)
        return self.down_proj(kernels.swiglu(gate, up) if self.fused else F.silu(gate) * up)


class Layer(nn.Module):
    """Attention and MLP, each normalised before and added to the residual stream after."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(0.0)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Mask, extend: Extend | None = None
    ) -> Tensor:  # x: (B, T, C)
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), cos, sin, mask, extend))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class Decoder(nn.Module):
    """All but the output matrix, under Hugging Face's prefix ``model.``; called, the layers and the final norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.dropout = nn.Dropout(0.0)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: Cache | None = None) -> Tensor:
        for index, layer in enumerate(self.layers):
            if cache is None:
                x = layer(x, cos, sin, mask)
            else:
                x = layer(x, cos, sin, mask, functools.partial(cache.append, index))
        hidden: Tensor = self.norm(x)
        return hidden


class Model(nn.Module):
    """The language model. Its weights are undefined until :meth:`init_weights` or a checkpoint sets them.

    Attributes:
        config: the architecture.
        compute_dtype: precision of the activations; None = that of the weights.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        self.model = Decoder(config)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def output_weight(self) -> Tensor:
        """The matrix (V, C) that turns the hidden state into logits."""
        return self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    @property
    def dropout(self) -> float:
        """Share of the embedding and of each attention and MLP output that training drops; not part of the config."""
        return self.model.dropout.p

    @dropout.setter
    def dropout(self, share: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = share

    @property
    def fused(self) -> bool:
        """Whether the parts between matrix products are kernels of ``kernels.py``: CPU, fp32 weights, no cache."""
        return self.model.norm.fused

    @fused.setter
    def fused(self, on: bool) -> None:
        for module in self.modules():
            if isinstance(module, (RMSNorm, Attention, MLP)):
                module.fused = on

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Fill all weights for training from scratch; the same generator state gives the same weights.

        Linear maps keep the variance of their input (std 1/sqrt(fan-in), cut off at 3 std); those that write to the
        residual stream are smaller by sqrt(2 * layers), so that its variance does not grow with depth (GPT-2, §2.3).
        """
        residual = (2 * self.config.num_hidden_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                std = parameter.shape[1] ** -0.5
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    std *= residual
                if parameter is self.output_weight or parameter is self.model.embed_tokens.weight:
                    std = EMBEDDING_STD
                nn.init.trunc_normal_(parameter, std=std, a=-3 * std, b=3 * std, generator=generator)

    def hidden(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """The hidden states after the final norm.

        Args:
            input_ids: int (B, T).
            position_ids: int (B, T); by default 0 to T - 1, or what the cache says.
            segment_ids: int (B, T); positions see only their own segment. Not together with a cache.
            cache: keys and values of earlier positions, which this call extends.

        Returns:
            (B, T, C) in ``compute_dtype``.
        """
        dtype, window = self.compute_dtype or self.model.embed_tokens.weight.dtype, self.config.sliding_window
        fused = self.fused and cache is None
        position_ids, mask = positions_and_mask(input_ids, position_ids, segment_ids, cache, dtype, window, fused)
        frequencies = rotary_frequencies(self.config, input_ids.device)  # (D/2,)
        angles = position_ids[:, None, :, None] * frequencies  # (B or 1, 1, T, D/2)
        cos, sin = angles.cos(), angles.sin()
        x = self.model.dropout(self.model.embed_tokens(input_ids).to(dtype))  # (B, T, C)
        hidden: Tensor = self.model(x, cos, sin, mask, cache)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (B, T, V) of the next token, from hidden states (B, T, C)."""
        return F.linear(hidden, self.output_weight.to(hidden.dtype))

    def forward(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Logits (B, T, V); the arguments are those of :meth:`hidden`."""
        return self.logits(self.hidden(input_ids, position_ids=position_ids, segment_ids=segment_ids, cache=cache))

    def forward_flops(self, context: int) -> float:
        """Matmul FLOPs a token of one forward pass over ``context`` positions; training needs three times as many.

        The attention products count in full, masked half included, as PaLM's appendix B does.
        """
        matrices = sum(module.weight.numel() for module in self.model.layers.modules() if isinstance(module, Linear))
        attended = self.config.num_hidden_layers * self.config.num_attention_heads * self.config.head_dim * context
        return 2.0 * (matrices + self.output_weight.numel()) + 4.0 * attended
