"""The one training loop. What is learned is the loss's business; what is watched, kept or stopped is the hooks'."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bimo.batches.loader import Batch
from bimo.device import seed_for
from bimo.errors import TrainingError
from bimo.optim import Optimizer

Loss = Callable[[Any, Batch], tuple[Tensor, Mapping[str, float]]]
Schedule = Callable[[int, int], float]


class NotFinite(TrainingError):
    """The loss or a gradient became NaN or infinite at ``step``, on ``batch``; the weights were not touched by it."""

    def __init__(self, step: int, batch: Batch, what: str, documents: Sequence[str] = (), fix: str = "") -> None:
        self.step, self.batch, self.what = step, batch, what
        more = f" and {len(documents) - 3} more" if len(documents) > 3 else ""
        super().__init__(
            f"Training diverged at step {step}: the {what} is not finite.",
            got=f"NaN or infinity on text of {', '.join(documents[:3])}{more}" if documents else "NaN or infinity",
            fix=fix or "Lower optimizer.learning_rate and optimizer.adamw_learning_rate.",
        )


@dataclass
class Progress:
    """Where training stands; hooks read it, and may set ``steps``, ``stop`` and ``checkpoint``.

    Attributes:
        step: steps taken so far.
        steps: steps the schedule is made for.
        tokens: labels learned from so far.
        loss: mean nats of the last step's labels.
        gradient_norm: norm of the last step's whole gradient, before clipping.
        multiplier: the schedule's value at the last step.
        seconds: wall-clock time in the loop, over all sessions of a resumed run.
        stop: why training should end after this step; empty = go on.
        checkpoint: whether a checkpoint is due after this step.
        metrics: the loss's further figures for the last step, of a divided one weighted by its parts' labels.
    """

    step: int = 0
    steps: int = 0
    tokens: int = 0
    loss: float = math.nan
    gradient_norm: float = math.nan
    multiplier: float = 0.0
    seconds: float = 0.0
    stop: str = ""
    checkpoint: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)


Hook = Callable[[Progress], None]


def fit(
    model: nn.Module,
    batches: Iterator[Batch],
    loss: Loss,
    optimizer: Optimizer,
    schedule: Schedule,
    hooks: Sequence[Hook] = (),
    *,
    progress: Progress,
    accumulate: int = 1,
    seed: int = 0,
) -> Progress:
    """Train ``model`` from ``progress.step`` to ``progress.steps``.

    A step that is divided into ``accumulate`` passes has the gradient of the undivided step: each pass counts by
    its labels. All randomness of a step (dropout) follows from the seed and the step's number, so that a resumed
    run draws what an uninterrupted one would have drawn.

    Args:
        loss: ``(model, batch) -> (mean loss of the batch's labels, metrics)``.
        schedule: ``(step, steps) -> multiplier`` of the peak learning rates.
        hooks: called in order after every step.

    Raises:
        NotFinite: the loss or a gradient is NaN or infinite; weights and optimizer are those before the step.
    """
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    began = time.perf_counter() - progress.seconds
    with torch.random.fork_rng(devices=devices):
        while progress.step < progress.steps and not progress.stop:
            torch.manual_seed(seed_for(seed, "dropout", progress.step))
            model.train()
            batch = next(batches)
            value, metrics = 0.0, dict[str, float]()
            for part, share in divide(batch, accumulate):
                part_loss, measured = loss(model, part.to(device))
                (part_loss * share).backward()
                value += part_loss.item() * share
                metrics |= {name: metrics.get(name, 0.0) + one * share for name, one in measured.items()}
            if not math.isfinite(value):
                optimizer.zero_grad()
                raise NotFinite(progress.step, batch, "loss")
            progress.multiplier = schedule(progress.step, progress.steps)
            progress.gradient_norm = optimizer.step(progress.multiplier)
            if not math.isfinite(progress.gradient_norm):
                raise NotFinite(progress.step, batch, "gradient")
            progress.step += 1
            progress.loss, progress.metrics = value, metrics
            progress.tokens += batch.tokens
            progress.checkpoint = False
            for hook in hooks:
                progress.seconds = time.perf_counter() - began
                hook(progress)
    return progress


def divide(batch: Batch, parts: int) -> list[tuple[Batch, float]]:
    """Cut a batch by rows into equal parts, each with its share of the labels that count; empty parts are left out."""
    total = batch.tokens
    pieces = (batch.rows(i, parts) for i in range(parts)) if parts > 1 else (batch,)
    return [(piece, piece.tokens / total) for piece in pieces if piece.tokens]
