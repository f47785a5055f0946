"""LoRA: a frozen model that learns through small matrices beside its linear maps, and folds them into its weights.

The update of a map W is s * B @ A (Hu et al. 2021, §4.1), where s is alpha / r, or alpha / sqrt(r) so that high ranks
learn as fast as low ones (rsLoRA, Kalajdzievski 2023, §3). DoRA learns the lengths m of the rows apart from their
directions: m * V / |V| with V = W + s * B @ A, where |V| counts as a constant (Liu et al. 2024, §4.3).

Parameters carry PEFT's names. Shapes: N positions of all rows, I inputs and O outputs of a linear map, r its rank.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bimo.config import setting
from bimo.device import seed_for
from bimo.errors import ConfigError, did_you_mean
from bimo.models import M, gpt2, llama, trained_parameters
from bimo.models.quantised import Quantised

Map: TypeAlias = nn.Linear | gpt2.Conv1D

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "q4": torch.bfloat16}  # of matrices that are no maps


@dataclass(frozen=True)
class LoraConfig:
    """What is learned of a model, and how the rest of it is kept."""

    rank: int = setting(16, "rows of A and columns of B: how much the update of a matrix can hold")
    alpha: int = setting(32, "the update counts alpha / rank times, or alpha / sqrt(rank) if rank_stabilised")
    rank_stabilised: bool = setting(False, "divide alpha by sqrt(rank) (rsLoRA), for high ranks")
    dora: bool = setting(False, "whether the lengths of a matrix's rows are learned apart from their directions (DoRA)")
    dropout: float = setting(0.0, "share of the inputs of A that training drops")
    targets: tuple[str, ...] = setting(
        (), "names of the linear maps to adapt, such as q_proj or mlp.c_proj; all those inside the layers if empty"
    )
    whole: tuple[str, ...] = setting((), "modules that are learned as a whole, such as embed_tokens or lm_head")
    base: Literal["bfloat16", "float32", "q4"] = setting(
        "bfloat16", "how the frozen matrices are kept in memory; q4 packs linear maps into 5 bits a number"
    )
    adapter_only: bool = setting(False, "whether the run keeps only the adapter, not the merged model beside it")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError("lora.rank is wrong.", expected="a whole number of at least 1", got=str(self.rank))
        if self.alpha <= 0:
            raise ConfigError("lora.alpha is wrong.", expected="a number above 0", got=str(self.alpha))
        if not 0 <= self.dropout < 1:
            raise ConfigError("lora.dropout is wrong.", expected="a share of less than 1", got=str(self.dropout))


def scale_of(alpha: float, rank: int, rank_stabilised: bool) -> float:
    """What the product of both matrices is multiplied by."""
    return alpha / (math.sqrt(rank) if rank_stabilised else rank)


def matrix(base: Map, dtype: torch.dtype) -> Tensor:
    """The weights of a linear map, (O, I) whichever way it keeps them."""
    weight = base.weight.to(dtype)
    return weight.t() if isinstance(base, gpt2.Conv1D) else weight


class _Adapted(torch.autograd.Function):
    """gain * (x @ W.T + scale * d @ A.T @ B.T) + bias, where d is ``dropped``, or else x.

    W is frozen, and asked for again on the way back: what is kept of it is kept by the map alone.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor | None, a: Tensor, b: Tensor, gain: Tensor | None, base: Map, scale: float
    ) -> Tensor:
        a, b, bias = a.to(x.dtype), b.to(x.dtype), None if base.bias is None else base.bias.to(x.dtype)
        y = F.linear(x, matrix(base, x.dtype), bias if gain is None else None)  # (N, O)
        inputs = x if dropped is None else dropped
        low = F.linear(inputs, a)  # (N, r)
        y.addmm_(low, b.t(), alpha=scale)
        if gain is not None:
            y.mul_(gain.to(y.dtype))
            y = y if bias is None else y.add_(bias)
        # Of DoRA the result is kept, as what comes next often does too, not what it was before the gain.
        ctx.save_for_backward(inputs, low, a, b, gain, None if gain is None else y, None if gain is None else bias)
        ctx.base, ctx.scale, ctx.apart = base, scale, dropped is not None
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs, low, a, b, gain, y, bias = ctx.saved_tensors
        (dy,) = grads
        d_gain = None
        if gain is not None:
            y = y if bias is None else y - bias
            d_gain = (dy * y).sum(0, dtype=gain.dtype) / gain
            dy = dy * gain.to(dy.dtype)
        d_low = (dy @ b).mul_(ctx.scale)  # (N, r)
        d_a, d_b = d_low.t() @ inputs, (dy.t() @ low).mul_(ctx.scale)
        dx = dy @ matrix(ctx.base, dy.dtype) if ctx.needs_input_grad[0] else None  # (N, I)
        d_dropped = None
        if ctx.apart and ctx.needs_input_grad[1]:
            d_dropped = d_low @ a
        elif dx is not None and not ctx.apart:
            dx.addmm_(d_low, a)
        return dx, d_dropped, d_a.float(), d_b.float(), d_gain, None, None


