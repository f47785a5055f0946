"""bimo on a GPU in several forms, and the sessions that its peers run in.

bimo's model, loss, optimizer, schedule and loop are its own; what varies is attention and how it is compiled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from benchmarks.accelerator.text import Text
from benchmarks.peers.session import Session
from bimo.batches.loader import Batch
from bimo.models import gpt2, llama
from bimo.optim import Optimizer, OptimizerConfig
from bimo.optim.schedule import ScheduleConfig, multiplier
from bimo.train import objective
from bimo.train.loop import Progress, fit


@dataclass(frozen=True)
class Variant:
    """A form of bimo.

    Attributes:
        attention: "dense" (documents kept apart by a mask), "flash" (causal, documents not kept apart), "flex" (kept
            apart by a block mask).
        mode: of torch.compile; None = not compiled.
        qwen3: Qwen3's architecture, else GPT-2's.
    """

    attention: str
    mode: str | None
    qwen3: bool = True


VARIANTS = {
    "qwen3-dense": Variant("dense", "default"),
    "qwen3-flash": Variant("flash", "default"),
    "qwen3-flash-graphs": Variant("flash", "reduce-overhead"),
    "qwen3-flex": Variant("flex", "default"),
    "qwen3-eager": Variant("flash", None),
    "gpt2-flash": Variant("flash", "default", qwen3=False),
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


def hf_session(
    data: Path, form: str, shape: dict[str, int], seconds: float, rows: int, *, rate: float, family: str = "gpt2"
) -> _PeerSession:
    """A peer's session in this process; its clock starts now, imports not counted."""
    return _PeerSession(
        time.monotonic(), seconds, data, data / "out", form, family, 0, torch.get_num_threads(), shape, rate, rows
    )


class Bimo:
    """bimo's model and trainer in one form."""

    def __init__(self, variant: Variant, shape: dict[str, int], device: str) -> None:
        self.began, self.variant, self.shape, self.device = time.monotonic(), variant, shape, device
        self.blocks: BlockMask | None = None
        self.model: Any = _llama(shape) if variant.qwen3 else _gpt2(shape)
        self.model.init_weights(torch.Generator().manual_seed(0))
        self.model.to(device)
        self.model.compute_dtype = torch.bfloat16
        self.hidden = self._flex if variant.attention == "flex" else self.model.hidden
        if variant.mode is not None and device == "cuda":
            self.hidden = torch.compile(self.hidden, mode=None if variant.mode == "default" else variant.mode)

    @property
    def output_weight(self) -> Tensor:
        """(V, C), for the loss."""
        weight: Tensor = self.model.output_weight
        return weight

    def _flex(self, input_ids: Tensor, **_: Any) -> Tensor:
        """The model with FlexAttention in place of its own attention for the time of a call."""
        own, llama.attend = llama.attend, self._attend  # type: ignore[assignment]
        try:
            hidden: Tensor = self.model.hidden(input_ids)
        finally:
            llama.attend = own
        return hidden

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, _: Tensor | None) -> Tensor:
        found = flex_attention(q, k, v, block_mask=self.blocks)
        assert isinstance(found, Tensor)
        return found

    def loss(self, _: Any, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Bimo's objective over this form's hidden states."""
        if self.variant.mode == "reduce-overhead" and self.device == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        if self.variant.attention == "flex":
            segments, length = batch.segment_ids, batch.input_ids.shape[1]

            def visible(b: Tensor, _: Tensor, q: Tensor, k: Tensor) -> Tensor:
                return (q >= k) & (segments[b, q] == segments[b, k])

            self.blocks = create_block_mask(visible, segments.shape[0], None, length, length, self.device)
        return objective.next_token_loss(_Seen(self), batch)

    def logits(self, ids: Tensor) -> Tensor:
        """Scores (B, T, V), as the held-out rows are measured: uncompiled, documents not kept apart."""
        hidden: Tensor = self.model.hidden(ids)
        scores: Tensor = self.model.logits(hidden)
        return scores

    def train(self, text: Text, rows: int, seconds: float) -> dict[str, Any]:
        """Train for so many seconds since this object was made, and return what every contender reports."""
        session = _PeerSession(
            self.began, seconds, Path(), Path(), "bimo", "bimo", 0, torch.get_num_threads(), self.shape
        )
        session.mark("ready")
        schedule = ScheduleConfig()

        def watch(progress: Progress) -> None:
            if session.stepped(rows * self.shape["context"]):
                progress.stop = "the time is over"

        optimizer, batches = Optimizer(self.model, OptimizerConfig()), _batches(text, rows, self.shape["context"])
        fit(
            self.model, batches, self.loss, optimizer,
            lambda step, steps: multiplier(schedule, round(session.share() * 1000), 1000), [watch],
            progress=Progress(steps=10**9),
        )  # fmt: skip
        session.trained()
        self.model.eval()
        return session.facts()


class _Seen:
    """What the objective asks of a model, given by a form of bimo."""

    def __init__(self, form: Bimo) -> None:
        self._form = form
        self.output_weight = form.output_weight

    def hidden(self, input_ids: Tensor, *, position_ids: Tensor | None, segment_ids: Tensor | None) -> Tensor:
        form = self._form
        if form.variant.attention == "dense":
            hidden: Tensor = form.hidden(input_ids, position_ids=position_ids, segment_ids=segment_ids)
            return hidden
        hidden = form.hidden(input_ids)
        return hidden.clone() if form.variant.mode == "reduce-overhead" else hidden


def _batches(text: Text, rows: int, length: int) -> Iterator[Batch]:
    generator = np.random.default_rng(0)
    steps = np.arange(length)
    while True:
        window = text.rows(generator, rows, length)  # (B, T + 1)
        begins = window[:, :-1] == 0
        segments = np.cumsum(begins, axis=1, dtype=np.int32)
        last = np.maximum.accumulate(np.where(begins, steps, 0), axis=1)
        yield Batch(
            input_ids=torch.from_numpy(window[:, :-1].copy()),
            labels=torch.from_numpy(window[:, 1:].copy()),
            loss_mask=torch.ones((rows, length), dtype=torch.bool),
            position_ids=torch.from_numpy(steps - last),
            segment_ids=torch.from_numpy(segments),
            positions=torch.zeros(rows, dtype=torch.int64),
        )


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
