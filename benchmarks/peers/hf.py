"""Hugging Face's ``Trainer`` with GPT-2 or Qwen3 from scratch.

Default form: ``TrainingArguments`` as they are (float32, 8 rows a step, AdamW, clipping at 1), except what the course
page on training a causal language model from scratch sets: learning rate 5e-4, decay 0.1, a cosine. Its thousand
steps of warm-up would be most of these runs, so the warm-up is 5% of the time. Tuned form: ``bf16``,
``torch_compile``, and learning rate and rows from the tuning runs. GPT-2's dropout is 0: a single epoch needs none.

    python -m benchmarks.peers.hf --family qwen3 --data FOLDER --out FOLDER --seconds 180 --shape JSON
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.peers.session import Blocks, Session, count, session_from_arguments

WARMUP = 0.05
LEARNING_RATE, BATCH = 5e-4, 8
TUNED_LEARNING_RATE, TUNED_BATCH = 2e-3, 8
ENDLESS = 100_000_000  # steps; the clock ends the training


def build(session: Session) -> PreTrainedModel:
    """A model of the family with random weights."""
    shape, eos = session.shape, session.shape["eos_id"]
    if session.family == "gpt2":
        config = GPT2Config(
            vocab_size=shape["vocab_size"], n_positions=shape["context"], n_embd=shape["width"],
            n_layer=shape["layers"], n_head=shape["heads"], bos_token_id=eos, eos_token_id=eos,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
        )  # fmt: skip
        return GPT2LMHeadModel(config)
    config = Qwen3Config(
        vocab_size=shape["vocab_size"], hidden_size=shape["width"], intermediate_size=shape["mlp_width"],
        num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"], num_key_value_heads=shape["heads"],
        head_dim=shape["width"] // shape["heads"], max_position_embeddings=shape["context"],
        bos_token_id=eos, eos_token_id=eos, use_cache=False, tie_word_embeddings=bool(shape.get("tie")),
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


class TimedTrainer(Trainer):  # type: ignore[misc]
    """The Trainer, its schedule a function of the time that has passed."""

    session: Session

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The cosine of the other peers."""
        if self.lr_scheduler is None:
            owner = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(owner, lambda _: self.session.multiplier(WARMUP))
        return self.lr_scheduler


class Clock(TrainerCallback):  # type: ignore[misc]
    """Counts steps and ends the training in time."""

    def __init__(self, session: Session, tokens: int) -> None:
        self.session, self.tokens = session, tokens

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The first step follows."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count a step."""
        control.should_training_stop = self.session.stepped(self.tokens)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The final weights are in memory."""
        self.session.trained()


def train(session: Session, **arguments: Any) -> PreTrainedModel:
    """Train until the session's time is over."""
    rate = session.learning_rate or (TUNED_LEARNING_RATE if session.tuned else LEARNING_RATE)
    rows = session.batch or (TUNED_BATCH if session.tuned else BATCH)
    length = session.shape["context"]
    model = build(session)
    options: dict[str, Any] = {
        "output_dir": str(session.out / "trainer"),
        "per_device_train_batch_size": rows,
        "learning_rate": rate,
        "weight_decay": 0.1,
        "lr_scheduler_type": "cosine",
        "max_steps": ENDLESS,
        "save_strategy": "no",
        "report_to": "none",
        "seed": session.seed,
        "bf16": session.tuned,
        "torch_compile": session.tuned,
        "use_cpu": True,
        **arguments,
    }
    session.mark("ready")
    trainer = TimedTrainer(
        model=model,
        args=TrainingArguments(**options),
        train_dataset=Blocks(session.ids(), length, length, as_dict=True),
        callbacks=[Clock(session, rows * length)],
    )
    trainer.session = session
    trainer.train()
    return model


def main() -> None:
    """Train and write weights and result."""
    session = session_from_arguments(("gpt2", "qwen3"))
    model = train(session)
    rate = session.learning_rate or (TUNED_LEARNING_RATE if session.tuned else LEARNING_RATE)
    rows = session.batch or (TUNED_BATCH if session.tuned else BATCH)
    model.float().save_pretrained(session.out)
    tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    if session.family == "gpt2":
        tables.append(model.transformer.wpe.weight)
    session.finish({}, *count(model, tables), {"learning_rate": rate, "batch": rows})


if __name__ == "__main__":
    main()