class LowRank(nn.Module):
    """A frozen linear map and its update, with the parameters that PEFT gives it; the update is nothing at first.

    Args:
        scale: of the update.
        dropout: share of the inputs of A that training drops; those of W it never drops.
    """

    lora_magnitude_vector: nn.Parameter | None

    def __init__(self, base: Map, rank: int, scale: float, *, dropout: float = 0.0, dora: bool = False) -> None:
        super().__init__()
        self.base, self.scale, self.dropout = base, scale, dropout
        weight = matrix(base, torch.float32)
        with weight.device:
            self.lora_A = llama.Linear(weight.shape[1], rank, bias=False)
            self.lora_B = llama.Linear(rank, weight.shape[0], bias=False)
        nn.init.zeros_(self.lora_B.weight)
        lengths = nn.Parameter(torch.linalg.vector_norm(weight, dim=1)) if dora else None
        self.register_parameter("lora_magnitude_vector", lengths)  # (O,)

    def init_weights(self, generator: torch.Generator) -> None:
        """Fill A as PEFT does: evenly up to 1 / sqrt(I)."""
        bound = self.lora_A.in_features**-0.5
        values = torch.empty(self.lora_A.weight.shape).uniform_(-bound, bound, generator=generator)
        self.lora_A.weight.data.copy_(values)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        dropped = F.dropout(flat, self.dropout) if self.training and self.dropout else None
        gain = None
        if self.lora_magnitude_vector is not None:
            with torch.no_grad():
                lengths = torch.linalg.vector_norm(self._updated(), dim=1)
            gain = self.lora_magnitude_vector / lengths
        factors = self.lora_A.weight, self.lora_B.weight
        y = _Adapted.apply(flat, dropped, *factors, gain, self.base, self.scale)  # type: ignore[no-untyped-call]
        return cast(Tensor, y.view(*x.shape[:-1], -1))

    def _updated(self) -> Tensor:
        """W + s * B @ A, (O, I) fp32."""
        weight = matrix(self.base, torch.float32)
        return torch.addmm(weight, self.lora_B.weight.float(), self.lora_A.weight.float(), alpha=self.scale)

    @torch.no_grad()
    def merged(self, dtype: torch.dtype | None = None) -> Map:
        """A plain linear map that computes the same; its weights are summed in fp32 and rounded once, to ``dtype``."""
        weight = self._updated()
        if self.lora_magnitude_vector is not None:
            weight *= (self.lora_magnitude_vector / torch.linalg.vector_norm(weight, dim=1))[:, None]
        return _plain(self.base, weight.to(dtype or self.base.weight.dtype))


def _plain(base: Map, weight: Tensor) -> Map:
    """A linear map of the kind that ``base`` is or has packed, with other weights (O, I)."""
    outputs, inputs = weight.shape
    plain: Map
    with torch.device("meta"):
        if isinstance(base, gpt2.Conv1D) or getattr(base, "transposed", False):
            plain, weight = gpt2.Conv1D(inputs, outputs), weight.t().contiguous()
        else:
            plain = llama.Linear(inputs, outputs, bias=base.bias is not None)
    plain.weight = nn.Parameter(weight, requires_grad=False)
    plain.register_parameter("bias", base.bias)
    return plain


