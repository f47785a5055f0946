"""bimo on a GPU in several forms, and the sessions that its peers run in.

bimo's model, batches, loss, optimizer, schedule, loop and compiling are its own; a form may leave something out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.accelerator.text import Text
from benchmarks.peers.session import Session
from bimo.batches.loader import Batch, PackedBatches
from bimo.models import gpt2, llama
from bimo.models.attention import first_visible
from bimo.optim import Optimizer, OptimizerConfig
from bimo.optim.schedule import ScheduleConfig, multiplier
from bimo.train import objective
from bimo.train.build import compile_layers, eagerly
from bimo.train.loop import Hook, Progress, fit
from bimo.train.recorded import recorded


@dataclass(frozen=True)
class Form:
    """A form of bimo.

    Attributes:
        compiled: "layers" as `bimo train` does it, "whole" = the model as one graph, "graphs" = that one as CUDA graphs
            too, or nothing.
        documents: kept apart, as `bimo train` does it; else every token sees all before it.
        qwen3: Qwen3's architecture, else GPT-2's.
        recorded: played as CUDA graphs, as `bimo train` does it.
    """

    compiled: str = "layers"
    documents: bool = True
    qwen3: bool = True
    recorded: bool = True


FORMS = {
    "bimo": Form(),
    "launched": Form(recorded=False),
    "causal": Form(documents=False),
    "whole": Form("whole", documents=False),
    "graphs": Form("graphs", documents=False),
    "eager": Form(""),
    "eager-launched": Form("", recorded=False),
    "gpt2": Form(qwen3=False),
}


def parameters_of(model: nn.Module) -> int:
    """All parameters, each once."""
    return sum(parameter.numel() for parameter in model.parameters())


class _PeerSession(Session):
    """A session that says what it did."""

    def facts(self) -> dict[str, Any]:
        """What every contender reports."""
        return {
            "steps": len(self.steps),
            "tokens": sum(tokens for _, tokens in self.steps),
            "tokens_per_second": self.steady_tokens_per_second() if len(self.steps) > 3 else 0.0,
            "wall_seconds": self.marks["trained"],
            "first_step_seconds": self.marks["first_step"],
        }


def peer_session(
    data: Path, form: str, shape: dict[str, int], seconds: float, rows: int, *, rate: float, family: str
) -> _PeerSession:
    """A peer's session in this process; its clock starts now, imports not counted."""
    return _PeerSession(
        time.monotonic(), seconds, data, data / "out", form, family, 0, torch.get_num_threads(), shape, rate, rows
    )


class Bimo:
    """bimo's model and trainer in one form."""

    def __init__(self, form: Form, shape: dict[str, int], device: str) -> None:
        self.began, self.form, self.shape = time.monotonic(), form, shape
        self.model: Any = _llama(shape) if form.qwen3 else _gpt2(shape)
        self.model.init_weights(torch.Generator().manual_seed(0))
        self.model.to(device)
        self.model.compute_dtype = torch.bfloat16
        self.hidden = self.model.hidden
        if device == "cuda" and form.compiled == "layers":
            compile_layers(self.model)
        elif device == "cuda" and form.compiled:
            mode = "reduce-overhead" if form.compiled == "graphs" else None
            self.hidden = torch.compile(self.model.hidden, mode=mode)

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Bimo's objective, the hidden states in this form."""
        return objective.next_token_loss(model if self.form.documents else _Causal(self), batch)

    def logits(self, ids: Tensor) -> Tensor:
        """Scores (B, T, V) of held-out rows, uncompiled, documents kept apart if they were in training."""
        segments = (ids == 0).cumsum(dim=1)
        positions = torch.arange(ids.shape[1], device=ids.device) - first_visible(segments)
        told = {"position_ids": positions, "segment_ids": segments} if self.form.documents else {}
        with eagerly():
            scores: Tensor = self.model(ids, **told)
        return scores

    def train(self, text: Text, rows: int, seconds: float, hooks: Sequence[Hook] = ()) -> dict[str, Any]:
        """Train for so many seconds since this object was made, and return what every contender reports."""
        session = _PeerSession(
            self.began, seconds, Path(), Path(), "bimo", "bimo", 0, torch.get_num_threads(), self.shape
        )
        session.mark("ready")
        schedule, context = ScheduleConfig(), self.shape["context"]

        def watch(progress: Progress) -> None:
            if session.stepped(rows * context):
                progress.stop = "the time is over"

        stream: Any = SimpleNamespace(ids=text.train, count=len(text.train), eos_id=0)
        batches = PackedBatches(stream, batch_size=rows, context_length=context, seed=0)
        with recorded(self.model, passes=1) if self.form.recorded else nullcontext():
            fit(
                self.model, batches, self.loss, Optimizer(self.model, OptimizerConfig()),
                lambda step, steps: multiplier(schedule, round(session.share() * 1000), 1000), [watch, *hooks],
                progress=Progress(steps=10**9),
            )  # fmt: skip
        session.trained()
        self.model.eval()
        return session.facts()


class _Causal:
    """A model that is not told where documents begin."""

    fused = False

    def __init__(self, contender: Bimo) -> None:
        self._contender = contender

    @property
    def output_weight(self) -> Tensor:
        weight: Tensor = self._contender.model.output_weight
        return weight

    def hidden(self, input_ids: Tensor, *, position_ids: Tensor | None, segment_ids: Tensor | None) -> Tensor:
        if self._contender.form.compiled != "graphs":
            hidden: Tensor = self._contender.hidden(input_ids)
            return hidden
        torch.compiler.cudagraph_mark_step_begin()
        return self._contender.hidden(input_ids).clone()


def _llama(shape: dict[str, int]) -> llama.Model:
    return llama.Model(
        llama.Config(
            vocab_size=shape["vocab_size"], hidden_size=shape["width"], intermediate_size=shape["mlp_width"],
            num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"],
            num_key_value_heads=shape["heads"], head_dim=shape["width"] // shape["heads"],
            max_position_embeddings=shape["context"], model_type="qwen3", qk_norm=True, tie_word_embeddings=True,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def _gpt2(shape: dict[str, int]) -> gpt2.Model:
    return gpt2.Model(
        gpt2.Config(
            vocab_size=shape["vocab_size"], n_positions=shape["context"], n_embd=shape["width"],
            n_layer=shape["layers"], n_head=shape["heads"], n_inner=4 * shape["width"], bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
