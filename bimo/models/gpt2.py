"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm before each block, one fused query-key-value projection.

Modules carry Hugging Face's names, so that ``state_dict()`` is the checkpoint. Shapes, here and below:

    B  rows of the batch           C  n_embd = H * D          H  n_head
    T  positions computed now      V  vocab_size              D  head_dim
    S  positions attended to: T, plus those a cache holds     F  n_inner, 4 * C where it is None
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bimo.errors import ModelError
from bimo.models.attention import Cache, Extend, Mask, attend, positions_and_mask

SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
# Hugging Face's names of the activation, and what torch calls the approximation that each stands for.
ACTIVATIONS = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu": "none"}
# Features of the stock class that change the result and that this file does not compute.
UNSUPPORTED = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
INIT_STD = 0.02


@dataclass(frozen=True)
class Config:
    """The architecture, under Hugging Face's names.

    Raises:
        ModelError: sizes that do not fit each other, or an unknown activation.
    """

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self) -> None:
        for name in SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ModelError(f"{name} is wrong.", expected="a whole number of at least 1", got=repr(value))
        if self.n_embd % self.n_head:
            got = f"n_embd = {self.n_embd}, n_head = {self.n_head}"
            raise ModelError("The attention heads do not fit.", expected="n_embd to be a multiple of n_head", got=got)
        if self.activation_function not in ACTIVATIONS:
            expected = f"activation_function {', '.join(ACTIVATIONS)}"
            raise ModelError("The activation is not supported.", expected=expected, got=repr(self.activation_function))

    # The names that code for any architecture uses.
    model_type = "gpt2"
    hidden_size = property(lambda self: self.n_embd)
    num_hidden_layers = property(lambda self: self.n_layer)
    num_attention_heads = property(lambda self: self.n_head)
    num_key_value_heads = property(lambda self: self.n_head)
    head_dim = property(lambda self: self.n_embd // self.n_head)
    max_position_embeddings = property(lambda self: self.n_positions)

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> Config:
        """Read a ``config.json``; what it leaves out gets the stock class's default.

        Raises:
            ModelError: a size is missing or wrong, or the model has a feature that this file does not compute.
        """
        for name, supported in UNSUPPORTED.items():
            if values.get(name, supported) != supported:
                raise ModelError("A variant of GPT-2 that is not supported.", got=f"{name} = {values[name]}")
        sizes = {name: values.get(name) for name in SIZES}
        optional = ("n_inner", "activation_function", "layer_norm_epsilon", "tie_word_embeddings")
        given = {name: values[name] for name in (*optional, "bos_token_id", "eos_token_id") if name in values}
        return cls(**sizes, **given)  # type: ignore[arg-type]

    def to_hf(self) -> dict[str, Any]:
        """The ``config.json`` that stock transformers, 4 or 5, loads; ``n_ctx`` is for llama.cpp's converter."""
        names = {"architectures": ["GPT2LMHeadModel"], "model_type": self.model_type, "n_ctx": self.n_positions}
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return {**names, **asdict(self), **off, "dtype": "float32", "torch_dtype": "float32"}


class Conv1D(nn.Module):
    """A linear map stored as (in, out), as OpenAI's code did, in the precision of its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype).t(), self.bias.to(x.dtype))


class Embedding(nn.Embedding):
    """A table of vectors, filled by :meth:`Model.init_weights` or a checkpoint."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is, and the global random state too."""


class LayerNorm(nn.LayerNorm):
    """LayerNorm in the precision of its input; the sums are fp32 whatever that is."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.head_dim: int = config.head_dim
        self.c_attn = Conv1D(config.n_embd, 3 * config.n_embd)
        self.c_proj = Conv1D(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, mask: Mask, extend: Extend | None) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, -1, self.head_dim).permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        if extend is not None:
            k, v = extend(k, v)  # (B, H, S, D)
        return self.c_proj(attend(q, k, v, mask).transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    """Up to F channels, GELU, and down again."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        inner = config.n_inner or 4 * config.n_embd
        self.approximate = ACTIVATIONS[config.activation_function]
        self.c_fc = Conv1D(config.n_embd, inner)
        self.c_proj = Conv1D(inner, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate=self.approximate))


class Layer(nn.Module):
    """Attention and MLP, each normalised before and added to the residual stream after."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor, mask: Mask, extend: Extend | None = None) -> Tensor:  # x: (B, T, C)
        x = x + self.dropout(self.attn(self.ln_1(x), mask, extend))
        return x + self.dropout(self.mlp(self.ln_2(x)))


class Transformer(nn.Module):
    """A container, for Hugging Face's prefix ``transformer.``."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = Embedding(config.n_positions, config.n_embd)
        self.dropout = nn.Dropout(0.0)
        self.h = nn.ModuleList(Layer(config) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)


class Model(nn.Module):
    """The language model. Its weights are undefined until :meth:`init_weights` or a checkpoint sets them.

    Attributes:
        config: the architecture.
        compute_dtype: precision of the activations; None = that of the weights.
        fused: kernels are written for the Llama family only.
    """

    fused = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        self.transformer = Transformer(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.utils.skip_init(nn.Linear, config.n_embd, config.vocab_size, bias=False)

    @property
    def output_weight(self) -> Tensor:
        """The matrix (V, C) that turns the hidden state into logits."""
        return self.transformer.wte.weight if self.config.tie_word_embeddings else self.lm_head.weight

    @property
    def dropout(self) -> float:
        """Share of the embedding and of each attention and MLP output that training drops; not part of the config."""
        return self.transformer.dropout.p

    @dropout.setter
    def dropout(self, share: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = share

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Fill all weights for training from scratch; the same generator state gives the same weights.

        As GPT-2 (§2.3): std 0.02, and what writes to the residual stream smaller by sqrt(2 * layers).
        """
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif ".ln_" in name:
                parameter.fill_(1.0)
            else:
                std = INIT_STD * ((2 * self.config.n_layer) ** -0.5 if name.endswith("c_proj.weight") else 1.0)
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
        dtype = self.compute_dtype or self.transformer.wte.weight.dtype
        position_ids, mask = positions_and_mask(input_ids, position_ids, segment_ids, cache, dtype)
        tokens = self.transformer.wte(input_ids)
        wide = torch.promote_types(tokens.dtype, torch.float32)  # rounded once, whatever the tables are kept in
        x = tokens.to(wide) + self.transformer.wpe(position_ids)  # (B, T, C)
        x = self.transformer.dropout(x.to(dtype))
        for index, layer in enumerate(self.transformer.h):
            x = layer(x, mask) if cache is None else layer(x, mask, functools.partial(cache.append, index))
        return self.transformer.ln_f(x)

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
        matrices = sum(module.weight.numel() for module in self.modules() if isinstance(module, Conv1D))
        return 2.0 * (matrices + self.output_weight.numel()) + 4.0 * self.config.n_layer * self.config.n_embd * context