def linear_maps(model: nn.Module) -> dict[str, Map]:
    """The linear maps inside the layers of a model, by name."""
    lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    inside = tuple(f"{name}." for name in lists)
    return {name: m for name, m in model.named_modules() if isinstance(m, Map) and name.startswith(inside)}


def adapt(model: nn.Module, config: LoraConfig, *, seed: int = 0) -> dict[str, nn.Parameter]:
    """Freeze a model and put an update beside each of the chosen linear maps; it computes the same as before at first.

    Args:
        model: it is changed in place; what is learned is fp32.
        seed: the same gives the same updates.

    Returns:
        the parameters to learn, by name.

    Raises:
        ConfigError: there is no such map or module, with the nearest name.
    """
    assert not any(isinstance(module, LowRank) for module in model.modules()), "adapted before"
    maps = linear_maps(model)
    chosen = maps if not config.targets else _named(config.targets, list(maps), "lora.targets")
    whole = _named(config.whole, [name for name, module in model.named_modules() if name], "lora.whole")
    freeze(model, config.base, keep=whole)
    generator = torch.Generator().manual_seed(seed_for(seed, "lora"))
    scale = scale_of(config.alpha, config.rank, config.rank_stabilised)
    for name in chosen:
        update = LowRank(model.get_submodule(name), config.rank, scale, dropout=config.dropout, dora=config.dora)  # type: ignore[arg-type]
        update.init_weights(generator)
        replace(model, name, update)
    return trained_parameters(model)


def _named(wanted: tuple[str, ...], names: list[str], key: str) -> list[str]:
    """Those of ``names`` that are or end with one of the wanted ones, in their order."""
    for one in wanted:
        if not any(f".{name}".endswith(f".{one}") for name in names):
            last = sorted({name.rpartition(".")[2] for name in names} - {str(number) for number in range(1000)})
            raise ConfigError(f"{key}: the model has no '{one}'.", fix=did_you_mean(one, last))
    return [name for name in names if f".{name}".endswith(tuple(f".{one}" for one in wanted))]


def freeze(model: nn.Module, base: str, *, keep: list[str] | None = None) -> None:
    """Let a model learn nothing, and keep its matrices as ``base`` says: a key of :data:`DTYPES`.

    Vectors, which are norms and biases, become fp32, as do the modules to ``keep``, which go on learning.
    """
    kept = {id(p) for name in keep or () for p in model.get_submodule(name).parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in kept)
        wide = parameter.ndim < 2 or id(parameter) in kept
        parameter.data = parameter.data.to(torch.float32 if wide else DTYPES[base])
    for name, module in linear_maps(model).items() if base == "q4" else ():
        if not any(p.requires_grad for p in module.parameters()):
            replace(model, name, Quantised(module))


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put another module in the place of the one that is called ``name``, in training or not as that is."""
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module.train(model.get_submodule(name).training))


def merged(model: M, dtype: torch.dtype | None = None) -> M:
    """The model with its updates folded into plain weights, in a structure of its own; it may share what is not folded.

    Args:
        dtype: precision of all weights; None = the folded ones have that of the frozen, the others their own. Sums are
            fp32, and rounded once.
    """
    others = {id(p): p if dtype in (None, p.dtype) else nn.Parameter(p.detach().to(dtype)) for p in model.parameters()}
    plain = copy.deepcopy(model, {**others, **{id(buffer): buffer for buffer in model.buffers()}})
    updated = {name: module for name, module in model.named_modules() if isinstance(module, LowRank)}
    for name, module in updated.items():
        replace(plain, name, module.merged(dtype))
    for name, module in list(plain.named_modules()):
        if isinstance(module, Quantised):  # one that was not chosen
            replace(plain, name, _plain(module, module.weight.to(dtype)))
    return plain
