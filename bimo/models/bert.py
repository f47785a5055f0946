"""BERT (Devlin et al. 2019): an encoder that reads in both directions, normalised after each block, learned positions.

Modules carry Hugging Face's names, so that ``state_dict()`` is the checkpoint. Shapes, here and below:

    B  rows of the batch      C  hidden_size = H * D      H  num_attention_heads
    T  positions              V  vocab_size               D  head_dim
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bimo.errors import ModelError
from bimo.models.attention import attend, own_segment

SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
# What the stock class takes where a config.json says nothing: BERT base.
STOCK = {"intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2}
# Hugging Face's names of the activation, and what torch calls the approximation that each stands for.
ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
# Features of the stock class that change the result and that this file does not compute.
UNSUPPORTED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
INIT_STD = 0.02


@dataclass(frozen=True)
class Config:
    """The architecture, under Hugging Face's names.

    Raises:
        ModelError: sizes that do not fit each other, or an unknown activation.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0

    def __post_init__(self) -> None:
        for name in SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ModelError(f"{name} is wrong.", expected="a whole number of at least 1", got=repr(value))
        if self.hidden_size % self.num_attention_heads:
            got = f"hidden_size = {self.hidden_size}, num_attention_heads = {self.num_attention_heads}"
            raise ModelError(
                "The attention heads do not fit.", expected="hidden_size to be a multiple of the heads", got=got
            )
        if self.hidden_act not in ACTIVATIONS:
            expected = f"hidden_act {', '.join(ACTIVATIONS)}"
            raise ModelError("The activation is not supported.", expected=expected, got=repr(self.hidden_act))

    # The names that code for any architecture uses.
    model_type = "bert"
    tie_word_embeddings = True
    num_key_value_heads = property(lambda self: self.num_attention_heads)
    head_dim = property(lambda self: self.hidden_size // self.num_attention_heads)

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> Config:
        """Read a ``config.json``; what it leaves out gets the stock class's default.

        Raises:
            ModelError: a size is missing or wrong, or the model has a feature that this file does not compute.
        """
        for name, supported in UNSUPPORTED.items():
            if values.get(name, supported) != supported:
                raise ModelError("A variant of BERT that is not supported.", got=f"{name} = {values[name]}")
        sizes = {name: values.get(name, STOCK.get(name)) for name in SIZES}
        optional = ("hidden_act", "layer_norm_eps", "pad_token_id")
        return cls(**sizes, **{name: values[name] for name in optional if name in values})

    def to_hf(self) -> dict[str, Any]:
        """The ``config.json`` that stock transformers loads, as a model that fills in masked tokens."""
        names = {"architectures": ["BertForMaskedLM"], "model_type": self.model_type}
        off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        kept = {"position_embedding_type": "absolute", "tie_word_embeddings": True}
        return {**names, **asdict(self), **off, **kept, "dtype": "float32", "torch_dtype": "float32"}


class Linear(nn.Linear):
    """A linear map in the precision of its input, filled by ``init_weights`` or a checkpoint."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is, and the global random state too."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class Embedding(nn.Embedding):
    """A table of vectors, filled by ``init_weights`` or a checkpoint."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is, and the global random state too."""


class LayerNorm(nn.LayerNorm):
    """LayerNorm in the precision of its input; the sums are fp32 whatever that is."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Embeddings(nn.Module):
    """The sum of what a token is, where it stands and which of a pair of texts it belongs to, normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.word_embeddings = Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(0.0)

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        types = torch.zeros_like(position_ids) if token_type_ids is None else token_type_ids
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(types)  # (B, T, C)
        x = x + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(x.to(dtype)))


class SelfAttention(nn.Module):
    """Attention of every token to its whole segment."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.head_dim: int = config.head_dim
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (part(x).view(B, T, -1, self.head_dim).transpose(1, 2) for part in (self.query, self.key, self.value))
        return attend(q, k, v, mask).transpose(1, 2).reshape(B, T, C)


class Residual(nn.Module):
    """The end of a block: back to C channels, added to what went in, normalised."""

    def __init__(self, inputs: int, config: Config) -> None:
        super().__init__()
        self.dense = Linear(inputs, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(before + self.dropout(self.dense(x)))


class Attention(nn.Module):
    """The first block of a layer; ``self`` is Hugging Face's name."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Residual(config.hidden_size, config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.output(self.self(x, mask), x)


class Widen(nn.Module):
    """Up to ``intermediate_size`` channels, and GELU."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)
        self.approximate = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x), approximate=self.approximate)


class Layer(nn.Module):
    """Attention and MLP, each added to what went in and normalised after."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Widen(config)
        self.output = Residual(config.intermediate_size, config)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # x: (B, T, C)
        x = self.attention(x, mask)
        return self.output(self.intermediate(x), x)


