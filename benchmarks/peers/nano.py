"""A nanoGPT-shaped baseline: GPT-2's architecture without biases, AdamW, cosine, random rows of the stream.

Written from the facts of its CPU preset for Shakespeare: learning rate 1e-3 falling to a tenth, betas 0.9 and 0.99,
decay 0.1 of the matrices, clipping at 1, 12 rows a step, no dropout, float32, not compiled. Ours differs in the rows'
length, which is that of the comparison, and in the warm-up, which is 2% of the time there is.

    python -m benchmarks.peers.nano --data FOLDER --out FOLDER --seconds 180 --shape JSON
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.session import Session, count, session_from_arguments

WARMUP = 0.02
LEARNING_RATE, BATCH = 1e-3, 12
TUNED_LEARNING_RATE, TUNED_BATCH = 2e-3, 8


class Norm(nn.Module):
    """Layer norm with a gain and no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight)


class Block(nn.Module):
    """Attention and MLP, normalised before, added after."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = Norm(width), Norm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        parts = self.qkv(self.ln_1(x)).view(B, T, 3, self.heads, C // self.heads)  # (B, T, 3, H, D)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)
        x = x + self.proj(y)
        return x + self.down(F.gelu(self.up(self.ln_2(x))))


class Nano(nn.Module):
    """Token and learned position embeddings, blocks, and logits from the tied embedding."""

    def __init__(self, vocab_size: int, width: int, layers: int, heads: int, context: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab_size, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = Norm(width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:  # smaller where a matrix writes to the residual stream (GPT-2, section 2.3)
                residual = name.endswith(("proj.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5 if residual else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))  # (B, T, C)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight)  # (B, T, V)


def nano_of(shape: dict[str, int]) -> Nano:
    """The model of a shape."""
    return Nano(shape["vocab_size"], shape["width"], shape["layers"], shape["heads"], shape["context"])


def adamw(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """Matrices decay, vectors do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99))


def train(session: Session, device: str = "cpu") -> tuple[Nano, list[float]]:
    """Train until the session's time is over; returns the model and the loss of every step, nats a token."""
    rate = session.learning_rate or (TUNED_LEARNING_RATE if session.tuned else LEARNING_RATE)
    rows = session.batch or (TUNED_BATCH if session.tuned else BATCH)
    ids, length = session.ids(), session.shape["context"]
    generator = np.random.default_rng(session.seed)
    model = nano_of(session.shape).to(device)
    forward = torch.compile(model) if session.tuned else model
    optimizer = adamw(model, rate)
    losses: list[float] = []
    session.mark("ready")
    over = False
    while not over:
        starts = generator.integers(len(ids) - length - 1, size=rows)
        window = torch.from_numpy(np.stack([ids[start : start + length + 1] for start in starts]).astype(np.int64))
        window = window.to(device)  # (B, T + 1)
        for group in optimizer.param_groups:
            group["lr"] = rate * session.multiplier(WARMUP)
        narrow = torch.autocast(device, torch.bfloat16) if session.tuned else contextlib.nullcontext()
        with narrow:
            logits = forward(window[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        over = session.stepped(rows * length)
    session.trained()
    return model, losses


def main() -> None:
    """Train and write weights and result."""
    session = session_from_arguments(("gpt2",))
    model, losses = train(session)
    rate = session.learning_rate or (TUNED_LEARNING_RATE if session.tuned else LEARNING_RATE)
    rows = session.batch or (TUNED_BATCH if session.tuned else BATCH)
    settings = {"learning_rate": rate, "batch": rows, "last_loss": losses[-1]}
    session.finish(model.state_dict(), *count(model, [model.wte.weight, model.wpe.weight]), settings)


if __name__ == "__main__":
    main()