class Layers(nn.Module):
    """A container, for Hugging Face's prefix ``encoder.``."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))


class Pooler(nn.Module):
    """A dense layer and tanh on the first token, which a head for whole texts reads."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x).tanh()


class Encoder(nn.Module):
    """Token ids to hidden states, and the pooler where there is one: the stock class ``BertModel``.

    Attributes:
        config: the architecture.
        compute_dtype: precision of the activations; None = that of the weights.
    """

    def __init__(self, config: Config, *, pooled: bool) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)
        self.pooler = Pooler(config) if pooled else None

    def hidden(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """The hidden states after the last layer.

        Args:
            input_ids: int (B, T).
            position_ids: int (B, T); by default 0 to T - 1.
            segment_ids: int (B, T), which of the packed texts; positions see only their own, all of it.
            token_type_ids: int (B, T), first or second text of a pair; by default all the first.

        Returns:
            (B, T, C) in ``compute_dtype``.
        """
        dtype = self.compute_dtype or self.embeddings.word_embeddings.weight.dtype
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        mask = own_segment(input_ids, segment_ids, dtype)
        x = self.embeddings(input_ids, position_ids, token_type_ids, dtype)
        for layer in self.encoder.layer:
            x = layer(x, mask)
        return x


class Base(nn.Module):
    """An encoder under a head, as the stock classes with a head are made; ``Model`` is one of them.

    Attributes:
        fused: kernels are written for the Llama family only.
    """

    fused = False

    def __init__(self, config: Config, *, pooled: bool) -> None:
        super().__init__()
        self.config = config
        self.bert = Encoder(config, pooled=pooled)

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """Precision of the activations; None = that of the weights."""
        return self.bert.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype | None) -> None:
        self.bert.compute_dtype = dtype

    @property
    def output_weight(self) -> Tensor:
        """The embedding (V, C), which also turns a transformed hidden state into logits."""
        return self.bert.embeddings.word_embeddings.weight

    @property
    def dropout(self) -> float:
        """Share of the embedding and of each attention and MLP output that training drops; not part of the config."""
        return self.bert.embeddings.dropout.p

    @dropout.setter
    def dropout(self, share: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = share

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Fill all weights for training from scratch; the same generator state gives the same weights.

        Std 0.02, cut off at 3 std; biases 0, norms 1 (Devlin et al. 2019, §A.2, and its code).
        """
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "LayerNorm" in name:
                parameter.fill_(1.0)
            else:
                nn.init.trunc_normal_(parameter, std=INIT_STD, a=-3 * INIT_STD, b=3 * INIT_STD, generator=generator)

    def hidden(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`Encoder.hidden`."""
        return self.bert.hidden(
            input_ids, position_ids=position_ids, segment_ids=segment_ids, token_type_ids=token_type_ids
        )

    def forward_flops(self, context: int) -> float:
        """Matmul FLOPs a token of one forward pass over ``context`` positions; training needs three times as many."""
        matrices = sum(module.weight.numel() for module in self.bert.encoder.modules() if isinstance(module, Linear))
        return 2.0 * matrices + 4.0 * self.config.num_hidden_layers * self.config.hidden_size * context


class Transform(nn.Module):
    """What a hidden state passes through before the tokens are scored."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.approximate = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(F.gelu(self.dense(x), approximate=self.approximate))


class Predictions(nn.Module):
    """The head that scores the vocabulary; its matrix is the embedding."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.transform = Transform(config)
        self.bias = nn.Parameter(torch.empty(config.vocab_size))


class Heads(nn.Module):
    """A container, for Hugging Face's prefix ``cls.``."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.predictions = Predictions(config)


class Model(Base):
    """The masked language model, ``BertForMaskedLM``; undefined until ``init_weights`` or a checkpoint sets it."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, pooled=False)
        self.cls = Heads(config)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (B, T, V) of the token at each position, from hidden states (B, T, C)."""
        head = self.cls.predictions
        return F.linear(head.transform(hidden), self.output_weight.to(hidden.dtype), head.bias.to(hidden.dtype))

    def forward(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, V); the arguments are those of :meth:`Encoder.hidden`."""
        return self.logits(
            self.hidden(input_ids, position_ids=position_ids, segment_ids=segment_ids, token_type_ids=token_type_ids)
        )

    def forward_flops(self, context: int) -> float:
        """See :meth:`Base.forward_flops`; the scores of the vocabulary included."""
        head = self.cls.predictions.transform.dense.weight.numel() + self.output_weight.numel()
        return super().forward_flops(context) + 2.0 * head
